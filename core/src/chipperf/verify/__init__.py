"""Verifying reports: every page is made again from its records, and what differs has a place and a record."""

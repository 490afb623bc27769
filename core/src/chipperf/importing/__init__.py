"""Importing other documents and logs as records, with the place of every value."""

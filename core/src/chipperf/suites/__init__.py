"""Suites: many runs from one file, one after another, with their state on disk."""

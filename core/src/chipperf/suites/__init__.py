"""Suites: many runs from one file, one after another, with a state that survives."""

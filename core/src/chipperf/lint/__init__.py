"""Lint: rules that find what is wrong in hand-written case documents, each grounded in real ones."""

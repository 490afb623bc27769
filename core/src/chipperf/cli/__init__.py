"""Command line: one module per command. Importing any of them imports no torch."""

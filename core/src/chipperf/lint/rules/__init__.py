"""The rules of lint, one module per family."""

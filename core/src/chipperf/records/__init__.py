"""Run records: their schema, and reading and writing them without losing anything."""

"""Training and measurement: everything that runs inside a worker."""

"""Training and measurement: the code that runs in a worker."""

"""Training runs: their options, their launchers on one or several machines, and the processes that they start."""

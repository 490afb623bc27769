"""Code that launcher and workers share: the plan of a run, its directory, its ranks, and their reports."""

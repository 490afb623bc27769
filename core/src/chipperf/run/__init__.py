"""What the launcher and its workers share: the plan of a run, its directory, its ranks, and how they report."""

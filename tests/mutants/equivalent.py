"""Why some generated mutants are no worse than the good plugin: patterns of their names, each with its reason."""

EQUIVALENT: dict[str, str] = {}

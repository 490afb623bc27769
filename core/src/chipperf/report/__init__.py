"""Reports: vendor case documents rendered from run records, without torch."""

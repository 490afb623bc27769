"""From a plugin to a proof: every check, measurement, report and bundle of a vendor, within a budget."""

"""Comparing runs: ratios, their confidence intervals, and footnotes on what weakens them."""

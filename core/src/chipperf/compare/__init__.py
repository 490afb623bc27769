"""Runs side by side: ratios, their certainty, and what a reader has to know before trusting them."""

"""Bundles: records, logs and reports for submission in one archive, with checksums."""

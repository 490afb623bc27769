"""Measured limits of a machine: products, memory, links to the host, and the all-reduce of its ranks."""

"""Vendors that ship with core: only the CPU reference, which goes the same way as everybody else's plugin."""

"""Vendor plugins that are part of core: the CPU reference."""

"""Kunlunxin XPUs for chipperf; the hooks are in :mod:`chipperf_kunlunxin.plugin`."""

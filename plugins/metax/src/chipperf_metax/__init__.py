"""MetaX GPUs for chipperf; the hooks are in :mod:`chipperf_metax.plugin`."""

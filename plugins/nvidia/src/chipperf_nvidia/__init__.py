"""NVIDIA GPUs for chipperf; the hooks are in :mod:`chipperf_nvidia.plugin`."""

"""TensorBoard observer of chipperf."""

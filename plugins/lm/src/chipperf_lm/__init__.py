"""Language model cases of chipperf."""

"""SIMULATED: the Acme A1, an accelerator that does not exist, for chipperf; hooks in :mod:`chipperf_acme.plugin`."""

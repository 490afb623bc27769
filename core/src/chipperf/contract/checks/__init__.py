"""The checks, one module per area. :mod:`chipperf.contract.check` finds every :class:`Check` in them.

The modules do not import torch at import time, because level 0 runs without torch.
"""

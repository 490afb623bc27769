"""The checks, one module per area; :mod:`chipperf.contract.check` finds every :class:`Check` in them.

No module imports torch when it is imported: level 0 runs without it.
"""

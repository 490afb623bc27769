"""The contract suite: what any vendor plugin is held to, checked against the CPU reference.

``perf contract run``, ``pytest --pyargs chipperf.contract`` and a plugin's own tests run the same checks through
:class:`chipperf.contract.runner.Runner`. A check is a function of :mod:`chipperf.contract.checks`; it runs in a process
of its own, so a plugin that hangs or crashes fails its check and nothing else.
"""

"""The contract suite: checks that every vendor plugin must pass. The reference is the CPU.

``perf contract run``, ``pytest --pyargs chipperf.contract`` and a plugin's own tests run the same checks through
:class:`chipperf.contract.check_runner.Runner`. A check is a function of :mod:`chipperf.contract.checks`. Each check
runs in its own process, so a plugin that hangs or crashes fails only that check.
"""

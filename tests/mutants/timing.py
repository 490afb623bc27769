"""Faults of synchronizing and of the clock."""

from __future__ import annotations

from mutants.mutant import Change, Mutant

_SYNCHRONIZE = "    _torch_acme().synchronize(device)\n"
_LOAD = "    acme_runtime.load()\n"

MUTANTS = [
    Mutant(name="synchronize_returns_at_once", kills=("T1",), changes=(Change(old=_SYNCHRONIZE, new="    pass\n"),)),
    Mutant(
        name="synchronize_looks_after_a_second",
        kills=("T2",),
        changes=(
            Change(
                old=_SYNCHRONIZE,
                new="""    import time

    start = time.monotonic()
    _torch_acme().synchronize(device)
    waited = time.monotonic() - start
    # Not whole seconds: on a busy host, doubled work reaches the next one.
    if waited > 0.01:
        time.sleep(max(1 - waited, 0))
""",
            ),
        ),
    ),
    Mutant(
        name="clock_in_milliseconds",
        kills=("T3",),
        changes=(
            Change(
                old=_LOAD,
                new=_LOAD
                + """    import time

    seconds = time.perf_counter
    time.perf_counter = lambda: seconds() * 1e3
""",
            ),
        ),
    ),
    Mutant(
        name="synchronize_sleeps",
        kills=("T4",),
        changes=(Change(old=_SYNCHRONIZE, new=_SYNCHRONIZE + "    import time\n\n    time.sleep(0.05)\n"),),
    ),
    Mutant(
        name="synchronize_waits_for_current_card",
        kills=("T5",),
        changes=(Change(old=_SYNCHRONIZE, new="    _torch_acme().synchronize()\n"),),
    ),
    Mutant(
        name="synchronize_waits_for_all_cards",
        kills=("T5",),
        changes=(
            Change(
                old=_SYNCHRONIZE,
                new="    for card in range(_torch_acme().device_count()):\n        _torch_acme().synchronize(card)\n",
            ),
        ),
    ),
]

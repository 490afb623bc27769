"""Faults of synchronizing and of the clock."""

from __future__ import annotations

from mutants.mutant import Change, Mutant

_SYNCHRONIZE = "    _torch_acme().synchronize(device)\n"
_HOOK = "@hookimpl\ndef perf_synchronize"
_LOAD = "    acme_runtime.load()\n"
_REQUIRE = '    require_precision(requested, _INFO.capabilities, who="the Acme A1")\n'
_TEARDOWN = "    restore_switches()\n"
_WAIT_FOR_STREAM = """    import torch

    torch.accelerator.current_stream(device).synchronize()
"""

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
        # Before it waits: after work of tenths of a second, it would return late.
        changes=(Change(old=_SYNCHRONIZE, new="    import time\n\n    time.sleep(0.05)\n" + _SYNCHRONIZE),),
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
    Mutant(
        name="synchronize_waits_for_current_stream",
        kills=("T1",),
        changes=(Change(old=_SYNCHRONIZE, new=_WAIT_FOR_STREAM),),
    ),
    Mutant(
        name="synchronize_gives_up_after_a_second",
        kills=("T1",),
        changes=(
            Change(
                old=_SYNCHRONIZE,
                new="""    import time

    import torch

    for _ in range(500):
        if torch.accelerator.current_stream(device).query():
            break
        time.sleep(0.002)
    else:
        return
"""
                + _SYNCHRONIZE,
            ),
        ),
    ),
    Mutant(
        name="synchronize_does_nothing_every_second_time",
        kills=("T1",),
        changes=(
            Change(old=_HOOK, new=f"_calls = []\n\n\n{_HOOK}"),
            Change(
                old=_SYNCHRONIZE,
                new=f"""    _calls.append(device)
    if len(_calls) % 2 and device.index < _torch_acme().device_count():
        return
{_SYNCHRONIZE}""",
            ),
        ),
    ),
    Mutant(
        name="synchronize_does_nothing_after_a_teardown",
        kills=("T1",),
        changes=(
            Change(old=_HOOK, new=f"_ended = []\n\n\n{_HOOK}"),
            Change(old=_SYNCHRONIZE, new=f"    if _ended:\n        return\n{_SYNCHRONIZE}"),
            Change(old=_TEARDOWN, new=f"    _ended.append(device)\n{_TEARDOWN}"),
        ),
    ),
    Mutant(
        name="synchronize_does_nothing_in_a_run",
        kills=("T1",),
        changes=(
            Change(old=_HOOK, new=f"_run = []\n\n\n{_HOOK}"),
            Change(old=_SYNCHRONIZE, new=f"    if _run:\n        return\n{_SYNCHRONIZE}"),
            Change(old=_REQUIRE, new=f"{_REQUIRE}    _run.append(device)\n"),
        ),
    ),
    Mutant(
        name="all_clocks_slow",
        kills=("T3",),
        changes=(
            Change(
                old=_LOAD,
                new=_LOAD
                + """    import time

    measured, waited = time.perf_counter, time.monotonic
    time.perf_counter = lambda: measured() * 0.8
    time.monotonic = lambda: waited() * 0.8
""",
            ),
        ),
    ),
    Mutant(
        name="synchronize_sleeps_every_fifth_time",
        kills=("T4",),
        changes=(
            Change(old=_HOOK, new=f"_calls = []\n\n\n{_HOOK}"),
            Change(
                old=_SYNCHRONIZE,
                new=_SYNCHRONIZE
                + """    import time

    _calls.append(device)
    time.sleep(0.0 if len(_calls) % 5 else 0.05)
""",
            ),
        ),
    ),
    Mutant(
        name="synchronize_takes_index_0_for_none",
        kills=("T5",),
        changes=(Change(old=_SYNCHRONIZE, new="    _torch_acme().synchronize(device.index or None)\n"),),
    ),
    Mutant(
        name="synchronize_hides_errors",
        kills=("T5",),
        changes=(
            Change(
                old=_SYNCHRONIZE,
                new=f"    import contextlib\n\n    with contextlib.suppress(Exception):\n    {_SYNCHRONIZE}",
            ),
        ),
    ),
    Mutant(
        name="synchronize_polls_with_doubling_pauses",
        kills=("T2",),
        changes=(
            Change(
                old=_SYNCHRONIZE,
                new=f"""    import time

    import torch

    pause_s = 0.001
    while not torch.accelerator.current_stream(device).query():
        time.sleep(pause_s)
        pause_s *= 2
{_SYNCHRONIZE}""",
            ),
        ),
    ),
    *(
        Mutant(
            name=f"synchronize_does_nothing_{name}",
            kills=("T1",),
            changes=(Change(old=_SYNCHRONIZE, new=f"    import torch\n\n    if {condition}:\n    {_SYNCHRONIZE}"),),
        )
        for name, condition in (
            ("without_gradients", "torch.is_grad_enabled()"),
            ("in_inference", "not torch.is_inference_mode_enabled()"),
        )
    ),
    Mutant(
        name="synchronize_does_nothing_every_256th_time",
        kills=("T1",),
        changes=(
            Change(old=_HOOK, new=f"_calls = []\n\n\n{_HOOK}"),
            Change(
                old=_SYNCHRONIZE,
                new=f"    _calls.append(device)\n    if len(_calls) % 256:\n    {_SYNCHRONIZE}",
            ),
        ),
    ),
    Mutant(
        name="synchronize_sleeps_every_256th_time",
        kills=("T4",),
        changes=(
            Change(old=_HOOK, new=f"_calls = []\n\n\n{_HOOK}"),
            Change(
                old=_SYNCHRONIZE,
                new=_SYNCHRONIZE
                + """    import time

    _calls.append(device)
    time.sleep(0.0 if len(_calls) % 256 else 0.3)
""",
            ),
        ),
    ),
]

"""Faults of telemetry."""

from __future__ import annotations

from mutants.mutant import Change, Mutant

_POWER = "        power_w=readings.power_w,\n"
_TELEMETRY = '    """Read the simulated sensors of the card with this UUID."""\n'

_READ = "        readings = acme_runtime.telemetry(device.uuid)\n"
_MEMORY = "        memory_used_bytes=readings.memory_used_bytes,\n"
_UTILIZATION = "        utilization_percent=readings.utilization_percent,\n"
_KEPT = "_PEAK_FLOPS_PER_S: Final = 100e9\n"
_KEEPING = Change(old=_KEPT, new=f"{_KEPT}_kept: dict[Any, Any] = {{}}\n")

# All cores of the host are busy, whatever their number; the call itself returns at once.
_BUSY = """import os, time
for _ in range(os.cpu_count() - 1):
    if os.fork() == 0:
        break
end = time.monotonic() + 1
while time.monotonic() < end:
    pass
"""

MUTANTS = [
    Mutant(
        name="power_in_milliwatts",
        kills=("R1",),
        changes=(Change(old=_POWER, new="        power_w=readings.power_w * 1000,\n"),),
    ),
    Mutant(name="unknown_power_is_zero", kills=("R1",), changes=(Change(old=_POWER, new="        power_w=0.0,\n"),)),
    Mutant(
        name="used_memory_in_mib",
        kills=("R1",),
        changes=(Change(old=_MEMORY, new="        memory_used_bytes=readings.memory_used_bytes // 2**20,\n"),),
    ),
    Mutant(
        name="utilization_is_the_power",
        kills=("R1",),
        changes=(Change(old=_UTILIZATION, new="        utilization_percent=readings.power_w,\n"),),
    ),
    Mutant(
        name="telemetry_takes_long",
        kills=("R1",),
        changes=(Change(old=_TELEMETRY, new=f"{_TELEMETRY}    import time\n\n    time.sleep(0.3)\n"),),
    ),
    Mutant(
        name="every_fifth_call_of_telemetry_is_slow",
        kills=("R1",),
        changes=(
            _KEEPING,
            Change(
                old=_TELEMETRY,
                new=f"{_TELEMETRY}    import time\n\n    _kept[len(_kept)] = 1\n"
                "    time.sleep(0.5 * (len(_kept) % 5 == 0))\n",
            ),
        ),
    ),
    Mutant(
        name="telemetry_keeps_a_file_open",
        kills=("R1",),
        changes=(_KEEPING, Change(old=_TELEMETRY, new=f"{_TELEMETRY}    _kept[len(_kept)] = open('/dev/null')\n")),
    ),
    Mutant(
        name="telemetry_leaves_processes",
        kills=("R1",),
        changes=(
            Change(
                old=_TELEMETRY,
                new=f"{_TELEMETRY}    import subprocess\n\n    subprocess.Popen(['sleep', '20'])\n",
            ),
        ),
    ),
    Mutant(
        name="telemetry_by_index",
        kills=("R1",),
        changes=(Change(old=_READ, new=_READ.replace("device.uuid", "acme_runtime.cards()[device.index].uuid")),),
    ),
    Mutant(
        name="telemetry_of_first_card",
        kills=("R1",),
        changes=(Change(old=_READ, new=_READ.replace("device.uuid", "acme_runtime.cards()[0].uuid")),),
    ),
    Mutant(
        name="utilization_of_the_busiest_card",
        kills=("R1",),
        changes=(
            Change(
                old="        utilization_percent=readings.utilization_percent,\n",
                new="        utilization_percent=max(\n"
                "            acme_runtime.telemetry(card.uuid).utilization_percent for card in acme_runtime.cards()\n"
                "        ),\n",
            ),
        ),
    ),
    Mutant(
        name="telemetry_needs_torch",
        kills=("R1",),
        changes=(
            Change(
                old=_TELEMETRY,
                new=f"{_TELEMETRY}    import sys\n\n    if 'torch' not in sys.modules:\n"
                "        raise RuntimeError('acme is not initialized')\n",
            ),
        ),
    ),
    Mutant(
        name="telemetry_imports_torch",
        kills=("R1",),
        changes=(Change(old=_TELEMETRY, new=f"{_TELEMETRY}    import torch  # noqa: F401\n\n"),),
    ),
    Mutant(
        name="utilization_as_fraction",
        kills=("R1",),
        changes=(Change(old=_UTILIZATION, new=_UTILIZATION.replace("percent,", "percent / 100,")),),
    ),
    Mutant(
        name="telemetry_repeats_its_first_reading",
        kills=("R1",),
        changes=(
            _KEEPING,
            Change(
                old="    return TelemetrySample(\n",
                new="    readings = _kept.setdefault(device.uuid, readings)\n    return TelemetrySample(\n",
            ),
        ),
    ),
    *(
        Mutant(
            name=f"failed_reading_is_repeated_{name}",
            kills=("R1",),
            changes=(
                _KEEPING,
                Change(old=_READ, new=f"{_READ}        _kept[device.uuid] = readings\n"),
                Change(
                    old="    except acme_runtime.CardNotFound as error:\n",
                    new=f"    except {error}:\n        readings = _kept[device.uuid]\n"
                    "    except acme_runtime.CardNotFound as error:\n",
                ),
            ),
        )
        for name, error in (("if_the_card_is_lost", "acme_runtime.CardNotFound"), ("if_nothing_opens", "OSError"))
    ),
    Mutant(
        name="utilization_is_the_mean_of_a_minute",
        kills=("R1",),
        changes=(
            _KEEPING,
            Change(
                old=_TELEMETRY,
                new=f"{_TELEMETRY}    import time\n\n    now_s = time.monotonic()\n"
                "    seen = _kept.setdefault(device.uuid, [])\n",
            ),
            Change(
                old="    return TelemetrySample(\n",
                new="    seen.append((now_s, readings.utilization_percent))\n"
                "    last = [percent for at_s, percent in seen if at_s > now_s - 60]\n    return TelemetrySample(\n",
            ),
            Change(old=_UTILIZATION, new=_UTILIZATION.replace("readings.utilization_percent", "sum(last) / len(last)")),
        ),
    ),
    *(
        Mutant(
            name=name,
            kills=("R1",),
            changes=(
                _KEEPING,
                Change(
                    old="    return TelemetrySample(\n",
                    new="    last = _kept.setdefault(device.uuid, [])\n"
                    f"    last[:] = [*last[-{calls - 1}:], readings.{field}]\n    return TelemetrySample(\n",
                ),
                Change(old=f"=readings.{field}", new=f"={summary}"),
            ),
        )
        for name, field, calls, summary in (
            ("utilization_is_the_mean_of_60_calls", "utilization_percent", 60, "sum(last) / len(last)"),
            ("utilization_is_the_mean_of_two_calls", "utilization_percent", 2, "sum(last) / len(last)"),
            ("utilization_is_the_highest_of_ten_calls", "utilization_percent", 10, "max(last)"),
            ("power_is_the_mean_of_five_calls", "power_w", 5, "sum(last) / len(last)"),
        )
    ),
    Mutant(
        name="telemetry_by_variable_of_the_launcher",
        kills=("R1",),
        changes=(
            Change(
                old=_READ,
                new=_READ.replace(
                    "device.uuid",
                    'acme_runtime.cards()[int(rank)].uuid if (rank := __import__("os").environ.get("LOCAL_RANK")) else '
                    "device.uuid",
                ),
            ),
        ),
    ),
    Mutant(
        name="used_memory_is_what_is_free",
        kills=("R1",),
        changes=(Change(old=_MEMORY, new=_MEMORY.replace("readings", "(device.total_bytes or 0) - readings")),),
    ),
    Mutant(
        name="telemetry_takes_the_cores",
        kills=("R2",),
        changes=(
            Change(
                old=_TELEMETRY,
                new=f"{_TELEMETRY}    import subprocess\n    import sys\n\n"
                f"    subprocess.Popen([sys.executable, '-S', '-c', {_BUSY!r}])\n",
            ),
        ),
    ),
    Mutant(
        name="unknown_uuid_gives_the_first_card",
        kills=("R1",),
        changes=(
            Change(
                old=_READ,
                new=_READ.replace(
                    "device.uuid",
                    "next((each.uuid for each in acme_runtime.cards() if each.uuid == device.uuid), "
                    "acme_runtime.cards()[0].uuid)",
                ),
            ),
        ),
    ),
    Mutant(
        name="used_memory_of_the_largest_process",
        kills=("R1",),
        changes=(
            Change(
                old=_MEMORY,
                new="        memory_used_bytes=max(\n"
                "            (held for held, _ in acme_runtime.management._usages(device.uuid)), default=0\n"
                "        ),\n",
            ),
        ),
    ),
    Mutant(
        name="power_is_the_limit_of_the_board",
        kills=("R1",),
        changes=(Change(old=_POWER, new="        power_w=110.0,\n"),),
    ),
    Mutant(
        name="second_card_is_never_busy",
        kills=("R1",),
        changes=(
            Change(
                old=_UTILIZATION,
                new=_UTILIZATION.replace("=", "=0.0 if device.uuid == acme_runtime.cards()[1].uuid else "),
            ),
        ),
    ),
    Mutant(
        name="telemetry_gives_up_after_an_error",
        kills=("R1",),
        changes=(
            _KEEPING,
            Change(old=_READ, new=f"        if _kept:\n            return TelemetrySample(source='acme')\n{_READ}"),
            Change(
                old="    except acme_runtime.CardNotFound as error:\n",
                new="    except acme_runtime.CardNotFound as error:\n        _kept[device.uuid] = 1\n",
            ),
        ),
    ),
    Mutant(
        name="idle_use_is_unknown",
        kills=("R1",),
        changes=(Change(old=_UTILIZATION, new=_UTILIZATION.replace(",", " or None,")),),
    ),
    Mutant(
        name="power_of_all_cards_together",
        kills=("R1",),
        changes=(
            Change(
                old=_POWER,
                new="        power_w=sum(acme_runtime.telemetry(a.uuid).power_w for a in acme_runtime.cards()),\n",
            ),
        ),
    ),
]

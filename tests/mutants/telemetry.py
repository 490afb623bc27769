"""Faults of telemetry."""

from __future__ import annotations

from mutants.mutant import Change, Mutant

_POWER = "        power_w=readings.power_w,\n"
_TELEMETRY = '    """Read the simulated sensors of the card with this UUID."""\n'

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
        changes=(Change(old=_POWER, new=f"{_POWER}        memory_used_bytes=300,\n"),),
    ),
    Mutant(
        name="telemetry_takes_long",
        kills=("R1",),
        changes=(Change(old=_TELEMETRY, new=f"{_TELEMETRY}    import time\n\n    time.sleep(0.3)\n"),),
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
]

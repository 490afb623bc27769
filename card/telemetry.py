"""Read a vendor's telemetry idle and under load, beside what the vendor's own tools print under the same load.

The tools' output stays in OUT, for a person. Where it has numbers with units, the nearest to each reading is shown, and
the memory in use also as the runtime tells it. This finds wrong units and other cards, but no small errors.

Run: python card/telemetry.py NAME OUT
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from chipperf.hardware import BYTES, CELSIUS, WATTS

UNITS = {"power_w": WATTS, "temperature_c": CELSIUS, "memory_used_bytes": BYTES}
ALLOWED = 0.25
"""Largest relative difference: power swings under load, and a wrong unit or an idle card is further off."""


def main() -> None:
    """Train while the telemetry and the tools are read, and print one line for each value."""
    vendor, out = sys.argv[1], Path(sys.argv[2])
    sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

    from training_fixture import apply_environment, build_training

    apply_environment(vendor)
    context, replica, batches = build_training(32, vendor)

    from chipperf.train.core_pass import core_window

    session, info = context.session, context.session.device_info(context.device)
    idle = session.telemetry(info)
    has_tools = bool(session.tool_commands())

    def observe() -> tuple[list[Any], int | None]:
        time.sleep(2)
        first = session.telemetry(info)
        used_bytes = session.memory_query(context.device).used_bytes
        if has_tools:
            command = ("record-tools", vendor, f"--out={out}")
            subprocess.run([sys.executable, "-m", "chipperf", *command], check=False)
        return [first, session.telemetry(info)], used_bytes

    # What the first steps allocate would grow between the readings.
    core_window(context, replica, batches, 0, 3)
    with ThreadPoolExecutor() as pool:
        observed = pool.submit(observe)
        while not observed.done():
            core_window(context, replica, batches, 0, 1)
    samples, used_bytes = observed.result()
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(out.glob("*.txt")))
    print("tools: " + (out.name if has_tools else "the plugin lists none to compare with"))
    faults = []
    for name, units in UNITS.items():
        readings = [value for each in samples if (value := getattr(each, name)) is not None]
        witnesses = {"tools": nearest(text, units, readings)}
        if name == "memory_used_bytes":
            witnesses["runtime"] = used_bytes
        known = {who: value for who, value in witnesses.items() if readings and value is not None}
        print(f"{name}: idle {getattr(idle, name)}, under load {readings}, {known}")
        faults += [f"{name}: {who}" for who, value in known.items() if distance(value, readings) > ALLOWED]
    if faults:
        sys.exit(f"too far from the telemetry: {', '.join(faults)}")


def nearest(text: str, units: Mapping[str, float], readings: Sequence[float]) -> float | None:
    """Return the number in ``text`` with one of the units that is nearest to the readings, in the base unit."""
    spelled = "|".join(sorted(units, key=len, reverse=True))
    found = re.findall(rf"(?<![\w.])(\d+(?:\.\d+)?) ?({spelled})\b", text)
    values = [float(number) * units[unit] for number, unit in found]
    return min(values, key=lambda value: distance(value, readings)) if values and readings else None


def distance(value: float, readings: Sequence[float]) -> float:
    """Return how far a value is from the range of the readings, as a fraction of the larger one; 0 is within."""
    bound = min(max(value, min(readings)), max(readings))
    return abs(value - bound) / max(abs(value), abs(bound), 1.0)


if __name__ == "__main__":
    main()

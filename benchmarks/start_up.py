"""Time from a command to its first optimizer step, as a multiple of an import of torch, which no rank can do without.

``perf train`` trains the smallest preset on one device, and the time and the processor time of all its processes count
until the step is done. In turn with it, an interpreter imports torch. ``perf --help``, ``perf cases`` and ``perf lint``
of one document, which need no torch, are multiples of an interpreter that imports typer.

Run: python benchmarks/start_up.py --rounds 5
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from report_tools import case_document

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PERF = (sys.executable, "-m", "chipperf")
_POLL_S = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vendor", default="cpu")
    arguments = parser.parse_args()
    training = ("--vendor", arguments.vendor, "--preset", "tiny", "--max-steps", "1")
    with tempfile.TemporaryDirectory() as scratch:
        # The sample dataset is made once a machine.
        to_first_step(training, Path(scratch) / "first")
        places = iter(range(arguments.rounds))

        def trained() -> tuple[float, float]:
            return to_first_step(training, Path(scratch) / str(next(places)))

        compare("perf train to its first step", trained, "import torch", arguments.rounds)
        document = Path(scratch) / "acme" / "resnet50-pytorch" / "README.md"
        document.parent.mkdir(parents=True)
        document.write_text(case_document(random.Random(0)), encoding="utf-8")
        for options in (["--help"], ["cases"], ["lint", str(document), "--exit-zero"]):
            compare(f"perf {options[0]}", partial(cost, [*PERF, *options]), "import typer", arguments.rounds)


def compare(what: str, measure: Callable[[], tuple[float, float]], limit: str, rounds: int) -> None:
    """Print the medians of wall and processor time, and those over the limit's, measured in turn."""
    pairs = [(measure(), cost([sys.executable, "-c", limit])) for _ in range(rounds)]
    for index, kind in enumerate(("wall", "processor")):
        taken_s = [taken[index] for taken, _ in pairs]
        ratios = sorted(taken[index] / least[index] for taken, least in pairs)
        quarter = len(ratios) // 4
        print(
            f"{what}: {statistics.median(taken_s):.2f} s {kind} time, {statistics.median(ratios):.2f} "
            f"[{ratios[quarter]:.2f}, {ratios[-1 - quarter]:.2f}] times {limit}"
        )


def cost(command: Sequence[str]) -> tuple[float, float]:
    """Return the wall and the processor time of a command, in seconds."""
    before, start_s = os.times(), time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    used_s = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start_s, used_s


def to_first_step(options: Sequence[str], out: Path) -> tuple[float, float]:
    """Return the wall and the processor time of a run and its processes until its only step is done, in seconds."""
    start_s = time.perf_counter()
    command = [*PERF, "train", "mobilenetv2", *options, "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        launcher = psutil.Process(process.pid)
        while not _has_stepped(out / "events.jsonl"):
            if process.poll() is not None:
                raise SystemExit(f"the run ended before its first step: {' '.join(command)}")
            time.sleep(_POLL_S)
        taken_s = time.perf_counter() - start_s
        used_s = 0.0
        for each in (launcher, *launcher.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                used_s += times.user + times.system + times.children_user + times.children_system
        process.terminate()
    return taken_s, used_s


def _has_stepped(events: Path) -> bool:
    return events.exists() and '"EPOCH_STOP"' in events.read_text(encoding="utf-8")


if __name__ == "__main__":
    main()

"""Time from a command to its first optimizer step, as a multiple of an import of torch, which no rank can do without.

``perf train`` trains the smallest preset on one device, and the time and the processor time of all its processes count
until the step is done. In turn with it, an interpreter imports torch. ``perf --help``, ``perf cases`` and ``perf lint``
of one document, which need no torch, are multiples of an interpreter that imports typer.

Run: python benchmarks/start_up.py --rounds 5
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from chipperf.cases.registry import find_case
from report_tools import case_document
from side_by_side import Line, benchmark_parser, compared, in_turn, parse, print_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PERF = (sys.executable, "-m", "chipperf")
_POLL_S = 0.02


def main() -> None:
    parser = benchmark_parser(__doc__, rounds=5)
    parser.add_argument("--vendor", default="cpu")
    arguments = parse(parser)
    print_table(lines(arguments.vendor, arguments.rounds))


def lines(vendor: str, rounds: int) -> Iterator[Line]:
    """Start each command beside its limit, in turn."""
    training = ("--vendor", vendor, "--preset", "tiny", "--max-steps", "1")
    with tempfile.TemporaryDirectory() as scratch:
        places = (Path(scratch) / str(number) for number in count())
        document = Path(scratch) / "acme" / "resnet50-pytorch" / "README.md"
        document.parent.mkdir(parents=True)
        document.write_text(case_document(random.Random(0)), encoding="utf-8")
        make_sample()

        def trained() -> tuple[float, float]:
            return to_first_step(training, next(places))

        others = (["--help"], ["cases"], ["lint", str(document), "--exit-zero"])
        commands: dict[str, Callable[[], tuple[float, float]]] = {"train to its first step": trained}
        commands |= {options[0]: partial(cost, [*PERF, *options]) for options in others}
        for what, measure in commands.items():
            limit = "import torch" if measure is trained else "import typer"
            least = partial(cost, [sys.executable, "-c", limit])
            ways: dict[str, Callable[[], tuple[float, float]]] = {"perf": measure, "least": least}
            found = in_turn(ways, rounds)
            for kind, unit in enumerate(("s", "CPU s")):
                taken, needed = ([each[kind] for each in found[name]] for name in found)
                yield compared(f"perf {what}", taken, limit, needed, unit)


def make_sample() -> None:
    """Generate the dataset, as the first run on a machine would."""
    ensure_sample = find_case("mobilenetv2").data.ensure_sample
    if ensure_sample is not None:
        ensure_sample(lambda done, total: None)


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

"""Ways that run in turn, and the table in which every benchmark prints what it found; prints nothing by itself."""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

T = TypeVar("T")

COLUMNS = ("Measured", "chipperf", "Beside it", "There", "Ratio", "Spread", "Rounds")

_LOADED = 0.05
"""Share of the cores that others may use before figures are doubtful."""

_LEAST_CPU_S = 0.05


@dataclass(frozen=True)
class Line:
    """A line of the table: a figure, the same of a peer or of a limit, and the ratio of both with its spread."""

    what: str
    ours: float
    beside: str
    there: float
    ratio: float
    low: float
    high: float
    rounds: int
    unit: str


def benchmark_parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Return the options that all benchmarks have; parse them with :func:`parse`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"how often each way runs; {rounds} by default")
    parser.add_argument("--smallest", action="store_true", help="as little as shows that it runs: no figures to keep")
    return parser


def parse(parser: argparse.ArgumentParser, **smallest: object) -> argparse.Namespace:
    """Parse the command line; ``smallest`` are the defaults with ``--smallest``, beside a single round."""
    arguments = parser.parse_args()
    if arguments.smallest:
        parser.set_defaults(rounds=1, **smallest)
        arguments = parser.parse_args()
    _Load.begin()
    return arguments


def in_turn(ways: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Return what each way returned in each round; the order alternates: a drift of the machine's speed favors none."""
    found: dict[str, list[T]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways) if number % 2 else reversed(list(ways)):
            found[name].append(ways[name]())
    return found


def compare(
    what: str, ours: Callable[[], float], beside: str, theirs: Callable[[], float], rounds: int, unit: str = "s"
) -> Line:
    """Run two ways in turn and compare their results; before several rounds, one that does not count."""
    if rounds > 1:
        ours(), theirs()
    found = in_turn({"ours": ours, "theirs": theirs}, rounds)
    return compared(what, found["ours"], beside, found["theirs"], unit)


def compared(what: str, ours: Sequence[float], beside: str, there: Sequence[float], unit: str = "s") -> Line:
    """Compare two series round by round: medians, and the quartiles of the ratios."""
    ratios = [one / other for one, other in zip(ours, there, strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    middles = statistics.median(ours), statistics.median(there)
    return Line(what, middles[0], beside, middles[1], ratio, low, high, len(ratios), unit)


def cpu_s(function: Callable[[], object]) -> float:
    """Return the processor time of a call in this process; a short one is repeated: some clocks tick a hundredth."""
    calls, start_s = 0, time.process_time()
    while (used_s := time.process_time() - start_s) < _LEAST_CPU_S:
        function()
        calls += 1
    return used_s / calls


def share(what: str, hits: int, trials: int, beside: str, there: float) -> Line:
    """Compare the share of simulated trials that hit with what it should be; the spread is Wilson's 95 % interval."""
    z, p = 1.96, hits / trials
    middle, half = p + z * z / (2 * trials), z * math.sqrt(p * (1 - p) / trials + (z / (2 * trials)) ** 2)
    low, high = ((middle + sign * half) / (1 + z * z / trials) for sign in (-1, 1))
    return Line(what, p, beside, there, p / there, max(0.0, low) / there, high / there, trials, "")


def print_table(lines: Iterable[Line]) -> None:
    """Print the lines as a table in Markdown as they come, and what others did on the machine meanwhile."""
    print(f"| {' | '.join(COLUMNS)} |\n| --- | ---: | --- | ---: | ---: | ---: | ---: |", flush=True)
    for each in lines:
        ours, there = (f"{value:.4g} {each.unit}".rstrip() for value in (each.ours, each.there))
        spread = f"[{each.low:.3f}, {each.high:.3f}]"
        cells = (each.what, ours, each.beside, there, f"{each.ratio:.3f}", spread, str(each.rounds))
        print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\n{_Load.describe()}")


class _Load:
    """What other programs took of the processor since the benchmark began."""

    _start: tuple[float, float] | None = None

    @classmethod
    def begin(cls) -> None:
        cls._start = cls._now()

    @classmethod
    def describe(cls) -> str:
        if cls._start is None:
            raise RuntimeError("parse() begins it")
        cores = psutil.cpu_count() or 1
        elapsed_s, others_s = (now - then for now, then in zip(cls._now(), cls._start, strict=True))
        busy = max(0.0, others_s / elapsed_s) if elapsed_s > 0 else 0.0
        warning = "; Warning: the machine was loaded, measure again on a quiet one" if busy > _LOADED * cores else ""
        return f"Other programs kept {busy:.2f} of {cores} cores busy meanwhile{warning}."

    @staticmethod
    def _now() -> tuple[float, float]:
        """Return the time, and the processor time of all others: busy or taken by the host of a virtual machine."""
        all_of_it = psutil.cpu_times()
        fields = ("user", "nice", "system", "irq", "softirq", "steal")
        own = os.times()
        own_s = own.user + own.system + own.children_user + own.children_system
        return own.elapsed, sum(getattr(all_of_it, name, 0.0) for name in fields) - own_s

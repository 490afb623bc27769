"""Coverage of the intervals of `perf compare`: how many of the 95 % intervals contain the true ratio; no device.

Two sides with the same true throughput are drawn, each with one run or three repeats of n windows. Windows deviate by
5 % and follow an AR(1) process: rho is the correlation of a window with the next one. Repeats differ in their windows
only, or by 5 % more. Besides, there is what a bootstrap that takes windows for independent would have covered. The
spread is the 95 % interval of a share of so many trials, which stand in place of rounds.

Run: python benchmarks/interval_coverage.py --rounds 1000
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING
from unittest import mock

from chipperf.records import intervals
from chipperf.records.repeats import combine
from side_by_side import Line, benchmark_parser, parse, print_table, share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RHOS = (0.0, 0.3, 0.5, 0.7)
_TRUE, _DEVIATION = 100.0, 5.0
SIDES = {"one run": (1, 0.0), "three repeats": (3, 0.0), "three repeats that differ": (3, _DEVIATION)}


def main() -> None:
    parser = benchmark_parser(__doc__, rounds=120)
    parser.add_argument("--windows", type=int, nargs="+", default=[10, 20, 50, 200])
    arguments = parse(parser, windows=[10])
    print_table(lines(arguments.windows, arguments.rounds))


def lines(windows: Sequence[int], trials: int) -> Iterator[Line]:
    for n in windows:
        for rho in RHOS:
            where, level = f"{n} windows, rho {rho}", (f"{intervals.LEVEL:.0%}", intervals.LEVEL)
            for side, (repeats, between) in SIDES.items():
                yield share(f"{where}, {side}", coverage(n, rho, repeats, between, trials), trials, *level)
            with mock.patch.object(intervals, "independent_windows", len):
                yield share(f"{where}, one run, as if independent", coverage(n, rho, 1, 0.0, trials), trials, *level)


def coverage(n: int, rho: float, repeats: int, between: float, trials: int) -> int:
    """Return how many intervals contain the true ratio, 1; ``between`` is how much repeats deviate."""
    covered = 0
    for trial in range(trials):
        rng = random.Random(f"{n} {rho} {repeats} {trial}")
        sides = [
            [ar1_windows(n, rho, rng.gauss(_TRUE, between), _DEVIATION, rng) for _ in range(repeats)] for _ in range(2)
        ]
        one, other = (intervals.resample(side, combine, seed=str(place)) for place, side in enumerate(sides))
        interval = intervals.ratio_interval(one, other)
        covered += interval is not None and interval.low <= 1 <= interval.high
    return covered


def ar1_windows(n: int, rho: float, middle: float, deviation: float, rng: random.Random) -> list[float]:
    """Return throughputs of n windows around ``middle`` in the order of time; ``rho`` correlates neighbors."""
    deviations = [rng.gauss(0, 1)]
    for _ in range(n - 1):
        deviations.append(rho * deviations[-1] + math.sqrt(1 - rho * rho) * rng.gauss(0, 1))
    return [middle + deviation * each for each in deviations]


if __name__ == "__main__":
    main()

"""Coverage of the intervals of `perf compare`: how many of the 95 % intervals contain the true ratio; no device.

Two sides with the same true throughput are drawn, each with one run or three repeats of n windows. Windows deviate by
5 % and follow an AR(1) process: rho is the correlation of a window with the next one. Repeats differ in their windows
only, or by 5 % more. The last column is what a bootstrap that takes windows for independent would have covered.

Run: python benchmarks/interval_coverage.py --trials 1000
"""

from __future__ import annotations

import argparse
import math
import random
from unittest import mock

from chipperf.records import intervals
from chipperf.records.repeats import combine

WINDOWS = (10, 20, 50, 200)
RHOS = (0.0, 0.3, 0.5, 0.7)
_TRUE, _DEVIATION = 100.0, 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=120, help="pairs of sides for each number")
    arguments = parser.parse_args()
    print(f"coverage of {intervals.LEVEL:.0%} intervals in {arguments.trials} trials")
    print("windows  rho   1 run  3 repeats  3 that differ  1 run, windows as if independent")
    for n in WINDOWS:
        for rho in RHOS:
            shares = [coverage(n, rho, *side, arguments.trials) for side in ((1, 0.0), (3, 0.0), (3, _DEVIATION))]
            with mock.patch.object(intervals, "independent_windows", len):
                shares.append(coverage(n, rho, 1, 0.0, arguments.trials))
            one, alike, differing, independent = shares
            print(f"{n:7}  {rho:3}  {one:6.1%}  {alike:9.1%}  {differing:13.1%}  {independent:6.1%}", flush=True)


def coverage(n: int, rho: float, repeats: int, between: float, trials: int) -> float:
    """Return the share of intervals that contain the true ratio, 1; ``between`` is how much repeats deviate."""
    covered = 0
    for trial in range(trials):
        rng = random.Random(f"{n} {rho} {repeats} {trial}")
        sides = [
            [ar1_windows(n, rho, rng.gauss(_TRUE, between), _DEVIATION, rng) for _ in range(repeats)] for _ in range(2)
        ]
        one, other = (intervals.resample(side, combine, seed=str(place)) for place, side in enumerate(sides))
        interval = intervals.ratio_interval(one, other)
        covered += interval is not None and interval.low <= 1 <= interval.high
    return covered / trials


def ar1_windows(n: int, rho: float, middle: float, deviation: float, rng: random.Random) -> list[float]:
    """Return throughputs of n windows around ``middle`` in the order of time; ``rho`` correlates neighbors."""
    deviations = [rng.gauss(0, 1)]
    for _ in range(n - 1):
        deviations.append(rho * deviations[-1] + math.sqrt(1 - rho * rho) * rng.gauss(0, 1))
    return [middle + deviation * each for each in deviations]


if __name__ == "__main__":
    main()

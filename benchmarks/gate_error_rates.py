"""How often the gate of `perf compare` errs and decides: simulated throughputs whose true ratio is known; no device.

The gate requires 0.97 of the baseline. Both sides have the same number of runs of 20 windows each. Windows deviate by
2 %, and each is correlated with the next one (AR(1), 0.3). Runs deviate by 0 % or 1 % more. With a true ratio of 0.97
or more, "not met" is a false alarm; with less, "met" is a regression that nobody noticed. Both are most frequent at
0.97 itself. The last part gives undecided gates the number of repeats that the gate states.

The tables are those of docs/compare.md. Run: python benchmarks/gate_error_rates.py --trials 300
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING

from chipperf.compare.gate import decide, enough_repeats
from chipperf.compare.requirements import RequiredRatio
from chipperf.records.intervals import ratio_interval, resample
from chipperf.records.repeats import combine
from interval_coverage import ar1_windows

if TYPE_CHECKING:
    from chipperf.records.intervals import Interval

REPEATS = (1, 3, 5)
BETWEEN = (0.0, 1.0)
RATIOS = (1.0, 0.97, 0.95, 0.93, 0.9)
_WINDOWS, _RHO, _MIDDLE, _DEVIATION = 20, 0.3, 100.0, 2.0
_REQUIRED = RequiredRatio(measure="p_core", bound="at_least", ratio=0.97)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40, help="gates for each line")
    trials = parser.parse_args().trials
    print(f"| Runs of each side | Runs deviate by | True ratio | met | not met | undecided |\n|{' --- |' * 6}")
    for between in BETWEEN:
        for repeats in REPEATS:
            for ratio in RATIOS:
                drawn = (_draw(repeats, between, ratio, trial) for trial in range(trials))
                found = Counter(decide(_REQUIRED, interval) for _, interval in drawn)
                shares = " | ".join(f"{found[verdict] / trials:.3f}" for verdict in ("met", "not_met", "undecided"))
                print(f"| {repeats} | {between:g} % | {ratio:.2f} | {shares} |", flush=True)
    print("\n| Runs of each side | True ratio | undecided | median of the stated number | decided then |")
    print(f"|{' --- |' * 5}")
    for repeats in REPEATS:
        for ratio in (1.0, 0.95):
            print(_stated(repeats, ratio, trials), flush=True)


def _stated(repeats: int, ratio: float, trials: int) -> str:
    """Return a line on gates that are undecided and get as many repeats as they state; runs deviate by 1 %."""
    stated, undecided, decided = [], 0, 0
    for trial in range(trials):
        found, interval = _draw(repeats, 1.0, ratio, trial)
        if decide(_REQUIRED, interval) != "undecided":
            continue
        undecided += 1
        enough = enough_repeats(_REQUIRED, found, interval, (repeats, repeats))
        if enough:
            stated.append(enough[0])
            decided += decide(_REQUIRED, _draw(enough[0], 1.0, ratio, trials + trial)[1]) != "undecided"
    middle = sorted(stated)[len(stated) // 2] if stated else "-"
    share = f"{decided / len(stated):.2f}" if stated else "-"
    return f"| {repeats} | {ratio:.2f} | {undecided / trials:.3f} | {middle} | {share} |"


def _draw(repeats: int, between: float, ratio: float, trial: int) -> tuple[float, Interval | None]:
    """Return the found ratio of two drawn sides, and its interval; ``between`` is how much runs deviate, in percent."""
    rng = random.Random(f"{repeats} {between} {ratio} {trial}")
    base, other = (
        [
            ar1_windows(_WINDOWS, _RHO, middle * rng.gauss(1, between / 100), _DEVIATION * middle / _MIDDLE, rng)
            for _ in range(repeats)
        ]
        for middle in (_MIDDLE, _MIDDLE * ratio)
    )
    drawn = [resample(side, combine, seed=str(place)) for place, side in enumerate((base, other))]
    results = [combine([median(run) for run in side]) for side in (base, other)]
    return results[1] / results[0], ratio_interval(drawn[1], drawn[0])


if __name__ == "__main__":
    main()

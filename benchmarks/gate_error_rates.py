"""How often the gate of `perf compare` errs and decides: simulated throughputs whose true ratio is known; no device.

The gate requires 0.97 of the baseline. Both sides have the same number of runs of 20 windows each. Windows deviate by
2 %, and each is correlated with the next one (AR(1), 0.3). Runs deviate by 0 % or 1 % more. With a true ratio of 0.97
or more, "not met" is a false alarm; with less, "met" is a regression that nobody noticed. Both are most frequent at
0.97 itself. The last part gives undecided gates the number of repeats that the gate states.

The shares are those of docs/compare.md. An interval of 95 % errs on each side in 2.5 %. The spread is the 95 % interval
of a share of so many gates, which stand in place of rounds.

Run: python benchmarks/gate_error_rates.py --rounds 300
"""

from __future__ import annotations

import random
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING

from chipperf.compare.gate import decide, enough_repeats
from chipperf.compare.requirements import RequiredRatio
from chipperf.records.intervals import ratio_interval, resample
from chipperf.records.repeats import combine
from interval_coverage import ar1_windows
from side_by_side import Line, benchmark_parser, parse, print_table, share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chipperf.records.intervals import Interval

BETWEEN = (0.0, 1.0)
RATIOS = (1.0, 0.97, 0.95, 0.93, 0.9)
_WINDOWS, _RHO, _MIDDLE, _DEVIATION = 20, 0.3, 100.0, 2.0
_ALLOWED, _ALL = ("half of 5 %", 0.025), ("all", 1.0)
_REQUIRED = RequiredRatio(measure="p_core", bound="at_least", ratio=0.97)


def main() -> None:
    parser = benchmark_parser(__doc__, rounds=40)
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 3, 5], help="runs of each side")
    arguments = parse(parser, runs=[1])
    print_table(_lines(arguments.runs, arguments.rounds))


def _lines(runs: Sequence[int], trials: int) -> Iterator[Line]:
    for between in BETWEEN:
        for repeats in runs:
            for ratio in RATIOS:
                drawn = (_draw(repeats, between, ratio, trial) for trial in range(trials))
                found = Counter(decide(_REQUIRED, interval) for _, interval in drawn)
                where = f"{repeats} runs that deviate by {between:g} %, true ratio {ratio:.2f}"
                if ratio >= _REQUIRED.ratio:
                    yield share(f"false alarm: {where}", found["not_met"], trials, *_ALLOWED)
                if ratio <= _REQUIRED.ratio:
                    yield share(f"unnoticed: {where}", found["met"], trials, *_ALLOWED)
                yield share(f"decided: {where}", trials - found["undecided"], trials, *_ALL)
    for repeats in runs:
        for ratio in (1.0, 0.95):
            yield from _stated(repeats, ratio, trials)


def _stated(repeats: int, ratio: float, trials: int) -> Iterator[Line]:
    """Give gates that are undecided as many repeats as they state; runs deviate by 1 %."""
    stated, decided = [], 0
    for trial in range(trials):
        found, interval = _draw(repeats, 1.0, ratio, trial)
        if decide(_REQUIRED, interval) != "undecided":
            continue
        enough = enough_repeats(_REQUIRED, found, interval, (repeats, repeats))
        if enough:
            stated.append(enough[0])
            decided += decide(_REQUIRED, _draw(enough[0], 1.0, ratio, trials + trial)[1]) != "undecided"
    if stated:
        where = f"{repeats} runs, true ratio {ratio:.2f}, then as many as stated, {median(stated):g} in the median"
        yield share(f"decided: {where}", decided, len(stated), "stated", 0.8)


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

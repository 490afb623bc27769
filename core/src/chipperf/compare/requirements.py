"""Requirements on the ratio of a run to its baseline, as ``p_core=0.97``, and what came of them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from chipperf.errors import UsageError, did_you_mean
from chipperf.records.columns import columns_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chipperf.records.columns import Unit
    from chipperf.records.intervals import Interval

Bound = Literal["at_least", "at_most"]

_WITH_RATIO: Final[tuple[Unit, ...]] = ("samples/s", "s", "bytes", "J/sample")

Verdict = Literal["met", "not_met", "undecided"]

BOUNDS: Final[dict[Bound, str]] = {"at_least": "at least", "at_most": "at most"}

MOST_REPEATS: Final = 100
"""Nobody makes more repeats: a ratio that needs more is at its bound, as far as can be told."""

SENSIBLE: Final = (0.1, 10.0)
"""A bound outside is a percentage or a slip, and a ratio that is met outside is of something else than the baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequiredRatio:
    """A bound of a metric's ratio to the baseline, by the metric's name."""

    measure: str
    bound: Bound
    ratio: float

    def __str__(self) -> str:
        return f"{self.measure} {BOUNDS[self.bound]} {self.ratio:g} of the baseline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgment:
    """What the interval of a column's ratio says of a requirement.

    Attributes:
        column: Column that is judged, from 1. Column 1 is the baseline.
        interval: ``None`` if one of the two sides has a single value; then the verdict is ``undecided``.
        verdict: ``met`` if the whole interval is within the bound, ``not_met`` if all of it is beyond the bound.
        repeats: Number of runs of the baseline and of the column.
        enough_repeats: The numbers that are likely to decide, see :mod:`chipperf.compare.gate`; ``None`` if the verdict
            is not ``undecided``, or if the ratio is so near to the bound that no sensible number decides.
    """

    requirement: RequiredRatio
    column: int
    ratio: float
    interval: Interval | None
    verdict: Verdict
    repeats: tuple[int, int]
    enough_repeats: tuple[int, int] | None


def describe_judgment(judgment: Judgment) -> str:
    """Return sentences for people, for example ``column 2: mem_peak at most 1.05 of the baseline: met, 0.99``."""
    interval = judgment.interval
    found = f"{judgment.ratio:.4g}"
    found += f" ({interval.low:.4g} to {interval.high:.4g})" if interval else ", without an interval"
    words = {"met": "met", "not_met": "not met", "undecided": "not decidable: more repeats"}
    text = f"column {judgment.column}: {judgment.requirement}: {words[judgment.verdict]}, {found}"
    return ". ".join((text, *_advice(judgment)))


def _advice(judgment: Judgment) -> Iterator[str]:
    """Yield how many repeats would decide, or what single runs cannot tell."""
    enough, there = judgment.enough_repeats, judgment.repeats
    is_single = min(there) == 1
    if judgment.verdict != "undecided":
        if is_single:
            yield "The interval is that of windows: one run says nothing about other runs"
    elif enough is None:
        yield f"The ratio is so near to the bound that {MOST_REPEATS} repeats would not decide"
    else:
        repeats = f"{enough[0]} repeats of the baseline and {enough[1]} of the run"
        yield f"It takes {'at least' if is_single else 'about'} {repeats}; there are {there[0]} and {there[1]}"


def parse_requirements(at_least: Sequence[str], at_most: Sequence[str]) -> tuple[RequiredRatio, ...]:
    """Return the requirements that texts such as ``p_core=0.97`` state; the metric may have its header's name.

    Raises:
        UsageError: A text has another form, names no metric that has a ratio, or repeats a bound.
    """
    texts: tuple[tuple[Bound, Sequence[str]], ...] = (("at_least", at_least), ("at_most", at_most))
    found = tuple(_parse(text, bound) for bound, each in texts for text in each)
    for (name, bound), count in Counter((each.measure, each.bound) for each in found).items():
        if count > 1:
            raise UsageError(f"--{bound.replace('_', '-')} {name} is given {count} times", hint="give it once")
    return found


def _parse(text: str, bound: Bound) -> RequiredRatio:
    option = f"--{bound.replace('_', '-')} {text}"
    name, _, written = (part.strip() for part in text.partition("="))
    columns = {alias: each for each in columns_of("comparison") for alias in (each.key, each.name)}
    with_ratio = [each.name for each in columns_of("comparison") if each.unit in _WITH_RATIO]
    column = columns.get(name)
    if column is None:
        raise UsageError(
            f"{option}: there is no metric {name!r}{did_you_mean(name, columns)}",
            hint=f"write METRIC=RATIO, for example p_core=0.97; METRIC is one of {', '.join(with_ratio)}",
        )
    if column.name not in with_ratio:
        raise UsageError(
            f"{option}: a ratio of two values of {name} has no meaning",
            hint=f"require one of {', '.join(with_ratio)}; the case's target is what a result must reach",
        )
    try:
        ratio = float(written)
    except ValueError:
        ratio = math.nan
    if not SENSIBLE[0] <= ratio <= SENSIBLE[1]:
        raise UsageError(
            f"{option}: {written!r} is not a ratio to the baseline between {SENSIBLE[0]:g} and {SENSIBLE[1]:g}",
            hint=f"write {name}=0.97 for 97 % of the baseline",
        )
    return RequiredRatio(measure=column.name, bound=bound, ratio=ratio)

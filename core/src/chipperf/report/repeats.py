"""Which runs are repeats of each other, and what a curve of them is called."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from chipperf.records.schema import Missing
from chipperf.report.configuration import configuration_name, fix_hp, row_key
from chipperf.report.format import text_or_marker

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from chipperf.cases.base import Case
    from chipperf.records.schema import Record


def repeats_of(record: Record, candidates: Iterable[Record], case: Case) -> tuple[Record, ...]:
    """Return ``record`` and every run that repeats it with another seed.

    A second run with the same seed is not independent of the first, and says nothing about the spread.

    Args:
        record: The run to find repeats of.
        candidates: Where to look; of several with the same seed the first is taken.
        case: Case of all of them.
    """
    by_seed = {_seed(record): record}
    for candidate in candidates:
        if _setup(candidate, case) == _setup(record, case):
            by_seed.setdefault(_seed(candidate), candidate)
    return tuple(sorted(by_seed.values(), key=lambda run: -1 if isinstance(run.seed, Missing) else run.seed))


def group_repeats(records: Iterable[Record], case: Case) -> list[tuple[Record, ...]]:
    """Return every record in one group of repeats; runs with the same seed are in groups of their own."""
    groups: dict[Hashable, list[Record]] = {}
    seen: Counter[Hashable] = Counter()
    for record in records:
        run = (_setup(record, case), _seed(record))
        groups.setdefault((run[0], seen[run]), []).append(record)
        seen[run] += 1
    return [tuple(group) for group in groups.values()]


def curve_names(records: Sequence[Record], case: Case) -> list[str]:
    """Return a name for the curve of each record: device, topology and precision, and ``fix_hp`` where that helps."""
    names = [configuration_name(record) for record in records]
    changes = [text_or_marker(fix_hp(record, case), "en") for record in records]
    variants: dict[str, set[str]] = {}
    for name, change in zip(names, changes, strict=True):
        variants.setdefault(name, set()).add(change)
    return [
        name if len(variants[name]) == 1 else f"{name} {change}" for name, change in zip(names, changes, strict=True)
    ]


def _setup(record: Record, case: Case) -> Hashable:
    """Return what two runs have in common that differ in nothing but the seed and chance."""
    return (
        record.vendor.name,
        row_key(record, case),
        record.kind,
        record.case.preset,
        record.limits,
        record.precision.effective,
        record.status.state,
    )


def _seed(record: Record) -> Hashable:
    return (record.run_id,) if isinstance(record.seed, Missing) else record.seed

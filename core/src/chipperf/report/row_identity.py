"""Grouping runs by row and by repeats, choosing the shown run, and naming rows and curves."""

from __future__ import annotations

from collections import Counter
from datetime import timezone
from typing import TYPE_CHECKING

from chipperf.cases.base import Role
from chipperf.documents.format import NOT_APPLICABLE, setting, text_or_marker
from chipperf.records.schema import UNKNOWN, Missing

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence
    from datetime import datetime

    from chipperf.cases.base import Case
    from chipperf.records.schema import Record, Text

SHORT_KEYS = {"batch_size": "bs"}
"""Short names of keys in ``fix_hp``."""

_FIRST_KEYS = ("batch_size", "lr")


def row_key(record: Record, case: Case) -> Hashable:
    """Return a key that is equal for runs of the same row."""
    return (record.environment.row_label, record.topology.label, record.precision.requested, fix_hp(record, case))


def fix_hp(record: Record, case: Case) -> str | Missing:
    """Return the differences from the case's base that must be disclosed, ``/`` without differences.

    For an imported document, all its stated differences are returned with all digits. The result is missing if it
    states nothing.
    """
    changes = record.hyperparameters.changes
    if isinstance(changes, Missing):
        return changes
    keys = case.base.keys()
    exact = record.kind == "imported"
    shown = [
        change
        for change in changes
        # A key the case does not have, from an older version or an imported document, is shown rather than hidden.
        if exact or change.key not in keys or case.base.role(change.key) is not Role.FREE
    ]
    order = hyperparameter_order(case)
    shown.sort(key=lambda change: order.get(change.key, len(order)))
    texts = [f"{SHORT_KEYS.get(change.key, change.key)}={setting(change.value, exact=exact)}" for change in shown]
    return ",".join(texts) or NOT_APPLICABLE


def hyperparameter_order(case: Case) -> Mapping[str, int]:
    """Return the position of each of the case's hyperparameters in ``fix_hp``. Other keys follow."""
    return {key: place for place, key in enumerate(dict.fromkeys((*_FIRST_KEYS, *case.base.keys())))}


def row_label(record: Record) -> Text:
    """Return the device's name in a row's label."""
    return _real_or_simulated(record, record.environment.row_label)


def precision_name(record: Record) -> str:
    """Return the requested precision, and the effective precision if it differs."""
    requested, effective = record.precision.requested, record.precision.effective
    return requested if isinstance(effective, Missing) or effective == requested else f"{requested} ({effective})"


def configuration_name(record: Record) -> str:
    """Return device, topology and precision on one line. A device without a name has the vendor's name."""
    label = row_label(record)
    device = record.vendor.name if isinstance(label, Missing) else label
    return f"{device} {record.topology.label} {precision_name(record)}"


def card_short_name(record: Record) -> Text:
    """Return the device's short name in the general table."""
    return _real_or_simulated(record, record.environment.card_short_name)


def not_blank(text: Text) -> Text:
    """Return the text, or unknown if it has no visible character."""
    return text if isinstance(text, Missing) or text.strip() else UNKNOWN


def _real_or_simulated(record: Record, name: Text) -> Text:
    """Return a device's name, with a mark if the device is simulated."""
    name = not_blank(name)
    if record.kind != "simulated":
        return name
    return "simulated" if isinstance(name, Missing) else f"simulated {name}"


def choose_rows(records: Sequence[Record], case: Case) -> tuple[list[Record], tuple[Record, ...]]:
    """Return the record that each row shows, and the superseded records.

    Completed records come before others, full schedules before shortened ones, and newer records before older ones.
    """
    best: dict[Hashable, Record] = {}
    superseded = []
    for record in records:
        key = row_key(record, case)
        other = best.setdefault(key, record)
        if other is record:
            continue
        winner, loser = (record, other) if preference(record) > preference(other) else (other, record)
        best[key] = winner
        superseded.append(loser)
    return list(best.values()), tuple(superseded)


def preference(record: Record) -> tuple[bool, bool, datetime]:
    """Return a sort key; a row shows the record with the greatest key."""
    created = record.created_at
    if created.tzinfo is None:
        created = created.replace(tzinfo=timezone.utc)
    return record.status.state == "completed", not record.limits.shortened, created


def repeats_of(record: Record, candidates: Iterable[Record], case: Case) -> tuple[Record, ...]:
    """Return ``record`` and every run that repeats it with another seed.

    Of several runs with the same seed, the first is taken: the others depend on it and do not show the spread.
    """
    by_seed = {_seed(record): record}
    for candidate in candidates:
        if _setup(candidate, case) == _setup(record, case):
            by_seed.setdefault(_seed(candidate), candidate)
    return tuple(sorted(by_seed.values(), key=lambda run: -1 if isinstance(run.seed, Missing) else run.seed))


def group_repeats(records: Iterable[Record], case: Case) -> list[tuple[Record, ...]]:
    """Return the records as groups of repeats. Runs with the same seed are in different groups."""
    groups: dict[Hashable, list[Record]] = {}
    seen: Counter[Hashable] = Counter()
    for record in records:
        setup, seed = _setup(record, case), _seed(record)
        groups.setdefault((setup, seen[setup, seed]), []).append(record)
        seen[setup, seed] += 1
    return [tuple(group) for group in groups.values()]


def curve_names(records: Sequence[Record], case: Case) -> list[str]:
    """Return a curve name for each record: device, topology and precision, with ``fix_hp`` if names would be equal."""
    named = [(configuration_name(record), text_or_marker(fix_hp(record, case), "en")) for record in records]
    variants = Counter(name for name, _ in set(named))
    return [name if variants[name] == 1 else f"{name} {changes}" for name, changes in named]


def _setup(record: Record, case: Case) -> Hashable:
    """Return a key that is equal for runs that differ only in seed and chance."""
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

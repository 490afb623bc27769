"""Which of several records of one row is shown."""

from __future__ import annotations

from datetime import timezone
from typing import TYPE_CHECKING

from chipperf.report.configuration import row_key

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from datetime import datetime

    from chipperf.cases.base import Case
    from chipperf.records.schema import Record


def choose_rows(records: Sequence[Record], case: Case) -> tuple[list[Record], tuple[Record, ...]]:
    """Return the record that each row shows, and the records that lost their row to a better one.

    Completed records come before others, full schedules before shortened ones, and then the newest.
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
    """Return a key by which the record that is rather shown is the greater one."""
    created = record.created_at
    if created.tzinfo is None:
        created = created.replace(tzinfo=timezone.utc)
    return record.status.state == "completed", not record.limits.shortened, created

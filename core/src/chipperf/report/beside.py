"""Runs of a report's rows that are beside its runs but not in it: the report may show the best of several."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from chipperf.cases.registry import find_case
from chipperf.errors import RecordError
from chipperf.records.schema import StrictModel
from chipperf.records.store import RECORD_NAME, read_stored
from chipperf.report.row import row_key

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence
    from pathlib import Path

    from chipperf.cases.base import Case
    from chipperf.records.schema import Record

MOST_RECORDS: Final = 100
"""Number of records that are read, the newest first."""


class RunBeside(StrictModel):
    """A run that is not in the report. ``sha256`` is the digest of its record, or the beginning of it."""

    run_id: str
    state: str
    sha256: str


def runs_beside(
    runs: Iterable[Path], records: Sequence[Record], baseline: Sequence[Record] = ()
) -> tuple[RunBeside, ...]:
    """Return runs of the rows of ``records`` that are neither among them nor among those of a baseline, by name.

    They are looked for in the directory that contains the directory of each run, down to two levels.
    """
    if records[0].kind == "imported":
        return ()
    case = find_case(records[0].case.name)
    rows, known = {_row(record, case) for record in records}, {record.run_id for record in (*records, *baseline)}
    given = {(run if run.is_dir() else run.parent).resolve() for run in runs}
    files = {file for run in given for depth in ("*", "*/*") for file in run.parent.glob(f"{depth}/{RECORD_NAME}")}
    found = {}
    for file in sorted((each for each in files if each.parent not in given), key=_newest_first)[:MOST_RECORDS]:
        with suppress(RecordError):
            stored = read_stored(file)
            record = stored.record
            if record.run_id not in known and _row(record, case) in rows:
                found[record.run_id] = RunBeside(run_id=record.run_id, state=record.status.state, sha256=stored.sha256)
    return tuple(found[run_id] for run_id in sorted(found))


def _newest_first(file: Path) -> float:
    with suppress(OSError):
        return -file.stat().st_mtime
    return 0


def _row(record: Record, case: Case) -> Hashable:
    data = (record.dataset.name, record.dataset.version, record.dataset.fingerprint)
    return record.vendor.name, record.case.name, record.case.version, record.kind, data, row_key(record, case)

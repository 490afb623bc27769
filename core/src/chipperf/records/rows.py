"""Records for programs: all below a directory, and their values as rows for pandas, polars or a spreadsheet.

``docs/records.md`` documents this. Neither torch nor another package is needed.
"""

from __future__ import annotations

import warnings
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from chipperf.errors import RecordError, UnusableRecord
from chipperf.records.columns import COLUMNS, Unit, completed_value
from chipperf.records.convergence import lower_is_better, run_verdict
from chipperf.records.schema import Missing
from chipperf.records.store import StoredRecord, find_records, read_stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from os import PathLike

Value: TypeAlias = str | int | float | bool | datetime | None

_SUFFIXES: Final[dict[Unit, str]] = {"samples/s": "_samples_per_s", "s": "_s", "bytes": "_bytes", "J/sample": "_j"}
"""What a key tells of its unit. A fraction has none."""

_KEYS: Final = {column.name: f"{column.name}{_SUFFIXES.get(column.unit, '')}" for column in COLUMNS}

UNITS: Final[dict[str, Unit]] = {_KEYS[column.name]: column.unit for column in COLUMNS}
"""Unit of every measured value of a row, by its key."""


class UnreadableRecord(UserWarning):
    """A file is there that is not a record, or a directory that cannot be read; the message names it."""


def load(path: str | PathLike[str], *, on_problem: Callable[[RecordError], None] | None = None) -> list[StoredRecord]:
    """Return the records of a directory and its subdirectories, or the one of a file.

    A record that is there twice, even under two names, is returned once. The order is that of the directories' names.

    Args:
        path: A run, a directory of runs at any depth, or a ``record.json``. Links to directories are not followed.
        on_problem: Called with every record that cannot be read. By default, each is an :class:`UnreadableRecord`
            warning. The others are returned.

    Raises:
        UnusableRecord: There is nothing at ``path``.
    """
    tell = on_problem or (lambda problem: warnings.warn(problem.message, UnreadableRecord, stacklevel=3))
    found: dict[str, StoredRecord] = {}
    for file in _files(Path(path), tell):
        try:
            stored = read_stored(file)
        except RecordError as error:
            tell(error)
        else:
            found.setdefault(stored.sha256, stored)
    return list(found.values())


def table(
    paths: Iterable[str | PathLike[str]], *, on_problem: Callable[[RecordError], None] | None = None
) -> list[dict[str, Value]]:
    """Return a row for each record of several paths, as :func:`load` finds them. All rows have the same keys.

    A value that is missing is ``None``, and the key with ``_missing`` after the value's name says why. Values of runs
    that did not complete are missing. :data:`UNITS` has the units.
    """
    found: dict[str, StoredRecord] = {}
    for path in paths:
        for stored in load(path, on_problem=on_problem):
            found.setdefault(stored.sha256, stored)
    return [as_row(stored) for stored in found.values()]


def as_row(stored: StoredRecord) -> dict[str, Value]:
    """Return the row of one record."""
    record = stored.record
    failure, environment = record.status.failure, record.environment
    facts: dict[str, Value | Missing] = {
        "run_id": record.run_id,
        "file": str(stored.file),
        "sha256": stored.sha256,
        "created_at": aware(record.created_at),
        "kind": record.kind,
        "state": record.status.state,
        "failure": failure.failure_class if failure else None,
        "verdict": run_verdict(record),
        "vendor": record.vendor.name,
        "plugin": record.vendor.plugin.name,
        "plugin_version": record.vendor.plugin.version,
        "chipperf_version": record.chipperf_version,
        "case": record.case.name,
        "case_version": record.case.version,
        "preset": record.case.preset,
        "is_shortened": record.limits.shortened,
        "dataset": record.dataset.name,
        "dataset_version": record.dataset.version,
        "is_sample": record.dataset.is_sample,
        "device": environment.row_label,
        "part": ", ".join(sorted({card.part for card in environment.cards if card.part})) or None,
        "topology": record.topology.label,
        "devices": record.topology.world_size,
        "precision": record.precision.requested,
        "effective_precision": record.precision.effective,
        "global_batch_size": record.hyperparameters.global_batch_size,
        "seed": record.seed,
        "driver": environment.driver,
        "sdk": environment.sdk,
        "torch": environment.torch,
        "metrics_definition": record.metrics_definition,
        "metrics_version": record.metrics_version,
        "metric": record.case.metric,
        "target": record.case.target,
        "lower_is_better": lower_is_better(record.case),
    }
    row: dict[str, Value] = {key: None if isinstance(value, Missing) else value for key, value in facts.items()}
    for column in COLUMNS:
        value = completed_value(record, column.value(record))
        row[_KEYS[column.name]] = None if isinstance(value, Missing) else value
        row[f"{column.name}_missing"] = _reason(value) if isinstance(value, Missing) else None
    return row


def _files(path: Path, tell: Callable[[RecordError], None]) -> Iterator[Path]:
    if not path.exists():
        raise UnusableRecord(f"there is no {path}", hint="name a directory with runs in it, at any depth")
    if not path.is_dir():
        yield path
        return
    yield from find_records(
        path, onerror=lambda error: tell(RecordError(f"cannot read {error.filename}: {error.strerror}"))
    )


def _reason(missing: Missing) -> str:
    return f"{missing.missing}: {missing.reason}" if missing.reason else missing.missing


def aware(created: datetime) -> datetime:
    """Return a date in UTC. One without a zone, as in an imported log, is read as UTC."""
    return created.replace(tzinfo=timezone.utc) if created.tzinfo is None else created.astimezone(timezone.utc)

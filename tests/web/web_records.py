"""Records for pages: the simulated examples, of which a test changes what it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chipperf.records.schema import Record
from chipperf.records.store import record_text
from example_records import simulated_records

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

EXAMPLES = tuple(simulated_records())
_FIRST = EXAMPLES[0].model_dump_json()


def make_run(**changes: Any) -> Record:
    """Return a measured record with ``changes``; ``metrics__quality=0.7`` changes a nested field."""
    data = Record.model_validate_json(_FIRST).model_dump()
    for path, value in {"kind": "measured", "run_id": "run-1", **changes}.items():
        *parents, field = path.split("__")
        target = data
        for parent in parents:
            target = target[parent]
        target[field] = value
    return Record.model_validate(data)


def failed(failure_class: str = "oom", **changes: Any) -> Record:
    """Return a record of a run that failed after it had measured everything."""
    failure = {"failure_class": failure_class, "message": "the device is full"}
    return make_run(status={"state": "failed", "failure": failure}, **changes)


def write_runs(directory: Path, records: Iterable[Record]) -> Path:
    """Write each record into a directory of its own and return where they are."""
    for number, record in enumerate(records):
        (directory / f"run{number:04}").mkdir(parents=True)
        (directory / f"run{number:04}" / "record.json").write_text(record_text(record), encoding="utf-8")
    return directory


def field_of(record: Record, path: str) -> Any:
    """Return the value of a field of ``record.json``; raises if there is none."""
    value: Any = record.model_dump(mode="json")
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value

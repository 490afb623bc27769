"""Repeats: runs that differ only in their seed, and their aggregated metrics.

``docs/metrics.md`` defines the aggregation. Only this module aggregates repeats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from chipperf.errors import RecordError, UnusableRecord, UsageError
from chipperf.records.columns import Unit, columns_of
from chipperf.records.files import read_model, write_atomically
from chipperf.records.schema import METRICS_VERSION, Missing, Number, StrictModel
from chipperf.records.store import RECORD_NAME, read_record

REPEATS_FILE = "repeats.json"

ATTEMPT = "-attempt-"
"""What is between the name of a run and the number of a further attempt, in the name of the attempt's directory."""

OLYMPIC_REPEATS = 5
"""With at least this many values, the lowest and the highest are dropped and the others averaged."""

ENOUGH_REPEATS = 3
"""Minimum number of independent seeds for a statement about the spread."""

_SEED_LIMIT = 2**32


class Aggregate(StrictModel):
    """One metric of all repeats. ``values`` has one of each run, in the order of the runs."""

    unit: Unit
    statistic: Literal["median", "olympic_mean"]
    value: Number
    lowest: Number
    highest: Number
    values: list[Number]


class RepeatedRun(StrictModel):
    """One of the repeats. ``directory`` is relative to the directory of the file."""

    directory: Annotated[str, Field(pattern=r"^[^/\\.][^/\\]*$")]
    seed: int
    state: Literal["completed", "failed", "interrupted"]
    run_id: str | None = None


class Repeats(StrictModel):
    """Content of ``repeats.json``: ``planned`` runs were requested, and ``runs`` were started.

    ``metrics`` are those of the completed runs, by name.
    """

    version: Literal[1] = 1
    metrics_version: int = METRICS_VERSION
    case: str
    planned: int
    runs: list[RepeatedRun]
    metrics: dict[str, Aggregate]

    @property
    def completed(self) -> int:
        """Number of completed runs."""
        return sum(run.state == "completed" for run in self.runs)

    @model_validator(mode="after")
    def _accounts_for_seeds(self) -> Repeats:
        """Check that the runs can be those of the planned seeds, which follow each other, each once."""
        seeds = [run.seed for run in self.runs]
        is_span = not seeds or max(seeds) - min(seeds) < self.planned
        if len({run.directory for run in self.runs}) < len(seeds) or len(set(seeds)) < len(seeds) or not is_span:
            raise ValueError(f"the runs have the seeds {seeds}, and {self.planned} that follow each other were planned")
        return self


def repeat_seeds(first: int, count: int) -> list[int]:
    """Return the seed of each repeat: ``first`` and the numbers after it.

    Raises:
        UsageError: A seed exceeds the largest allowed seed.
    """
    if first + count > _SEED_LIMIT:
        raise UsageError(
            f"{count} repeats from seed {first} on exceed the highest seed, {_SEED_LIMIT - 1}",
            hint="begin with a lower --seed",
        )
    return list(range(first, first + count))


def combine(values: Sequence[float]) -> float:
    """Return the olympic mean of at least :data:`OLYMPIC_REPEATS` values, or the median of fewer."""
    ordered, half = sorted(values), (len(values) - 1) // 2
    middle = ordered[1:-1] if len(values) >= OLYMPIC_REPEATS else ordered[half : len(values) - half]
    # Divide first, because the sum of huge values may overflow.
    return math.fsum(value / len(middle) for value in middle)


def aggregate(values: Sequence[Number], unit: Unit) -> Aggregate:
    """Return the median or olympic mean, the lowest and the highest value of one metric in all completed runs.

    If one run lacks the value, the result is missing: without that run it would be too good or too bad.
    """
    known = [value for value in values if not isinstance(value, Missing)]
    missing = [value for value in values if isinstance(value, Missing)]
    result: tuple[Number, Number, Number]
    if known and not missing:
        result = combine(known), min(known), max(known)
    elif known:
        result = (Missing(missing="failed", reason=f"{len(missing)} of {len(values)} runs have none"),) * 3
    else:
        first = missing[0] if missing else Missing(missing="not_run", reason="no run completed")
        if len({each.reason for each in missing}) > 1:
            first = Missing(missing=first.missing, reason=f"in all {len(missing)} runs; the first: {first.reason}")
        result = (first,) * 3
    return Aggregate(
        unit=unit,
        statistic="olympic_mean" if len(values) >= OLYMPIC_REPEATS else "median",
        value=result[0],
        lowest=result[1],
        highest=result[2],
        values=list(values),
    )


def read_repeats(directory: Path) -> Repeats | None:
    """Return the repeats in a directory, or ``None`` if it has none.

    Raises:
        RecordError: The file cannot be read, has another form, or leaves out a run that is there.
    """
    file = directory / REPEATS_FILE
    if not file.is_file():
        return None
    repeats = read_model(Repeats, file, hint="the file was edited or is incomplete")
    listed = {run.directory for run in repeats.runs}
    runs = set(map(_run_of, listed))
    others = sorted({each.parent.name for each in directory.glob(f"*/{RECORD_NAME}")} - listed)
    # An attempt is repeated if it did not complete, and only then.
    if left_out := [name for name in others if _run_of(name) not in runs or _has_completed(directory / name)]:
        raise UnusableRecord(
            f"{file} leaves out {', '.join(left_out)}, and the others may be the better ones",
            hint="the file was edited; name the runs themselves; each is then a column",
        )
    return repeats


def _run_of(directory: str) -> str:
    """Return the name of a run from the directory of one of its attempts."""
    return directory.partition(ATTEMPT)[0]


def _has_completed(run: Path) -> bool:
    try:
        return read_record(run).status.state == "completed"
    except RecordError:
        return False


def summarize_repeats(
    case: str, planned: int, runs: Sequence[RepeatedRun], root: Path, *, to: Path | None = None
) -> Repeats:
    """Read the records of repeats, aggregate their metrics, and write the result to ``to``.

    The directories of the started ``runs`` are relative to ``root``.

    Raises:
        RecordError: The file cannot be written.
    """
    records, described = [], []
    for run in runs:
        if run.state == "completed":
            try:
                record = read_record(root / run.directory)
            except RecordError:
                # The record was removed, or its disk is gone.
                run = run.model_copy(update={"state": "failed"})
            else:
                records.append(record)
                run = run.model_copy(update={"run_id": record.run_id})
        described.append(run)
    repeats = Repeats(
        case=case,
        planned=planned,
        runs=described,
        metrics={
            column.name: aggregate([column.value(record) for record in records], column.unit)
            for column in columns_of("repeats")
        },
    )
    if to is not None:
        write_atomically(to, repeats.model_dump_json(indent=2) + "\n")
    return repeats

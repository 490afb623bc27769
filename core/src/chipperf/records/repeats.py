"""Repeats: runs that differ in nothing but their seed, and what they say together.

How values of repeats become one is defined in ``docs/metrics.md``; nothing else in chipperf does it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from chipperf.errors import RecordError, UsageError, first_fault
from chipperf.records.columns import Unit, columns_of
from chipperf.records.files import write_atomically
from chipperf.records.schema import METRICS_VERSION, Missing, Number, _Model
from chipperf.records.store import read_record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

REPEATS_FILE = "repeats.json"

OLYMPIC_REPEATS = 5
"""From so many values on the lowest and the highest are dropped and the others averaged."""

ENOUGH_REPEATS = 3
"""Fewer independent seeds say nothing about the spread."""

_SEED_LIMIT = 2**32


class Aggregate(_Model):
    """One metric of all repeats.

    Attributes:
        unit: Unit of its values; ``fraction`` for a quality.
        statistic: How ``value`` was computed.
        value: The result.
        lowest: The lowest of the values.
        highest: The highest.
        values: All of them, in the order of the runs.
    """

    unit: Unit
    statistic: Literal["median", "olympic_mean"]
    value: Number
    lowest: Number
    highest: Number
    values: list[Number]


class RepeatedRun(_Model):
    """One of the repeats; ``directory`` is relative to the file's."""

    directory: str
    seed: int
    state: Literal["completed", "failed", "interrupted"]
    run_id: str | None = None


class Repeats(_Model):
    """Content of ``repeats.json``.

    Attributes:
        planned: How many runs were asked for.
        runs: Those that were begun.
        metrics: By name; of the completed runs.
    """

    version: Literal[1] = 1
    metrics_version: int = METRICS_VERSION
    case: str
    planned: int
    runs: list[RepeatedRun]
    metrics: dict[str, Aggregate]

    @property
    def completed(self) -> int:
        """Runs that completed."""
        return sum(run.state == "completed" for run in self.runs)


def repeat_seeds(first: int, count: int) -> list[int]:
    """Return the seed of each repeat: ``first`` and the numbers after it.

    Raises:
        UsageError: They exceed what a seed can be.
    """
    if first + count > _SEED_LIMIT:
        raise UsageError(
            f"{count} repeats from seed {first} on exceed the highest seed, {_SEED_LIMIT - 1}",
            hint="begin with a lower --seed",
        )
    return list(range(first, first + count))


def combine(values: Sequence[float]) -> float:
    """Return the olympic mean of :data:`OLYMPIC_REPEATS` values or more, and the median of fewer."""
    ordered, half = sorted(values), (len(values) - 1) // 2
    middle = ordered[1:-1] if len(values) >= OLYMPIC_REPEATS else ordered[half : len(values) - half]
    # Divided first: the sum of huge values need not be a float.
    return math.fsum(value / len(middle) for value in middle)


def aggregate(values: Sequence[Number], unit: Unit) -> Aggregate:
    """Return median or olympic mean, the lowest and the highest value.

    A value that is missing in one run cannot be left out: the others would look better, or worse, than all of them are.

    Args:
        values: Of one metric, one for each completed run.
        unit: Their unit.
    """
    known = [value for value in values if not isinstance(value, Missing)]
    olympic = len(values) >= OLYMPIC_REPEATS
    result = lowest = highest = _why_none(values)
    if known and len(known) == len(values):
        result, lowest, highest = combine(known), min(known), max(known)
    return Aggregate(
        unit=unit,
        statistic="olympic_mean" if olympic else "median",
        value=result,
        lowest=lowest,
        highest=highest,
        values=list(values),
    )


def read_repeats(directory: Path) -> Repeats | None:
    """Return what is known of the repeats in a directory, or ``None`` if it holds none.

    Raises:
        RecordError: The file cannot be read or is not of this form.
    """
    file = directory / REPEATS_FILE
    if not file.is_file():
        return None
    try:
        return Repeats.model_validate_json(file.read_bytes())
    except OSError as error:
        raise RecordError(f"cannot read {file}: {error.strerror}") from error
    except ValidationError as error:
        raise RecordError(f"{file}: {first_fault(error)}", hint="the file was edited or is incomplete") from error


def summarize_repeats(
    case: str, planned: int, runs: Sequence[RepeatedRun], root: Path, *, to: Path | None = None
) -> Repeats:
    """Read the records of repeats, aggregate their metrics, and keep the result.

    Args:
        case: Name of the case.
        planned: How many runs were asked for.
        runs: Those that were begun.
        root: What their directories are relative to.
        to: File for the result.

    Raises:
        RecordError: The file cannot be written.
    """
    records, described = [], []
    for run in runs:
        record = None
        if run.state == "completed":
            try:
                record = read_record(root / run.directory)
            except RecordError:
                # Somebody removed it, or its disk is gone.
                run = run.model_copy(update={"state": "failed"})
        if record is not None:
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


def _why_none(values: Sequence[Number]) -> Number:
    missing = [value for value in values if isinstance(value, Missing)]
    if not values:
        return Missing(missing="not_run", reason="no run completed")
    if len(missing) == len(values):
        return missing[0]
    return Missing(missing="failed", reason=f"{len(missing)} of {len(values)} runs have none") if missing else 0.0

"""What the trend of a row needs of each run. It is small, because a site may have thousands of runs."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chipperf.documents.format import marker
from chipperf.languages import Phrase, phrase
from chipperf.records.columns import columns_of
from chipperf.records.ratios import drawn_from, follows_from_windows
from chipperf.records.rows import aware
from chipperf.records.schema import Missing
from chipperf.report.comparability import FACTS, SAME_ROW

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from datetime import datetime

    from chipperf.records.columns import Column
    from chipperf.records.schema import Record

RATES: Final = tuple(column for column in columns_of("report") if column.kind == "throughput")
"""The throughputs that charts show."""

SOFTWARE: Final[Mapping[str, Phrase | str]] = {
    "driver": phrase("Driver"),
    "sdk": "SDK",
    "plugin": phrase("Plugin"),
}
"""What is told of the software at each point, and its title."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a trend needs of a completed run.

    Attributes:
        row: Equal for runs of one row of a report.
        software: Texts for :data:`SOFTWARE`.
        windows: For each of :data:`RATES` the rates of its windows in the order of time; empty if it has none or is not
            the median of them.
    """

    row: Hashable
    created: datetime
    software: tuple[Phrase | str, ...]
    windows: tuple[Sequence[float], ...]


def measure(record: Record) -> Measured | None:
    """Return what a trend needs of a run; ``None`` if it did not complete."""
    if record.status.state != "completed":
        return None
    changes = record.hyperparameters.changes
    settings = tuple((each.key, each.value) for each in changes) if isinstance(changes, list) else ()
    plugin, environment = record.vendor.plugin, record.environment
    return Measured(
        row=(*(FACTS[fact](record) for fact in SAME_ROW), settings),
        created=aware(record.created_at),
        software=(
            *(marker(text) if isinstance(text, Missing) else text for text in (environment.driver, environment.sdk)),
            f"{plugin.name} {plugin.version}",
        ),
        windows=tuple(array("d", _windows(column, record)) for column in RATES),
    )


def _windows(column: Column, record: Record) -> list[float]:
    throughput = column.throughput(record)
    return drawn_from(column, record) if throughput and follows_from_windows(throughput) else []

"""What the trend of a row needs of each run. It is small, because a site may have thousands of runs."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chipperf.documents.format import text_or_marker
from chipperf.languages import ENGLISH, Phrase, phrase
from chipperf.records.columns import BY_NAME, WINDOWED
from chipperf.records.ratios import drawn_from, follows_from_windows
from chipperf.records.rows import aware
from chipperf.report.comparability import FACTS, SAME_ROW

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from datetime import datetime

    from chipperf.records.schema import Record

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
        medians: One for each of the windowed throughputs; ``None`` if it is missing.
        windows: Rates of their windows in the order of time; empty if the median is not that of its windows.
    """

    row: Hashable
    created: datetime
    software: tuple[str, ...]
    medians: tuple[float | None, ...]
    windows: tuple[Sequence[float], ...]


def measure(record: Record) -> Measured | None:
    """Return what a trend needs of a run; ``None`` if it did not complete or has none of the throughputs."""
    columns = [BY_NAME[name] for name in WINDOWED]
    found = [column.value(record) for column in columns]
    medians = tuple(value if isinstance(value, float) else None for value in found)
    if record.status.state != "completed" or not any(medians):
        return None
    changes = record.hyperparameters.changes
    settings = tuple((each.key, each.value) for each in changes) if isinstance(changes, list) else ()
    plugin, environment = record.vendor.plugin, record.environment
    follows = [follows_from_windows(column.throughput(record)) for column in columns]
    return Measured(
        row=(*(FACTS[fact](record) for fact in SAME_ROW), settings),
        created=aware(record.created_at),
        software=(
            text_or_marker(environment.driver, ENGLISH),
            text_or_marker(environment.sdk, ENGLISH),
            f"{plugin.name} {plugin.version}",
        ),
        medians=medians,
        windows=tuple(
            array("d", drawn_from(column, record) if each else ())
            for column, each in zip(columns, follows, strict=True)
        ),
    )

"""What is reported of a run, in one table: every value with its unit, its place in a record, and who shows it.

Reports, comparisons, repeats, suites, the leaderboard, and everything that reads reports take their columns from here.
A new value needs a field of the schema, code that measures it, an entry here, and a definition in ``docs``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from chipperf.languages import Phrase, phrase
from chipperf.records.schema import Missing, Power, Throughput, TimeToTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chipperf.records.schema import Memory, Number, Record

Unit = Literal["fraction", "samples/s", "s", "bytes", "J/sample"]
"""Decides how a value is written and read: a fraction as the case writes its quality, bytes in GiB."""

Kind = Literal["time", "throughput", "result", "resource"]

Place = Literal["report", "legend", "leaderboard", "comparison", "repeats", "suite", "summary"]
"""Where values are shown: a report's performance table, its general table, pages, and what commands print or write."""

_RESULTS_FIRST: Final[tuple[Kind, ...]] = ("result", "time", "throughput", "resource")
_TIMES_LAST: Final[tuple[Kind, ...]] = ("throughput", "result", "time", "resource")
_ORDER: Final[Mapping[Place, tuple[Kind, ...]]] = {
    "report": ("time", "throughput", "result", "resource"),
    "legend": ("resource", "time", "throughput", "result"),
    "leaderboard": _RESULTS_FIRST,
    "comparison": _RESULTS_FIRST,
    "repeats": _TIMES_LAST,
    "suite": _TIMES_LAST,
    "summary": _TIMES_LAST,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A value of a run that is reported.

    Attributes:
        name: Its name, as ``docs/metrics.md`` and ``docs/compare.md`` define it.
        unit: Its unit.
        kind: What it is about; places show one kind after the other.
        field: Its field in a record.
        shown: Where it is shown; the general table has whatever has a legend.
        higher_is_better: Whether a higher value is the better one.
        header: Header of its column in a report, where that is not its name. A case has its own for the quality.
        title: Its title on the leaderboard, where that is not the header.
        legend: What the general table of a report calls it.
        remark: What the general table says of it; ``samples`` is what the case counts.
        aliases: Further headers that people write for it.
        fallback: Field that stands in for it where it is missing.
        is_windowed: True for the median of measurement windows.
        is_headline: True for the value that a report emphasizes.
        compute: Computes a value that no field has.
    """

    name: str
    unit: Unit
    kind: Kind
    field: str
    shown: tuple[Place, ...]
    higher_is_better: bool
    header: str = ""
    title: Phrase | None = None
    legend: Phrase | None = None
    remark: Phrase | None = None
    aliases: tuple[str, ...] = ()
    fallback: str | None = None
    is_windowed: bool = False
    is_headline: bool = False
    compute: Callable[[Record], Number] | None = None

    @property
    def headers(self) -> tuple[Phrase | str, ...]:
        """Every header or label that reports have for it."""
        return (self.key, *((self.legend,) if self.legend else ()), *self.aliases)

    @property
    def key(self) -> str:
        """Header in a report, and what readers of reports call the column."""
        return self.header or self.name

    def value(self, record: Record) -> Number:
        """Return the value of a run, whether it completed or not."""
        return self.compute(record) if self.compute else self.find(record)[1]

    def throughput(self, record: Record) -> Throughput | None:
        """Return the windows behind the value; ``None`` if it has none."""
        found = _follow(record, self.field)[1]
        return found if isinstance(found, Throughput) else None

    def find(self, record: Record) -> tuple[str, Number]:
        """Return the path of the field that has the value, and the value; of a missing one, where that is said."""
        path, found = _follow(record, self.field)
        if self.fallback and isinstance(found, Missing):
            path, found = _follow(record, self.fallback)
        if isinstance(found, Throughput):
            return f"{path}.median", found.median
        if isinstance(found, TimeToTarget):
            return f"{path}.seconds", found.seconds
        return path, found


def _follow(record: Record, field: str) -> tuple[str, Any]:
    """Return the value at a path, or the missing value in which the path ends, and the path that was followed."""
    found: Any = record
    passed: list[str] = []
    for name in field.split("."):
        if isinstance(found, Missing):
            break
        found = getattr(found, name)
        passed.append(name)
    return ".".join(passed), found


def peak_source(memory: Memory) -> Literal["device", "allocator"]:
    """Return whose peak is that of used memory: the device's, or the allocator's where the device's is not known."""
    return "allocator" if isinstance(memory.device_peak_bytes, Missing) else "device"


def _energy_per_sample(record: Record) -> Number:
    power, samples = record.metrics.power, record.metrics.train_samples
    if not isinstance(power, Power):
        return power
    if isinstance(power.energy_j, Missing):
        return power.energy_j
    if isinstance(samples, Missing):
        return samples
    return power.energy_j / samples if samples else Missing(missing="not_run", reason="no sample was trained on")


COLUMNS: Final = (
    Column(
        name="e2e_time",
        unit="s",
        kind="time",
        field="metrics.e2e_time_s",
        shown=("report", "leaderboard", "comparison", "repeats", "suite", "summary"),
        higher_is_better=False,
        legend=phrase("End-to-end time"),
        remark=phrase("total time, initialisation included"),
        aliases=("运行时长",),
    ),
    Column(
        name="p_whole",
        unit="samples/s",
        kind="throughput",
        field="metrics.p_whole",
        shown=("report", "leaderboard", "comparison", "repeats", "summary"),
        higher_is_better=True,
        legend=phrase("Overall throughput"),
        remark=phrase("%(samples)s trained on divided by total time (performance_whole)"),
        aliases=("性能", "throughput"),
    ),
    Column(
        name="p_train",
        unit="samples/s",
        kind="throughput",
        field="metrics.p_train",
        shown=("report", "leaderboard", "comparison", "repeats", "suite", "summary"),
        higher_is_better=True,
        legend=phrase("Training throughput"),
        remark=phrase("without the evaluation at the end of each epoch"),
        is_windowed=True,
    ),
    Column(
        name="p_core",
        unit="samples/s",
        kind="throughput",
        field="metrics.p_core",
        shown=("report", "leaderboard", "comparison", "repeats", "suite", "summary"),
        higher_is_better=True,
        legend=phrase("Compute throughput"),
        remark=phrase("without data input and output (p3>p2>p1)"),
        is_windowed=True,
        is_headline=True,
    ),
    Column(
        name="quality",
        unit="fraction",
        kind="result",
        field="metrics.quality",
        shown=("report", "leaderboard", "comparison", "repeats", "suite", "summary"),
        higher_is_better=True,
        title=phrase("Quality"),
        legend=phrase("Training result"),
        aliases=("收敛精度", "result"),
    ),
    Column(
        name="best_quality",
        unit="fraction",
        kind="result",
        field="metrics.best_quality",
        shown=("comparison",),
        higher_is_better=True,
    ),
    Column(
        name="time_to_target",
        unit="s",
        kind="result",
        field="metrics.time_to_target",
        shown=("leaderboard", "comparison", "repeats", "suite"),
        higher_is_better=False,
        title=phrase("Time to target (s)"),
    ),
    Column(
        name="mem_peak",
        unit="bytes",
        kind="resource",
        field="metrics.memory.device_peak_bytes",
        shown=("report", "leaderboard", "comparison"),
        higher_is_better=False,
        header="mem",
        legend=phrase("Device memory"),
        remark=phrase("in GiB"),
        aliases=("显存", "memory"),
        fallback="metrics.memory.allocated_peak_bytes",
    ),
    Column(
        name="energy_per_sample",
        unit="J/sample",
        kind="resource",
        field="metrics.power.energy_j",
        shown=("comparison",),
        higher_is_better=False,
        compute=_energy_per_sample,
    ),
)


def columns_of(place: Place) -> tuple[Column, ...]:
    """Return the columns that are shown in a place, in its order."""
    order = _ORDER[place]
    shown = (each for each in COLUMNS if (each.legend if place == "legend" else place in each.shown))
    return tuple(sorted(shown, key=lambda each: order.index(each.kind)))


BY_NAME: Final = {each.name: each for each in COLUMNS}

THROUGHPUTS: Final = tuple(each.key for each in reversed(columns_of("report")) if each.unit == "samples/s")
"""A report's columns of throughputs; the first says most of the device itself."""

WINDOWED: Final = tuple(each.name for each in COLUMNS if each.is_windowed)
"""Names of the throughputs that are medians of measurement windows."""

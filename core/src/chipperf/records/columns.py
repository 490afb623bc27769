"""The table of all reported values: the unit, the record field and the places of each.

Reports, comparisons, repeats, suites, the leaderboard, and the code that reads reports take their columns from here. A
new value needs a schema field, code that measures it, an entry here, and a definition in ``docs``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from chipperf.languages import Phrase, phrase
from chipperf.records.limit_shares import share_of_bus, share_of_peak, share_of_products
from chipperf.records.memory_peak import ALLOCATOR_PEAK, DEVICE_PEAK
from chipperf.records.schema import Missing, Power, Throughput, TimeToTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chipperf.records.schema import Number, Record

T = TypeVar("T")

Unit = Literal["fraction", "share", "samples/s", "s", "bytes", "J/sample"]
"""Decides how a value is written and read: a fraction in the case's format for quality, a share in percent, bytes in
GiB."""

Kind = Literal["time", "throughput", "result", "resource", "limit"]

Place = Literal["report", "legend", "evidence", "leaderboard", "comparison", "repeats", "suite", "summary"]
"""Where a value is shown: a report's performance table, its general table, its evidence, a page, or a command."""

_ORDER: Final[tuple[Kind, ...]] = ("throughput", "result", "time", "resource", "limit")
_ORDERS: Final[Mapping[Place, tuple[Kind, ...]]] = {
    "report": ("time", "throughput", "result", "resource"),
    "legend": ("resource", "time", "throughput", "result"),
    "leaderboard": ("result", "time", "throughput", "resource", "limit"),
    "comparison": ("result", "time", "throughput", "resource", "limit"),
}
"""Order of the kinds of values in a place that has its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A reported value of a run.

    Attributes:
        name: Name, as defined in ``docs/metrics.md`` and ``docs/compare.md``.
        kind: Subject of the value. Each place groups its values by kind.
        field: Field of the record.
        shown: Where it is shown. The general table shows every value that has a legend.
        header: Header of its column in a report; by default its name. A case has its own header for the quality.
        title: Title on the leaderboard; by default the header.
        legend: Label in the general table of a report.
        remark: Remark in the general table; ``samples`` stands for the case's unit of samples.
        aliases: Other headers that people write for it.
        fallback: Field to use if ``field`` is missing.
        is_windowed: True for the median of measurement windows.
        is_headline: True for the value that a report emphasizes.
        compute: Computes a value that has no field of its own; ``field`` is then the main field that it is made from.
    """

    name: str
    unit: Unit
    kind: Kind
    field: str
    shown: tuple[Place, ...]
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
        """Every header or label of the column in reports."""
        return (self.key, *((self.legend,) if self.legend else ()), *self.aliases)

    @property
    def higher_is_better(self) -> bool:
        """True for throughputs, results and shares of a limit."""
        return self.unit in ("samples/s", "fraction", "share")

    @property
    def key(self) -> str:
        """Header in a report. Code that reads reports uses it as the column's key."""
        return self.header or self.name

    def value(self, record: Record) -> Number:
        """Return the value of a run, completed or not."""
        return self.find(record)[1]

    def throughput(self, record: Record) -> Throughput | None:
        """Return the throughput with its windows, or ``None`` if the value has none."""
        found = _follow(record, self.field)[1]
        return found if isinstance(found, Throughput) else None

    def spread(self, record: Record) -> float | None:
        """Return the interquartile range of the value's windows, or ``None`` if it has none."""
        throughput = self.throughput(record)
        return throughput.iqr if throughput else None

    def find(self, record: Record) -> tuple[str, Number]:
        """Return the path of the field with the value, and the value. A missing value has the path that states it."""
        path, found = _follow(record, self.field)
        if self.compute:
            return path, self.compute(record)
        if self.fallback and isinstance(found, Missing):
            path, found = _follow(record, self.fallback)
        if isinstance(found, Throughput):
            return f"{path}.median", found.median
        if isinstance(found, TimeToTarget):
            return f"{path}.seconds", found.seconds
        return path, found


def _follow(record: Record, field: str) -> tuple[str, Any]:
    """Return the path that was followed, and the value at its end. A missing value or a number ends the path early."""
    found: Any = record
    passed: list[str] = []
    for name in field.split("."):
        if isinstance(found, Missing | float | int):
            break
        found = getattr(found, name)
        passed.append(name)
    return ".".join(passed), found


def _energy_per_sample(record: Record) -> Number:
    power, samples = record.metrics.power, record.metrics.train_samples
    energy_j = power.energy_j if isinstance(power, Power) else power
    if isinstance(energy_j, Missing):
        return energy_j
    if isinstance(samples, Missing):
        return samples
    return energy_j / samples if samples else Missing(missing="not_run", reason="no sample was trained on")


def completed_value(record: Record, value: T | Missing) -> T | Missing:
    """Return a value of a run, or a missing value of kind ``failed`` if the run did not complete."""
    state = record.status.state
    if state == "completed" or (isinstance(value, Missing) and value.missing == "not_applicable"):
        return value
    failure = record.status.failure
    return Missing(missing="failed", reason=failure.failure_class if failure else state)


COLUMNS: Final = (
    Column(
        name="e2e_time",
        unit="s",
        kind="time",
        field="metrics.e2e_time_s",
        shown=("report", "leaderboard", "comparison", "repeats", "suite", "summary"),
        legend=phrase("End-to-end time"),
        remark=phrase("total time, initialization included"),
        aliases=("运行时长",),
    ),
    Column(
        name="p_whole",
        unit="samples/s",
        kind="throughput",
        field="metrics.p_whole",
        shown=("report", "leaderboard", "comparison", "repeats", "summary"),
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
    ),
    Column(
        name="time_to_target",
        unit="s",
        kind="result",
        field="metrics.time_to_target",
        shown=("leaderboard", "comparison", "repeats", "suite"),
        title=phrase("Time to target (s)"),
    ),
    Column(
        name="mem_peak",
        unit="bytes",
        kind="resource",
        field=DEVICE_PEAK,
        shown=("report", "leaderboard", "comparison"),
        header="mem",
        legend=phrase("Device memory"),
        remark=phrase("in GiB"),
        aliases=("显存", "memory"),
        fallback=ALLOCATOR_PEAK,
    ),
    Column(
        name="energy_per_sample",
        unit="J/sample",
        kind="resource",
        field="metrics.power.energy_j",
        shown=("leaderboard", "comparison"),
        title=phrase("Energy per sample (J)"),
        compute=_energy_per_sample,
    ),
    Column(
        name="mfu",
        unit="share",
        kind="limit",
        field="machine_limits.products_flops_per_s",
        shown=("evidence", "leaderboard", "comparison"),
        title=phrase("Share of measured products"),
        compute=share_of_products,
    ),
    Column(
        name="peak_share",
        unit="share",
        kind="limit",
        field="machine_limits.peak_flops_per_s",
        shown=("evidence", "leaderboard", "comparison"),
        title=phrase("Share of the data sheet's peak"),
        compute=share_of_peak,
    ),
    Column(
        name="bus_share",
        unit="share",
        kind="limit",
        field="machine_limits.bus_bytes_per_s",
        shown=("evidence", "leaderboard", "comparison"),
        title=phrase("Share of measured bus"),
        compute=share_of_bus,
    ),
)


def columns_of(place: Place) -> tuple[Column, ...]:
    """Return the columns that a place shows, in its order."""
    order = _ORDERS.get(place, _ORDER)
    shown = (each for each in COLUMNS if (each.legend if place == "legend" else place in each.shown))
    return tuple(sorted(shown, key=lambda each: order.index(each.kind)))


BY_NAME: Final = {each.name: each for each in COLUMNS}

THROUGHPUTS: Final = tuple(each.key for each in reversed(columns_of("report")) if each.unit == "samples/s")
"""A report's throughput columns. The first depends most on the device itself."""

WINDOWED: Final = tuple(each.name for each in COLUMNS if each.is_windowed)
"""Names of the throughputs that are medians of measurement windows."""

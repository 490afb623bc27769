"""Tables of runs that may stand side by side: one for each case, dataset, kind of record and definition of metrics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from chipperf.cases.registry import find_case
from chipperf.documents import format as formatting
from chipperf.errors import PerfError
from chipperf.records.measures import headline, peak_source, used_peak
from chipperf.records.plausibility import outcome
from chipperf.records.schema import Memory, Missing, Throughput, TimeToTarget
from chipperf.report.build import record_digest
from chipperf.report.curves import MINIMUM_POINTS, read_points
from chipperf.report.row_identity import card_short_name, configuration_name, fix_hp, precision_name, row_label
from chipperf.web.cell import Cell, cell, result_cell
from chipperf.web.text import Bilingual, same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from chipperf.cases.base import Case
    from chipperf.records.schema import Dataset, Record

Verdict = Literal["converged", "no_target", "below_target", "unknown", "not_completed"]
"""What a run came to, best first."""

VERDICTS: Mapping[Verdict, Bilingual] = {
    "converged": Bilingual("达到目标", "converged"),
    "no_target": Bilingual("没有目标值", "no target"),
    "below_target": Bilingual("低于目标", "below target"),
    "unknown": Bilingual("结果未知", "result not known"),
    "not_completed": Bilingual("没有完成", "not completed"),
}

_NOT_REACHED = Bilingual("未达到", "not reached")
_SAMPLES = Bilingual("每秒样本数", "samples per second")

STATES: Mapping[str, Bilingual] = {
    "running": Bilingual("运行中", "running"),
    "completed": Bilingual("已完成", "completed"),
    "failed": Bilingual("出错", "failed"),
    "interrupted": Bilingual("被中断", "interrupted"),
    "killed": Bilingual("被终止", "killed"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a board.

    Attributes:
        name: Its name in the page's code.
        title: Its heading; that of the quality is the case's.
        field: The field of most of its cells.
    """

    name: str
    title: Bilingual
    field: str


COLUMNS = (
    Column(name="vendor", title=Bilingual("厂商", "Vendor"), field="vendor.name"),
    Column(name="device", title=Bilingual("加速卡", "Device"), field="environment.row_label"),
    Column(name="topology", title=Bilingual("拓扑", "Topology"), field="topology"),
    Column(name="precision", title=Bilingual("精度", "Precision"), field="precision"),
    Column(name="quality", title=Bilingual("训练结果", "Quality"), field="metrics.quality"),
    Column(name="verdict", title=Bilingual("结论", "Verdict"), field="metrics.quality"),
    Column(
        name="time_to_target", title=Bilingual("达标时间 (s)", "Time to target (s)"), field="metrics.time_to_target"
    ),
    Column(name="e2e_time", title=same("e2e_time (s)"), field="metrics.e2e_time_s"),
    Column(name="p_whole", title=same("p_whole"), field="metrics.p_whole"),
    Column(name="p_train", title=same("p_train"), field="metrics.p_train.median"),
    Column(name="p_core", title=same("p_core"), field="metrics.p_core.median"),
    Column(name="mem", title=same("mem (GiB)"), field="metrics.memory.device_peak_bytes"),
    Column(name="fix_hp", title=same("fix_hp"), field="hyperparameters.changes"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """What a board keeps of a run, of which a site may have thousands.

    Attributes:
        run_id: The run.
        digest: SHA-256 of its record.
        page: Link to the run's own page; ``None`` on that page itself.
        label: Device, topology and precision on one line.
        vendor: The vendor's name, for filters; so are topology, precision and verdict.
        cells: One for each of :data:`COLUMNS`.
        state: How far the run came.
        simulated: True if nothing was measured on a real device.
        sample: True if the dataset was generated.
        shortened: True if the run was not the case's full schedule.
        curve: Epoch and quality of every evaluation; empty without a completed run or with too few of them.
        target: Quality at which the run counts as converged.
        throughputs: ``p_whole``, ``p_train`` and ``p_core``; ``None`` where there is none to be shown.
    """

    run_id: str
    digest: str
    page: str | None
    label: str
    vendor: str
    topology: str
    precision: str
    verdict: Verdict
    cells: tuple[Cell, ...]
    state: str
    simulated: bool
    sample: bool
    shortened: bool
    curve: tuple[tuple[float, float], ...]
    target: float | None
    throughputs: tuple[float | None, float | None, float | None]

    @property
    def order(self) -> tuple[bool, bool, int, float]:
        """Return the place among the rows of a board: whole runs that converged first, then the fastest."""
        fastest = max((rate for rate in self.throughputs if rate is not None), default=0.0)
        return self.state != "completed", self.shortened, list(VERDICTS).index(self.verdict), -fastest


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardKey:
    """What the runs of one board have in common, so that their numbers mean the same."""

    case: str
    case_version: str
    metric: str
    dataset: str
    fingerprint: str
    sample: bool
    kind: Literal["measured", "simulated", "imported"]
    metrics_definition: str
    metrics_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """Runs side by side.

    Attributes:
        key: What they have in common.
        quality_column: What the case calls its quality.
        quality_as_percent: True if the quality is written in percent.
        samples: What the throughputs count, for each second.
        rows: The runs, best first.
        omitted: How many more there are than a page takes.
    """

    key: BoardKey
    quality_column: str
    quality_as_percent: bool
    samples: Bilingual
    rows: tuple[RunRow, ...]
    omitted: int

    @property
    def targets(self) -> tuple[float, ...]:
        """Every target of a run, once."""
        return tuple(dict.fromkeys(row.target for row in self.rows if row.target is not None))


@lru_cache
def installed_case(name: str) -> Case | None:
    """Return a case, or ``None`` if it is not installed here or broken: its runs can be shown all the same."""
    try:
        return find_case(name)
    except PerfError:
        return None


def board_key(record: Record) -> BoardKey:
    """Return which board a run belongs to."""
    dataset = record.dataset
    return BoardKey(
        case=record.case.name,
        case_version=record.case.version,
        metric=record.case.metric,
        dataset=_dataset(dataset),
        fingerprint="" if isinstance(dataset.fingerprint, Missing) else dataset.fingerprint,
        sample=dataset.is_sample,
        kind=record.kind,
        metrics_definition=record.metrics_definition,
        metrics_version=record.metrics_version,
    )


def make_boards(runs: Iterable[tuple[BoardKey, RunRow]], *, most_rows: int) -> tuple[Board, ...]:
    """Put runs into boards: by case, and of each case those first that were measured on the real dataset.

    Args:
        runs: Runs, each with the board it belongs to.
        most_rows: How many rows all boards together may have; the worst of each board go first.
    """
    groups: dict[BoardKey, list[RunRow]] = {}
    for key, row in runs:
        groups.setdefault(key, []).append(row)
    kinds = ("measured", "simulated", "imported")
    order = sorted(
        groups,
        key=lambda key: (key.case, key.sample, kinds.index(key.kind), key.case_version, key.dataset, key.fingerprint),
    )
    taken = _shares([len(groups[key]) for key in order], most_rows)
    return tuple(_board(key, groups[key], count) for key, count in zip(order, taken, strict=True))


def summarise(record: Record, *, digest: str | None = None, page: str | None = None) -> RunRow:
    """Return the row of a run.

    Args:
        record: The run.
        digest: SHA-256 of its file; that of the file it would be written to, if not given.
        page: Link to its own page.
    """
    case = installed_case(record.case.name)
    verdict = _verdict(record)
    metrics = record.metrics
    completed = record.status.state == "completed"
    rates = (metrics.p_whole, headline(metrics.p_train), headline(metrics.p_core))
    points = read_points(record, "quality").points if completed else ()
    target = record.case.target
    return RunRow(
        run_id=record.run_id,
        digest=digest or record_digest(record),
        page=page,
        label=configuration_name(record),
        vendor=record.vendor.name,
        topology=record.topology.label,
        precision=record.precision.requested,
        verdict=verdict,
        cells=tuple(_cells(record, case, verdict)),
        state=record.status.state,
        simulated=record.kind == "simulated",
        sample=record.dataset.is_sample,
        shortened=record.limits.shortened or record.case.preset != "full",
        curve=tuple((point.epoch or 0.0, point.value) for point in points) if len(points) >= MINIMUM_POINTS else (),
        target=None if isinstance(target, Missing) else target,
        throughputs=_known_rates(rates) if completed else (None, None, None),
    )


def _known_rates(rates: Sequence[float | Missing]) -> tuple[float | None, float | None, float | None]:
    whole, train, core = (None if isinstance(rate, Missing) else rate for rate in rates)
    return whole, train, core


def _shares(counts: Sequence[int], most: int) -> list[int]:
    """Return how many rows each board may show: small boards show all, and large ones share what is left."""
    shares = [0] * len(counts)
    left = most
    for place, index in enumerate(sorted(range(len(counts)), key=counts.__getitem__)):
        shares[index] = min(counts[index], left // (len(counts) - place))
        left -= shares[index]
    return shares


def _board(key: BoardKey, rows: Sequence[RunRow], count: int) -> Board:
    case = installed_case(key.case)
    ordered = sorted(rows, key=lambda row: row.order)
    noun = case.report.sample_noun if case else None
    return Board(
        key=key,
        quality_column=case.report.quality_column if case else key.metric,
        quality_as_percent=case.report.quality_as_percent if case else False,
        samples=Bilingual(f"每秒{noun.zh}数", f"{noun.en} per second")
        if noun
        else Bilingual("每秒样本数", "samples/s"),
        rows=tuple(ordered[:count]),
        omitted=len(rows) - count,
    )


def _dataset(dataset: Dataset) -> str:
    return dataset.name if isinstance(dataset.version, Missing) else f"{dataset.name} {dataset.version}"


def _verdict(record: Record) -> Verdict:
    if record.status.state != "completed":
        return "not_completed"
    result = outcome(record)
    return "unknown" if result == "not_run" else result


def _cells(record: Record, case: Case | None, verdict: Verdict) -> Iterable[Cell]:
    metrics = record.metrics
    exact = record.kind == "imported"

    def number(value: float) -> object:
        return formatting.number(value, exact=exact)

    yield cell(record.vendor.name, "vendor.name")
    yield _device(record)
    yield cell(record.topology.label, "topology")
    yield cell(precision_name(record), "precision")
    percent = case.report.quality_as_percent if case else False
    yield result_cell(
        record,
        metrics.quality,
        "metrics.quality",
        lambda value: formatting.quality(value, as_percent=percent, exact=exact),
    )
    yield Cell(
        text=VERDICTS[verdict] if verdict != "not_completed" else STATES[record.status.state],
        field="status" if verdict == "not_completed" else "metrics.quality",
        sort=list(VERDICTS).index(verdict),
    )
    yield _time_to_target(record, verdict, number)
    yield result_cell(record, metrics.e2e_time_s, "metrics.e2e_time_s", number)
    yield result_cell(record, metrics.p_whole, "metrics.p_whole", number)
    for name, rate in (("p_train", metrics.p_train), ("p_core", metrics.p_core)):
        field = f"metrics.{name}.median" if isinstance(rate, Throughput) else f"metrics.{name}"
        yield result_cell(record, headline(rate), field, number)
    yield _memory(record, exact=exact)
    if case:
        yield cell(fix_hp(record, case), "hyperparameters.changes")
    else:
        missing = Missing(missing="unknown", reason=f"case {record.case.name} is not installed here")
        yield cell(missing, "hyperparameters.changes")


def _time_to_target(record: Record, verdict: Verdict, write: Callable[[float], object]) -> Cell:
    reached = record.metrics.time_to_target
    if isinstance(reached, TimeToTarget):
        return result_cell(record, reached.seconds, "metrics.time_to_target.seconds", write)
    shown = result_cell(record, reached, "metrics.time_to_target", write)
    # The reason, which repeats result and target, is told with the value's source.
    return replace(shown, text=_NOT_REACHED) if verdict == "below_target" else shown


def _device(record: Record) -> Cell:
    label = row_label(record)
    if not isinstance(label, Missing):
        return cell(label, "environment.row_label")
    return cell(card_short_name(record), "environment.card_short_name")


def _memory(record: Record, *, exact: bool) -> Cell:
    """Return the device's peak, or the allocator's where the device's is not known, and the capacity."""
    memory = record.metrics.memory
    if not isinstance(memory, Memory):
        return result_cell(record, memory, "metrics.memory")
    name = "device_peak_bytes" if peak_source(memory) == "device" else "allocated_peak_bytes"

    def of_total(value: int) -> Bilingual:
        used, total = (
            cell(size, "", lambda size: formatting.gib(size, exact=exact)) for size in (value, memory.total_bytes)
        )
        return Bilingual(f"{used.text.zh}/{total.text.zh}", f"{used.text.en}/{total.text.en}")

    return result_cell(record, used_peak(memory), f"metrics.memory.{name}", of_total)

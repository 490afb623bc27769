"""Everything else that a record says: facts with their fields, in sections."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from chipperf.documents import format as formatting
from chipperf.records.schema import Memory, Missing, Power, Throughput
from chipperf.report.row_identity import not_blank
from chipperf.web.board import STATES, installed_case
from chipperf.web.cell import Cell, cell, result_cell
from chipperf.web.text import Bilingual, same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from chipperf.records.schema import Number, Record

_MOST_FACTS = 200
"""Facts of one section; a record may list any number of warnings."""

_EMPTY = '""'

_ENVIRONMENT = {
    "machine": Bilingual("机器型号", "Machine"),
    "card_title": Bilingual("加速卡型号", "Accelerator"),
    "cpu": Bilingual("CPU 型号", "CPU"),
    "network": Bilingual("多机网络", "Network"),
    "os": Bilingual("操作系统", "OS"),
    "kernel": Bilingual("OS 内核", "Kernel"),
    "driver": Bilingual("驱动", "Driver"),
    "container": Bilingual("容器", "Container"),
    "framework": Bilingual("训练框架", "Framework"),
    "compiler": Bilingual("编译器", "Compiler"),
    "dependencies": Bilingual("依赖软件", "Dependencies"),
    "python": same("Python"),
    "torch": same("torch"),
    "sdk": same("SDK"),
    "collectives": Bilingual("集合通信", "Collectives"),
}
_MEMORY = {
    "allocated_peak_bytes": Bilingual("分配器已分配峰值", "Allocator peak, allocated"),
    "reserved_peak_bytes": Bilingual("分配器保留峰值", "Allocator peak, reserved"),
    "device_peak_bytes": Bilingual("设备峰值", "Device peak"),
    "total_bytes": Bilingual("设备总量", "Device total"),
}
_POWER = {
    "mean_w": Bilingual("平均功率 (W)", "Mean power (W)"),
    "max_w": Bilingual("最大功率 (W)", "Max power (W)"),
    "energy_j": Bilingual("能耗 (J)", "Energy (J)"),
    "mean_temperature_c": Bilingual("平均温度 (°C)", "Mean temperature (°C)"),
    "max_temperature_c": Bilingual("最高温度 (°C)", "Max temperature (°C)"),
    "mean_utilisation_percent": Bilingual("平均利用率 (%)", "Mean utilisation (%)"),
}
_PRECISION = {
    "requested": Bilingual("请求的精度", "Requested"),
    "effective": Bilingual("实际精度", "Effective"),
    "measured_matmul": Bilingual("实测，矩阵乘", "Measured, matrix product"),
    "measured_convolution": Bilingual("实测，卷积", "Measured, convolution"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A named value."""

    name: Bilingual
    value: Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Facts on one subject; ``omitted`` is how many more the record has than a page shows."""

    title: Bilingual
    facts: tuple[Fact, ...]
    omitted: int = 0


def describe(record: Record) -> tuple[Section, ...]:
    """Return the sections of a run's page; those without facts are left out."""
    sections = (
        (Bilingual("运行", "Run"), _run(record)),
        (Bilingual("环境", "Environment"), _environment(record)),
        (Bilingual("吞吐量和时间", "Throughput and times"), _throughput(record)),
        (Bilingual("内存 (GiB)", "Memory (GiB)"), _memory(record)),
        (Bilingual("训练期间的遥测", "Telemetry during training"), _power(record)),
        (Bilingual("精度", "Precision"), _precision(record)),
        (Bilingual("数据集", "Dataset"), _dataset(record)),
        (Bilingual("超参修改", "Hyperparameter changes"), _changes(record)),
        (Bilingual("影响数值或速度的设置", "Settings that change numerics or speed"), _knobs(record)),
        (Bilingual("中断", "Interruptions"), _interruptions(record)),
        (Bilingual("警告", "Warnings"), _texts(record.warnings, "warnings")),
        (Bilingual("停用的观察器", "Disabled observers"), _texts(record.disabled_observers, "disabled_observers")),
        (Bilingual("文档中的其他内容", "More of the document"), _texts(record.remarks, "remarks")),
    )
    return tuple(_section(title, list(facts)) for title, facts in sections if facts)


def _section(title: Bilingual, facts: Sequence[Fact]) -> Section:
    return Section(title=title, facts=tuple(facts[:_MOST_FACTS]), omitted=max(0, len(facts) - _MOST_FACTS))


def _fact(name: Bilingual | str, value: Cell) -> Fact:
    return Fact(name=same(name) if isinstance(name, str) else name, value=value)


def _number(record: Record) -> Callable[[float], object]:
    return partial(formatting.number, exact=record.kind == "imported")


def _run(record: Record) -> list[Fact]:
    status, failure = record.status, record.status.failure
    facts = [
        _fact(Bilingual("编号", "Id"), cell(record.run_id, "run_id")),
        _fact(Bilingual("状态", "Status"), cell(STATES[status.state], "status.state", lambda text: text)),
        _fact(Bilingual("时间", "Created"), cell(record.created_at.isoformat(timespec="seconds"), "created_at")),
        _fact(Bilingual("种子", "Seed"), cell(record.seed, "seed")),
        _fact(Bilingual("预设", "Preset"), cell(record.case.preset, "case.preset")),
        _fact("chipperf", cell(record.chipperf_version, "chipperf_version")),
        _fact(
            Bilingual("插件", "Plugin"),
            cell(f"{record.vendor.plugin.name} {record.vendor.plugin.version}", "vendor.plugin"),
        ),
    ]
    if failure:
        facts[2:2] = [
            _fact(Bilingual("原因", "Cause"), cell(failure.failure_class, "status.failure.failure_class")),
            _fact(Bilingual("说明", "Message"), cell(failure.message, "status.failure.message")),
        ]
    limits = record.limits.model_dump(exclude_none=True)
    return facts + [_fact(name, cell(value, f"limits.{name}")) for name, value in limits.items()]


def _environment(record: Record) -> list[Fact]:
    environment = record.environment
    facts = [
        _fact(name, cell(not_blank(getattr(environment, field)), f"environment.{field}"))
        for field, name in _ENVIRONMENT.items()
    ]
    return [
        *facts,
        _fact(Bilingual("CPU 核数", "CPU cores"), cell(environment.cpu_cores, "environment.cpu_cores")),
        _fact(
            Bilingual("内存 (GiB)", "Memory (GiB)"),
            cell(environment.memory_bytes, "environment.memory_bytes", formatting.gib),
        ),
    ]


def _throughput(record: Record) -> list[Fact]:
    metrics, write = record.metrics, _number(record)
    facts = [
        _fact("p_whole", result_cell(record, metrics.p_whole, "metrics.p_whole", write)),
        *_windows(record, "p_train", metrics.p_train),
        *_windows(record, "p_core", metrics.p_core),
        _fact("e2e_time (s)", result_cell(record, metrics.e2e_time_s, "metrics.e2e_time_s", write)),
        _fact(
            Bilingual("训练时间 (s)", "Training time (s)"),
            result_cell(record, metrics.train_seconds, "metrics.train_seconds", write),
        ),
        _fact(same("epochs"), result_cell(record, metrics.epochs, "metrics.epochs", write)),
        _fact(
            same("data_stall"),
            result_cell(record, metrics.data_stall, "metrics.data_stall", partial(formatting.quality, as_percent=True)),
        ),
    ]
    if record.status.state != "completed":
        return facts
    return facts + [
        _fact(f"{span.name} (s)", cell(span.seconds, f"metrics.spans.{index}.seconds", write))
        for index, span in enumerate(metrics.spans)
    ]


def _windows(record: Record, name: str, throughput: Throughput | Number) -> Iterator[Fact]:
    write = _number(record)
    if not isinstance(throughput, Throughput):
        yield _fact(name, result_cell(record, throughput, f"metrics.{name}", write))
        return
    for field, title in (
        ("median", Bilingual("中位数", "median")),
        ("iqr", same("IQR")),
        ("mean_of_totals", Bilingual("总量", "totals")),
    ):
        label = Bilingual(f"{name}，{title.zh}", f"{name}, {title.en}")
        yield _fact(label, result_cell(record, getattr(throughput, field), f"metrics.{name}.{field}", write))
    label = Bilingual(f"{name}，窗口数", f"{name}, windows")
    yield _fact(label, result_cell(record, len(throughput.windows), f"metrics.{name}.windows"))


def _memory(record: Record) -> list[Fact]:
    memory = record.metrics.memory
    if not isinstance(memory, Memory):
        return [_fact(same("mem"), result_cell(record, memory, "metrics.memory"))]
    write = partial(formatting.gib, exact=record.kind == "imported")
    peaks = [
        _fact(name, result_cell(record, getattr(memory, field), f"metrics.memory.{field}", write))
        for field, name in _MEMORY.items()
    ]
    sources = (
        ("allocator_source", Bilingual("分配器来源", "Allocator source"), memory.allocator_source),
        ("device_source", Bilingual("设备来源", "Device source"), memory.device_source),
    )
    return peaks + [_fact(name, cell(text, f"metrics.memory.{field}")) for field, name, text in sources if text]


def _power(record: Record) -> list[Fact]:
    power = record.metrics.power
    if not isinstance(power, Power):
        return [_fact(Bilingual("功率", "Power"), result_cell(record, power, "metrics.power"))]
    write = _number(record)
    return [
        *(
            _fact(name, result_cell(record, getattr(power, field), f"metrics.power.{field}", write))
            for field, name in _POWER.items()
        ),
        _fact(Bilingual("来源", "Source"), cell(power.source, "metrics.power.source")),
    ]


def _precision(record: Record) -> list[Fact]:
    return [
        _fact(name, cell(getattr(record.precision, field), f"precision.{field}")) for field, name in _PRECISION.items()
    ]


def _dataset(record: Record) -> list[Fact]:
    dataset = record.dataset
    return [
        _fact(Bilingual("名称", "Name"), cell(dataset.name, "dataset.name")),
        _fact(Bilingual("版本", "Version"), cell(dataset.version, "dataset.version")),
        _fact(Bilingual("指纹", "Fingerprint"), cell(dataset.fingerprint, "dataset.fingerprint")),
        _fact(Bilingual("训练样本数", "Training samples"), cell(dataset.train_samples, "dataset.train_samples")),
        _fact(Bilingual("评估样本数", "Evaluation samples"), cell(dataset.eval_samples, "dataset.eval_samples")),
        _fact(Bilingual("目标值", "Target"), cell(record.case.target, "case.target", _quality_writer(record))),
    ]


def _quality_writer(record: Record) -> Callable[[float], object]:
    case = installed_case(record.case.name)
    return partial(formatting.quality, as_percent=case.report.quality_as_percent if case else False)


def _changes(record: Record) -> list[Fact]:
    changes = record.hyperparameters.changes
    if isinstance(changes, Missing):
        return [_fact(same("fix_hp"), cell(changes, "hyperparameters.changes"))]
    write = partial(formatting.setting, exact=record.kind == "imported")
    facts = []
    for index, change in enumerate(changes):
        base = cell(change.base, "", write).text
        value = write(change.value)
        why = ", ".join(part for part in (change.origin, change.reason) if part)
        text = Bilingual(f"{base.zh} → {value} ({why})", f"{base.en} → {value} ({why})")
        facts.append(_fact(change.key, Cell(text=text, field=f"hyperparameters.changes.{index}")))
    return facts


def _knobs(record: Record) -> list[Fact]:
    return [
        _fact(
            knob.name,
            cell(f"{knob.value or _EMPTY} ({', '.join(filter(None, (knob.origin, knob.reason)))})", f"knobs.{index}"),
        )
        for index, knob in enumerate(record.knobs)
    ]


def _interruptions(record: Record) -> list[Fact]:
    return [
        _fact(
            each.stopped_at.isoformat(timespec="seconds"),
            cell(f"{each.cause.failure_class}: {each.cause.message}", f"interruptions.{index}"),
        )
        for index, each in enumerate(record.interruptions)
    ]


def _texts(texts: Iterable[str], field: str) -> list[Fact]:
    return [_fact(str(index + 1), cell(text, f"{field}.{index}")) for index, text in enumerate(texts)]

"""The other content of a record as facts with their fields, in sections."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from chipperf.documents import format as formatting
from chipperf.languages import Phrase, phrase
from chipperf.records.schema import Memory, Missing, Power
from chipperf.report.row_identity import not_blank
from chipperf.web.board import RATES, STATES, installed_case
from chipperf.web.cell import PageCell, cell, result_cell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from chipperf.records.columns import Column
    from chipperf.records.schema import Record

_MOST_FACTS = 200
"""Largest number of facts in a section, because a record may list any number of warnings."""

_EMPTY = '""'

_ENVIRONMENT: Mapping[str, Phrase | str] = {
    "machine": phrase("Machine"),
    "card_title": phrase("Accelerator"),
    "cpu": phrase("CPU"),
    "network": phrase("Network"),
    "os": phrase("OS"),
    "kernel": phrase("Kernel"),
    "driver": phrase("Driver"),
    "container": phrase("Container"),
    "framework": phrase("Framework"),
    "compiler": phrase("Compiler"),
    "dependencies": phrase("Dependencies"),
    "python": "Python",
    "torch": "torch",
    "sdk": "SDK",
    "collectives": phrase("Collectives"),
}
_MEMORY = {
    "allocated_peak_bytes": phrase("Allocator peak, allocated"),
    "reserved_peak_bytes": phrase("Allocator peak, reserved"),
    "device_peak_bytes": phrase("Device peak"),
    "total_bytes": phrase("Device total"),
}
_POWER = {
    "mean_w": phrase("Mean power (W)", context="page"),
    "max_w": phrase("Max power (W)", context="page"),
    "energy_j": phrase("Energy (J)", context="page"),
    "mean_temperature_c": phrase("Mean temperature (°C)", context="page"),
    "max_temperature_c": phrase("Max temperature (°C)", context="page"),
    "mean_utilization_percent": phrase("Mean utilisation (%%)", context="page"),
}
_PRECISION = {
    "requested": phrase("Requested", context="page"),
    "effective": phrase("Effective", context="page"),
    "measured_matmul": phrase("Measured, matrix product", context="page"),
    "measured_convolution": phrase("Measured, convolution", context="page"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A named value."""

    name: Phrase | str
    value: PageCell


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Facts on one subject. ``omitted`` is the number of facts that the page does not show."""

    title: Phrase
    facts: tuple[Fact, ...]
    omitted: int = 0


def describe(record: Record) -> tuple[Section, ...]:
    """Return the sections of a run's page. Omits sections without facts."""
    sections = (
        (phrase("Run"), _run(record)),
        (phrase("Environment"), _environment(record)),
        (phrase("Throughput and times"), _throughput(record)),
        (phrase("Memory (GiB)", context="page"), _memory(record)),
        (phrase("Telemetry during training"), _power(record)),
        (phrase("Precision"), _precision(record)),
        (phrase("Dataset"), _dataset(record)),
        (phrase("Hyperparameter changes"), _changes(record)),
        (phrase("Settings that change numerics or speed"), _knobs(record)),
        (phrase("Interruptions"), _interruptions(record)),
        (phrase("Warnings"), _texts(record.warnings, "warnings")),
        (phrase("Disabled observers"), _texts(record.disabled_observers, "disabled_observers")),
        (phrase("More of the document"), _texts(record.remarks, "remarks")),
    )
    return tuple(_section(title, list(facts)) for title, facts in sections if facts)


def _section(title: Phrase, facts: Sequence[Fact]) -> Section:
    return Section(title=title, facts=tuple(facts[:_MOST_FACTS]), omitted=max(0, len(facts) - _MOST_FACTS))


def _fact(name: Phrase | str, value: PageCell) -> Fact:
    return Fact(name=name, value=value)


def _number(record: Record) -> Callable[[float], object]:
    return partial(formatting.number, exact=record.kind == "imported")


def _run(record: Record) -> list[Fact]:
    status, failure = record.status, record.status.failure
    facts = [
        _fact(phrase("Id"), cell(record.run_id, "run_id")),
        _fact(phrase("Status"), cell(STATES[status.state], "status.state", lambda text: text)),
        _fact(phrase("Created"), cell(record.created_at.isoformat(timespec="seconds"), "created_at")),
        _fact(phrase("Seed"), cell(record.seed, "seed")),
        _fact(phrase("Preset"), cell(record.case.preset, "case.preset")),
        _fact("chipperf", cell(record.chipperf_version, "chipperf_version")),
        _fact(
            phrase("Plugin"),
            cell(f"{record.vendor.plugin.name} {record.vendor.plugin.version}", "vendor.plugin"),
        ),
    ]
    if failure:
        facts[2:2] = [
            _fact(phrase("Cause"), cell(failure.failure_class, "status.failure.failure_class")),
            _fact(phrase("Message"), cell(failure.message, "status.failure.message")),
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
        _fact(phrase("CPU cores"), cell(environment.cpu_cores, "environment.cpu_cores")),
        _fact(
            phrase("Memory (GiB)", context="page"),
            cell(environment.memory_bytes, "environment.memory_bytes", formatting.gib),
        ),
    ]


def _throughput(record: Record) -> list[Fact]:
    metrics, write = record.metrics, _number(record)
    facts = [
        *(fact for column in RATES for fact in _windows(record, column)),
        _fact("e2e_time (s)", result_cell(record, metrics.e2e_time_s, "metrics.e2e_time_s", write)),
        _fact(
            phrase("Training time (s)", context="page"),
            result_cell(record, metrics.train_seconds, "metrics.train_seconds", write),
        ),
        _fact("epochs", result_cell(record, metrics.epochs, "metrics.epochs", write)),
        _fact(
            "data_stall",
            result_cell(record, metrics.data_stall, "metrics.data_stall", partial(formatting.quality, as_percent=True)),
        ),
    ]
    if record.status.state != "completed":
        return facts
    return facts + [
        _fact(f"{span.name} (s)", cell(span.seconds, f"metrics.spans.{index}.seconds", write))
        for index, span in enumerate(metrics.spans)
    ]


def _windows(record: Record, column: Column) -> Iterator[Fact]:
    write, name, throughput = _number(record), column.key, column.throughput(record)
    if throughput is None:
        path, value = column.find(record)
        yield _fact(name, result_cell(record, value, path, write))
        return
    for field, title in (
        ("median", phrase("median")),
        ("iqr", "IQR"),
        ("mean_of_totals", phrase("totals")),
    ):
        label = phrase("%(metric)s, %(figure)s", metric=name, figure=title)
        yield _fact(label, result_cell(record, getattr(throughput, field), f"{column.field}.{field}", write))
    label = phrase("%(metric)s, windows", metric=name)
    yield _fact(label, result_cell(record, len(throughput.windows), f"{column.field}.windows"))


def _memory(record: Record) -> list[Fact]:
    memory = record.metrics.memory
    if not isinstance(memory, Memory):
        return [_fact("mem", result_cell(record, memory, "metrics.memory"))]
    write = partial(formatting.gib, exact=record.kind == "imported")
    peaks = [
        _fact(name, result_cell(record, getattr(memory, field), f"metrics.memory.{field}", write))
        for field, name in _MEMORY.items()
    ]
    sources = (
        ("allocator_source", phrase("Allocator source"), memory.allocator_source),
        ("device_source", phrase("Device source"), memory.device_source),
    )
    return peaks + [_fact(name, cell(text, f"metrics.memory.{field}")) for field, name, text in sources if text]


def _power(record: Record) -> list[Fact]:
    power = record.metrics.power
    if not isinstance(power, Power):
        return [_fact(phrase("Power"), result_cell(record, power, "metrics.power"))]
    write = _number(record)
    return [
        *(
            _fact(name, result_cell(record, getattr(power, field), f"metrics.power.{field}", write))
            for field, name in _POWER.items()
        ),
        _fact(phrase("Source"), cell(power.source, "metrics.power.source")),
    ]


def _precision(record: Record) -> list[Fact]:
    return [
        _fact(name, cell(getattr(record.precision, field), f"precision.{field}")) for field, name in _PRECISION.items()
    ]


def _dataset(record: Record) -> list[Fact]:
    dataset = record.dataset
    return [
        _fact(phrase("Name"), cell(dataset.name, "dataset.name")),
        _fact(phrase("Version"), cell(dataset.version, "dataset.version")),
        _fact(phrase("Fingerprint"), cell(dataset.fingerprint, "dataset.fingerprint")),
        _fact(phrase("Training samples"), cell(dataset.train_samples, "dataset.train_samples")),
        _fact(phrase("Evaluation samples"), cell(dataset.eval_samples, "dataset.eval_samples")),
        _fact(phrase("Target"), cell(record.case.target, "case.target", _quality_writer(record))),
    ]


def _quality_writer(record: Record) -> Callable[[float], object]:
    case = installed_case(record.case.name)
    return partial(formatting.quality, as_percent=case.report.quality_as_percent if case else False)


def _changes(record: Record) -> list[Fact]:
    changes = record.hyperparameters.changes
    if isinstance(changes, Missing):
        return [_fact("fix_hp", cell(changes, "hyperparameters.changes"))]
    write = partial(formatting.setting, exact=record.kind == "imported")
    facts = []
    for index, change in enumerate(changes):
        base = cell(change.base, "", write).text
        value = write(change.value)
        why = ", ".join(part for part in (change.origin, change.reason) if part)
        text = Phrase("%(base)s → %(value)s (%(why)s)", (("base", base), ("value", value), ("why", why)))
        facts.append(_fact(change.key, PageCell(text=text, field=f"hyperparameters.changes.{index}")))
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

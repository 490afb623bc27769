"""The other content of a record as facts with their fields, in sections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from chipperf.documents.document_identity import installed_cases
from chipperf.documents.format import gib, in_unit, number, quality, setting
from chipperf.languages import Phrase, Stored, phrase
from chipperf.records.columns import columns_of
from chipperf.records.schema import Missing, Number, Record
from chipperf.report.row import not_blank
from chipperf.web.board import STATES, PageCell, cell, quality_as_percent
from chipperf.web.trend_inputs import RATES

_MOST_FACTS = 200
"""Largest number of facts in a section, because a record may list any number of warnings."""

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
_MEMORY_SOURCES = {"allocator_source": phrase("Allocator source"), "device_source": phrase("Device source")}
_POWER = {
    "mean_w": phrase("Mean power (W)", context="page"),
    "max_w": phrase("Max power (W)", context="page"),
    "energy_j": phrase("Energy (J)", context="page"),
    "mean_temperature_c": phrase("Mean temperature (°C)", context="page"),
    "max_temperature_c": phrase("Max temperature (°C)", context="page"),
    "mean_utilization_percent": phrase("Mean utilization (%%)", context="page"),
    "longest_gap_s": phrase("Longest gap (s)"),
}
_PRECISION = {
    "requested": phrase("Requested", context="page"),
    "effective": phrase("Effective", context="page"),
    "measured_matmul": phrase("Measured, matrix product", context="page"),
    "measured_convolution": phrase("Measured, convolution", context="page"),
}
_LIMITS = {
    "products_flops_per_s": (phrase("Products (TFLOP/s)"), 1e12),
    "peak_flops_per_s": (phrase("Peak (TFLOP/s)"), 1e12),
    "bus_bytes_per_s": (phrase("Bus (GB/s)"), 1e9),
}
_DATASET = {
    "name": phrase("Name"),
    "version": phrase("Version"),
    "fingerprint": phrase("Fingerprint"),
    "train_samples": phrase("Training samples"),
    "eval_samples": phrase("Evaluation samples"),
}
_THROUGHPUT = {"median": phrase("median"), "iqr": "IQR", "mean_of_totals": phrase("totals")}
_TIMES: Mapping[str, Phrase | str] = {
    "e2e_time_s": "e2e_time (s)",
    "train_seconds": phrase("Training time (s)", context="page"),
    "epochs": "epochs",
}


@dataclass(frozen=True, slots=True)
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
        (phrase("Device memory (GiB)", context="page"), _memory(record)),
        (phrase("Telemetry during training"), _power(record)),
        (phrase("Precision"), _fields(record.precision, "precision", _PRECISION, cell)),
        (phrase("Machine's measured limits"), _limits(record)),
        (phrase("Dataset"), _dataset(record)),
        (phrase("Hyperparameter changes"), _changes(record)),
        (phrase("Settings that change numerics or speed"), _knobs(record)),
        (phrase("Interruptions"), _interruptions(record)),
        (phrase("Warnings"), _texts(record.warnings, "warnings")),
        (phrase("Disabled observers"), _texts(record.disabled_observers, "disabled_observers")),
        (phrase("More of the document"), _texts(record.remarks, "remarks")),
    )
    found = ((title, tuple(facts)) for title, facts in sections)
    return tuple(
        Section(title=title, facts=facts[:_MOST_FACTS], omitted=max(0, len(facts) - _MOST_FACTS))
        for title, facts in found
        if facts
    )


def _fields(
    part: object, path: str, titles: Mapping[str, Phrase | str], make_cell: Callable[[Any, str], PageCell]
) -> Iterator[Fact]:
    for field, title in titles.items():
        yield Fact(title, make_cell(getattr(part, field), f"{path}.{field}"))


def _run(record: Record) -> Iterator[Fact]:
    status, failure, plugin = record.status, record.status.failure, record.vendor.plugin
    yield Fact(phrase("Id"), cell(record.run_id, "run_id"))
    yield Fact(phrase("Status"), PageCell(text=STATES[status.state], field="status.state"))
    if failure:
        yield Fact(phrase("Cause"), cell(failure.failure_class, "status.failure.failure_class"))
        yield Fact(phrase("Message"), cell(failure.message, "status.failure.message", _stored))
    yield Fact(phrase("Created"), cell(record.created_at.isoformat(timespec="seconds"), "created_at"))
    yield Fact(phrase("Seed"), cell(record.seed, "seed"))
    yield Fact(phrase("Preset"), cell(record.case.preset, "case.preset"))
    yield Fact("chipperf", cell(record.chipperf_version, "chipperf_version"))
    yield Fact(phrase("Plugin"), cell(f"{plugin.name} {plugin.version}", "vendor.plugin"))
    for name, value in record.limits.model_dump(exclude_none=True).items():
        yield Fact(name, cell(value, f"limits.{name}"))


def _environment(record: Record) -> Iterator[Fact]:
    environment = record.environment
    yield from _fields(environment, "environment", _ENVIRONMENT, lambda text, field: cell(not_blank(text), field))
    yield Fact(phrase("CPU cores"), cell(environment.cpu_cores, "environment.cpu_cores"))
    memory = cell(environment.memory_bytes, "environment.memory_bytes", gib)
    yield Fact(phrase("Memory (GiB)", context="page"), memory)


def _results(record: Record, write: Callable[..., object]) -> Callable[[Any, str], PageCell]:
    """Return a function that makes cells of results, with all digits if they are of an imported document."""
    return partial(cell, write=partial(write, exact=record.kind == "imported"), result_of=record)


def _throughput(record: Record) -> Iterator[Fact]:
    metrics, result = record.metrics, _results(record, number)
    for column in RATES:
        name, throughput = column.key, column.throughput(record)
        if throughput is None:
            path, value = column.find(record)
            yield Fact(name, result(value, path))
            continue
        for field, figure in _THROUGHPUT.items():
            label = phrase("%(metric)s, %(figure)s", metric=name, figure=figure)
            write = partial(number, exact=record.kind == "imported", spread=throughput.iqr)
            yield Fact(label, cell(getattr(throughput, field), f"{column.field}.{field}", write, result_of=record))
        windows = cell(len(throughput.windows), f"{column.field}.windows", result_of=record)
        yield Fact(phrase("%(metric)s, windows", metric=name), windows)
    yield from _fields(metrics, "metrics", _TIMES, result)
    percent = partial(quality, as_percent=True)
    yield Fact("data_stall", cell(metrics.data_stall, "metrics.data_stall", percent, result_of=record))
    if record.status.state == "completed":
        for index, span in enumerate(metrics.spans):
            yield Fact(f"{span.name} (s)", result(span.seconds, f"metrics.spans.{index}.seconds"))


def _memory(record: Record) -> Iterator[Fact]:
    memory = record.metrics.memory
    if isinstance(memory, Missing):
        yield Fact("mem", cell(memory, "metrics.memory", result_of=record))
        return
    yield from _fields(memory, "metrics.memory", _MEMORY, _results(record, gib))
    sources = _fields(memory, "metrics.memory", _MEMORY_SOURCES, partial(cell, write=_stored))
    yield from (source for source in sources if str(source.value.text))


def _power(record: Record) -> Iterator[Fact]:
    power = record.metrics.power
    if isinstance(power, Missing):
        yield Fact(phrase("Power"), cell(power, "metrics.power", result_of=record))
        return
    yield from _fields(power, "metrics.power", _POWER, _results(record, number))
    yield Fact(phrase("Source"), cell(power.source, "metrics.power.source", _stored))


def _limits(record: Record) -> Iterator[Fact]:
    limits = record.machine_limits
    if isinstance(limits, Missing):
        return
    yield Fact(phrase("Limits"), cell(limits.limits_id, "machine_limits.limits_id"))
    yield Fact(phrase("Limits, SHA-256"), cell(limits.sha256, "machine_limits.sha256"))
    for field, (title, unit) in _LIMITS.items():
        value: Number = getattr(limits, field)
        scaled = value if isinstance(value, Missing) else value / unit
        yield Fact(title, cell(scaled, f"machine_limits.{field}", number))
    for column in columns_of("evidence"):
        path, share = column.find(record)
        write = partial(in_unit, unit=column.unit, as_percent=True)
        yield Fact(column.title or column.key, cell(share, path, write, result_of=record))


def _dataset(record: Record) -> Iterator[Fact]:
    yield from _fields(record.dataset, "dataset", _DATASET, cell)
    as_percent = quality_as_percent(installed_cases().get(record.case.name))
    yield Fact(phrase("Target"), cell(record.case.target, "case.target", partial(quality, as_percent=as_percent)))


def _changes(record: Record) -> Iterator[Fact]:
    changes = record.hyperparameters.changes
    if isinstance(changes, Missing):
        yield Fact("fix_hp", cell(changes, "hyperparameters.changes"))
        return
    write = partial(setting, exact=record.kind == "imported")
    for index, change in enumerate(changes):
        base = cell(change.base, "", write).text
        why = list(map(Stored, filter(None, (change.origin, change.reason))))
        values = (("base", base), ("value", write(change.value)), ("why", why))
        text = Phrase("%(base)s → %(value)s (%(why)s)", values)
        yield Fact(change.key, PageCell(text=text, field=f"hyperparameters.changes.{index}"))


def _knobs(record: Record) -> Iterator[Fact]:
    for index, knob in enumerate(record.knobs):
        why = list(map(Stored, filter(None, (knob.origin, knob.reason))))
        text = Phrase("%(value)s (%(why)s)", (("value", knob.value or '""'), ("why", why)))
        yield Fact(knob.name, PageCell(text=text, field=f"knobs.{index}"))


def _interruptions(record: Record) -> Iterator[Fact]:
    for index, each in enumerate(record.interruptions):
        values = (("class", each.cause.failure_class), ("message", Stored(each.cause.message)))
        cause = PageCell(text=Phrase("%(class)s: %(message)s", values), field=f"interruptions.{index}")
        yield Fact(each.stopped_at.isoformat(timespec="seconds"), cause)


def _texts(texts: Iterable[str], field: str) -> Iterator[Fact]:
    for index, text in enumerate(texts):
        yield Fact(str(index + 1), PageCell(text=_stored(text), field=f"{field}.{index}"))


def _stored(text: str) -> Phrase:
    return Phrase("%(text)s", (("text", Stored(text)),))

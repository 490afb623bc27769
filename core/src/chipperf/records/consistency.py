"""Rules that relate a value of a record to others that give or bound it.

A rule yields :class:`Relation` objects; a relation with an unknown side says nothing. :data:`RULES` lists the rules.
"""

from __future__ import annotations

import math
import re
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from datetime import timezone
from functools import partial
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Literal

from chipperf.languages import phrase
from chipperf.precisions import PRECISIONS
from chipperf.records.columns import WINDOWED
from chipperf.records.convergence import best_quality, lower_is_better, meets_target
from chipperf.records.event_metrics import window_figures
from chipperf.records.schema import (
    LEAST_COVERAGE,
    METRICS_VERSION,
    MINIMUM_WINDOWS,
    Memory,
    Metrics,
    Missing,
    Power,
    SkippedSteps,
    StepBreakdown,
    Throughput,
    TimeToTarget,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from chipperf.languages import Phrase
    from chipperf.records.schema import Number, Record

Check = Literal[
    "settings",
    "epochs",
    "samples",
    "mfu",
    "memory",
    "times",
    "throughputs",
    "order",
    "scaling",
    "result",
    "energy",
    "limits",
]

CROSS_CHECK_TOLERANCE: Final = 0.02
"""Relative difference between the median of windows and total samples over total time from which a record warns."""

ORDER_SLACK: Final = 0.02
"""Tolerance, as a fraction, for the order of two rates or times where one contains the other."""

_EPOCH_TOLERANCE: Final = 0.05
_SAMPLE_TOLERANCE: Final = 0.01
_WINDOW_TOLERANCE: Final = 1e-4
_MEASURABLE_WINDOWS: Final = 2
"""Fewer windows are not checked against their median and mean."""

_POWER_TOLERANCE: Final = 0.25
_EDGE_S: Final = 3.0
"""Time by which training and the telemetry, read about once a second, may be longer than each other."""

_BETWEEN_WINDOWS_S: Final = 0.02
"""Time between two windows, in which the ranks read the loss and agree to go on: several times what it is."""

_LARGEST_SLOWDOWN: Final = 20.0
"""Most that a synchronization after every phase can slow down a step: an order above what is measured."""

_ALWAYS_KNOWN: Final = (
    *("environment.cards", "environment.distributions", "knobs", "seed", "hyperparameters.global_batch_size"),
    "hyperparameters.changes",
    *("metrics.spans", "metrics.e2e_time_s", "metrics.train_seconds", "metrics.steps", "metrics.epochs"),
    *("metrics.train_samples", "metrics.p_whole"),
)
"""What every completed run has, unless its record withholds it."""

_SPANS_OF_A_RUN: Final = ("launch", "init", "train", "teardown")
"""Spans of every completed run."""

_RUN_ID: Final = re.compile(r"(.+)-(\d{8}-\d{6})-[0-9a-f]{4}")
_SAMPLE: Final = re.compile(r"chipperf(coco)?sample\d*")
_SAMPLE_METHOD: Final = "sha256 of all file contents at generation"


@dataclass(frozen=True, slots=True)
class Relation:
    """A value, and what other values give for it: the same or, with ``is_limit``, the most that it can be.

    ``tolerance`` is relative to the larger of two numbers.
    """

    name: str
    value: object
    other: str
    implied: object
    tolerance: float = 1e-6
    is_limit: bool = False

    @property
    def contradiction(self) -> Phrase | None:
        """How the values contradict each other, or ``None`` if they agree or one is unknown."""
        value, implied = self.value, self.implied
        if value is None or implied is None or isinstance(value, Missing) or isinstance(implied, Missing):
            return None
        if isinstance(value, int | float) and isinstance(implied, int | float):
            agree = math.isclose(value, implied, rel_tol=self.tolerance, abs_tol=1e-9)
            agree |= self.is_limit and value < implied
        else:
            agree = value == implied
        if agree:
            return None
        values: dict[str, Any] = {"name": self.name, "value": value, "other": self.other, "implied": implied}
        if self.is_limit:
            return phrase("%(name)s is %(value)s, %(other)s allows at most %(implied)s", **values)
        return phrase("%(name)s is %(value)s, %(other)s gives %(implied)s", **values)


_at_most = partial(Relation, is_limit=True)


def contradictions(record: Record) -> Iterator[tuple[Check, Phrase]]:
    """Yield the relations of a completed run that do not hold."""
    rules = RULES if record.kind == "imported" else RULES | _RULES_OF_A_RUN
    for rule, check in rules.items():
        for text in first_contradictions(rule(record)):
            yield check, text


def first_contradictions(relations: Iterable[Relation]) -> Iterator[Phrase]:
    """Yield the relations that do not hold; of the elements of a list, the first is enough."""
    told: set[str] = set()
    for relation in relations:
        if relation.name not in told and (text := relation.contradiction):
            told.add(relation.name)
            yield text


def differing_from_windows(throughput: Throughput) -> Iterator[tuple[str, float, float]]:
    """Yield each field of a throughput that differs from its windows: name, value, and value from the windows."""
    # Windows of an edited record may imply infinite figures, which a throughput cannot have.
    implied = window_figures(throughput.windows, _MEASURABLE_WINDOWS)
    if implied is None:
        return
    least = _WINDOW_TOLERANCE * abs(implied["median"])
    for field, expected in implied.items():
        value = getattr(throughput, field)
        if not math.isclose(value, expected, rel_tol=_WINDOW_TOLERANCE, abs_tol=least):
            yield field, value, expected


def _windowed(record: Record) -> Iterator[tuple[str, Throughput]]:
    """Yield the throughputs with windows, by name."""
    measured = ((name, getattr(record.metrics, name)) for name in WINDOWED)
    return ((name, each) for name, each in measured if isinstance(each, Throughput))


def plain_name(name: str) -> str:
    """Return what is equal for names that a reader takes for the same."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", name).casefold()))


def _product(*factors: object) -> float | None:
    """Return a product, or ``None`` if a factor is not a number."""
    numbers = [each for each in factors if isinstance(each, int | float)]
    return math.prod(numbers) if len(numbers) == len(factors) else None


def _inverse(number: object) -> float | None:
    return 1 / number if isinstance(number, int | float) and number > 0 else None


def _kind(record: Record) -> Iterator[Relation]:
    """Relate the kind to what only a measured run has, and to what none has."""
    if record.kind == "imported":
        yield Relation("kind", record.kind, "metrics.spans", "measured" if record.metrics.spans else None)
    if record.kind != "measured":
        return
    spans = {span.name for span in record.metrics.spans}
    expected = (*_SPANS_OF_A_RUN, *(["core_pass"] if isinstance(record.metrics.p_core, Throughput) else []))
    lacking = ", ".join(name for name in expected if name not in spans)
    yield Relation("kind", record.kind, "metrics.spans", f"a run without {lacking}" if spans and lacking else None)
    memory, power = record.metrics.memory, record.metrics.power
    sources = {"dataset.fingerprint_method": record.dataset.fingerprint_method}
    if isinstance(memory, Memory):
        sources["metrics.memory.allocator_source"] = memory.allocator_source
        sources["metrics.memory.device_source"] = memory.device_source
    if isinstance(power, Power):
        sources["metrics.power.source"] = power.source
    for name, source in sources.items():
        yield Relation("kind", record.kind, name, "simulated" if "simulat" in source.casefold() else None)


def _epochs(record: Record) -> Iterator[Relation]:
    metrics, planned = record.metrics, record.hyperparameters.values.get("epochs")
    batch, samples = record.hyperparameters.global_batch_size, record.dataset.train_samples
    yield _at_most("metrics.epochs", metrics.epochs, "hyperparameters.values.epochs", planned, _EPOCH_TOLERANCE)
    if isinstance(batch, int) and isinstance(samples, int) and isinstance(metrics.steps, int) and batch > 0:
        # An epoch leaves out the samples that do not fill a batch.
        epochs = metrics.steps / (samples // batch) if samples >= batch else None
        given = f"{metrics.steps} x {batch} / {samples}"
        yield Relation("metrics.epochs", metrics.epochs, given, epochs, _EPOCH_TOLERANCE)


def _samples(record: Record) -> Iterator[Relation]:
    metrics, batch = record.metrics, record.hyperparameters.global_batch_size
    samples, implied = metrics.train_samples, _product(metrics.steps, batch)
    yield Relation("metrics.train_samples", samples, "steps x global_batch_size", implied, _SAMPLE_TOLERANCE)
    rate = _product(samples, _inverse(metrics.train_seconds))
    yield Relation("metrics.p_whole", metrics.p_whole, "train_samples / train_seconds", rate, _SAMPLE_TOLERANCE)


def _memory(record: Record) -> Iterator[Relation]:
    memory = record.metrics.memory
    if isinstance(memory, Memory):
        for name in ("allocated_peak_bytes", "reserved_peak_bytes", "device_peak_bytes"):
            used, total = _product(getattr(memory, name), 2**-30), _product(memory.total_bytes, 2**-30)
            yield _at_most(f"metrics.memory.{name} (GiB)", used, "total_bytes", total)
        for name in ("allocated_peak_bytes", "reserved_peak_bytes"):
            yield _at_most("1", 1, f"metrics.memory.{name}", getattr(memory, name))
        # While gradients are complete, the model's weights are there too.
        gradient_bytes, peak_bytes = record.metrics.gradient_bytes, memory.allocated_peak_bytes
        yield _at_most("metrics.gradient_bytes", gradient_bytes, "metrics.memory.allocated_peak_bytes", peak_bytes)
        if isinstance(power := record.metrics.power, Power) and record.kind != "imported":
            peak, read = memory.device_peak_bytes, power.used_peak_bytes
            yield Relation("metrics.memory.device_peak_bytes", peak, "metrics.power.used_peak_bytes", read)


def _times(record: Record) -> Iterator[Relation]:
    metrics = record.metrics
    train, train_s, e2e_s = metrics.p_train, metrics.train_seconds, metrics.e2e_time_s
    spans = {span.name: span for span in metrics.spans}
    yield Relation("metrics.spans", len(metrics.spans), "their names", len(spans))
    yield _at_most("metrics.train_seconds", train_s, "e2e_time_s", e2e_s, ORDER_SLACK)
    if isinstance(metrics.time_to_target, TimeToTarget):
        reached_s = metrics.time_to_target.seconds
        yield _at_most("metrics.time_to_target.seconds", reached_s, "train_seconds", train_s, ORDER_SLACK)
    if isinstance(train, Throughput):
        windows_s = sum(window.seconds for window in train.windows)
        yield _at_most("metrics.p_train.windows.seconds", windows_s, "train_seconds", train_s, ORDER_SLACK)
    for name, span in spans.items():
        yield _at_most(f"metrics.spans.{name}", span.start_s + span.seconds, "e2e_time_s", e2e_s)
        yield _at_most("0", 0, f"metrics.spans.{name}", min(span.start_s, span.seconds))
    if last := spans.get("teardown"):
        ends_s = (span.start_s + span.seconds for name, span in spans.items() if name != "teardown")
        end_s = max(ends_s, default=last.start_s)
        yield Relation("metrics.spans.teardown", last.start_s, "metrics.spans", end_s)
        yield Relation("metrics.e2e_time_s", e2e_s, "metrics.spans", last.start_s + last.seconds)
    if "first_step" in spans and "train" in spans:
        first, train_span = spans["first_step"], spans["train"]
        first_s, train_end_s = first.start_s + first.seconds, train_span.start_s + train_span.seconds
        yield _at_most("metrics.spans.train", train_span.start_s, "metrics.spans.first_step", first_s)
        yield _at_most("metrics.spans.first_step", first_s, "metrics.spans.train", train_end_s)
    if "train" in spans:
        given = "metrics.spans: train + eval + checkpoint"
        known_s = sum(spans[name].seconds for name in ("train", "eval", "checkpoint") if name in spans)
        yield _at_most(given, known_s, "train_seconds", train_s, ORDER_SLACK)
        longest_s = known_s * (1 + _SAMPLE_TOLERANCE) + _EDGE_S
        longest_s += spans["observers"].seconds if "observers" in spans else 0.0
        yield _at_most("metrics.train_seconds", train_s, given, longest_s)
    if "train" in spans and isinstance(train, Throughput) and not record.interruptions:
        windows = (*train.windows, *metrics.restart_windows)
        filled_s = sum(window.seconds for window in windows) + (spans["warmup"].seconds if "warmup" in spans else 0.0)
        longest_s = filled_s * (1 + _EPOCH_TOLERANCE) + _EDGE_S + len(windows) * _BETWEEN_WINDOWS_S
        yield _at_most("metrics.spans.train", spans["train"].seconds, "metrics.p_train.windows and warm-up", longest_s)


def _result(record: Record) -> Iterator[Relation]:
    metrics, curve, where = record.metrics, record.metrics.curve, "metrics.curve"
    lower = lower_is_better(record.case)
    for name in ("quality", "best_quality"):
        value = getattr(metrics, name)
        yield _at_most(f"metrics.{name}", value, "fraction", None if lower else 1)
        yield _at_most("0", 0, f"metrics.{name}", value)
    reached, target = metrics.time_to_target, record.case.target
    worse: list[tuple[str, Number]] = [("metrics.quality", metrics.quality)]
    if isinstance(reached, TimeToTarget):
        worse.append(("case.target", target))
    for name, value in worse:
        if lower:
            yield _at_most("metrics.best_quality", metrics.best_quality, name, value)
        else:
            yield _at_most(name, value, "best_quality", metrics.best_quality)
    if not curve:
        return
    yield Relation("metrics.quality", _unless_withheld(metrics.quality), where, curve[-1].value)
    best = best_quality(curve, lower=lower)
    yield Relation("metrics.best_quality", _unless_withheld(metrics.best_quality), where, best)
    for before, after in pairwise(curve):
        yield _at_most(f"{where}.elapsed_s", before.elapsed_s, f"{where}.elapsed_s", after.elapsed_s)
        yield _at_most(f"{where}.step", before.step + 1, f"{where}.step", after.step)
    for point in curve:
        yield Relation(f"{where}.samples", point.samples, "dataset.eval_samples", record.dataset.eval_samples)
        epoch = _product(point.step, metrics.epochs, _inverse(metrics.steps))
        yield Relation(f"{where}.epoch", point.epoch, f"{where}.step", epoch)
    yield _at_most(f"{where}.elapsed_s", curve[-1].elapsed_s, "train_seconds", metrics.train_seconds)
    yield _at_most(f"{where}.step", curve[-1].step, "metrics.steps", metrics.steps)
    if isinstance(target, Missing) or (isinstance(reached, Missing) and reached.missing == "withheld"):
        return
    first = next((point for point in curve if meets_target(point.value, target, lower=lower)), None)
    said = (reached.seconds, reached.epoch) if isinstance(reached, TimeToTarget) else None
    implied = (first.elapsed_s, first.epoch) if first else None
    yield Relation("metrics.time_to_target", str(said), where, str(implied))
    if first:
        yield Relation(f"{where}.step", curve[-1].step, "case.target", first.step)


def _evaluations(record: Record) -> Iterator[Relation]:
    """Relate a run's curve to its schedule: it evaluates after every so many epochs, and after its last step."""
    metrics, curve = record.metrics, record.metrics.curve
    every = record.hyperparameters.values.get("evaluate_every_epochs")
    if record.limits.budget_s is not None or "$.metrics.curve" in {each.field for each in record.withheld}:
        return
    yield Relation("metrics.curve.step", curve[-1].step if curve else None, "metrics.steps", metrics.steps)
    if record.case.metric == "top1":
        for point in curve:
            correct = _product(point.value, point.samples)
            whole = None if correct is None else round(correct)
            yield Relation("metrics.curve.value x samples", correct, "correct predictions", whole)
    due = _product(metrics.epochs, _inverse(every))
    yield _at_most("epochs / evaluate_every_epochs", due and int(due + 1e-6), "metrics.curve", len(curve))


def _energy(record: Record) -> Iterator[Relation]:
    power, metrics, ranks = record.metrics.power, record.metrics, record.topology.world_size
    if not isinstance(power, Power):
        return
    where, per_node = "metrics.power", record.topology.nproc_per_node
    yield _at_most(f"{where}.mean_temperature_c", power.mean_temperature_c, "maximum", power.max_temperature_c)
    yield _at_most(f"{where}.mean_utilization_percent", power.mean_utilization_percent, "percent", 100)
    yield _at_most(f"{where}.mean_w", power.mean_w, "max_w", power.max_w)
    yield _at_most(f"{where}.coverage", power.coverage, "fraction", 1)
    if isinstance(power.coverage, float) and power.coverage < LEAST_COVERAGE:
        told = (power.mean_w, power.mean_temperature_c, power.mean_utilization_percent, power.used_peak_bytes)
        is_partly_missing = any(isinstance(value, Missing) for value in told)
        yield Relation(f"{where}: a value is missing", is_partly_missing, "coverage", True)
    most_j = _product(power.max_w, metrics.e2e_time_s, ranks)
    yield _at_most(f"{where}.energy_j", power.energy_j, "max_w x e2e_time_s x cards", most_j, _EPOCH_TOLERANCE)
    if record.kind != "imported" and isinstance(metrics.train_seconds, float):
        # Ranks on one device are one; devices whose identity is unknown may be one or several.
        cards = record.environment.cards
        devices = {(card.rank // per_node, card.name, str(card.uuid), str(card.pci_bus_id)) for card in cards}
        given = "mean_w x train_seconds x cards"
        longest_s = metrics.train_seconds * (1 + _POWER_TOLERANCE) + _EDGE_S
        shortest_s = max(0.0, metrics.train_seconds * (1 - _POWER_TOLERANCE) - _EDGE_S)
        yield _at_most(f"{where}.energy_j", power.energy_j, given, _product(power.mean_w, longest_s, ranks))
        yield _at_most(given, _product(power.mean_w, shortest_s, len(devices)), f"{where}.energy_j", power.energy_j)


def _identity(record: Record) -> Iterator[Relation]:
    environment, dataset, vendor = record.environment, record.dataset, record.vendor
    if named := _RUN_ID.fullmatch(record.run_id):
        what = f"{record.case.name}-{vendor.name}-{record.precision.requested}-{record.topology.label}"
        yield Relation("run_id", named[1], "case-vendor-precision-topology", what)
        created_at = record.created_at.astimezone(timezone.utc)
        yield Relation("created_at", f"{created_at:%Y%m%d-%H%M%S}", "run_id", named[2])
    yield Relation("metrics_definition", record.metrics_definition, f"kind {record.kind}", "chipperf")
    yield _at_most("metrics_version", record.metrics_version, "this chipperf", METRICS_VERSION)
    topology, cards = record.topology, environment.cards
    yield Relation("environment.cards", len(cards) or None, "topology", topology.world_size)
    ranks = [each.rank for each in record.metrics.rank_steps]
    yield Relation("metrics.rank_steps", len(ranks) or None, "topology", topology.world_size)
    yield Relation("metrics.rank_steps.rank", ranks, "their order", list(range(len(ranks))))
    yield Relation("nodes", len(record.nodes) or None, "topology", topology.nnodes)
    if cards and "card_title" not in environment.stated:
        yield Relation("environment.card_title", environment.card_title, "environment.cards", cards[0].name)
    if vendor.name == "cpu":
        yield Relation("vendor.device_type", vendor.device_type, "vendor.name", "cpu")
    installed = {each.name: each.version.partition("+")[0] for each in environment.distributions}
    torch = None if isinstance(environment.torch, Missing) else environment.torch
    for name, version in (vendor.plugin.model_dump().values(), ("chipperf", record.chipperf_version), ("torch", torch)):
        yield Relation(name, version and version.partition("+")[0], "environment.distributions", installed.get(name))
    if _SAMPLE.fullmatch(plain_name(dataset.name)) or dataset.fingerprint_method.startswith(_SAMPLE_METHOD):
        yield Relation("dataset.is_sample", dataset.is_sample, "dataset.name, fingerprint_method", True)
    if record.status.failure is not None:
        yield Relation("status.state", record.status.state, "status.failure", record.status.failure.failure_class)


def _absence(record: Record) -> Iterator[Relation]:
    """Compare what is absent with what a completed run always has, and with what its record withholds."""
    withheld = {each.field.removeprefix("$.") for each in record.withheld}
    for path in _ALWAYS_KNOWN:
        value = attrgetter(path)(record)
        # A run without changes has none, and says so.
        is_empty = value == [] and path != "hyperparameters.changes"
        if path not in withheld and (is_empty or isinstance(value, Missing)):
            yield Relation(path, getattr(value, "missing", 0), f"kind {record.kind}", "> 0")
    for path in withheld:
        # What lies within another withheld field is not there at all.
        with suppress(AttributeError):
            value = attrgetter(path)(record)
            yield Relation(path, "known" if value and not isinstance(value, Missing) else None, "withheld", "absent")
    for name in Metrics.model_fields:
        value = getattr(record.metrics, name)
        if isinstance(value, Missing) and value.missing == "withheld":
            yield Relation(f"metrics.{name}", f"metrics.{name}" in withheld, "withheld", True)


def _unless_withheld(value: object) -> object:
    """Return a value that follows from others, where a missing one contradicts them."""
    return value.missing if isinstance(value, Missing) and value.missing != "withheld" else value


def _settings(record: Record) -> Iterator[Relation]:
    values, precision, metrics = record.hyperparameters.values, record.precision, record.metrics
    changes, limits = record.hyperparameters.changes, record.limits
    per_item, ranks = record.hyperparameters.samples_per_item, record.topology.world_size
    batch = _product(values.get("batch_size"), per_item, values.get("accumulate_steps"), ranks)
    given = f"batch_size x {'samples_per_item x ' if per_item > 1 else ''}accumulate_steps x topology"
    yield Relation("hyperparameters.global_batch_size", record.hyperparameters.global_batch_size, given, batch)
    yield Relation("seed", record.seed, "hyperparameters.values.seed", values.get("seed"))
    workers = values.get("workers")
    if not isinstance(record.loader, Missing) and workers != -1:
        yield Relation("loader.workers", record.loader.workers, "hyperparameters.values.workers", workers)
    for change in [] if isinstance(changes, Missing) else changes:
        yield Relation(f"hyperparameters.values.{change.key}", values.get(change.key), "changes", change.value)
    if isinstance(skipped := metrics.skipped_steps, SkippedSteps):
        yield Relation("metrics.skipped_steps", skipped.steps, "by_epoch", sum(skipped.by_epoch.values()))
        yield _at_most("metrics.skipped_steps", skipped.steps, "metrics.steps", metrics.steps)
        yield Relation("precision.grad_scaler", precision.grad_scaler, "metrics.skipped_steps", True)
    yield _at_most("metrics.steps", metrics.steps, "limits.max_steps", limits.max_steps)
    yield _at_most("metrics.epochs", metrics.epochs, "limits.max_epochs", limits.max_epochs)
    if not limits.shortened and not isinstance(metrics.time_to_target, TimeToTarget):
        yield Relation("metrics.epochs", metrics.epochs, "hyperparameters.values.epochs", values.get("epochs"))
    for requested, means in PRECISIONS.items():
        if requested == precision.requested:
            told, asked = str(precision.autocast_dtype), str(means.autocast_type)
            yield Relation("autocast_dtype", told, "precision.requested", asked)
    for name in ("measured_matmul", "measured_convolution"):
        seen = getattr(precision, name)
        if not any(f" computes in {seen}" in warning for warning in record.warnings):
            yield Relation(f"precision.{name}", seen, "precision.effective", precision.effective)
    warned = {warning.partition(": ")[0] for warning in record.warnings}
    for name, measured in _windowed(record):
        if measured.median > 0 and name not in warned:
            difference = abs(measured.mean_of_totals / measured.median - 1)
            yield _at_most(f"{name}: mean_of_totals / median - 1", difference, "warnings", CROSS_CHECK_TOLERANCE)
    if record.interruptions or metrics.restart_windows:
        is_told = any("interrupted" in warning for warning in record.warnings)
        yield Relation("interruptions", bool(record.interruptions), "metrics.restart_windows", True)
        yield Relation("warnings", is_told, "interruptions", True)


def _windows(record: Record) -> Iterator[Relation]:
    metrics, values, batch = record.metrics, record.hyperparameters.values, record.hyperparameters.global_batch_size
    train, core, breakdown = metrics.p_train, metrics.p_core, metrics.step_breakdown
    for name in WINDOWED:
        if isinstance(getattr(metrics, name), int | float):
            yield Relation(f"metrics.{name}", "without windows", f"kind {record.kind}", "with windows")
    for name, measured in _windowed(record):
        where = f"metrics.{name}.windows"
        for field, value, implied in differing_from_windows(measured):
            yield Relation(f"metrics.{name}.{field}", value, where, implied)
        if f"$.{where}" not in {each.field for each in record.withheld}:
            yield _at_most("MINIMUM_WINDOWS", MINIMUM_WINDOWS, where, len(measured.windows))
        for window in measured.windows:
            samples = _product(window.steps, batch)
            yield Relation(f"{where}.samples", window.samples, "steps x global_batch_size", samples)
    if isinstance(train, Throughput) and train.windows:
        where = "metrics.p_train.windows"
        windows = sorted((*train.windows, *metrics.restart_windows), key=attrgetter("first_step"))
        warm_up = values.get("measure_warmup_steps")
        first = None if warm_up is None else int(warm_up) + 1
        yield Relation(f"{where}.first_step", windows[0].first_step, "measure_warmup_steps", first)
        for before, after in pairwise(windows):
            following = before.first_step + before.steps
            yield Relation(f"{where}.first_step", after.first_step, "first_step + steps", following)
        yield Relation("metrics.steps", metrics.steps, where, windows[-1].first_step + windows[-1].steps - 1)
    if not isinstance(core, Throughput):
        return
    where, core_steps = "metrics.p_core.windows", values.get("measure_core_steps")
    for window in core.windows:
        trained = metrics.steps + 1 if isinstance(metrics.steps, int) else None
        yield Relation(f"{where}.first_step", window.first_step, "metrics.steps + 1", trained)
        yield Relation(f"{where}.steps", window.steps, "measure_core_steps", core_steps)
    seconds, steps = (sum(getattr(each, name) for each in core.windows) for name in ("seconds", "steps"))
    span_s = next((span.seconds for span in metrics.spans if span.name == "core_pass"), None)
    yield _at_most(f"{where}.seconds", seconds, "metrics.spans.core_pass", span_s)
    if isinstance(train, Throughput) and core.median:
        stall = 1 - train.median / core.median
        yield Relation("metrics.data_stall", _unless_withheld(metrics.data_stall), "1 - p_train / p_core", stall)
    if isinstance(breakdown, StepBreakdown):
        where, slowdown = "metrics.step_breakdown", breakdown.slowdown
        phases_s = breakdown.h2d_s + breakdown.forward_s + breakdown.backward_s + breakdown.optimizer_s
        yield _at_most(f"{where}: phases", phases_s, "step.p99_s", breakdown.step.p99_s)
        expected = _product(phases_s, steps, values.get("accumulate_steps"), _inverse(seconds))
        yield Relation(f"{where}.slowdown", slowdown, "metrics.p_core.windows", expected, 1e-4)
        yield _at_most(f"{where}.slowdown", slowdown, "metrics.p_core", _LARGEST_SLOWDOWN)
        yield _at_most("1 / slowdown", _inverse(slowdown), "metrics.p_core", _LARGEST_SLOWDOWN)


_Rules = dict["Callable[[Record], Iterator[Relation]]", Check]

RULES: Final[_Rules] = {
    _kind: "settings",
    _epochs: "epochs",
    _samples: "samples",
    _memory: "memory",
    _times: "times",
    _result: "result",
    _energy: "energy",
}
"""The rules for every record, each with the check to which its findings belong."""

_RULES_OF_A_RUN: Final[_Rules] = {
    _identity: "settings",
    _absence: "settings",
    _settings: "settings",
    _windows: "throughputs",
    _evaluations: "result",
}
"""Further rules for records that chipperf measured."""

"""Conversion of training measurements to the metrics of a record."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from chipperf.durations import format_duration
from chipperf.plugin.types import Capability
from chipperf.records.columns import WINDOWED
from chipperf.records.consistency import CROSS_CHECK_TOLERANCE
from chipperf.records.schema import (
    MINIMUM_WINDOWS,
    Card,
    Environment,
    Failure,
    KnobRecord,
    Memory,
    Metrics,
    Missing,
    Number,
    Power,
    PrecisionRecord,
    RankStep,
    Record,
    Status,
)
from chipperf.records.store import read_record
from chipperf.run.failure import INTERRUPTED
from chipperf.train.windows import spread, throughput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chipperf.cases.base import Hyperparameters
    from chipperf.plugin.session import Session
    from chipperf.plugin.types import Knob, MemoryStats, PrecisionPolicy, RuntimeInfo
    from chipperf.run.directory import RunDirectory
    from chipperf.train.context import RunContext
    from chipperf.train.effective_precision import EffectivePrecision
    from chipperf.train.run_state import RunState

_UNTOLD = Missing(missing="unknown", reason="the vendor's stack does not tell")

STRAGGLER_TOLERANCE = 0.1
"""Delay of a rank against the median of the others, as a fraction of a step, from which the record names the rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeFacts:
    """Facts about the software stack from a worker's initialization, and the knobs that core chose."""

    runtime: RuntimeInfo
    measured_precision: EffectivePrecision
    core_knobs: Sequence[Knob]
    applied_environment: Sequence[dict[str, str]]


def write_results(
    directory: RunDirectory,
    context: RunContext,
    state: RunState,
    facts: RuntimeFacts,
    power: Power | Missing,
    *,
    failure: Failure | None,
) -> None:
    """Write the results to the run's record; after a failure, the results of the completed part.

    If the launcher is alive, it replaces this rank's ``failure`` with its verdict on all ranks.
    """
    planned = read_record(directory.record)
    target: float | Missing | None = context.target
    if target is None:
        target = Missing(missing="not_applicable", reason=f"case {planned.case.name} has no target on this dataset")
    precision, measured = context.precision, facts.measured_precision
    metrics = _metrics(context, state, power)
    results = {
        "status": _status(failure),
        "case": planned.case.model_copy(update={"target": target}),
        "precision": PrecisionRecord(
            requested=precision.requested,
            effective=precision.effective,
            measured_matmul=measured.matmul,
            measured_convolution=measured.convolution,
            autocast_dtype=precision.autocast_dtype,
            grad_scaler=precision.grad_scaler,
        ),
        "dataset": context.workload.dataset,
        "loader": context.workload.loader,
        "environment": _environment(planned.environment, context, facts.runtime),
        "knobs": _knobs(facts, precision),
        "metrics": metrics,
        "disabled_observers": [
            f"{observer.name} ({observer.distribution} {observer.version}): {observer.reason}"
            for observer in context.session.disabled_observers
        ],
        "warnings": [
            *planned.warnings,
            *_interruption_warnings(planned),
            *state.warnings,
            *_cross_check_warnings(metrics),
            *_precision_warnings(precision, measured),
            *straggler_warnings(state.rank_steps),
        ],
    }
    directory.write_record(Record.model_validate(planned.model_copy(update=results).model_dump()))


def _status(failure: Failure | None) -> Status:
    if failure is None:
        return Status(state="completed")
    return Status(state="interrupted" if failure.failure_class == INTERRUPTED else "failed", failure=failure)


def _metrics(context: RunContext, state: RunState, power: Power | Missing) -> Metrics:
    train, core, values = throughput(state.windows), state.core, [point.value for point in state.curve]
    too_few = Missing(
        missing="not_run", reason=f"{len(state.windows)} measurement windows, at least {MINIMUM_WINDOWS} are needed"
    )
    projected_s: Number | None = projected_train_seconds(state, context.hyperparameters, context.spans.seconds("eval"))
    if projected_s is None:
        projected_s = Missing(missing="not_run", reason="the budget ended before a window")
    found = {
        "p_whole": state.samples / state.train_seconds if state.train_seconds else None,
        "p_train": train or too_few,
        "p_core": core,
        "data_stall": 1 - train.median / core.median if train and core else None,
        "data_wait": spread(state.data_waits_s),
        "step_breakdown": state.breakdown,
        "quality": values[-1] if values else None,
        "best_quality": max(values, default=None),
        "time_to_target": state.time_to_target or _why_no_time_to_target(context, state),
        "projected_train_seconds": projected_s if state.ended_by_budget else None,
        "memory": _memory(state.memory, power, context.session) if state.memory else None,
        "power": power,
        "train_samples": state.samples,
        "train_seconds": state.train_seconds,
        "epochs": state.epochs,
        "steps": state.steps,
        "spans": context.spans.as_records(),
        "curve": state.curve,
        "restart_windows": state.restart_windows,
        "rank_steps": state.rank_steps,
    }
    return Metrics().model_copy(update={name: value for name, value in found.items() if value is not None})


def _why_no_time_to_target(context: RunContext, state: RunState) -> Missing:
    if context.target is None:
        return Missing(missing="not_applicable", reason="no target is defined for this dataset")
    if not state.curve:
        return Missing(missing="not_run", reason="no evaluation was completed")
    best = max(state.curve, key=lambda point: point.value)
    within = ""
    if state.ended_by_budget and context.limits.budget_s is not None:
        within = f" within the budget of {format_duration(context.limits.budget_s)}"
    return Missing(
        missing="failed",
        reason=f"not reached{within}: best {best.value:.4f} in epoch {best.epoch:g}, target {context.target:g}",
    )


def projected_train_seconds(state: RunState, h: Hyperparameters, evaluations_s: float) -> float | None:
    """Return the projected training time of the whole schedule, or ``None`` if no window was measured.

    Each remaining step and evaluation is assumed to take the average time of the measured ones. The last epoch always
    has an evaluation; those so far took ``evaluations_s``.
    """
    if state.train_seconds is None or not state.windows:
        return None
    step_s = sum(window.seconds for window in state.windows) / sum(window.steps for window in state.windows)
    evaluation_s = evaluations_s / len(state.curve) if state.curve else 0.0
    epochs_done = state.steps // state.steps_per_epoch
    evaluations = math.ceil(h.epochs / h.evaluate_every_epochs) - epochs_done // h.evaluate_every_epochs
    return state.train_seconds + (h.epochs * state.steps_per_epoch - state.steps) * step_s + evaluations * evaluation_s


def _memory(stats: MemoryStats, power: Power | Missing, session: Session) -> Memory:
    sampled = power.used_peak_bytes if isinstance(power, Power) else _UNTOLD
    if Capability.UNIFIED_MEMORY in session.vendor_info().capabilities:
        sampled = Missing(missing="not_applicable", reason="the device's memory is the host's, which others use too")
    return Memory(
        allocated_peak_bytes=_or_untold(stats.peak_allocated_bytes),
        reserved_peak_bytes=_or_untold(stats.peak_reserved_bytes),
        device_peak_bytes=sampled,
        total_bytes=_or_untold(stats.total_bytes),
        allocator_source=stats.source,
        device_source=power.source if isinstance(power, Power) else "",
    )


def _environment(planned: Environment, context: RunContext, runtime: RuntimeInfo) -> Environment:
    none = Missing(missing="not_applicable", reason="the stack has none")
    device = context.devices[context.rank.rank]
    short_name = context.session.vendor_info().short_name(device.name)
    found = {
        "card_title": device.name,
        "card_short_name": short_name,
        "row_label": short_name,
        "cards": [
            Card(
                rank=rank,
                name=info.name,
                uuid=info.uuid or _UNTOLD,
                pci_bus_id=info.pci_bus_id or _UNTOLD,
                total_bytes=_or_untold(info.total_bytes),
            )
            for rank, info in enumerate(context.devices)
        ],
        "driver": runtime.driver or none,
        "framework": runtime.framework or f"pytorch-{runtime.torch}",
        "compiler": runtime.compiler or none,
        "dependencies": ", ".join(
            f"{item.name}-{item.version}" for item in planned.distributions if item.name in ("numpy", "torchvision")
        ),
        "torch": runtime.torch,
        "sdk": runtime.sdk or none,
        "collectives": runtime.collectives or _UNTOLD,
    }
    stated = {key: getattr(planned, key) for key in planned.stated}
    return Environment.model_validate(planned.model_dump() | found | stated)


def _knobs(facts: RuntimeFacts, precision: PrecisionPolicy) -> list[KnobRecord]:
    knobs = [KnobRecord.model_validate(item) for item in facts.applied_environment]
    for origin, chosen in (("vendor", (*facts.runtime.knobs, *precision.knobs)), ("core", facts.core_knobs)):
        knobs += [KnobRecord.model_validate(asdict(knob) | {"origin": origin}) for knob in chosen]
    # A plugin may report an applied variable again. If both entries agree, one is enough.
    return list({(knob.name, knob.value): knob for knob in reversed(knobs)}.values())[::-1]


def _cross_check_warnings(metrics: Metrics) -> list[str]:
    warnings = []
    for name in WINDOWED:
        measured = getattr(metrics, name)
        if isinstance(measured, Missing):
            continue
        difference = abs(measured.mean_of_totals / measured.median - 1)
        if difference > CROSS_CHECK_TOLERANCE:
            warnings.append(
                f"{name}: the median of windows and total samples over total time differ by {difference:.1%}; "
                "the run is short or was disturbed"
            )
    return warnings


def straggler_warnings(steps: Sequence[RankStep]) -> list[str]:
    """Return warnings about the slowest rank if it is much slower than the others; all wait for it in every step."""
    warnings = []
    typical_s = statistics.median(step.step_s for step in steps) if steps else 0.0
    for name, what in (("step_s", "its own part of a step"), ("data_wait_s", "waiting for data")):
        known = {step: value for step in steps if not isinstance(value := getattr(step, name), Missing)}
        if len(known) < 2:
            continue
        slowest = max(known, key=lambda step: known[step])
        others_s = statistics.median(value for step, value in known.items() if step is not slowest)
        ratio = known[slowest] / others_s if others_s > 0 else 1.0
        if ratio > 1 + STRAGGLER_TOLERANCE and known[slowest] - others_s > STRAGGLER_TOLERANCE * typical_s:
            warnings.append(
                f"straggler: rank {slowest.rank} on {slowest.card} takes {ratio:.2f} times as long as the others "
                f"for {what}"
            )
    return warnings


def _interruption_warnings(planned: Record) -> list[str]:
    if not planned.interruptions:
        return []
    gap_s = sum(interruption.gap_seconds for interruption in planned.interruptions)
    steps = ", ".join(str(interruption.step) for interruption in planned.interruptions)
    time = f"e2e_time_s adds up its sessions and leaves out {gap_s:.0f} s between them"
    return [f"the run was interrupted and continued after step {steps}: {time}"]


def _precision_warnings(precision: PrecisionPolicy, measured: EffectivePrecision) -> list[str]:
    """Return warnings about measured arithmetic that contradicts the declared precision."""
    return [
        f"{precision.requested} was requested and {precision.effective} declared, but {name} computes in {seen}"
        for name, seen in (("matrix multiplication", measured.matmul), ("convolution", measured.convolution))
        if seen != precision.effective
    ]


def _or_untold(value: int | None) -> int | Missing:
    return _UNTOLD if value is None else value

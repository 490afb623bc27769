"""Conversion of training measurements to the metrics of a record."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chipperf.durations import format_duration
from chipperf.plugin.types import Capability
from chipperf.records.columns import WINDOWED
from chipperf.records.schema import (
    NOT_REACHED,
    Card,
    CaseRecord,
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
from chipperf.train.budget import projected_train_seconds
from chipperf.train.windows import MINIMUM_WINDOWS, spread, throughput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chipperf.plugin.session import Session
    from chipperf.plugin.types import DeviceInfo, Knob, MemoryStats, PrecisionPolicy, RuntimeInfo
    from chipperf.run.directory import RunDirectory
    from chipperf.train.context import RunContext
    from chipperf.train.effective_precision import EffectivePrecision
    from chipperf.train.run_state import RunState

CROSS_CHECK_TOLERANCE = 0.02
"""Relative difference between the median of windows and total samples over total time from which the record warns."""

STRAGGLER_TOLERANCE = 0.1
"""Delay of a rank against the median of the others, as a fraction of a step, from which the record names the rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeFacts:
    """Facts about the software stack from a worker's initialization, and the knobs that core chose."""

    runtime: RuntimeInfo
    precision: PrecisionPolicy
    measured_precision: EffectivePrecision
    devices: Sequence[DeviceInfo]
    core_knobs: Sequence[Knob]
    applied_environment: Sequence[dict[str, str]]
    target: float | None


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
    metrics = _metrics(context, state, facts, power)
    record = planned.model_copy(
        update={
            "status": _status(failure),
            "case": CaseRecord(**{**planned.case.model_dump(), "target": _target(facts, planned)}),
            "precision": PrecisionRecord(
                requested=facts.precision.requested,
                effective=facts.precision.effective,
                measured_matmul=facts.measured_precision.matmul,
                measured_convolution=facts.measured_precision.convolution,
                autocast_dtype=facts.precision.autocast_dtype,
                grad_scaler=facts.precision.grad_scaler,
            ),
            "dataset": context.workload.dataset,
            "loader": context.workload.loader,
            "environment": _environment(planned.environment, context, facts),
            "knobs": _knobs(facts),
            "metrics": metrics,
            "disabled_observers": [
                f"{observer.name} ({observer.distribution} {observer.version}): {observer.reason}"
                for observer in context.session.disabled_observers
            ],
            "warnings": [
                *planned.warnings,
                *_interruption_warnings(planned),
                *state.warnings,
                *_warnings(metrics),
                *_precision_warnings(facts),
                *straggler_warnings(state.rank_steps),
            ],
        }
    )
    directory.write_record(Record.model_validate(record.model_dump()))


def _status(failure: Failure | None) -> Status:
    if failure is None:
        return Status(state="completed")
    return Status(state="interrupted" if failure.failure_class == INTERRUPTED else "failed", failure=failure)


def _metrics(context: RunContext, state: RunState, facts: RuntimeFacts, power: Power | Missing) -> Metrics:
    not_run = NOT_REACHED
    train = throughput(state.windows)
    too_few = Missing(
        missing="not_run", reason=f"{len(state.windows)} measurement windows, at least {MINIMUM_WINDOWS} are needed"
    )
    core = state.core
    whole = state.samples / state.train_seconds if state.train_seconds else not_run
    return Metrics().model_copy(
        update={
            "p_whole": whole,
            "p_train": train or too_few,
            "p_core": core or not_run,
            "data_stall": 1 - train.median / core.median if train and core else not_run,
            "data_wait": spread(state.data_waits_s) or not_run,
            "step_breakdown": state.breakdown or not_run,
            "quality": state.curve[-1].value if state.curve else not_run,
            "best_quality": max(point.value for point in state.curve) if state.curve else not_run,
            "time_to_target": state.time_to_target or _why_no_time_to_target(context, state, facts),
            "projected_train_seconds": _projection(context, state),
            "memory": _memory(state.memory, power, context.session) if state.memory else not_run,
            "power": power,
            "train_samples": state.samples,
            "train_seconds": state.train_seconds if state.train_seconds is not None else not_run,
            "epochs": state.epochs,
            "steps": state.steps,
            "spans": context.spans.as_records(),
            "curve": state.curve,
            "restart_windows": state.restart_windows,
            "rank_steps": state.rank_steps,
        }
    )


def _why_no_time_to_target(context: RunContext, state: RunState, facts: RuntimeFacts) -> Missing:
    if facts.target is None:
        return Missing(missing="not_applicable", reason="no target is defined for this dataset")
    if not state.curve:
        return Missing(missing="not_run", reason="no evaluation was completed")
    best = max(state.curve, key=lambda point: point.value)
    within = ""
    if state.ended_by_budget and context.limits.budget_s is not None:
        within = f" within the budget of {format_duration(context.limits.budget_s)}"
    return Missing(
        missing="failed",
        reason=f"not reached{within}: best {best.value:.4f} in epoch {best.epoch:g}, target {facts.target:g}",
    )


def _projection(context: RunContext, state: RunState) -> Number:
    if not state.ended_by_budget:
        return Missing(missing="not_applicable", reason="no budget ended the run")
    h = context.hyperparameters
    seconds = projected_train_seconds(
        state,
        steps_per_epoch=context.workload.steps_per_epoch,
        epochs=h.epochs,
        evaluate_every_epochs=h.evaluate_every_epochs,
        evaluations_s=context.spans.seconds("eval"),
    )
    return Missing(missing="not_run", reason="the budget ended before a window") if seconds is None else seconds


def _memory(stats: MemoryStats, power: Power | Missing, session: Session) -> Memory:
    unknown = Missing(missing="unknown", reason="the vendor's stack does not tell")
    sampled = power.used_peak_bytes if isinstance(power, Power) else unknown
    if Capability.UNIFIED_MEMORY in session.vendor_info().capabilities:
        sampled = Missing(missing="not_applicable", reason="the device's memory is the host's, which others use too")
    return Memory(
        allocated_peak_bytes=_known(stats.peak_allocated_bytes, unknown),
        reserved_peak_bytes=_known(stats.peak_reserved_bytes, unknown),
        device_peak_bytes=sampled,
        total_bytes=_known(stats.total_bytes, unknown),
        allocator_source=stats.source,
        device_source=power.source if isinstance(power, Power) else "",
    )


def _environment(planned: Environment, context: RunContext, facts: RuntimeFacts) -> Environment:
    unknown = Missing(missing="unknown", reason="the vendor's stack does not tell")
    none = Missing(missing="not_applicable", reason="the stack has none")
    runtime, device = facts.runtime, facts.devices[context.rank.rank]
    short_name = context.session.vendor_info().short_name(device.name)
    found = {
        "card_title": device.name,
        "card_short_name": short_name,
        "row_label": short_name,
        "cards": [
            Card(
                rank=rank,
                name=info.name,
                uuid=info.uuid or unknown,
                pci_bus_id=info.pci_bus_id or unknown,
                total_bytes=_known(info.total_bytes, unknown),
            )
            for rank, info in enumerate(facts.devices)
        ],
        "driver": runtime.driver or none,
        "framework": runtime.framework or f"pytorch-{runtime.torch}",
        "compiler": runtime.compiler or none,
        "dependencies": ", ".join(
            f"{item.name}-{item.version}" for item in planned.distributions if item.name in ("numpy", "torchvision")
        ),
        "torch": runtime.torch,
        "sdk": runtime.sdk or none,
        "collectives": runtime.collectives or unknown,
    }
    stated = {key: getattr(planned, key) for key in planned.stated}
    return Environment.model_validate(planned.model_dump() | found | stated)


def _knobs(facts: RuntimeFacts) -> list[KnobRecord]:
    knobs = [KnobRecord.model_validate(item) for item in facts.applied_environment]
    for knob in (*facts.runtime.knobs, *facts.precision.knobs):
        knobs.append(KnobRecord(name=knob.name, value=knob.value, reason=knob.reason, origin="vendor"))
    for knob in facts.core_knobs:
        knobs.append(KnobRecord(name=knob.name, value=knob.value, reason=knob.reason, origin="core"))
    # A plugin may report an applied variable again. If both entries agree, one is enough.
    return list({(knob.name, knob.value): knob for knob in reversed(knobs)}.values())[::-1]


def _warnings(metrics: Metrics) -> list[str]:
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
    for name, what in (("step_s", "its own part of a step"), ("data_wait_s", "waiting for data")):
        known = {step: value for step in steps if not isinstance(value := getattr(step, name), Missing)}
        if len(known) < 2:
            continue
        slowest = max(known, key=lambda step: known[step])
        others_s = statistics.median(value for step, value in known.items() if step is not slowest)
        ratio = known[slowest] / others_s if others_s > 0 else 1.0
        if ratio > 1 + STRAGGLER_TOLERANCE and known[slowest] - others_s > STRAGGLER_TOLERANCE * _step_s(steps):
            warnings.append(
                f"straggler: rank {slowest.rank} on {slowest.card} takes {ratio:.2f} times as long as the others "
                f"for {what}"
            )
    return warnings


def _step_s(steps: Sequence[RankStep]) -> float:
    return statistics.median(step.step_s for step in steps)


def _interruption_warnings(planned: Record) -> list[str]:
    """Return warnings about the interruptions that affect the run's times."""
    if not planned.interruptions:
        return []
    gap_s = sum(interruption.gap_seconds for interruption in planned.interruptions)
    steps = ", ".join(str(interruption.step) for interruption in planned.interruptions)
    return [
        (
            f"the run was interrupted and continued after step {steps}: e2e_time_s adds up its sessions and leaves out "
            f"{gap_s:.0f} s between them"
        )
    ]


def _precision_warnings(facts: RuntimeFacts) -> list[str]:
    """Return warnings about measured arithmetic that contradicts the declared precision."""
    declared, measured = facts.precision.effective, facts.measured_precision
    return [
        f"{facts.precision.requested} was requested and {declared} declared, but {name} computes in {seen}"
        for name, seen in (("matrix multiplication", measured.matmul), ("convolution", measured.convolution))
        if seen != declared
    ]


def _target(facts: RuntimeFacts, planned: Record) -> float | Missing:
    if facts.target is not None:
        return facts.target
    return Missing(missing="not_applicable", reason=f"case {planned.case.name} has no target on this dataset")


def _known(value: int | None, missing: Missing) -> int | Missing:
    return missing if value is None else value

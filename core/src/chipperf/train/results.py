"""Conversion of training measurements to the metrics of a record."""

from __future__ import annotations

import json
import math
import os
import statistics
from dataclasses import asdict
from typing import TYPE_CHECKING

from chipperf.durations import format_duration
from chipperf.errors import UsageError
from chipperf.plugin.torch_helpers import HOST_VARIABLES, user_variables
from chipperf.plugin.types import Capability
from chipperf.records.columns import WINDOWED
from chipperf.records.consistency import CROSS_CHECK_TOLERANCE
from chipperf.records.convergence import best_of, best_quality, quality_text
from chipperf.records.event_metrics import throughput
from chipperf.records.schema import (
    MINIMUM_WINDOWS,
    Dataset,
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
    SkippedSteps,
    Status,
)
from chipperf.records.store import read_record
from chipperf.run.failure import INTERRUPTED
from chipperf.run.planned_record import UNTOLD, card_record, machine_environment
from chipperf.train.effective_precision import narrowest
from chipperf.train.windows import spread
from chipperf.train.worker_environment import APPLIED_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chipperf.cases.base import Hyperparameters
    from chipperf.plugin.session import Session
    from chipperf.plugin.types import Knob, MemoryStats, PrecisionPolicy, RuntimeInfo
    from chipperf.run.telemetry_process import TelemetrySampler
    from chipperf.train.context import RunContext
    from chipperf.train.effective_precision import Rounding
    from chipperf.train.run_state import RunState

_NO_PRODUCT = Missing(missing="not_applicable", reason="the model has none")

STRAGGLER_TOLERANCE = 0.1
"""Delay of a rank against the median of the others, as a fraction of a step, from which the record names the rank."""


def write_description(
    context: RunContext, runtime: RuntimeInfo, measured: Mapping[str, Rounding], core_knobs: Sequence[Knob]
) -> list[str]:
    """Write what a record says once about all sessions: its data, loader, environment, precision and knobs.

    The first session writes it. Return warnings about what is different in a later one; another dataset or other
    devices are a :class:`UsageError`. ``measured`` is the rounding of products on all ranks.
    """
    planned = read_record(context.directory.record)
    is_first = isinstance(planned.loader, Missing)
    target: float | Missing | None = context.target
    if target is None:
        target = Missing(missing="not_applicable", reason=f"case {planned.case.name} has no target on this dataset")
    precision = context.precision
    machine = planned.environment if is_first else machine_environment(context.plan.stated_environment)
    description = {
        "case": planned.case.model_copy(update={"target": target}),
        "precision": _precision(precision, measured),
        "dataset": context.workload.dataset,
        "loader": context.workload.loader,
        "environment": _environment(machine, context, runtime),
        "knobs": _knobs((*runtime.knobs, *precision.knobs), core_knobs),
    }
    described = Record.model_validate(planned.model_copy(update=description).model_dump())
    warnings = _precision_warnings(precision, measured)
    if is_first:
        context.directory.write_record(described)
        return warnings
    _require_same(planned, described)
    before, now = _facts(planned), _facts(described)
    differing = [
        f"{name} {before.get(name)}, then {now.get(name)}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
    if differing:
        warnings.append(f"continued with other settings than this record has: {'; '.join(differing)}")
    return warnings


def add_measured(context: RunContext, before: Mapping[str, Rounding], after: Mapping[str, Rounding]) -> list[str]:
    """Return warnings about products that are computed otherwise after training; narrower ones go into the record."""
    changed = {name: seen for name, seen in after.items() if seen.name != before[name].name}
    if changed:
        narrower = {name: min(seen, before[name]) for name, seen in after.items()}
        record = read_record(context.directory.record)
        precision = _precision(context.precision, narrower)
        context.directory.write_record(record.model_copy(update={"precision": precision}))
    return _precision_warnings(context.precision, changed, at_end=True)


def _precision(policy: PrecisionPolicy, measured: Mapping[str, Rounding]) -> PrecisionRecord:
    return PrecisionRecord(
        requested=policy.requested,
        effective=policy.effective,
        measured_matmul=narrowest(measured, convolutions=False) or _NO_PRODUCT,
        measured_convolution=narrowest(measured, convolutions=True) or _NO_PRODUCT,
        measured_products={name: seen.name for name, seen in measured.items()},
        autocast_dtype=policy.autocast_dtype,
        grad_scaler=policy.grad_scaler,
    )


def _require_same(planned: Record, described: Record) -> None:
    """Check that a run continues on the dataset and the kind of devices that its record describes."""
    cards, here = ([card.name for card in record.environment.cards] for record in (planned, described))
    if cards != here:
        raise UsageError(
            f"the run was started on {', '.join(dict.fromkeys(cards))}, and here is {', '.join(dict.fromkeys(here))}",
            hint="resume it on the same devices, or start a new run",
        )
    before, now = planned.dataset, described.dataset
    # Its name may be that of its directory, which may have moved.
    if before.model_copy(update={"name": now.name}) != now:
        raise UsageError(
            f"the run was started on another dataset: {describe_dataset(before)}; here is {describe_dataset(now)}",
            hint="if its data have moved: perf train --resume RUN --data DIR",
        )


def describe_dataset(data: Dataset) -> str:
    """Return what distinguishes a dataset from others."""
    told = "{0.name} with {0.train_samples} samples for training, {0.eval_samples} for evaluation, {0.fingerprint}"
    return told.format(data)


def _facts(record: Record) -> dict[str, str]:
    """Return what a record says once, as texts by name."""
    facts: dict[str, object] = {f"knob {knob.name}": knob.value for knob in record.knobs}
    facts |= {f"distribution {each.name}": each.version for each in record.environment.distributions}
    facts |= {f"card of rank {card.rank}": f"{card.name} {card.uuid}" for card in record.environment.cards}
    for part in ("precision", "loader", "environment"):
        fields = getattr(record, part).model_dump(exclude={"distributions", "cards", "stated"})
        facts |= {f"{part}.{name}": value for name, value in fields.items()}
    return {name: str(value) for name, value in facts.items()}


def write_results(context: RunContext, state: RunState, sampler: TelemetrySampler, *, failure: Failure | None) -> None:
    """Write the results to the run's record; after a failure, the results of the completed part.

    If the launcher is alive, it replaces this rank's ``failure`` with its verdict on all ranks.
    """
    planned = read_record(context.directory.record)
    metrics = _metrics(context, state, sampler.summary())
    results = {
        "status": _status(failure),
        "metrics": metrics,
        "warnings": [
            *planned.warnings,
            *([f"telemetry: the process that reads the devices {sampler.fault}"] if sampler.fault else []),
            *_interruption_warnings(planned),
            *state.warnings,
            *_cross_check_warnings(metrics),
            *straggler_warnings(state.rank_steps),
            *skipped_warnings(sum(state.skipped_steps.values()), state.steps),
        ],
    }
    context.directory.write_record(Record.model_validate(planned.model_copy(update=results).model_dump()))


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
        "best_quality": best_quality(state.curve, lower=context.lower_is_better),
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
        "skipped_steps": SkippedSteps(steps=sum(state.skipped_steps.values()), by_epoch=state.skipped_steps)
        if context.precision.grad_scaler
        else Missing(missing="not_applicable", reason="gradients are not scaled"),
        "forward_flops": state.forward_flops,
        "gradient_bytes": state.gradient_bytes,
    }
    return Metrics().model_copy(update={name: value for name, value in found.items() if value is not None})


def _known(values: Iterable[Number]) -> list[float]:
    return [value for value in values if not isinstance(value, Missing)]


def _why_no_time_to_target(context: RunContext, state: RunState) -> Missing:
    if context.target is None:
        return Missing(missing="not_applicable", reason="no target is defined for this dataset")
    if not state.curve:
        return Missing(missing="not_run", reason="no evaluation was completed")
    if not (known := _known(point.value for point in state.curve)):
        return Missing(missing="not_applicable", reason="no evaluation has a result")
    best = best_of(known, lower=context.lower_is_better)
    shown, wanted = (quality_text(each, lower=context.lower_is_better) for each in (best, context.target))
    epoch = next(point.epoch for point in state.curve if point.value == best)
    within = ""
    if state.ended_by_budget and context.plan.limits.budget_s is not None:
        within = f" within the budget of {format_duration(context.plan.limits.budget_s)}"
    return Missing(
        missing="failed",
        reason=f"not reached{within}: best {shown} in epoch {round(epoch, 3):g}, target {wanted}",
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
    sampled = power.used_peak_bytes if isinstance(power, Power) else UNTOLD
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
        "cards": [card_record(rank, info) for rank, info in enumerate(context.devices)],
        "driver": runtime.driver or none,
        "framework": runtime.framework or f"pytorch-{runtime.torch}",
        "compiler": runtime.compiler or none,
        "dependencies": ", ".join(
            f"{item.name}-{item.version}" for item in planned.distributions if item.name in ("numpy", "torchvision")
        ),
        "torch": runtime.torch,
        "sdk": runtime.sdk or none,
        "collectives": runtime.collectives or UNTOLD,
    }
    stated = {key: getattr(planned, key) for key in planned.stated}
    return Environment.model_validate(planned.model_dump() | found | stated)


def _knobs(of_vendor: Sequence[Knob], of_core: Sequence[Knob]) -> list[KnobRecord]:
    knobs = [KnobRecord.model_validate(item) for item in json.loads(os.environ.get(APPLIED_VARIABLE, "[]"))]
    for origin, chosen in (("vendor", of_vendor), ("core", of_core)):
        knobs += [KnobRecord.model_validate(asdict(knob) | {"origin": origin}) for knob in chosen]
    told = {knob.name for knob in knobs}
    variables = (knob for knob in user_variables(HOST_VARIABLES) if knob.name not in told)
    knobs += [KnobRecord.model_validate(asdict(knob) | {"origin": "user"}) for knob in variables]
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


def skipped_warnings(skipped: int, steps: int) -> list[str]:
    """Return a warning if the gradient scaler skipped more optimizer steps than it needs to find its scale."""
    if skipped <= max(3, steps // 100):
        return []
    why = "because gradients overflowed: they changed no weight, but count in throughput and samples"
    return [f"the gradient scaler skipped {skipped} of {steps} optimizer steps, {why}"]


def _interruption_warnings(planned: Record) -> list[str]:
    if not planned.interruptions:
        return []
    gap_s = sum(interruption.gap_seconds for interruption in planned.interruptions)
    steps = ", ".join(str(interruption.step) for interruption in planned.interruptions)
    time = f"e2e_time_s adds up its sessions and leaves out {gap_s:.0f} s between them"
    return [f"the run was interrupted and continued after step {steps}: {time}"]


def _precision_warnings(
    precision: PrecisionPolicy, measured: Mapping[str, Rounding], *, at_end: bool = False
) -> list[str]:
    """Return warnings about measured arithmetic that contradicts the declared precision."""
    return [
        f"{precision.requested} was requested and {precision.effective} declared, but training computes in "
        f"{f'{found} at its end' if at_end else found}: "
        f"{'; '.join(name for name, seen in measured.items() if seen.name == found)}"
        for found in dict.fromkeys(narrowest(measured, convolutions=convolutions) for convolutions in (False, True))
        if found not in (None, precision.effective)
    ]


def _or_untold(value: int | None) -> int | Missing:
    return UNTOLD if value is None else value

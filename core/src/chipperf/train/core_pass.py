"""Measurements after training: ``p_core``, the phases of a step, and each rank's own time per step.

Each of them would disturb the measured loop, so it has a separate pass on the trained model:

* ``p_core`` is the throughput with batches that are already on the device, without the input pipeline;
* the step breakdown waits for the device after every phase;
* the ranks' own times are measured in steps without gradient exchange, so that no rank waits for a slower one;
* the arithmetic of a forward pass is counted in one that is not timed.
"""

from __future__ import annotations

import statistics
from itertools import cycle, islice
from typing import TYPE_CHECKING

import torch

from chipperf.records.event_metrics import throughput
from chipperf.records.schema import MINIMUM_WINDOWS, Missing, RankStep, StepBreakdown
from chipperf.run.events import window_value
from chipperf.run.ranks import describe_card
from chipperf.train.windows import LocalWindow, combine_windows, spread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chipperf.cases.workload import Batch, Workload
    from chipperf.records.schema import Number, Throughput
    from chipperf.train.context import RunContext
    from chipperf.train.replica import Replica
    from chipperf.train.run_state import RunState

POOL_BATCHES = 4
"""Number of device-resident batches. The pass rotates through them, so that no cache keeps one batch warm."""

DIAGNOSTIC_STEPS = 10
"""Steps of a pass that waits for the device within each step."""

_FEWEST_WAITS = 5
"""Batches without which there is no typical wait for one."""


def measure_core(context: RunContext, replica: Replica, state: RunState) -> None:
    """Measure the throughput with device-resident batches and the phases of a step; this changes the weights."""
    with context.spans.measure("core_pass"):
        pool = list(islice(context.workload.epoch_batches(0), POOL_BATCHES))
        on_device = [context.workload.to_device(batch) for batch in pool]
        batches = cycle(on_device)
        for _ in range(2):
            replica.step(batches, state.steps)
        steps = context.hyperparameters.measure_core_steps
        windows = [core_window(context, replica, batches, state.steps, steps) for _ in range(MINIMUM_WINDOWS)]
        combined = combine_windows(windows, context.collectives)
        for number, window in enumerate(combined, start=1):
            context.events.write("core_window_stop", window_value(window), step=state.steps + number)
        state.core = throughput(combined)
    with context.spans.measure("diagnostic_pass"):
        state.breakdown = _break_down(context, replica, cycle(pool), state.core)
        state.forward_flops = count_forward_flops(replica, on_device[0], context.workload)
        state.gradient_bytes = replica.gradient_bytes
        if context.rank.world_size > 1:
            state.rank_steps = _time_ranks(context, replica, cycle(pool), state.data_waits_s)


def core_window(
    context: RunContext, replica: Replica, batches: Iterator[Batch], steps_done: int, steps: int
) -> LocalWindow:
    """Run optimizer steps on device-resident batches between two edges, after ``steps_done`` steps of training."""
    replica.loss_sum.zero_()
    samples = 0
    start_s = context.edge()
    for _ in range(steps):
        samples += replica.step(batches, steps_done)
    nanoseconds = round((context.edge() - start_s) * 1e9)
    return LocalWindow(
        epoch=1,
        first_step=steps_done + 1,
        steps=steps,
        samples=samples,
        nanoseconds=nanoseconds,
        loss=float(replica.loss_sum) / steps,
    )


def _break_down(
    context: RunContext, replica: Replica, batches: Iterator[Batch], core: Throughput | None
) -> StepBreakdown | None:
    """Time the phases of single steps, and how much slower than training these steps are."""
    phases: dict[str, list[float]] = {"h2d": [], "forward": [], "backward": [], "optimizer": []}
    for _ in range(DIAGNOSTIC_STEPS):
        replica.optimizer.zero_grad(set_to_none=True)
        start_s = context.edge()
        batch = context.workload.to_device(next(batches))
        start_s = _lap(context, phases["h2d"], start_s)
        loss = replica.forward(batch)
        start_s = _lap(context, phases["forward"], start_s)
        replica.backward(loss)
        start_s = _lap(context, phases["backward"], start_s)
        replica.update()
        _lap(context, phases["optimizer"], start_s)
    steps_s = [sum(parts) for parts in zip(*phases.values(), strict=True)]
    step = spread(steps_s)
    if step is None or core is None:
        return None
    undisturbed_s = sum(w.seconds for w in core.windows) / sum(w.steps for w in core.windows)
    undisturbed_s /= context.hyperparameters.accumulate_steps
    slowdown = (sum(steps_s) / len(steps_s)) / undisturbed_s
    means_s = {f"{name}_s": sum(values) / len(values) for name, values in phases.items()}
    return StepBreakdown(step=step, steps=DIAGNOSTIC_STEPS, slowdown=slowdown, **means_s)


def count_forward_flops(replica: Replica, batch: Batch, workload: Workload) -> Number:
    """Return the floating-point operations of one sample's forward pass, of products and convolutions, as it runs."""
    try:
        from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

        # torch does not count the attention of its own CPU kernel.
        kernel = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
        count = {kernel: lambda *shapes, **_: sdpa_flop_count(*shapes[:3])}
        counting = FlopCounterMode(display=False, custom_mapping=count if kernel else None)
        with torch.no_grad(), replica.without_exchange(), counting as counter:
            replica.forward(batch)
    except Exception as error:
        # An operator of the vendor's that torch cannot count must not cost the run.
        return Missing(missing="failed", reason=f"torch could not count it: {type(error).__name__}")
    return int(counter.get_total_flops()) / workload.sample_count(batch)


def _time_ranks(
    context: RunContext, replica: Replica, batches: Iterator[Batch], data_waits_s: Sequence[float]
) -> list[RankStep]:
    """Time each rank's own part of a step."""
    durations_s: list[float] = []
    for _ in range(DIAGNOSTIC_STEPS):
        replica.optimizer.zero_grad(set_to_none=True)
        start_s = context.edge()
        batch = context.workload.to_device(next(batches))
        with replica.without_exchange():
            replica.backward(replica.forward(batch))
        _lap(context, durations_s, start_s)
    own = (statistics.median(durations_s), typical_wait_s(data_waits_s))
    all_ranks = context.collectives.gather(own)
    return [
        RankStep(rank=rank, step_s=step_s, data_wait_s=wait_s, card=describe_card(device))
        for rank, (device, (step_s, wait_s)) in enumerate(zip(context.devices, all_ranks, strict=True))
    ]


def typical_wait_s(waits_s: Sequence[float]) -> float | Missing:
    """Return the median wait for a batch. Of few batches there is none: one that came late would name a straggler."""
    if len(waits_s) < _FEWEST_WAITS:
        return Missing(missing="not_run", reason=f"fewer than {_FEWEST_WAITS} batches")
    return statistics.median(waits_s)


def _lap(context: RunContext, durations_s: list[float], start_s: float) -> float:
    now_s = context.wait_for_device()
    durations_s.append(now_s - start_s)
    return now_s

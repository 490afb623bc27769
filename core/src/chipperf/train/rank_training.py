"""The steps of one rank's training: initialization, training with its measurements, and the record."""

from __future__ import annotations

import os
import re
from contextlib import nullcontext
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import chipperf
from chipperf.cases.registry import find_case
from chipperf.cases.workload import WorkloadContext
from chipperf.errors import TrainingStopped, UsageError
from chipperf.plugin.torch_helpers import HOST_VARIABLES, user_variables
from chipperf.plugin.types import RunStarted
from chipperf.records.convergence import best_quality
from chipperf.records.schema import Missing
from chipperf.run.collectives import Collectives
from chipperf.run.failure import describe, ignore_signals
from chipperf.run.ranks import require_distinct_cards
from chipperf.run.telemetry_process import TelemetrySampler
from chipperf.train.checkpoint import CheckpointWriter, read_checkpoint
from chipperf.train.context import RunContext, Spans
from chipperf.train.core_pass import measure_core
from chipperf.train.effective_precision import Rounding, measure_effective_precision, measure_exchange
from chipperf.train.loop import TrainingLoop
from chipperf.train.preparation import data_parallel, join_process_group, seed_everything
from chipperf.train.replica import Replica
from chipperf.train.results import add_measured, describe_dataset, write_description, write_results
from chipperf.train.stop import StopRequest

if TYPE_CHECKING:
    import torch

    from chipperf.cases.base import Case, Hyperparameters
    from chipperf.cases.workload import Workload
    from chipperf.plugin.session import Session
    from chipperf.plugin.types import Rank, RuntimeInfo
    from chipperf.run.directory import RunDirectory
    from chipperf.run.events import EventLog
    from chipperf.run.plan import RunPlan
    from chipperf.run.progress import ProgressFile

_PLACES = re.compile("VISIBLE|AFFINITY|PLACES|IFNAME|HCA")
"""Names of variables that give every rank or machine a place of its own."""


def initialize(
    plan: RunPlan,
    directory: RunDirectory,
    session: Session,
    rank: Rank,
    device: torch.device,
    events: EventLog,
    progress: ProgressFile,
    spans: Spans,
) -> RunContext:
    """Join the other ranks, seed all generators, and build the workload."""
    distributed = join_process_group(session, rank, device)
    case = find_case(plan.case)
    hyperparameters = type(case.base).model_validate(plan.hyperparameters.values)
    collectives = Collectives(rank, device)
    seed_everything(session, hyperparameters.seed, device, hyperparameters.deterministic)
    precision = session.precision(plan.precision, device)
    devices = collectives.gather(session.device_info(device))
    require_distinct_cards(devices, rank.local_world_size, device.type)
    workload = _build_workload(plan, case, session, rank, device, hyperparameters)
    target = workload.target
    if target is None and workload.dataset.name == hyperparameters.dataset:
        target = hyperparameters.target
    checkpoints = CheckpointWriter(
        directory.checkpoints,
        run_id=plan.run_id,
        session=plan.session,
        keep=hyperparameters.keep_checkpoints,
        rank=rank,
        collectives=collectives,
    )
    return RunContext(
        plan=plan,
        directory=directory,
        session=session,
        workload=workload,
        hyperparameters=hyperparameters,
        target=target,
        metric=case.metric,
        lower_is_better=case.lower_is_better,
        samples=case.report.sample_noun.en,
        precision=precision,
        distributed=distributed,
        device=device,
        rank=rank,
        collectives=collectives,
        events=events,
        progress=progress,
        spans=spans,
        checkpoints=checkpoints if plan.shared_directory else None,
        stop=StopRequest(rank),
        devices=devices,
    )


def _build_workload(
    plan: RunPlan, case: Case, session: Session, rank: Rank, device: torch.device, hyperparameters: Hyperparameters
) -> Workload:
    options = session.loader_options(device)
    workers = options.workers_per_rank if hyperparameters.workers < 0 else hyperparameters.workers
    if workers is None:
        # This rank's share of the machine's cores, minus one for the training process.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = max(1, min(16, cores // rank.local_world_size - 1))
    return case.load_workload()(
        WorkloadContext(
            hyperparameters=hyperparameters,
            reference=case.data.reference,
            data_root=plan.data_root,
            rank=rank,
            device=device,
            loader_options=options,
            loader_workers=workers,
        )
    )


def prepare_loop(context: RunContext, runtime: RuntimeInfo) -> TrainingLoop:
    """Build the model, measure its precision, return to the plan's checkpoint, and describe all that in the record."""
    differing = compare_ranks(context, runtime)
    replica = Replica(context)
    loop = TrainingLoop(context, replica)
    # What training calls hours from now is called once: a mistake of the plugin ends the run before its first step.
    context.session.memory_reset_peak(context.device)
    context.session.memory_query(context.device)
    if context.session.step_end:
        context.session.step_end(context.device)
    context.session.synchronize(context.device)
    replica.products = _measure_products(context, replica)
    if context.plan.checkpoint is not None:
        checkpoint = context.directory.checkpoints / context.plan.checkpoint
        # This comes last: after it, nothing may draw a random number that the previous session did not draw.
        loop.restore(*read_checkpoint(checkpoint, context.rank.rank))
    changes = of_another_model(context, "perf_prepare_model changed it", replica.changes)
    if context.rank.is_main:
        warnings = differing + write_description(context, runtime, replica.products, replica.knobs) + changes
        loop.state.warnings += [warning for warning in warnings if warning not in loop.state.warnings]
    return loop


def compare_ranks(context: RunContext, runtime: RuntimeInfo) -> list[str]:
    """Return a warning for each rank whose settings are not those of rank 0, which the record has.

    Another dataset or another version of what the record names once is a :class:`UsageError`.
    """
    entry = context.session.entry
    equal = {
        "dataset": describe_dataset(context.workload.dataset),
        "chipperf": chipperf.__version__,
        "torch": str(runtime.torch),
        entry.distribution: entry.version,
    }
    names = ("driver", "sdk", "collectives", "framework", "compiler")
    settings = {name: str(getattr(runtime, name)) for name in names}
    for knob in (*runtime.knobs, *user_variables(HOST_VARIABLES)):
        if not _PLACES.search(knob.name):
            settings[knob.name] = str(knob.value)
    warnings = []
    (all_equal, first), *others = context.collectives.gather((equal, settings))
    for rank, (told, other) in enumerate(others, start=1):
        if told != all_equal:
            raise UsageError(
                f"rank {rank} has {_differing(told, all_equal)} of rank 0",
                hint="all machines need the same data in the same place, and the same software",
            )
        if other != first:
            warnings.append(f"rank {rank} had other settings than rank 0, and this record: {_differing(other, first)}")
    return warnings


def _differing(told: dict[str, Any], expected: dict[str, Any]) -> str:
    names = [name for name in {**expected, **told} if told.get(name) != expected.get(name)]
    return "; ".join(f"{name} {told.get(name)} instead of {expected.get(name)}" for name in names)


def of_another_model(context: RunContext, what: str, own_changes: str) -> list[str]:
    """Return a warning for each change of the model, with the ranks that have it if others have not."""
    by_change: dict[str, list[int]] = {}
    for rank, changes in enumerate(context.collectives.gather(own_changes)):
        by_change.setdefault(changes, []).append(rank)
    told = {changes: what + (_on(ranks) if len(by_change) > 1 else "") for changes, ranks in by_change.items()}
    return [f"the results are of another model: {where}: {changes}" for changes, where in told.items() if changes]


def _on(ranks: list[int]) -> str:
    return f" on rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"


def _measure_products(context: RunContext, replica: Replica) -> dict[str, Rounding]:
    """Return the rounding of each product of training, and of the exchange of gradients: the narrowest of all ranks."""
    device, batch_size = context.device, context.hyperparameters.batch_size
    found = measure_effective_precision(device, replica.autocast, replica.model, batch_size)
    if context.distributed is not None:
        found["gradient exchange"] = measure_exchange(
            partial(data_parallel, config=context.distributed, device=device), device
        )
    ranks = context.collectives.gather(found)
    return {name: min(each[name] for each in ranks) for name in found}


def announce_start(context: RunContext, steps: int) -> None:
    """Write the run's settings to the event log, and tell the observers that it starts after so many steps."""
    plan, events, h, world_size = context.plan, context.events, context.hyperparameters, context.rank.world_size
    events.write("global_batch_size", h.global_batch_size(world_size))
    events.write("seed", h.seed)
    events.write("opt_base_learning_rate", h.lr)
    events.write("train_samples", context.workload.dataset.train_samples)
    events.write("eval_samples", context.workload.dataset.eval_samples)
    events.write("run_start")
    context.session.notify(
        RunStarted(
            run_id=plan.run_id,
            directory=str(context.directory.path),
            case=plan.case,
            vendor=plan.vendor,
            precision=plan.precision,
            world_size=world_size,
            hyperparameters=MappingProxyType(plan.hyperparameters.values),
            step=steps,
        )
    )


def open_telemetry(context: RunContext) -> TelemetrySampler:
    """Return the sampler of this machine's devices; the first rank on the machine lets it open the vendor's library."""
    rank, plan = context.rank, context.plan
    first = rank.node_rank * rank.local_world_size
    local_devices = list(dict.fromkeys(context.devices[first : first + rank.local_world_size]))
    file = context.directory.telemetry(rank.node_rank)
    sampler = TelemetrySampler(context.session, file, local_devices, plan.idle_memory_bytes, plan.session)
    if rank.local_rank == 0:
        sampler.open()
    return sampler


def train(context: RunContext, loop: TrainingLoop, sampler: TelemetrySampler) -> None:
    """Train and measure, with telemetry of this machine's devices; write the results, also after a failure."""
    rank = context.rank
    failure = None
    sampler.trained_s = loop.state.elapsed_s
    try:
        with sampler if rank.local_rank == 0 else nullcontext():
            lower = context.lower_is_better
            found = best_quality(loop.state.curve, lower=lower)
            best = None if isinstance(found, Missing) else found
            per_epoch = loop.state.steps_per_epoch
            samples = context.samples
            context.progress.training(per_epoch, context.target, best, samples=samples, lower_is_better=lower)
            if not loop.train():
                raise TrainingStopped
        context.progress.phase("measuring")
        # Observers, the plugin's hooks and the first steps may have changed switches and the model since.
        measured = _measure_products(context, loop.replica)
        changes = of_another_model(context, "it changed during training", loop.replica.later_changes())
        if rank.is_main:
            loop.state.warnings += add_measured(context, loop.replica.products, measured) + changes
        measure_core(context, loop.replica, loop.state)
    except BaseException as error:
        failure = describe(error, rank.rank)
        raise
    finally:
        ignore_signals()
        if rank.is_main:
            write_results(context, loop.state, sampler, failure=failure)

"""The training program of one rank; :mod:`chipperf.train.worker_environment` prepares its environment."""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from chipperf.cases.registry import find_case
from chipperf.errors import RecordError, TrainingStopped
from chipperf.plugin import installed
from chipperf.plugin.session import Session, bind
from chipperf.plugin.types import RunFailed, RunFinished, RunStarted
from chipperf.run.directory import RunDirectory
from chipperf.run.events import EventLog
from chipperf.run.failure import DUMP_SIGNAL, describe, ignore_signals, report_failure
from chipperf.run.lifeline import end_with_launcher
from chipperf.run.plan import RunPlan, read_plan
from chipperf.run.progress import ProgressFile
from chipperf.run.ranks import describe_card, rank_from_environment, require_distinct_cards
from chipperf.train.preparation import join_process_group, seed_everything
from chipperf.train.spans import Spans
from chipperf.train.worker_environment import APPLIED_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from chipperf.cases.base import Case
    from chipperf.plugin.types import DeviceInfo, Rank


def main(run_directory: Path) -> None:
    """Train according to the plan in ``run_directory``."""
    faulthandler.enable()
    faulthandler.register(DUMP_SIGNAL, all_threads=True)
    end_with_launcher()
    directory = RunDirectory(run_directory)
    rank = rank_from_environment()
    with report_failure(directory, rank.rank):
        plan = read_plan(directory.plan)
        session = bind(installed.find_vendor(plan.vendor), observers=installed.observers() if rank.is_main else ())
        events = EventLog(directory.events if rank.is_main else None, rank.rank)
        try:
            _run(plan, session, rank, directory, events)
        except BaseException as error:
            failure = describe(error, rank.rank)
            session.notify(
                RunFailed(run_id=plan.run_id, failure_class=failure.failure_class, message=failure.message),
            )
            # This also fails on a full disk, and must not hide the reason of the run's failure.
            with suppress(RecordError):
                events.write("run_stop", "failed", reason=str(error))
            raise
        finally:
            events.close()


def _run(plan: RunPlan, session: Session, rank: Rank, directory: RunDirectory, events: EventLog) -> None:
    spans = Spans(plan.origin_s)
    spans.add("launch", plan.started_s, time.monotonic())
    progress = ProgressFile(directory.progress if rank.is_main else None, rank.world_size)
    progress.phase("initializing")
    events.write("init_start")
    # Imported objects live as long as the process. Searching them for garbage takes an eighth of the start time.
    gc.disable()
    with spans.measure("init"):
        runtime = session.load_runtime()

        import torch.distributed as dist

        from chipperf.run.collectives import Collectives
        from chipperf.run.telemetry_process import TelemetrySampler
        from chipperf.train.checkpoint import CheckpointWriter, read_checkpoint, require_same_devices
        from chipperf.train.context import RunContext
        from chipperf.train.core_pass import measure_core
        from chipperf.train.effective_precision import measure_effective_precision
        from chipperf.train.loop import TrainingLoop
        from chipperf.train.replica import Replica
        from chipperf.train.results import RuntimeFacts, write_results
        from chipperf.train.stop import StopRequest

        device = session.device_init(rank)
    try:
        with spans.measure("init"):
            distributed = join_process_group(session, rank, device)
            case = find_case(plan.case)
            hyperparameters = type(case.base).model_validate(plan.hyperparameters.values)
            collectives = Collectives(rank, device)
            seed_everything(session, hyperparameters.seed, device, hyperparameters.deterministic)
            precision = session.precision(plan.precision, device)
            devices = collectives.gather(session.device_info(device))
            require_distinct_cards(devices, rank.local_world_size, device.type)
            workload = case.load_workload()(_workload_context(plan, case, session, rank, device, hyperparameters))
            target = workload.target
            if target is None and workload.dataset.name == hyperparameters.dataset:
                target = hyperparameters.target
            context = RunContext(
                run_id=plan.run_id,
                session=session,
                workload=workload,
                hyperparameters=hyperparameters,
                limits=plan.limits,
                target=target,
                metric=case.metric,
                precision=precision,
                distributed=distributed,
                device=device,
                rank=rank,
                collectives=collectives,
                events=events,
                progress=progress,
                spans=spans,
                checkpoints=CheckpointWriter(
                    directory.checkpoints,
                    run_id=plan.run_id,
                    session=plan.session,
                    keep=hyperparameters.keep_checkpoints,
                    rank=rank,
                    collectives=collectives,
                    devices=[info.name for info in devices],
                )
                if plan.shared_directory
                else None,
                stop=StopRequest(rank),
            )
            replica = Replica(context)
            loop = TrainingLoop(context, replica)
            facts = RuntimeFacts(
                runtime=runtime,
                precision=precision,
                measured_precision=measure_effective_precision(device, replica.autocast, replica.weight_dtype),
                devices=devices,
                core_knobs=replica.knobs,
                applied_environment=json.loads(os.environ.get(APPLIED_VARIABLE, "[]")),
                target=target,
            )
            if plan.checkpoint is not None:
                checkpoint = directory.checkpoints / plan.checkpoint
                require_same_devices(checkpoint, [info.name for info in devices])
                # This comes last: after it, nothing may draw a random number that the previous session did not draw.
                loop.restore(*read_checkpoint(checkpoint, rank.rank))
        gc.enable()
        events.write("init_stop")
        _announce_start(plan, directory, session, rank, events, workload)
        sampler = TelemetrySampler(
            session,
            directory.telemetry(rank.node_rank),
            _local_devices(devices, rank),
            plan.idle_memory_bytes,
            plan.session,
        )
        failure = None
        try:
            with sampler if rank.local_rank == 0 else nullcontext():
                progress.phase("training")
                if not loop.train():
                    raise TrainingStopped
            progress.phase("measuring")
            measure_core(context, replica, loop.state, [describe_card(info) for info in devices])
        except BaseException as error:
            failure = describe(error, rank.rank)
            raise
        finally:
            ignore_signals()
            if rank.is_main:
                write_results(directory, context, loop.state, facts, sampler.summary(), failure=failure)
        events.write("run_stop", "success")
        progress.phase("finished")
        session.notify(RunFinished(run_id=plan.run_id, record_path=str(directory.record)))
    finally:
        session.device_teardown(device)
        if dist.is_initialized():
            dist.destroy_process_group()


def _workload_context(
    plan: RunPlan, case: Case, session: Session, rank: Rank, device: torch.device, hyperparameters: Any
) -> Any:
    from chipperf.cases.workload import WorkloadContext

    options = session.loader_options(device)
    workers = hyperparameters.workers
    if workers < 0:
        workers = options.workers_per_rank if options.workers_per_rank is not None else _default_workers(rank)
    return WorkloadContext(
        hyperparameters=hyperparameters,
        reference=case.data.reference,
        data_root=plan.data_root,
        rank=rank,
        device=device,
        loader_options=options,
        loader_workers=workers,
    )


def _default_workers(rank: Rank) -> int:
    """Return a rank's share of the machine's cores, minus one for the training process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, cores // rank.local_world_size - 1))


def _local_devices(devices: Sequence[DeviceInfo], rank: Rank) -> list[DeviceInfo]:
    """Return the distinct devices of this machine's ranks."""
    first = rank.node_rank * rank.local_world_size
    return list(dict.fromkeys(devices[first : first + rank.local_world_size]))


def _announce_start(
    plan: RunPlan, directory: RunDirectory, session: Session, rank: Rank, events: EventLog, workload: Any
) -> None:
    values = plan.hyperparameters.values
    events.write("global_batch_size", int(values["batch_size"]) * int(values["accumulate_steps"]) * rank.world_size)
    events.write("seed", values["seed"])
    events.write("opt_base_learning_rate", values["lr"])
    events.write("train_samples", workload.dataset.train_samples)
    events.write("eval_samples", workload.dataset.eval_samples)
    events.write("run_start")
    session.notify(
        RunStarted(
            run_id=plan.run_id,
            directory=str(directory.path),
            case=plan.case,
            vendor=plan.vendor,
            precision=plan.precision,
            world_size=rank.world_size,
            hyperparameters=MappingProxyType(values),
        ),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""The training program of one rank; :mod:`chipperf.train.worker_environment` prepares its environment."""

from __future__ import annotations

import atexit
import faulthandler
import gc
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf.errors import RecordError
from chipperf.plugin import installed
from chipperf.plugin.session import bind
from chipperf.plugin.types import RunFailed, RunFinished
from chipperf.records.part_digests import part_digests
from chipperf.records.store import read_record
from chipperf.run.directory import RunDirectory
from chipperf.run.events import EventLog
from chipperf.run.failure import DUMP_SIGNAL, describe, report_failure
from chipperf.run.lifeline import end_with_launcher
from chipperf.run.plan import RunPlan, read_plan
from chipperf.run.progress import FINISHED, ProgressFile
from chipperf.run.ranks import rank_from_environment
from chipperf.train.context import Spans

_FAILED_S = 10.0
"""Time that each observer of a failed run has. Ranks that are told to stop are killed after 25 seconds."""

if TYPE_CHECKING:
    from chipperf.plugin.session import Session
    from chipperf.plugin.types import Rank


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
        # An observer that hangs must neither end a run nor hide its failure.
        session.observer_limit_s = (plan.hang_timeout_s or 0.0) / 2
        try:
            _run(plan, session, rank, directory, events)
            session.notify(RunFinished(run_id=plan.run_id, record_path=str(directory.record)))
        except BaseException as error:
            failure = describe(error, rank.rank)
            failed = RunFailed(run_id=plan.run_id, failure_class=failure.failure_class, message=failure.message)
            session.observer_limit_s = min(session.observer_limit_s or _FAILED_S, _FAILED_S)
            session.notify(failed)
            # This also fails on a full disk, and must not hide the reason of the run's failure.
            with suppress(RecordError):
                events.write("run_stop", "failed", reason=failure.message)
            raise
        finally:
            events.close()
            disabled = [f"{each.name} ({each.source}): {reason}" for each, reason in session.disabled_observers]
            with suppress(RecordError):
                if disabled:
                    record = read_record(directory.record)
                    directory.write_record(record.model_copy(update={"disabled_observers": disabled}))


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

        from chipperf.train.rank_training import announce_start, initialize, open_telemetry, prepare_loop, train

        device = session.device_init(rank)
    try:
        with spans.measure("init"):
            context = initialize(plan, directory, session, rank, device, events, progress, spans)
            sampler = open_telemetry(context)
            loop = prepare_loop(context, runtime)
        gc.enable()
        events.write("init_stop")
        announce_start(context, loop.state.steps)
        train(context, loop, sampler)
        told = {"record": part_digests(directory.record.read_bytes())} if rank.is_main else {}
        events.write("run_stop", "success", **told)
        progress.phase(FINISHED)
    finally:
        # The process group ends with the process: torch 2.4 waits forever when it is taken apart at the wrong moment.
        session.device_teardown(device)


def end_process() -> None:
    """End the process as the interpreter does, but leave the native libraries as they are.

    Some abort while they are taken apart, and a run that has its results would have failed.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with suppress(OSError):
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    end_process()

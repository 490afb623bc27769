"""How a rank that stops tells the launcher why."""

from __future__ import annotations

import json
import signal
import sys
import time
import traceback
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from chipperf.errors import DeviceError, PerfError, RecordError, TrainingError, TrainingStopped, VendorHookError
from chipperf.records.schema import Failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

    from chipperf.run.directory import RunDirectory

INTERRUPTED = "interrupted"

DUMP_SIGNAL = signal.SIGUSR1
"""Ranks answer it with the stacks of all their threads in their log, wherever they hang."""


@contextmanager
def report_failure(directory: RunDirectory, rank: int) -> Iterator[None]:
    """Write why the block failed beside the rank's log and exit with the error's code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        yield
    except BaseException as error:
        ignore_signals()
        if isinstance(error, SystemExit) and not error.code:
            raise
        failure = describe(error, rank)
        content = failure.model_dump() | {
            "monotonic_s": time.monotonic(),
            "exit_code": getattr(error, "exit_code", 1),
            "would_recur": would_recur(error),
        }
        # The log may lie on the full disk that is about to be reported.
        with suppress(OSError):
            if failure.failure_class != INTERRUPTED:
                traceback.print_exc()
        with suppress(RecordError):
            directory.write_failure(rank, json.dumps(content))
        sys.exit(content["exit_code"])


def ignore_signals() -> None:
    """Let no signal interrupt what follows: results, or the cause of a failure, are about to be saved.

    The signal that stops a rank also ends its loader processes, and torch's handler of SIGCHLD raises an error then. A
    rank that takes too long to save is killed by the launcher.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, _do_nothing)


def describe(error: BaseException, rank: int) -> Failure:
    """Classify an exception."""
    # A library may have put Python's own handler of Ctrl-C back.
    if isinstance(error, (TrainingStopped, KeyboardInterrupt)):
        return Failure(failure_class=INTERRUPTED, message="interrupted", rank=rank)
    if isinstance(error, TrainingError):
        return Failure(failure_class=error.failure_class, message=error.message, rank=rank, hint=error.hint)
    if isinstance(error, PerfError):
        return Failure(failure_class=type(error).__name__, message=error.message, rank=rank, hint=error.hint)
    if "OutOfMemory" in type(error).__name__:
        hint = "lower batch_size, or raise accumulate_steps instead"
        return Failure(failure_class="out_of_memory", message=_one_line(error), rank=rank, hint=hint)
    return Failure(
        failure_class=type(error).__name__,
        message=_one_line(error),
        rank=rank,
        hint=f"the traceback is at the end of {rank_log_name(rank)}",
    )


def would_recur(error: BaseException) -> bool:
    """Return True if a restart would meet the error again: it lies in the data, the settings or the model.

    What a device or a peer did may be over after a restart, and errors of hooks are mostly those of their devices.
    """
    if isinstance(error, (DeviceError, VendorHookError)):
        return False
    return isinstance(error, (PerfError, MemoryError)) or "OutOfMemory" in type(error).__name__


def rank_log_name(rank: int) -> str:
    """Return the log's path inside the run's directory."""
    return f"logs/rank{rank}.log"


def first_failure(directory: RunDirectory, ranks: Iterable[int]) -> tuple[Failure, int] | None:
    """Return the failure that happened first and its exit code, or ``None`` if none of the ranks reported one."""
    reports = []
    for rank in ranks:
        try:
            content = json.loads(directory.failure(rank).read_text(encoding="utf-8"))
            moment, code = content.pop("monotonic_s"), content.pop("exit_code")
            content.pop("would_recur", None)
            reports.append((moment, Failure.model_validate(content), code))
        except (OSError, ValueError, KeyError):
            continue
    # Ranks that were stopped because another one failed are interrupted later, or seconds earlier by clock resolution.
    reports.sort(key=lambda report: (report[1].failure_class == INTERRUPTED, report[0]))
    return (reports[0][1], reports[0][2]) if reports else None


def reported_recurring(directory: RunDirectory, rank: int) -> bool:
    """Return True if a rank reported an error that a restart would meet again."""
    try:
        return bool(json.loads(directory.failure(rank).read_text(encoding="utf-8"))["would_recur"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:500]}" if text else type(error).__name__


def _stop(signum: int, frame: FrameType | None) -> None:
    ignore_signals()
    raise TrainingStopped


def _do_nothing(signum: int, frame: FrameType | None) -> None:
    return

"""Reporting the failure of a rank to the launcher."""

from __future__ import annotations

import signal
import sys
import time
import traceback
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from chipperf.data.loader_errors import find_loader_death
from chipperf.errors import (
    DeviceError,
    PerfError,
    RecordError,
    TrainingError,
    TrainingStopped,
    VendorHookError,
    missing_package,
)
from chipperf.records.files import read_bounded
from chipperf.records.schema import Failure
from chipperf.run.directory import rank_log_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

    from chipperf.run.directory import RunDirectory

INTERRUPTED = "interrupted"

DUMP_SIGNAL = signal.SIGUSR1
"""On this signal a rank writes the stacks of all its threads to its log, even if it hangs."""


class _RankFailure(Failure):
    """A rank's failure with its time on the machine's monotonic clock, as its launcher reads it."""

    monotonic_s: float
    exit_code: int
    would_recur: bool = False


@contextmanager
def report_failure(directory: RunDirectory, rank: int) -> Iterator[None]:
    """If the block fails, write the failure next to the rank's log and exit with the error's code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        yield
    except BaseException as error:
        ignore_signals()
        if isinstance(error, SystemExit) and not error.code:
            raise
        failure = describe(error, rank)
        report = _RankFailure(
            **failure.model_dump(),
            monotonic_s=getattr(error, "raised_s", time.monotonic()),
            exit_code=getattr(error, "exit_code", 1),
            would_recur=would_recur(error),
        )
        # The log may be on the full disk that this failure reports.
        with suppress(OSError):
            if failure.failure_class != INTERRUPTED:
                traceback.print_exc()
        with suppress(RecordError):
            directory.write_failure(rank, report.model_dump_json())
        sys.exit(report.exit_code)


def ignore_signals() -> None:
    """Ignore signals while results or a failure are saved.

    The signal that stops a rank also ends its loader processes, and torch's handler of SIGCHLD then raises an error. If
    saving takes too long, the launcher kills the rank.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda signum, frame: None)


def describe(error: BaseException, rank: int) -> Failure:
    """Return the failure for an exception, with its class."""
    error = find_loader_death(_one_line(error)) or error
    if isinstance(error, ModuleNotFoundError):
        error = missing_package(error) or error
    failure_class, message, hint = type(error).__name__, _one_line(error), None
    # A library may have put Python's own handler of Ctrl-C back.
    if isinstance(error, (TrainingStopped, KeyboardInterrupt)):
        failure_class, message = INTERRUPTED, "interrupted"
    elif isinstance(error, PerfError):
        message, hint = error.message, error.hint
        if isinstance(error, TrainingError):
            failure_class = error.failure_class
    elif "OutOfMemory" in failure_class:
        failure_class, hint = "out_of_memory", "lower batch_size, or raise accumulate_steps instead"
    else:
        hint = f"the traceback is at the end of {rank_log_name(rank)}"
    # The name of a file may not be UTF-8, and records are.
    message = message.encode(errors="backslashreplace").decode()
    return Failure(failure_class=failure_class, message=message, rank=rank, hint=hint)


def would_recur(error: BaseException) -> bool:
    """Return whether the error would occur again after a restart, because data, settings or model cause it.

    Errors of a device or of another rank may disappear after a restart. Most errors of hooks come from the device.
    """
    if isinstance(error, (DeviceError, VendorHookError)):
        return False
    return isinstance(error, (PerfError, MemoryError)) or "OutOfMemory" in type(error).__name__


def first_failure(directory: RunDirectory, ranks: Iterable[int]) -> tuple[Failure, int] | None:
    """Return the first failure and its exit code, or ``None`` if no rank reported a failure."""
    # Ranks that were stopped after the failure of another rank report an interruption, possibly with an earlier time.
    reports = sorted(_reports(directory, ranks), key=lambda each: (each.failure_class == INTERRUPTED, each.monotonic_s))
    if not reports:
        return None
    return Failure.model_validate(reports[0].model_dump(include=set(Failure.model_fields))), reports[0].exit_code


def stopped_from_outside(directory: RunDirectory, ranks: Iterable[int], told_s: float) -> bool:
    """Return whether the first of these ranks to end was stopped by a signal that came before the launcher's."""
    first = min(_reports(directory, ranks), key=lambda each: each.monotonic_s, default=None)
    return first is not None and first.failure_class == INTERRUPTED and first.monotonic_s < told_s


def reported_recurring(directory: RunDirectory, rank: int) -> bool:
    """Return whether a rank reported an error that would occur again after a restart."""
    return any(report.would_recur for report in _reports(directory, [rank]))


def _reports(directory: RunDirectory, ranks: Iterable[int]) -> list[_RankFailure]:
    reports = []
    for rank in ranks:
        with suppress(OSError, ValueError):
            reports.append(_RankFailure.model_validate_json(read_bounded(directory.failure(rank))))
    return reports


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:500]}" if text else type(error).__name__


def _stop(signum: int, frame: FrameType | None) -> None:
    ignore_signals()
    raise TrainingStopped

"""T: checks of perf_synchronize, which every measured time depends on.

The checks read time.monotonic. T3 compares time.perf_counter, the clock of training, with os.times, which a plugin
that replaces clocks of the module time does not reach.
"""

from __future__ import annotations

import math
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from chipperf.contract import tolerances
from chipperf.contract.check import NotRun, check, fail, not_run_on, require
from chipperf.contract.devices import SEED, begin_run, two_devices
from chipperf.contract.isolation import undisturbed_s, waited_s
from chipperf.errors import PerfError, UnsupportedPrecision
from chipperf.plugin.types import Capability, Rank
from chipperf.precisions import PRECISIONS
from chipperf.records.event_metrics import throughput
from chipperf.records.schema import MINIMUM_WINDOWS, Window
from chipperf.run.ranks import job_ranks
from chipperf.train.preparation import autocast

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from chipperf.contract.plugin_under_test import PluginUnderTest

_SHORT_S: Final = 0.1
_COMPARED_S: Final = 0.3
_FRACTIONS: Final = (0.5, 0.375)
"""Of that work. If pauses between two looks double, one of the two ends long before a look."""

_LATE_TRIES: Final = 5
_LOOK_S: Final = 0.001

_WINDOW_S: Final = 0.2
_CLOCKED_S: Final = 1.5
"""The clock of os.times has a hundred ticks a second."""

_LONG_S: Final = 4.0
"""Longer than waits that give up do, and short enough for the suite."""

_TRIES: Final = 8
"""Number of measurements, because a busy host delays single ones."""

_STREAM_CALLS: Final = 2
"""Number of calls that have to wait for each stream: a second call finds what the first one left."""

_LAUNCHES: Final = 8
_MANY_LAUNCHES: Final = 3000
_WIDTH: Final = 1024
_SMALL_WIDTH: Final = 16
_FEWEST_ROWS: Final = 64
_MOST_ROWS: Final = 2**18
_IDLE_CALLS: Final = 1000
_BUSY_CALLS: Final = 300
_SHORTER: Final = 16
"""Part of the rows for work that is repeated so often."""

_BUSY: Final = "but this process waited for a core meanwhile: try again while the host does less"

_NO_DEVICE: Final = 100
"""Index of a device that no machine has."""

_Launch: TypeAlias = "Callable[[Callable[[], Any]], Any]"
"""Calls a function, which launches work, on one stream or in one thread."""


def _directly(function: Callable[[], Any]) -> Any:
    return function()


@dataclass(frozen=True, slots=True)
class Timing:
    """Times in seconds: from launching work to the end of perf_synchronize, of that call, and then to read the result.

    Training measures ``measured_s``, in which this process waited ``waited_s`` for a core; the other two are without
    that.
    ``done`` is what an event behind the work said when perf_synchronize returned; ``None`` if the device has no events,
    or if the work was done before the call.
    """

    measured_s: float
    synchronize_s: float
    read_s: float
    waited_s: float = 0.0
    done: bool | None = None

    @property
    def is_complete(self) -> bool:
        """True if perf_synchronize waited for all of the work, as far as an event or the time of reading shows."""
        read_at_once = self.read_s <= tolerances.REMAINING_WORK * (self.measured_s + self.read_s)
        return self.done is not False and read_at_once


class Work:
    """Matrix products that keep a device busy, launched in a fraction of the time they take.

    The time is proportional to ``rows``, those of each first operand, and to ``launches``, the number of products.
    """

    def __init__(
        self,
        subject: PluginUnderTest,
        device: torch.device,
        rows: int,
        launches: int = _LAUNCHES,
        width: int = _WIDTH,
    ) -> None:
        import torch

        self.device = device
        self.rows = rows
        self.launches = launches
        self._subject = subject
        self._first = torch.ones(rows, width, device=device)
        self._second = torch.ones(width, width, device=device)

    def queue(self) -> torch.Tensor:
        """Launch the products as a training step does, and return the last one."""
        import torch

        for _ in range(self.launches):
            product = torch.mm(self._first, self._second)
        if self._subject.session.step_end:
            self._subject.session.step_end(self.device)
        return product

    def doubled(self) -> Work:
        """Return the same number of products, each twice as long."""
        return Work(self._subject, self.device, 2 * self.rows, self.launches)

    def repeated(self, times: float) -> Work:
        """Return a multiple of the products."""
        return Work(self._subject, self.device, self.rows, round(times * self.launches))

    def measure(self, *, launch: _Launch = _directly, synchronized: torch.device | None = None) -> Timing:
        """Launch the products in some way, synchronize their device or another one, and read the result."""
        synchronize = self._subject.session.synchronize
        synchronize(self.device)
        before_s, start_s = waited_s(), time.monotonic()
        product, event = launch(lambda: (self.queue(), _event_behind_work(self.device)))
        launched_s = time.monotonic() - waited_s(caller=True)
        was_busy = event is not None and not event.query()
        synchronize(synchronized or self.device)
        done = event.query() if was_busy else None
        synchronized_s = time.monotonic()
        synchronize_s = synchronized_s - waited_s(caller=True) - launched_s
        after_s, undisturbed_start_s = waited_s(), undisturbed_s()
        launch(lambda: product[:1, :1].cpu())
        read_s = undisturbed_s() - undisturbed_start_s
        if done is False and not event.query():
            # An event that is not done when its result was read says nothing.
            done = None
        return Timing(synchronized_s - start_s, synchronize_s, read_s, after_s - before_s, done)

    def best_timing(self, launch: _Launch = _directly, calls: int = 1) -> Timing:
        """Measure until perf_synchronize has waited a number of times; return one in which it has, if there is any.

        If an event proves that a call has returned early, return that one. What reading the result shows is no proof,
        because a busy host delays it.
        """
        complete = None
        for extra in range(_TRIES):
            # Else every measurement would call an even number of times, which hides a call in two that does nothing.
            for _ in range(extra):
                self._subject.session.synchronize(self.device)
            timing = self.measure(launch=launch)
            if timing.done is False:
                return timing
            if timing.is_complete:
                complete, calls = timing, calls - 1
            if calls <= 0:
                break
        return complete or timing

    def require_waiting(self) -> None:
        """Raise :class:`NotRun` if perf_synchronize does not wait, which T1 reports."""
        if not self.best_timing().is_complete:
            raise NotRun("perf_synchronize does not wait for the device's work, see T1")


@check("T1", level=1, fault="perf_synchronize does nothing, waits for one of several streams, or gives up")
def synchronize_waits_for_queued_work(subject: PluginUnderTest) -> None:
    """After any work, on any stream, in every call, ``perf_synchronize`` returns only when all results are there."""
    import torch

    device, session = subject.device, subject.session
    work = _work_of_run(subject, device, _SHORT_S)

    require_complete = partial(_require_complete, work=work)
    for name, stream in _streams(device).items():
        require_complete(f"work on {name}", launch=stream, calls=_STREAM_CALLS)
    require_complete("one of several pieces of work", calls=_TRIES)
    with ThreadPoolExecutor(1) as thread:
        require_complete("work that another thread launched", launch=lambda function: thread.submit(function).result())
    require_complete("many small products", work=Work(subject, device, _SMALL_WIDTH, _MANY_LAUNCHES, _SMALL_WIDTH))
    require_complete(f"{_LONG_S:g} s of work", work=work.repeated(math.ceil(_LONG_S / _SHORT_S)))
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            require_complete(f"work under torch.{mode.__name__}")
    _require_every_call_waits(subject, Work(subject, device, max(1, work.rows // _SHORTER), 1))
    for precision in PRECISIONS:
        with suppress(UnsupportedPrecision):
            policy = session.precision(precision, device)
            with autocast(policy, device):
                require_complete(f"work in {precision}")
    if Capability.DETERMINISTIC in subject.info.capabilities:
        session.seed(SEED, device, True)
        require_complete("work in a deterministic run")
    with suppress(RuntimeError):
        torch.mm(torch.ones(2, 3, device=device), torch.ones(2, 3, device=device))
    require_complete("work after a failed call")
    session.device_teardown(device)
    with not_run_on(PerfError, "the device cannot be initialized after a teardown, see D5"):
        session.device_init(subject.rank)
    require_complete("work after a teardown and another initialization")


def require_waits_for_work(subject: PluginUnderTest) -> None:
    """Check that ``perf_synchronize`` waits for work on the default stream."""
    _require_complete("work", work=_work_of_run(subject, subject.device, _SHORT_S))


def _require_complete(situation: str, *, work: Work, launch: _Launch = _directly, calls: int = 1) -> None:
    timing = work.best_timing(launch, calls)
    require(
        timing.is_complete,
        f"perf_synchronize returned after {timing.synchronize_s:.3f} s, and reading the result of {situation} "
        f"took another {timing.read_s:.3f} s: wait for all queued work of the device",
    )


def _require_every_call_waits(subject: PluginUnderTest, work: Work) -> None:
    """Check many calls by events, if the device has them; the calls between them have nothing to wait for."""
    if _event_behind_work(work.device) is None:
        return
    for _ in range(2):
        # Else only every second call of all would have work to wait for.
        subject.session.synchronize(work.device)
        early = sum(work.measure().done is False for _ in range(_BUSY_CALLS))
        require(early == 0, f"perf_synchronize returned before the work was done in {early} of {_BUSY_CALLS} calls")


@check(
    "T2",
    level=1,
    fault="the measured time is not proportional to the work, because it covers only launches or a polling interval",
)
def measured_time_follows_work(subject: PluginUnderTest) -> None:
    """Twice the work takes 1.5 to 2.6 times as long until ``perf_synchronize`` returns, which is not late."""
    least, most = tolerances.DOUBLED_WORK_LEAST, tolerances.DOUBLED_WORK_MOST
    work = _work_of_run(subject, subject.device, _COMPARED_S)
    twice = work.doubled()
    work.require_waiting()
    timings = []
    for _ in range(_TRIES):
        timings.append((work.measure(), twice.measure()))
        single, double = (min(each, key=lambda timing: timing.measured_s) for each in zip(*timings, strict=True))
        if least <= double.measured_s / single.measured_s <= most:
            break
    else:
        fault = (
            f"work of {single.measured_s:.3f} s took {double.measured_s:.3f} s after it was doubled, "
            f"{double.measured_s / single.measured_s:.2f} times as long instead of {least:g} to {most:g} times"
        )
        longest, shortest = double.measured_s, double.measured_s - double.waited_s
        if shortest <= most * single.measured_s and longest >= least * (single.measured_s - single.waited_s):
            raise NotRun(f"{fault}, {_BUSY}")
        fail(f"{fault}: perf_synchronize must return when the work is done, and not later")
    for fraction in _FRACTIONS:
        _require_no_late_return(subject, work.repeated(fraction))


def _require_no_late_return(subject: PluginUnderTest, work: Work) -> None:
    """Check, if the device has events, that most waits end when an event behind the work says that it is done."""
    late: list[str] = []
    for tries in range(1, _LATE_TRIES + 1):
        wait_s, late_s = _wait_and_lateness_s(subject, work)
        if late_s > max(tolerances.LATE_RETURN * wait_s, tolerances.IDLE_SYNCHRONIZE_S):
            late.append(f"{late_s:.3f} of {wait_s:.3f} s")
        if 2 * (tries - len(late)) > _LATE_TRIES:
            return
    fail(
        f"perf_synchronize returned late, measured by an event behind the work: by {', '.join(late)}: do not poll with "
        "pauses that grow",
    )


def _wait_and_lateness_s(subject: PluginUnderTest, work: Work) -> tuple[float, float]:
    """Return how long perf_synchronize waited for some work, and how long of that after the work was done."""
    returned = threading.Event()

    def done_s(event: Any) -> float:
        while not event.query() and not returned.wait(_LOOK_S):
            pass
        return undisturbed_s()

    subject.session.synchronize(work.device)
    work.queue()
    event = _event_behind_work(work.device)
    if event is None or event.query():
        return 0.0, 0.0
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(done_s, event)
        launched_s = undisturbed_s()
        subject.session.synchronize(work.device)
        returned_s = undisturbed_s()
        returned.set()
    return returned_s - launched_s, returned_s - done.result()


@check("T3", level=1, fault="the clock has another unit, or a window does not include all of its work")
def windows_agree_with_wall_clock(subject: PluginUnderTest) -> None:
    """Throughput from measurement windows agrees with the wall clock within 2 % over at least one second."""
    work = _work_of_run(subject, subject.device, _WINDOW_S)
    work.require_waiting()
    for _ in range(_TRIES):
        by_windows, by_clock, waiting = _rates(subject, work)
        deviation = by_windows / by_clock - 1
        if abs(deviation) <= tolerances.WINDOW_TIME:
            return
    fault = f"the throughput from measurement windows differs by {deviation:+.1%} from the wall clock"
    if abs(deviation) <= tolerances.WINDOW_TIME + waiting:
        raise NotRun(f"{fault}, {_BUSY}")
    fail(f"{fault}: do not replace time.perf_counter, and let perf_synchronize wait for all queued work")


@check("T4", level=1, fault="perf_synchronize sleeps, which makes every window longer")
def idle_synchronize_is_cheap(subject: PluginUnderTest) -> None:
    """Synchronizing an idle device takes no noticeable time, also if it is repeated often."""
    subject.session.synchronize(subject.device)
    # Calls take microseconds, so a busy host delays none in at least one of several rounds.
    slowest_s = [_first_slow_call_s(subject) for _ in range(_TRIES)]
    require(
        None in slowest_s,
        f"on an idle device, one of {_IDLE_CALLS} calls of perf_synchronize takes {slowest_s[-1] or 0:.3f} s, at most "
        f"{tolerances.IDLE_SYNCHRONIZE_S:g} s are allowed: do not sleep or poll at intervals",
    )


@check(
    "T5",
    level=1,
    capability=Capability.MULTI_DEVICE,
    fault="perf_synchronize waits for the current device or for all devices, or hides errors",
)
def synchronize_waits_for_given_device(subject: PluginUnderTest) -> None:
    """Synchronizing a device waits only for the work of that device, whichever is current, and raises its errors."""
    import torch

    session, devices = subject.session, two_devices(subject)
    works = [_work_of_run(subject, device, _COMPARED_S) for device in devices]
    session.device_init(Rank())
    works[0].require_waiting()
    for current, rank in zip(devices, job_ranks(2), strict=True):
        for device, other, work in zip(devices, reversed(devices), works, strict=True):
            session.device_init(rank)
            timing = work.best_timing()
            require(
                timing.is_complete,
                f"while {current} was current, perf_synchronize({device}) returned after {timing.synchronize_s:.3f} s, "
                f"and reading the result took another {timing.read_s:.3f} s: pass the device on to the runtime",
            )
            most_s = max(tolerances.OTHER_DEVICE_WAIT * timing.synchronize_s, tolerances.IDLE_SYNCHRONIZE_S)
            waits_s = (work.measure(synchronized=other).synchronize_s for _ in range(_TRIES))
            require(
                any(wait_s <= most_s for wait_s in waits_s),
                f"while {current} was current and only {device} busy, perf_synchronize({other}) took more than "
                f"{most_s:.3f} s: wait for one device",
            )
    try:
        session.synchronize(torch.device(devices[0].type, _NO_DEVICE))
    except Exception:
        return
    fail(f"perf_synchronize raises nothing for device {_NO_DEVICE}, which does not exist: raise the runtime's errors")


def _work_of_run(subject: PluginUnderTest, device: torch.device, least_s: float) -> Work:
    """Call the hooks that a run calls before its first step, and return work.

    It takes at least ``least_s`` and, on a quiet host, at most about twice as long.
    """
    with not_run_on(PerfError, "a run cannot begin"):
        begin_run(subject, device)

    def duration_s() -> float:
        start_s = time.monotonic()
        work.queue()[:1, :1].cpu()
        return time.monotonic() - start_s

    work = Work(subject, device, _FEWEST_ROWS)
    # Measured twice, because the first run may load libraries, compile or tune kernels.
    while not all(duration_s() >= least_s for _ in range(2)):
        work = work.doubled() if work.rows < _MOST_ROWS else Work(subject, device, work.rows, 2 * work.launches)
    return work


def _streams(device: torch.device) -> dict[str, _Launch]:
    """Return ways to launch on each kind of stream that torch offers for the device, by name."""
    import torch

    launches: dict[str, _Launch] = {"the default stream": _directly}
    if device.type == "cpu":
        return launches
    module: Any = getattr(torch, device.type, None)
    make: Any = getattr(torch, "Stream", None)
    enter: Callable[[Any], Any] = _itself
    if hasattr(module, "Stream") and hasattr(module, "stream"):
        make, enter = module.Stream, module.stream
    for name, options in (("another stream", {}), ("a stream of high priority", {"priority": -1})):
        # Not every device has streams, or priorities; before torch 2.7 the generic stream was no context.
        with suppress(RuntimeError, TypeError, AttributeError):
            launch = _launch_inside(enter, make(device, **options))
            launch(lambda: None)
            launches[name] = launch
    return launches


def _itself(stream: Any) -> Any:
    return stream


def _launch_inside(enter: Callable[[Any], Any], stream: Any) -> _Launch:
    def launch(function: Callable[[], Any]) -> Any:
        with enter(stream):
            return function()

    return launch


def _event_behind_work(device: torch.device) -> Any:
    """Return an event behind what this thread has launched on a device; ``None`` if torch has no events for it."""
    import torch

    if device.type == "cpu":
        return None
    owners: tuple[Any, ...] = (getattr(torch, device.type, None), getattr(torch, "accelerator", None))
    for owner in owners:
        with suppress(AttributeError, RuntimeError, TypeError):
            return owner.current_stream(device).record_event()
    return None


def _first_slow_call_s(subject: PluginUnderTest) -> float | None:
    """Return how long the first of several calls takes that is too slow, or ``None`` if there is none."""
    before_s, limit_s = waited_s(), tolerances.IDLE_SYNCHRONIZE_S
    for _ in range(_IDLE_CALLS):
        start_s = time.monotonic()
        subject.session.synchronize(subject.device)
        taken_s = time.monotonic() - start_s
        # To ask how long the process waited takes longer than a call.
        if taken_s > limit_s and taken_s - (waited_s() - before_s) > limit_s:
            return taken_s
    return None


def _rates(subject: PluginUnderTest, work: Work) -> tuple[float, float, float]:
    """Return work per second, measured with windows as in training, and measured with the kernel's clock.

    The third number is the fraction of that time in which this process waited for a core.
    """

    def edge_s() -> float:
        subject.session.synchronize(work.device)
        return time.perf_counter()

    windows: list[Window] = []
    last_edge_s = edge_s()
    start_s, before_s = os.times().elapsed, waited_s()
    while len(windows) < MINIMUM_WINDOWS or os.times().elapsed - start_s < _CLOCKED_S:
        product = work.queue()
        previous_edge_s, last_edge_s = last_edge_s, edge_s()
        # If the clock stands still, avoid a division by zero; the check then reports the deviation.
        seconds = max(last_edge_s - previous_edge_s, 1e-9)
        windows.append(Window(epoch=1, first_step=len(windows) + 1, steps=1, samples=1, seconds=seconds, loss=None))
    product[:1, :1].cpu()
    wall_s = os.times().elapsed - start_s
    measured = throughput(windows)
    if measured is None:
        raise NotRun(f"{len(windows)} windows are too few")
    return measured.mean_of_totals, len(windows) / wall_s, (waited_s() - before_s) / wall_s

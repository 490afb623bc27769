"""T: checks of perf_synchronize, which every measured time depends on.

The checks read time.monotonic. Only T3 reads time.perf_counter, because training uses that clock.
"""

from __future__ import annotations

import math
import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from chipperf.contract import tolerances
from chipperf.contract.check import NotRun, check, fail, require
from chipperf.contract.devices import two_devices
from chipperf.plugin.types import Capability
from chipperf.records.event_metrics import throughput
from chipperf.records.schema import MINIMUM_WINDOWS, Window

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import torch

    from chipperf.contract.plugin_under_test import PluginUnderTest

_LONG_S: Final = 0.3
_WINDOW_S: Final = 0.2
_TRIES: Final = 8
"""Number of measurements, because a busy host delays single ones."""

_LAUNCHES: Final = 8
_WIDTH: Final = 1024
_FEWEST_ROWS: Final = 64
_MOST_ROWS: Final = 2**18
_IDLE_CALLS: Final = 50

_Stream: TypeAlias = "Callable[[], AbstractContextManager[object]]"
"""Returns a context manager. Work that is launched inside it goes to one stream."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Times in seconds: from launching work to the end of perf_synchronize, of that call, and then to read the result.

    Training measures ``measured_s``.
    """

    measured_s: float
    synchronize_s: float
    read_s: float

    @property
    def is_complete(self) -> bool:
        """True if perf_synchronize waited for nearly all of the work."""
        return self.read_s <= tolerances.REMAINING_WORK * (self.measured_s + self.read_s)


class Work:
    """Matrix products that keep a device busy, launched in a fraction of the time they take.

    The time is proportional to ``rows``, those of each first operand, and to ``launches``, the number of products.
    """

    def __init__(self, subject: PluginUnderTest, device: torch.device, rows: int, launches: int = _LAUNCHES) -> None:
        import torch

        self.device = device
        self.rows = rows
        self.launches = launches
        self._subject = subject
        self._first = torch.ones(rows, _WIDTH, device=device)
        self._second = torch.ones(_WIDTH, _WIDTH, device=device)

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

    def measure(self, *, stream: _Stream = nullcontext, synchronized: torch.device | None = None) -> Timing:
        """Launch the products on a stream, synchronize their device or another one, and read the result."""
        synchronize = self._subject.session.synchronize
        synchronize(self.device)
        start_s = time.monotonic()
        with stream():
            product = self.queue()
        launched_s = time.monotonic()
        synchronize(synchronized or self.device)
        synchronized_s = time.monotonic()
        with stream():
            product[:1, :1].cpu()
        return Timing(synchronized_s - start_s, synchronized_s - launched_s, time.monotonic() - synchronized_s)

    def best_timing(self, stream: _Stream = nullcontext) -> Timing:
        """Measure several times, and return the first complete timing or, if there is none, the last."""
        for _ in range(_TRIES):
            timing = self.measure(stream=stream)
            if timing.is_complete:
                break
        return timing

    def require_waiting(self) -> None:
        """Raise :class:`NotRun` if perf_synchronize does not wait, which T1 reports."""
        if not self.best_timing().is_complete:
            raise NotRun("perf_synchronize does not wait for the device's work, see T1")


@check("T1", level=1, fault="perf_synchronize does nothing, or waits for only one of several streams")
def synchronize_waits_for_queued_work(subject: PluginUnderTest) -> None:
    """After long work on any stream, ``perf_synchronize`` returns only when the result can be read at once."""
    import torch

    device = subject.device
    streams: dict[str, _Stream] = {"the default stream": nullcontext}
    module: Any = getattr(torch, device.type, None)
    if device.type != "cpu" and hasattr(module, "Stream") and hasattr(module, "stream"):
        other = module.Stream(device)
        streams["another stream"] = lambda: module.stream(other)
    work = _long_work(subject, device)
    for name, stream in streams.items():
        timing = work.best_timing(stream)
        require(
            timing.is_complete,
            f"perf_synchronize returned after {timing.synchronize_s:.3f} s, and reading the result of work on {name} "
            f"took another {timing.read_s:.3f} s: wait for all queued work of the device",
        )


@check(
    "T2",
    level=1,
    fault="the measured time is not proportional to the work, because it covers only launches or a polling interval",
)
def measured_time_follows_work(subject: PluginUnderTest) -> None:
    """Twice the work between two calls of ``perf_synchronize`` takes 1.5 to 2.6 times as long."""
    least, most = tolerances.DOUBLED_WORK_LEAST, tolerances.DOUBLED_WORK_MOST
    work = _long_work(subject, subject.device)
    twice = work.doubled()
    work.require_waiting()
    single_s = double_s = math.inf
    for _ in range(_TRIES):
        single_s = min(single_s, work.measure().measured_s)
        double_s = min(double_s, twice.measure().measured_s)
        if least <= double_s / single_s <= most:
            return
    fail(
        f"work of {single_s:.3f} s took {double_s:.3f} s after it was doubled, {double_s / single_s:.2f} times as long "
        f"instead of {least:g} to {most:g} times: perf_synchronize must return when the work is done, and not later",
    )


@check("T3", level=1, fault="the clock has another unit, or a window does not include all of its work")
def windows_agree_with_wall_clock(subject: PluginUnderTest) -> None:
    """Throughput from measurement windows agrees with the wall clock within 2 % over at least one second."""
    work = _long_work(subject, subject.device, _WINDOW_S)
    work.require_waiting()
    for _ in range(_TRIES):
        by_windows, by_clock = _rates(subject, work)
        deviation = by_windows / by_clock - 1
        if abs(deviation) <= tolerances.WINDOW_TIME:
            return
    fail(
        f"the throughput from measurement windows differs by {deviation:+.1%} from the wall clock: do not replace "
        "time.perf_counter, and let perf_synchronize wait for all queued work",
    )


@check("T4", level=1, fault="perf_synchronize sleeps, which makes every window longer")
def idle_synchronize_is_cheap(subject: PluginUnderTest) -> None:
    """Synchronizing an idle device takes no noticeable time, also if it is repeated often."""
    subject.session.synchronize(subject.device)
    durations_s = []
    for _ in range(_IDLE_CALLS):
        start_s = time.monotonic()
        subject.session.synchronize(subject.device)
        durations_s.append(time.monotonic() - start_s)
    median_s = statistics.median(durations_s)
    require(
        median_s <= tolerances.IDLE_SYNCHRONIZE_S,
        f"perf_synchronize takes {median_s * 1e3:.1f} ms (median of {_IDLE_CALLS}) on an idle device, at most "
        f"{tolerances.IDLE_SYNCHRONIZE_S * 1e3:g} ms are allowed: do not sleep or poll at intervals",
    )


@check(
    "T5",
    level=1,
    capability=Capability.MULTI_DEVICE,
    fault="perf_synchronize waits for the current device, or for all devices",
)
def synchronize_waits_for_given_device(subject: PluginUnderTest) -> None:
    """Synchronizing a device waits only for the work of that device."""
    first, second = two_devices(subject)
    work = _long_work(subject, second)
    Work(subject, first, work.rows, work.launches).require_waiting()
    timing = work.best_timing()
    require(
        timing.is_complete,
        f"while {first} was current, perf_synchronize({second}) returned after {timing.synchronize_s:.3f} s, and "
        f"reading the result took another {timing.read_s:.3f} s: pass the device on to the runtime",
    )
    most_s = max(tolerances.OTHER_DEVICE_WAIT * timing.synchronize_s, tolerances.IDLE_SYNCHRONIZE_S)
    for _ in range(_TRIES):
        other = work.measure(synchronized=first)
        if other.synchronize_s <= most_s:
            return
    fail(
        f"perf_synchronize({first}) took {other.synchronize_s:.3f} s while only {second} was busy: wait for one device",
    )


def _long_work(subject: PluginUnderTest, device: torch.device, least_s: float = _LONG_S) -> Work:
    """Return work that takes at least ``least_s`` and, on a quiet host, at most about twice as long."""

    def duration_s() -> float:
        start_s = time.monotonic()
        work.queue()[:1, :1].cpu()
        return time.monotonic() - start_s

    work = Work(subject, device, _FEWEST_ROWS)
    # Measured twice, because the first run may load libraries, compile or tune kernels.
    while not all(duration_s() >= least_s for _ in range(2)):
        work = work.doubled() if work.rows < _MOST_ROWS else Work(subject, device, work.rows, 2 * work.launches)
    return work


def _rates(subject: PluginUnderTest, work: Work) -> tuple[float, float]:
    """Return work per second, measured with windows as in training, and measured with the wall clock."""

    def edge_s() -> float:
        subject.session.synchronize(work.device)
        return time.perf_counter()

    windows: list[Window] = []
    last_edge_s = edge_s()
    start_s = time.monotonic()
    while len(windows) < MINIMUM_WINDOWS or time.monotonic() - start_s < 1:
        product = work.queue()
        previous_edge_s, last_edge_s = last_edge_s, edge_s()
        # If the clock stands still, avoid a division by zero; the check then reports the deviation.
        seconds = max(last_edge_s - previous_edge_s, 1e-9)
        windows.append(Window(epoch=1, first_step=len(windows) + 1, steps=1, samples=1, seconds=seconds, loss=None))
    product[:1, :1].cpu()
    wall_s = time.monotonic() - start_s
    measured = throughput(windows)
    if measured is None:
        raise NotRun(f"{len(windows)} windows are too few")
    return measured.mean_of_totals, len(windows) / wall_s

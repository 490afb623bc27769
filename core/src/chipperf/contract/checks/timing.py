"""T: synchronising, on which every measured time rests.

The checks read time.monotonic. Only T3 reads time.perf_counter, because that is what training is timed with.
"""

from __future__ import annotations

import math
import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from chipperf.contract.check import NotRun, check, require
from chipperf.contract.devices import two_devices
from chipperf.contract.tolerances import tolerance
from chipperf.plugin.types import Capability
from chipperf.records.schema import Window
from chipperf.train.windows import MINIMUM_WINDOWS, throughput

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import torch

    from chipperf.contract.subject import Subject

_LONG_S: Final = 0.3
_WINDOW_S: Final = 0.2
_TRIES: Final = 8
_LAUNCHES: Final = 8
_WIDTH: Final = 1024
_FEWEST_ROWS: Final = 64
_MOST_ROWS: Final = 2**18
_IDLE_CALLS: Final = 50

_Stream: TypeAlias = "Callable[[], AbstractContextManager[object]]"
"""Makes the context in which work goes to one stream."""


class Work:
    """Matrix products that keep a device busy, launched in a fraction of the time they take.

    Args:
        device: Where to compute.
        rows: Rows of each product's first operand; the time is proportional to it.
        launches: Number of products.
    """

    def __init__(self, device: torch.device, rows: int, launches: int = _LAUNCHES) -> None:
        import torch

        self.device = device
        self.rows = rows
        self.launches = launches
        self._first = torch.ones(rows, _WIDTH, device=device)
        self._second = torch.ones(_WIDTH, _WIDTH, device=device)

    def queue(self) -> torch.Tensor:
        """Launch the products and return the last one."""
        import torch

        for _ in range(self.launches):
            product = torch.mm(self._first, self._second)
        return product

    def doubled(self) -> Work:
        """Return as many products, each of which takes twice as long."""
        return Work(self.device, 2 * self.rows, self.launches)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the host took to launch work, to synchronise, and then to read the result, in seconds."""

    launch_s: float
    synchronise_s: float
    read_s: float

    @property
    def measured_s(self) -> float:
        """What a measurement between two synchronises sees."""
        return self.launch_s + self.synchronise_s

    @property
    def remaining(self) -> float:
        """Share of the whole that the synchronise did not wait for."""
        return self.read_s / (self.measured_s + self.read_s)


@check("T1", level=1, fault="a synchronise that does nothing, or waits for one of several streams")
def synchronise_waits_for_queued_work(subject: Subject) -> None:
    """A synchronise after long work returns only when its result can be read at once, whichever stream it is on."""
    work = _long_work(subject.device)
    for name, stream in _streams(subject.device).items():
        timing = _best(subject, work, stream=stream)
        require(
            timing.remaining <= tolerance("remaining_work"),
            f"perf_synchronize returned after {timing.synchronise_s:.3f} s, and reading the result of work on {name} "
            f"took another {timing.read_s:.3f} s: wait for all queued work of the device",
        )


@check("T2", level=1, fault="times that do not follow the work, of launches only or rounded to a polling interval")
def measured_time_follows_work(subject: Subject) -> None:
    """Twice the work between two synchronises takes 1.5 to 2.6 times as long."""
    least, most = tolerance("doubled_work_least"), tolerance("doubled_work_most")
    work = _long_work(subject.device)
    twice = work.doubled()
    _require_waiting(_best(subject, work))
    single_s = double_s = math.inf
    for _ in range(_TRIES):
        single_s = min(single_s, _time(subject, work).measured_s)
        double_s = min(double_s, _time(subject, twice).measured_s)
        if least <= double_s / single_s <= most:
            break
    require(
        least <= double_s / single_s <= most,
        f"work of {single_s:.3f} s took {double_s:.3f} s when it was doubled, {double_s / single_s:.2f} times as long "
        f"instead of {least:g} to {most:g} times: perf_synchronize must return when the work is done, and not later",
    )


@check("T3", level=1, fault="a clock in another unit, or windows that miss part of their work")
def windows_agree_with_wall_clock(subject: Subject) -> None:
    """Throughput from measurement windows agrees with the wall clock within 2 % over at least a second."""
    work = _long_work(subject.device, _WINDOW_S)
    _require_waiting(_best(subject, work))
    for _ in range(_TRIES):
        by_windows, by_clock = _rates(subject, work)
        deviation = by_windows / by_clock - 1
        if abs(deviation) <= tolerance("window_time"):
            break
    require(
        abs(deviation) <= tolerance("window_time"),
        f"the rate by measurement windows is {deviation:+.1%} off the wall clock's: leave time.perf_counter as it "
        "is, and let perf_synchronize wait for all queued work",
    )


@check("T4", level=1, fault="a sleep inside synchronise, which every window pays for")
def idle_synchronise_is_cheap(subject: Subject) -> None:
    """Synchronising an idle device takes no noticeable time, however often it is done."""
    subject.session.synchronize(subject.device)
    durations_s = []
    for _ in range(_IDLE_CALLS):
        start_s = time.monotonic()
        subject.session.synchronize(subject.device)
        durations_s.append(time.monotonic() - start_s)
    median_s = statistics.median(durations_s)
    require(
        median_s <= tolerance("idle_synchronise_s"),
        f"perf_synchronize takes {median_s * 1e3:.1f} ms (median of {_IDLE_CALLS}) on an idle device, at most "
        f"{tolerance('idle_synchronise_s') * 1e3:g} ms are allowed: do not sleep or poll at intervals",
    )


@check("T5", level=1, capability=Capability.MULTI_DEVICE, fault="waiting for the current device, or for all of them")
def synchronise_waits_for_given_device(subject: Subject) -> None:
    """Synchronising a device waits for that device's work, and for no other's."""
    first, second = two_devices(subject)
    work = _long_work(second)
    _require_waiting(_best(subject, Work(first, work.rows, work.launches)))
    timing = _best(subject, work)
    require(
        timing.remaining <= tolerance("remaining_work"),
        f"while {first} was current, perf_synchronize({second}) returned after {timing.synchronise_s:.3f} s, and "
        f"reading the result took another {timing.read_s:.3f} s: pass the device on to the runtime",
    )
    most_s = max(tolerance("other_device_wait") * timing.synchronise_s, tolerance("idle_synchronise_s"))
    for _ in range(_TRIES):
        other = _time(subject, work, synchronised=first)
        if other.synchronise_s <= most_s:
            break
    require(
        other.synchronise_s <= most_s,
        f"perf_synchronize({first}) took {other.synchronise_s:.3f} s while only {second} was busy: wait for one device",
    )


def _long_work(device: torch.device, least_s: float = _LONG_S) -> Work:
    """Return work that takes at least ``least_s``, and less than about twice as long on a quiet host."""
    work = Work(device, _FEWEST_ROWS)
    # Asked twice, because the first run may load libraries, compile or tune kernels.
    while not all(_duration_s(work) >= least_s for _ in range(2)):
        work = work.doubled() if work.rows < _MOST_ROWS else Work(device, work.rows, 2 * work.launches)
    return work


def _duration_s(work: Work) -> float:
    """Return how long work takes until its result can be read."""
    start_s = time.monotonic()
    work.queue()[:1, :1].cpu()
    return time.monotonic() - start_s


def _time(
    subject: Subject, work: Work, *, stream: _Stream = nullcontext, synchronised: torch.device | None = None
) -> Timing:
    """Launch work on a stream, synchronise its device or another one, and read the result."""
    subject.session.synchronize(work.device)
    start_s = time.monotonic()
    with stream():
        product = _launch(subject, work)
    launched_s = time.monotonic()
    subject.session.synchronize(synchronised or work.device)
    synchronised_s = time.monotonic()
    with stream():
        product[:1, :1].cpu()
    return Timing(launched_s - start_s, synchronised_s - launched_s, time.monotonic() - synchronised_s)


def _launch(subject: Subject, work: Work) -> torch.Tensor:
    """Queue work as a training step does, and return its last result."""
    product = work.queue()
    if subject.session.step_end:
        subject.session.step_end(work.device)
    return product


def _best(subject: Subject, work: Work, *, stream: _Stream = nullcontext) -> Timing:
    """Return the first of several tries that leaves no work behind, or the last; a busy host delays single ones."""
    for _ in range(_TRIES):
        timing = _time(subject, work, stream=stream)
        if timing.remaining <= tolerance("remaining_work"):
            break
    return timing


def _require_waiting(timing: Timing) -> None:
    """Give up where synchronising does not wait at all, which is another check's finding."""
    if timing.remaining > tolerance("remaining_work"):
        raise NotRun("perf_synchronize does not wait for the device's work, see T1")


def _streams(device: torch.device) -> dict[str, _Stream]:
    """Return, by name, the contexts in which work can be queued; most devices have streams beside the default one."""
    import torch

    contexts: dict[str, _Stream] = {"the default stream": nullcontext}
    module: Any = getattr(torch, device.type, None)
    if device.type != "cpu" and hasattr(module, "Stream") and hasattr(module, "stream"):
        other = module.Stream(device)
        contexts["another stream"] = lambda: module.stream(other)
    return contexts


def _rates(subject: Subject, work: Work) -> tuple[float, float]:
    """Return the rate of work by measurement windows, as training measures it, and by the wall clock, per second."""
    windows: list[Window] = []
    edge_s = _edge(subject, work.device)
    start_s = time.monotonic()
    while len(windows) < MINIMUM_WINDOWS or time.monotonic() - start_s < 1:
        product = _launch(subject, work)
        previous_edge_s, edge_s = edge_s, _edge(subject, work.device)
        # A clock that stands still is a fault to report, not to divide by.
        seconds = max(edge_s - previous_edge_s, 1e-9)
        windows.append(Window(epoch=1, first_step=len(windows) + 1, steps=1, samples=1, seconds=seconds, loss=None))
    product[:1, :1].cpu()
    wall_s = time.monotonic() - start_s
    measured = throughput(windows)
    if measured is None:
        raise NotRun(f"{len(windows)} windows are too few")
    return measured.mean_of_totals, len(windows) / wall_s


def _edge(subject: Subject, device: torch.device) -> float:
    subject.session.synchronize(device)
    return time.perf_counter()

"""M: checks that a plugin reports memory correctly, in bytes, and that a query has no side effects."""

from __future__ import annotations

import itertools
import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import psutil

from chipperf.contract import tolerances
from chipperf.contract.check import Failed, NotApplicable, NotRun, check, fail, require
from chipperf.contract.devices import (
    UNTRAINED_STEPS,
    all_devices,
    call_between_steps,
    other_process,
    probed_devices,
    require_computes,
    require_kept,
    resources,
    return_free_memory,
    several_devices,
    train,
)
from chipperf.plugin.types import Capability, MemoryStats
from chipperf.run.failure import describe
from chipperf.torchtools import call_if_there

if TYPE_CHECKING:
    import torch

    from chipperf.contract.plugin_under_test import PluginUnderTest

_MIB: Final = 2**20
_SMALL_BYTES: Final = 4096
"""Size of a tensor that is kept so that the allocator exists."""

_BLOCKS_BYTES: Final = (320 * _MIB, 240 * _MIB, 160 * _MIB)
"""Sizes that no cache has and that an allocator need not round. They differ, so that a late value is not the right one.
"""

_LARGE_BYTES: Final = 9 * 2**29
"""More than a number of 32 bits counts."""

_KEPT_BYTES: Final = 80 * _MIB
_HELD_BYTES: Final = _BLOCKS_BYTES[0] // 2
"""Least of the memory of another process that must show: others use the device as well."""

_CURRENT: Final = ("allocated_bytes", "reserved_bytes", "used_bytes")
"""Each is part of the next."""

_PEAKS: Final = {"peak_allocated_bytes": "allocated_bytes", "peak_reserved_bytes": "reserved_bytes"}
_COUNTERS_OF_TORCH: Final = ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved")
"""Functions that most of torch's modules for a device type have, and that see what a query does to an allocator."""

_QUERIES: Final = 200
_QUERIES_S: Final = 10.0
_RESETS: Final = 20
_TRAINING_STEPS: Final = 50
_WARMUP_STEPS: Final = 10
_HOOKS_CALLED: Final = 2000
_SETTLED_AFTER: Final = 200
"""Calls of the hooks, until all is there that they make once."""

_LONG_RUN_STEPS: Final = 500_000
_MOST_OF_FREE: Final = 0.8
"""Part of a device's free memory that leaves room for what a hook may need."""


@check("M1", level=1, fault="the plugin reports the host's memory or what is free, or uses another unit than bytes")
def total_is_capacity_of_device(subject: PluginUnderTest) -> None:
    """The total of every device is its capacity, as the probe reports it, not the host's; use does not change it."""
    host_bytes = psutil.virtual_memory().total
    known = False
    for device, probed in zip(all_devices(subject), probed_devices(subject), strict=True):
        _keep = _tensor(device, _SMALL_BYTES)
        total_bytes = subject.session.memory_query(device).total_bytes
        info = subject.session.device_info(device)
        said_bytes = info.total_bytes
        source, expected_bytes = ("the probe", probed.total_bytes) if probed.total_bytes else ("its info", said_bytes)
        if total_bytes is None:
            require(
                expected_bytes is None,
                f"MemoryStats.total_bytes of {device} is None, but {source} says {expected_bytes} bytes: report it, or "
                "a report cannot say how much memory the device has",
            )
            continue
        known = True
        require(
            Capability.UNIFIED_MEMORY in subject.info.capabilities
            or abs(total_bytes - host_bytes) > tolerances.HOST_MEMORY_BYTES,
            f"MemoryStats.total_bytes is {total_bytes}, the host's memory ({host_bytes} bytes): ask the device, or "
            "declare Capability.UNIFIED_MEMORY if it has none of its own",
        )
        require(
            expected_bytes is None or abs(total_bytes - expected_bytes) <= tolerances.TOTAL_MEMORY * expected_bytes,
            f"MemoryStats.total_bytes of {device} is {total_bytes}, but {source} says {expected_bytes} bytes",
        )
        held = [_tensor(device, _BLOCKS_BYTES[-1])]
        for situation in ("with", "after"):
            found_bytes = subject.session.memory_query(device).total_bytes
            require(
                found_bytes is not None and abs(found_bytes - total_bytes) <= tolerances.HOST_MEMORY_BYTES,
                f"MemoryStats.total_bytes of {device} was {total_bytes}, and is {found_bytes} {situation} a tensor of "
                f"{_BLOCKS_BYTES[-1]} bytes: report the capacity, not what is free",
            )
            later = subject.session.device_info(device)
            require(
                later == info,
                f"perf_device_info described {device} as {info}, and {situation} a tensor of {_BLOCKS_BYTES[-1]} bytes "
                f"as {later}: its identity does not depend on its use",
            )
            held.clear()
    if not known:
        raise NotApplicable("neither the query, the probe nor perf_device_info knows the device's capacity")


@check("M2", level=1, fault="a counter is in MiB, KiB or elements, comes late, or counts something else")
def counters_follow_tensors(subject: PluginUnderTest) -> None:
    """Tensors raise the allocated, reserved and used bytes by their size, at once; freed memory is released or reused.

    The witness is the size of the tensors that the check makes, of several types, because elements are not bytes.
    """
    import torch

    unified = Capability.UNIFIED_MEMORY in subject.info.capabilities
    if not unified:
        _require_use_of_all_processes(subject)
        _require_large_counted(subject)
    device = subject.device
    _keep = _tensor(device, _SMALL_BYTES)
    start = _query(subject, device)
    if start.allocated_bytes is None and start.used_bytes is None:
        fail("MemoryStats has neither allocated_bytes nor used_bytes: count the tensors of this device, in bytes")
    held: list[torch.Tensor] = []
    views: list[torch.Tensor] = []
    wrong: dict[str, list[str]] = {}
    before = start
    for size_bytes, dtype in zip(_BLOCKS_BYTES, (torch.float32, torch.int64, torch.float16), strict=True):
        held.append(_tensor(device, size_bytes, dtype))
        # A view uses no memory of its own.
        views.append(held[-1][1:])
        after = _query(subject, device)
        for name, growth in _growths(before, after).items():
            if name == "used_bytes" and unified:
                continue
            # What the process freed earlier may be reused, and other processes use the device as well.
            wrong.setdefault(name, [])
            if abs(growth - size_bytes) > tolerances.ALLOCATION_BYTES:
                wrong[name].append(f"by {growth} with a tensor of {size_bytes} bytes")
        before = after
    for name, faults in wrong.items():
        allowed = 0 if name == "allocated_bytes" and _counts_tensors(subject) else len(_BLOCKS_BYTES) - 1
        require(len(faults) <= allowed, f"MemoryStats.{name} grew {', '.join(faults)}: {_REMEDY}")
    reserved = _growths(start, before).get("reserved_bytes")
    require(
        reserved is None or abs(reserved - sum(_BLOCKS_BYTES)) <= tolerances.RESERVED_BYTES,
        f"MemoryStats.reserved_bytes grew by {reserved} with tensors of {sum(_BLOCKS_BYTES)} bytes: {_REMEDY}",
    )
    # The host's memory is everybody's, and always in motion.
    require(
        before.used_bytes is None or before.used_bytes >= sum(_BLOCKS_BYTES),
        f"MemoryStats.used_bytes is {before.used_bytes} with tensors of {sum(_BLOCKS_BYTES)} bytes: {_REMEDY}",
    )
    if _counts_tensors(subject):
        del held[1], views[1]
        _require_growth(before, _query(subject, device), -_BLOCKS_BYTES[1], "after one of several tensors was freed")
        held.append(_tensor(device, _BLOCKS_BYTES[2]))
        change = _BLOCKS_BYTES[2] - _BLOCKS_BYTES[1]
        _require_growth(before, _query(subject, device), change, "after a smaller one took its place")
        held.clear()
        views.clear()
        _require_growth(start, _query(subject, device), 0, "after all tensors were freed")
        return
    if unified and before.allocated_bytes is None:
        return
    # Memory that the allocator keeps counts as allocated or used. It must be reused, for tensors that fit easily.
    most_bytes = _in_use(before)
    held.clear()
    views.clear()
    held += [_tensor(device, size_bytes * 3 // 4) for size_bytes in _BLOCKS_BYTES]
    excess = _in_use(_query(subject, device)) - most_bytes
    require(
        excess <= tolerances.ALLOCATION_BYTES,
        f"{excess} bytes of tensors that were freed, or memory kept for later ones, still count: {_REMEDY}",
    )


@check("M3", level=1, fault="a peak is the current value or one that a query saw, or a reset changes something else")
def peak_is_highest_since_reset(subject: PluginUnderTest) -> None:
    """Each peak is the highest value since the last reset, seen by a query or not; a reset only sets it to the current.

    The check asks for no value while the memory is held: a peak that a plugin takes from its own queries is none.
    """
    device = subject.device
    large_bytes, _, small_bytes = _BLOCKS_BYTES
    # Held at each reset: a peak is not counted from there.
    _keep = _tensor(device, _KEPT_BYTES)
    _tensor(device, small_bytes)
    if subject.session.memory_query(device).peak_allocated_bytes is None:
        raise NotApplicable("the peak of allocated_bytes is not known")
    start = _reset_peak(subject, device)
    for size_bytes in (large_bytes, small_bytes):
        _tensor(device, size_bytes)
    call_between_steps(subject, device, UNTRAINED_STEPS)
    emptied = _require_peaks(subject, device, start, large_bytes)
    if _counts_tensors(subject):
        # No query follows this reset at once, which must not wait for one.
        subject.session.memory_reset_peak(device)
        _tensor(device, small_bytes)
        _empty_cache(device)
        _require_peaks(subject, device, emptied, small_bytes)
    if Capability.UNIFIED_MEMORY not in subject.info.capabilities:
        _require_full_device_kept(subject)


@check("M4", level=1, fault="the query resets the peak, empties a cache, or leaks")
def query_changes_nothing(subject: PluginUnderTest) -> None:
    """A query changes no counter, not even one of torch, and many queries and resets leave nothing behind."""
    device = subject.device
    _keep = _tensor(device, _SMALL_BYTES)
    _tensor(device, _BLOCKS_BYTES[-1])
    # What the host's allocator keeps is returned when resources are read, which a query must not be blamed for.
    return_free_memory()
    before = _torch_counters(device)
    first, second = (subject.session.memory_query(device) for _ in range(2))
    after = _torch_counters(device)
    require(
        after == before, f"a query changed what torch counts on {device} from {before} to {after}: it must only read"
    )
    _require_same(first, second, "the next query")
    kept, started_s, queries = resources(), time.monotonic(), 0
    while queries < _QUERIES and time.monotonic() < started_s + _QUERIES_S:
        last = subject.session.memory_query(device)
        queries += 1
    _require_same(first, last, f"a query {queries} later")
    require_kept(kept, f"{queries} more queries", "open a library or a file once, and close it")
    for _ in range(_RESETS):
        subject.session.memory_reset_peak(device)
    require_kept(kept, f"{_RESETS} resets of the peak", "open a library or a file once, and close it")


@check("M5", level=1, fault="the allocator cannot be queried before its first use")
def query_works_before_first_allocation(subject: PluginUnderTest) -> None:
    """A query before the first allocation works and shows no allocated memory."""
    stats = subject.session.memory_query(subject.device)
    if Capability.UNIFIED_MEMORY in subject.info.capabilities:
        # The counter covers the whole process, so it is never 0. The check is only that the query works.
        return
    for name in ("allocated_bytes", "peak_allocated_bytes"):
        value = getattr(stats, name)
        require(
            value is None or value <= tolerances.UNUSED_DEVICE_BYTES,
            f"MemoryStats.{name} is {value} before the first tensor: count the tensors of this process only",
        )


@check(
    "M6", level=1, capability=Capability.MULTI_DEVICE, fault="a counter covers another device than the one asked for"
)
def memory_is_counted_per_device(subject: PluginUnderTest) -> None:
    """A tensor on one device, and a reset of one, change only that device's counters, whichever is current."""
    devices = several_devices(subject)
    _keep = [_tensor(device, _SMALL_BYTES) for device in devices]
    before = [_query(subject, device) for device in devices]
    held = []
    right: set[tuple[torch.device, str]] = set()
    counted: set[tuple[torch.device, str]] = set()
    for turn in (1, 2, 3):
        sizes_bytes = [turn * number * 20 * _MIB for number in range(1, len(devices) + 1)]
        held += [_tensor(device, size_bytes) for device, size_bytes in zip(devices, sizes_bytes, strict=True)]
        after = [_query(subject, device) for device in devices]
        _require_current(devices[0])
        for device, size_bytes, earlier, later in zip(devices, sizes_bytes, before, after, strict=True):
            for name, growth in _growths(earlier, later).items():
                counted.add((device, name))
                if abs(growth - size_bytes) <= tolerances.ALLOCATION_BYTES:
                    right.add((device, name))
                elif name == "allocated_bytes":
                    fail(f"a tensor of {size_bytes} bytes on {device} raised its {name} by {growth}: {_REMEDY}")
        before = after
    # Other processes use the devices as well, but not always just now.
    wrong = sorted(f"{name} of {device}" for device, name in counted - right)
    require(not wrong, f"tensors on each device did not raise {', '.join(wrong)} by their sizes: {_REMEDY}")
    _require_peaks_per_device(subject, devices)


@check("M7", level=1, fault="a hook leaks memory, a thread or a file in every step")
def training_does_not_leak(subject: PluginUnderTest) -> None:
    """Neither allocated nor the host's memory grows in a small training, or over thousands of calls of its hooks."""
    readings: dict[int, int] = {}
    kept: dict[str, int] = {}

    def read(step: int) -> None:
        if step % _WARMUP_STEPS == 0:
            subject.session.synchronize(subject.device)
            return_free_memory()
            readings[step] = _in_use(_query(subject, subject.device))
            if not kept:
                kept.update(resources())

    train(subject, _TRAINING_STEPS, read)
    # The hooks take little time, so that they are called more often than a model is trained.
    settled_bytes, used_bytes = (
        _in_use_after(subject, steps) for steps in (_SETTLED_AFTER, _HOOKS_CALLED - _SETTLED_AFTER)
    )
    if _counts_tensors(subject) and Capability.UNIFIED_MEMORY not in subject.info.capabilities:
        used = list(readings.values())
        turns = [later - earlier for earlier, later in itertools.pairwise(used)]
        # Once, something may come late.
        require(
            min(turns) < 0 or sum(turn > 0 for turn in turns) < 2,
            f"every {_WARMUP_STEPS} steps of training leave up to {max(turns)} bytes more allocated: no hook may keep "
            "a tensor",
        )
        left_bytes = (used_bytes - settled_bytes) / (_HOOKS_CALLED - _SETTLED_AFTER) * _LONG_RUN_STEPS
        require(
            left_bytes <= tolerances.TRAINING_GROWTH_BYTES,
            f"from step {_SETTLED_AFTER} to {_HOOKS_CALLED}, the hooks left {used_bytes - settled_bytes} bytes "
            f"allocated, which is {left_bytes:.0f} in {_LONG_RUN_STEPS} steps: no hook may keep a tensor",
        )
    growth = readings[_TRAINING_STEPS] - readings[_WARMUP_STEPS]
    require(
        growth <= tolerances.TRAINING_GROWTH_BYTES,
        f"{_TRAINING_STEPS - _WARMUP_STEPS} steps of training left {growth} bytes allocated: no hook may keep a tensor",
    )
    steps = _TRAINING_STEPS - _WARMUP_STEPS
    require_kept(
        kept, f"{steps} steps of training, and the hooks of {_HOOKS_CALLED}", "no hook may keep anything of a step"
    )


@check("M8", level=1, fault="the plugin reports 0 for values that it did not measure")
def unknown_is_none(subject: PluginUnderTest) -> None:
    """Unknown counters are None, not 0; reserved memory is reported exactly if the capability is declared."""
    device = subject.device
    _keep = _tensor(device, _BLOCKS_BYTES[-1])
    stats = subject.session.memory_query(device)
    for name, value in asdict(stats).items():
        require(value != 0, f"MemoryStats.{name} is 0 while a tensor is on the device: report None if it is unknown")
    declared = Capability.MEMORY_RESERVED in subject.info.capabilities
    for name in ("reserved_bytes", "peak_reserved_bytes"):
        value = getattr(stats, name)
        require(
            declared == (value is not None),
            f"MemoryStats.{name} is {value}, and Capability.MEMORY_RESERVED is {'' if declared else 'not '}declared: "
            "declare the capability exactly if the plugin reports reserved memory",
        )


@check("M9", level=1, fault="the record does not show that memory ran out, or the device is unusable afterwards")
def running_out_of_memory_is_recognized(subject: PluginUnderTest) -> None:
    """A request for more memory than the device has is classified as out_of_memory; the device stays usable."""
    if Capability.UNIFIED_MEMORY in subject.info.capabilities:
        raise NotApplicable("the device's memory is the host's, which must not run out")
    import torch

    device = subject.device
    _keep = _tensor(device, _SMALL_BYTES)
    total_bytes = subject.session.memory_query(device).total_bytes
    if total_bytes is None:
        raise NotApplicable("the device's capacity is not known")
    wanted_bytes = 2 * max(total_bytes, subject.session.device_info(device).total_bytes or 0)
    try:
        torch.empty(wanted_bytes, dtype=torch.uint8, device=device)
        subject.session.synchronize(device)
    except Exception as error:
        found = describe(error, 0).failure_class
        require(
            found == "out_of_memory",
            f"a tensor of {wanted_bytes} bytes, twice what {device} has, raised {type(error).__name__}, which a record "
            f"calls {found!r}: let the allocator raise torch.OutOfMemoryError",
        )
    else:
        fail(f"a tensor of {wanted_bytes} bytes, twice what {device} has, was allocated: raise torch.OutOfMemoryError")
    require_computes(subject, device, "after running out of memory")


_REMEDY: Final = "count the tensors of the device asked for, in bytes, at the time of the query"


def _tensor(device: torch.device, size_bytes: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Allocate memory and write to it, because a host allocates pages only when they are written."""
    import torch

    element_bytes = torch.empty(0, dtype=dtype).element_size()
    return torch.full((size_bytes // element_bytes,), 1, dtype=dtype or torch.float32, device=device)


def _require_use_of_all_processes(subject: PluginUnderTest) -> None:
    with other_process(subject, _BLOCKS_BYTES[0]) as end:
        device = subject.device
        _keep = _tensor(device, _SMALL_BYTES)
        during = subject.session.memory_query(device)
        end()
        freed_bytes = _growths(subject.session.memory_query(device), during).get("used_bytes", _HELD_BYTES)
    require(
        freed_bytes >= _HELD_BYTES,
        f"MemoryStats.used_bytes fell by {freed_bytes} when another process freed {_BLOCKS_BYTES[0]} bytes of {device}"
        ": report what all processes use, or None",
    )


def _require_large_counted(subject: PluginUnderTest) -> None:
    """Check that a tensor of more bytes than 32 bits count raises every counter, if there is room for three."""
    import torch

    device = subject.device
    before = subject.session.memory_query(device)
    if (before.total_bytes or 0) - (before.used_bytes or 0) < 3 * _LARGE_BYTES:
        return
    large = torch.empty(_LARGE_BYTES, dtype=torch.uint8, device=device)
    after = _query(subject, device)
    peaks = {
        peak: (getattr(after, peak) or 0) - (getattr(before, peak) or 0) for peak in _PEAKS if getattr(after, peak)
    }
    for name, growth in {**_growths(before, after), **peaks}.items():
        require(
            growth >= _LARGE_BYTES // 2,
            f"MemoryStats.{name} grew by {growth} with a tensor of {_LARGE_BYTES} bytes: {_REMEDY}",
        )
    del large
    _empty_cache(device)


def _counts_tensors(subject: PluginUnderTest) -> bool:
    """Return whether the allocated bytes are those of tensors; otherwise what the allocator keeps counts too."""
    return Capability.MEMORY_RESERVED in subject.info.capabilities


def _query(subject: PluginUnderTest, device: torch.device) -> MemoryStats:
    """Query, and check that the values can be those of one moment."""
    stats = subject.session.memory_query(device)
    ascending = [name for name in _CURRENT if getattr(stats, name) is not None]
    pairs = [*zip(ascending, ascending[1:], strict=False), *((current, peak) for peak, current in _PEAKS.items())]
    for lower, higher in pairs:
        less, more = getattr(stats, lower), getattr(stats, higher)
        # What a process of the host uses includes files that are not counted as the host's used memory.
        if None in (less, more) or (higher == "used_bytes" and not _counts_tensors(subject)):
            continue
        require(
            less - more <= tolerances.REPEATED_QUERY_BYTES,
            f"MemoryStats.{lower} is {less}, more than {higher} ({more}): {_REMEDY}",
        )
    return stats


def _growths(before: MemoryStats, after: MemoryStats) -> dict[str, int]:
    """Return by how much each known counter has grown."""
    pairs = {name: (getattr(before, name), getattr(after, name)) for name in _CURRENT}
    return {name: later - earlier for name, (earlier, later) in pairs.items() if None not in (earlier, later)}


def _require_growth(before: MemoryStats, after: MemoryStats, expected: int, situation: str) -> None:
    growth = _growths(before, after)["allocated_bytes"]
    require(
        abs(growth - expected) <= tolerances.ALLOCATION_BYTES,
        f"{situation} MemoryStats.allocated_bytes changed by {growth} instead of {expected}: {_REMEDY}",
    )


def _in_use_after(subject: PluginUnderTest, steps: int) -> int:
    """Return what is in use after the hooks of some steps."""
    call_between_steps(subject, subject.device, steps)
    return _in_use(_query(subject, subject.device))


def _in_use(stats: MemoryStats) -> int:
    """Return the bytes that tensors use or, if this is unknown, the bytes in use on the whole device."""
    value = stats.used_bytes if stats.allocated_bytes is None else stats.allocated_bytes
    if value is None:
        raise NotRun("neither allocated_bytes nor used_bytes is known, see M2")
    return value


def _require_same(first: MemoryStats, other: MemoryStats, situation: str) -> None:
    # Other processes use the device as well, so used_bytes may change.
    for name in ("allocated_bytes", "reserved_bytes", "total_bytes", *_PEAKS):
        before, after = getattr(first, name), getattr(other, name)
        require(
            (before is None) == (after is None)
            and abs((after or 0) - (before or 0)) <= tolerances.REPEATED_QUERY_BYTES,
            f"MemoryStats.{name} is {before} in one query and {after} in {situation}, though nothing happened between "
            "them: a query must not change what it reads",
        )


def _reset_peak(subject: PluginUnderTest, device: torch.device) -> MemoryStats:
    """Reset the peaks and return the counters. The current ones must be what they were, and the peaks the same."""
    before = subject.session.memory_query(device)
    subject.session.memory_reset_peak(device)
    after = subject.session.memory_query(device)
    for name, counter in {"allocated_bytes": "allocated_bytes", "reserved_bytes": "reserved_bytes", **_PEAKS}.items():
        current, found = getattr(before, counter), getattr(after, name)
        require(
            None in (current, found) or abs(found - current) <= tolerances.REPEATED_QUERY_BYTES,
            f"before perf_memory_reset_peak({device}) {counter} was {current}, after it {name} is {found}: set each "
            "peak to the current value, and change nothing else",
        )
    return after


def _require_full_device_kept(subject: PluginUnderTest) -> None:
    """Check that a reset keeps what is allocated, and then what is reserved, of most of the device's memory."""
    import torch

    device = subject.device
    stats = subject.session.memory_query(device)
    free_bytes = (stats.total_bytes or 0) - (stats.used_bytes or stats.reserved_bytes or stats.allocated_bytes or 0)
    # Others may take it meanwhile.
    with suppress(RuntimeError):
        # A simulated device uses no memory of the host for what nobody writes.
        most = torch.empty(int(free_bytes * _MOST_OF_FREE), dtype=torch.uint8, device=device)
        _reset_peak(subject, device)
        del most
        _reset_peak(subject, device)
    _empty_cache(device)


def _require_peaks(
    subject: PluginUnderTest, device: torch.device, start: MemoryStats, highest_bytes: int
) -> MemoryStats:
    """Check the peaks after tensors were made and freed, and again without a cache; return the counters then."""
    kept = subject.session.memory_query(device)
    _empty_cache(device)
    emptied = subject.session.memory_query(device)
    # Memory that the allocator kept is reused; if it counts as allocated, less is added.
    reused_bytes = 0 if _counts_tensors(subject) else _BLOCKS_BYTES[-1]
    slacks_bytes = (tolerances.ALLOCATION_BYTES, tolerances.RESERVED_BYTES)
    for (name, counter), slack_bytes in zip(_PEAKS.items(), slacks_bytes, strict=True):
        earlier = getattr(start, counter)
        for stats, situation in ((kept, "freed"), (emptied, "freed and the cache was emptied")):
            peak = getattr(stats, name)
            if earlier is None or peak is None:
                continue
            least = (start.allocated_bytes or 0) + highest_bytes - reused_bytes - slack_bytes
            most = earlier + highest_bytes + slack_bytes
            require(
                least <= peak <= most,
                f"{counter} was {earlier} at a reset, then tensors of at most {highest_bytes} bytes were made one "
                f"after the other and {situation}: {name} is {peak}, expected {least:.0f} to {most:.0f}: report the "
                "highest value since the last reset, whether a query saw it or not",
            )
    return emptied


def _require_peaks_per_device(subject: PluginUnderTest, devices: list[torch.device]) -> None:
    """Check that tensors and a reset change the peaks of one device only, whichever is current."""
    for device in devices:
        _tensor(device, _BLOCKS_BYTES[-1])
    try:
        start = [_reset_peak(subject, device) for device in devices]
    except Failed as error:
        raise NotRun(f"{error}, see M3") from error
    _require_current(devices[0])
    largest_bytes = _BLOCKS_BYTES[0]
    _tensor(devices[-1], largest_bytes)
    for reset in (False, True):
        if reset:
            subject.session.memory_reset_peak(devices[0])
        found = [subject.session.memory_query(device) for device in devices]
        for device, before, after in zip(devices, start, found, strict=True):
            expected = largest_bytes if device == devices[-1] else 0
            for name in _PEAKS:
                earlier, peak = getattr(before, name), getattr(after, name)
                require(
                    None in (earlier, peak) or abs(peak - earlier - expected) <= tolerances.RESERVED_BYTES,
                    f"after a tensor of {largest_bytes} bytes on {devices[-1]}"
                    f"{f' and a reset of {devices[0]}' if reset else ''}, {name} of {device} has grown from {earlier} "
                    f"to {peak}: keep the peaks of each device",
                )


def _require_current(device: torch.device) -> None:
    import torch

    found = torch.empty(1, device=device.type).device
    require(found == device, f"a query or reset of another device made {found} current instead of {device}: leave it")


def _torch_counters(device: torch.device) -> dict[str, Any]:
    """Return what torch's own module for the device type counts, if it has one that does."""
    import torch

    module = getattr(torch, device.type, None)
    return {name: call_if_there(module, name, device) for name in _COUNTERS_OF_TORCH}


def _empty_cache(device: torch.device) -> None:
    import torch

    call_if_there(getattr(torch, device.type, None), "empty_cache")

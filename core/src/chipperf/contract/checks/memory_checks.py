"""M: checks that a plugin reports memory correctly, in bytes, and that a query has no side effects."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import psutil

from chipperf.contract import tolerances
from chipperf.contract.check import NotApplicable, NotRun, check, fail, require
from chipperf.contract.devices import probed_devices, require_computes, train, two_devices
from chipperf.plugin.types import Capability
from chipperf.run.failure import describe

if TYPE_CHECKING:
    import torch

    from chipperf.contract.plugin_under_test import PluginUnderTest

_MIB: Final = 2**20
_TENSOR_BYTES: Final = 64 * _MIB
_SMALL_BYTES: Final = 4096
"""Size of a tensor that is kept so that the allocator exists."""

_TRAINING_STEPS: Final = 50
_WARMUP_STEPS: Final = 10


@check("M1", level=1, fault="the plugin reports the host's memory, or uses another unit than bytes")
def total_is_capacity_of_device(subject: PluginUnderTest) -> None:
    """The total is the capacity of the device, as the probe reports it, not the host's memory."""
    device = subject.device
    _keep = _tensor(device, _SMALL_BYTES)
    total_bytes = subject.session.memory_query(device).total_bytes
    if total_bytes is None:
        fail("MemoryStats.total_bytes is None: a report cannot say how much memory the device has")
    host_bytes = psutil.virtual_memory().total
    require(
        Capability.UNIFIED_MEMORY in subject.info.capabilities
        or abs(total_bytes - host_bytes) > tolerances.HOST_MEMORY_BYTES,
        f"MemoryStats.total_bytes is {total_bytes}, the host's memory ({host_bytes} bytes): ask the device, or declare "
        "Capability.UNIFIED_MEMORY if it has none of its own",
    )
    probed_bytes = probed_devices(subject)[0].total_bytes
    expected_bytes = probed_bytes or subject.session.device_info(device).total_bytes
    require(
        expected_bytes is None or abs(total_bytes - expected_bytes) <= tolerances.TOTAL_MEMORY * expected_bytes,
        f"MemoryStats.total_bytes is {total_bytes}, but {'the probe' if probed_bytes else 'perf_device_info'} says "
        f"{expected_bytes} bytes",
    )


@check("M2", level=1, fault="the counter is in MiB or KiB, or counts something else")
def allocated_follows_tensors(subject: PluginUnderTest) -> None:
    """A tensor of 64 MiB raises the allocated bytes by 64 MiB; freed memory is released or reused."""
    fault = _fault_of_counter(subject, subject.device)
    require(fault is None, f"{fault}: count the tensors of this device, in bytes")


@check("M3", level=1, fault="the peak is the current value, or a reset does not lower it")
def peak_is_highest_since_reset(subject: PluginUnderTest) -> None:
    """The peak is the highest allocation since the last reset; freeing tensors keeps it, a reset lowers it."""
    device = subject.device
    _keep = _tensor(device, _SMALL_BYTES)
    _require_right_counter(subject, device)
    tensor = _tensor(device)
    used_bytes, _ = _allocated_and_peak(subject, device)
    del tensor
    _, peak_bytes = _allocated_and_peak(subject, device)
    require(
        peak_bytes >= used_bytes - tolerances.REPEATED_QUERY_BYTES,
        f"{used_bytes} bytes were allocated, but after some were freed the peak is {peak_bytes}: report the highest "
        "value since the last reset",
    )
    subject.session.memory_reset_peak(device)
    current_bytes, peak_bytes = _allocated_and_peak(subject, device)
    require(
        abs(peak_bytes - current_bytes) <= tolerances.REPEATED_QUERY_BYTES,
        f"after perf_memory_reset_peak the peak is {peak_bytes}, but {current_bytes} bytes are allocated: set it to "
        "the current value",
    )


@check("M4", level=1, fault="the query resets the peak or empties a cache")
def query_changes_nothing(subject: PluginUnderTest) -> None:
    """A query changes no counter: two queries in a row return the same values."""
    device = subject.device
    _keep = _tensor(device, _SMALL_BYTES)
    tensor = _tensor(device)
    del tensor
    first, second = (subject.session.memory_query(device) for _ in range(2))
    for name in ("allocated_bytes", "peak_allocated_bytes", "reserved_bytes", "peak_reserved_bytes", "total_bytes"):
        before, after = getattr(first, name), getattr(second, name)
        require(
            (before is None) == (after is None)
            and abs((after or 0) - (before or 0)) <= tolerances.REPEATED_QUERY_BYTES,
            f"MemoryStats.{name} is {before} in one query and {after} in the next, though nothing happened between "
            "them: a query must not change what it reads",
        )


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


@check("M6", level=1, capability=Capability.MULTI_DEVICE, fault="the counter covers the current device, or all devices")
def memory_is_counted_per_device(subject: PluginUnderTest) -> None:
    """A tensor on one device raises only that device's counter."""
    devices = two_devices(subject)
    _keep = [_tensor(device, _SMALL_BYTES) for device in devices]
    _require_right_counter(subject, devices[0])
    for device in devices:
        before = [_in_use(subject, each) for each in devices]
        tensor = _tensor(device)
        growths = [_in_use(subject, each) - earlier for each, earlier in zip(devices, before, strict=True)]
        del tensor
        for each, growth in zip(devices, growths, strict=True):
            expected = _TENSOR_BYTES if each == device else 0
            require(
                abs(growth - expected) <= tolerances.ALLOCATION_BYTES,
                f"a tensor of {_TENSOR_BYTES} bytes on {device} raised the allocated memory of {each} by {growth}, "
                f"expected {expected}: pass the device on to the allocator",
            )


@check("M7", level=1, fault="a hook leaks memory in every step")
def training_does_not_leak(subject: PluginUnderTest) -> None:
    """Between the 10th and the 50th step of a small training the allocated memory does not grow."""
    readings: dict[int, int] = {}

    def read(step: int) -> None:
        if step % _WARMUP_STEPS == 0:
            subject.session.synchronize(subject.device)
            readings[step] = _in_use(subject, subject.device)

    train(subject, _TRAINING_STEPS, read)
    growth = readings[_TRAINING_STEPS] - readings[_WARMUP_STEPS]
    require(
        growth <= tolerances.TRAINING_GROWTH_BYTES,
        f"{_TRAINING_STEPS - _WARMUP_STEPS} steps of training left {growth} bytes allocated: no hook may keep a tensor",
    )


@check("M8", level=1, fault="the plugin reports 0 for values that it did not measure")
def unknown_is_none(subject: PluginUnderTest) -> None:
    """Unknown counters are None, not 0; reserved memory is reported exactly if the capability is declared."""
    device = subject.device
    _keep = _tensor(device)
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
        raise NotRun("the device's capacity is not known, see M1")
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


def _tensor(device: torch.device, size_bytes: int = _TENSOR_BYTES) -> torch.Tensor:
    """Allocate memory and write to it, because a host allocates pages only when they are written."""
    import torch

    return torch.full((size_bytes,), 1, dtype=torch.uint8, device=device)


def _in_use(subject: PluginUnderTest, device: torch.device) -> int:
    """Return the bytes that tensors use or, if this is unknown, the bytes in use on the whole device."""
    stats = subject.session.memory_query(device)
    value = stats.used_bytes if stats.allocated_bytes is None else stats.allocated_bytes
    if value is None:
        raise NotRun("neither allocated_bytes nor used_bytes is known, see M2")
    return value


def _allocated_and_peak(subject: PluginUnderTest, device: torch.device) -> tuple[int, int]:
    stats = subject.session.memory_query(device)
    if stats.allocated_bytes is None or stats.peak_allocated_bytes is None:
        raise NotApplicable("allocated_bytes or its peak is not known")
    return stats.allocated_bytes, stats.peak_allocated_bytes


def _require_right_counter(subject: PluginUnderTest, device: torch.device) -> None:
    fault = _fault_of_counter(subject, device)
    if fault:
        raise NotRun(f"{fault}, see M2")


def _fault_of_counter(subject: PluginUnderTest, device: torch.device) -> str | None:
    """Return how the allocated bytes differ from the tensors' size, or ``None`` if they agree."""
    _keep = _tensor(device, _SMALL_BYTES)
    stats = subject.session.memory_query(device)
    if stats.allocated_bytes is None and stats.used_bytes is None:
        return "MemoryStats has neither allocated_bytes nor used_bytes"
    start_bytes = _in_use(subject, device)
    tensors, growths = [], []
    for _ in range(3):
        before_bytes = _in_use(subject, device)
        tensors.append(_tensor(device))
        growths.append(_in_use(subject, device) - before_bytes)
    # The first tensors may reuse memory that the process freed earlier.
    growth = sorted(growths)[1]
    if abs(growth - _TENSOR_BYTES) > tolerances.ALLOCATION_BYTES:
        return f"a tensor of {_TENSOR_BYTES} bytes raised the allocated memory by {growth}"
    most_bytes = start_bytes + len(tensors) * _TENSOR_BYTES // 2
    if Capability.MEMORY_RESERVED not in subject.info.capabilities:
        # Without a counter of reserved memory, memory that the allocator keeps counts as allocated. It must be reused.
        most_bytes = _in_use(subject, device)
    tensors.clear()
    tensors += [_tensor(device, _TENSOR_BYTES // 2) for _ in growths]
    excess = _in_use(subject, device) - most_bytes
    if excess > tolerances.ALLOCATION_BYTES:
        return f"{excess} bytes of tensors that were freed, or memory kept for later ones, still count as allocated"
    return None

"""D: checks of a device from its initialization to its release."""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from chipperf.contract import tolerances
from chipperf.contract.check import Failed, NotApplicable, check, fail, not_run_on, require
from chipperf.contract.devices import (
    UNTRAINED_STEPS,
    all_devices,
    begin_run,
    call_between_steps,
    fault_of_identity,
    probed_devices,
    ranks_share_device,
    read_switches,
    require_computes,
    require_kept,
    resources,
    small_network,
)
from chipperf.contract.isolation import patient, reason_of
from chipperf.contract.plugin_side_effects import watched
from chipperf.contract.plugin_under_test import PluginUnderTest, foreign_names
from chipperf.errors import DeviceError, PerfError, PluginError, UnsupportedPrecision
from chipperf.languages import in_all_languages
from chipperf.plugin.probe_process import probe_vendor
from chipperf.plugin.types import Capability, Rank
from chipperf.precisions import PRECISIONS
from chipperf.run.ranks import job_ranks

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    import torch

    from chipperf.plugin.types import DeviceInfo

_REPETITIONS: Final = 10
_HELD_PART: Final = 8
"""One in so many bytes of a device is in use when it must be found all the same."""

_SPAWN_TIMEOUT_S: Final = 150.0
_EXIT_TIMEOUT_S: Final = 60.0
_DRAWN: Final = 8
"""Random numbers that two processes compare."""

_FAILED_STATUS: Final = 71
"""Of a process that fails: one that nothing else uses."""


@check(
    "D1", level=1, needs="session", fault="the device has no index, or the hook uses the global rank as the local rank"
)
def init_returns_device_of_local_rank(subject: PluginUnderTest) -> None:
    """On every machine, initialization returns a device of the declared type with the local rank as its index."""
    count = len(probed_devices(subject))
    _ = subject.runtime
    for rank in (*job_ranks(count), *job_ranks(count, machines=2)):
        # The session compares type and index.
        subject.session.device_init(rank)


@check("D2", level=1, fault="initialization returns a device but does not make it current")
def tensors_land_on_initialized_device(subject: PluginUnderTest) -> None:
    """A new tensor is created on the last initialized device, also if the code gives no index."""
    import torch

    _ = subject.runtime
    ranks = job_ranks(len(probed_devices(subject)))
    for rank in (*ranks, ranks[0]):
        device = subject.session.device_init(rank)
        for wanted in (device, torch.device(device.type)):
            found = torch.ones(1, device=wanted).device
            # Tensors on the CPU have no index.
            require(
                found.type == device.type and (found.index or 0) == (device.index or 0),
                f"perf_device_init returned {device}, but a tensor made for '{wanted}' is on {found}: "
                "make the device current",
            )


@check("D3", level=1, fault="each call of initialization creates a new context, handle or thread")
def repeated_init_is_harmless(subject: PluginUnderTest) -> None:
    """A second initialization returns the same device, keeps its tensors, and leaks no resources."""
    import torch

    device = subject.device
    kept = torch.arange(1000, device=device)
    _initialize_again(subject, device, times=2)
    before, allocated_bytes = resources(), subject.session.memory_query(device).allocated_bytes or 0
    _initialize_again(subject, device, times=_REPETITIONS)
    action = f"{_REPETITIONS} more calls of perf_device_init"
    require_kept(before, action, "make it idempotent")
    grown = (subject.session.memory_query(device).allocated_bytes or 0) - allocated_bytes
    require(
        grown < tolerances.REPEATED_QUERY_BYTES,
        f"{action} left {grown} bytes allocated on the device: make it idempotent",
    )
    require(torch.equal(kept.cpu(), torch.arange(1000)), "initializing again changed a tensor on the device")


@check("D4", level=1, fault="a missing device gives an unclear error of the runtime, or a different card")
def missing_device_is_named(subject: PluginUnderTest) -> None:
    """A local rank without a device raises DeviceError, and the message gives the number of devices."""
    if ranks_share_device(subject):
        raise NotApplicable("all ranks share the device")
    count = len(probed_devices(subject))
    _ = subject.runtime
    # The number of the second one differs from the number of devices, which its message must give.
    for missing in (count, count + 100):
        rank = Rank(rank=missing, local_rank=missing, world_size=missing + 1, local_world_size=missing + 1)
        try:
            device = subject.session.device_init(rank)
        except DeviceError as error:
            own_words = error.message.replace(str(subject.entry), "")
            require(
                re.search(rf"\b{count}\b", own_words),
                f"local rank {missing} raised DeviceError, but its message does not say that {count} device(s) are "
                f"available: {own_words.strip(': ')!r}",
            )
        except PerfError as error:
            fail(f"local rank {missing} of {count} device(s) should raise chipperf.DeviceError: {error.message}")
        else:
            fail(f"local rank {missing} of {count} device(s) should raise chipperf.DeviceError, it returned {device}")


@check("D5", level=1, fault="the device works only once per process, or its release fails after an incomplete run")
def device_can_be_released_and_used_again(subject: PluginUnderTest) -> None:
    """Each released device can be initialized again, and further releases do no harm, also not to other devices."""
    import torch

    devices = all_devices(subject)
    kept = [torch.arange(1000, device=device) for device in devices]
    ranks = job_ranks(len(devices))
    for rank, device in zip(ranks, devices, strict=True):
        subject.session.device_init(rank)
        require_computes(subject, device, "after initialization")
        # More often than it was initialized.
        for _ in range(_REPETITIONS):
            subject.session.device_teardown(device)
        for other, tensor in zip(devices, kept, strict=True):
            require(
                other == device or torch.equal(tensor.cpu(), torch.arange(1000)),
                f"the release of {device} changed a tensor on {other}",
            )
        again = subject.session.device_init(rank)
        require(again == device, f"after a teardown perf_device_init returned {again} instead of {device}")
        require_computes(subject, again, "after a teardown")


@check("D6", level=1, fault="the plugin depends on state of the parent process, or an exit handler hides a failure")
def spawned_process_can_use_device(subject: PluginUnderTest) -> None:
    """A spawned process can use the last device in a thread, draws the same numbers, and ends with its own status."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    last = job_ranks(len(probed_devices(subject)))[-1]
    fresh = PluginUnderTest(subject.entry, last, subject.settings, subject.workspace)
    child = context.Process(target=_compute_in_spawned_process, args=(fresh, sender), daemon=True)
    child.start()
    sender.close()
    limit_s = patient(_SPAWN_TIMEOUT_S)
    if not receiver.poll(limit_s):
        fail(f"a spawned process did not finish a small product within {limit_s:g} s")
    try:
        fault, drawn = receiver.recv()
    except EOFError:
        child.join()
        fail(f"a spawned process ended with status {child.exitcode} before it finished a small product")
    require(fault is None, f"in a spawned process: {fault}")
    require(
        drawn == _draw_in_run(fresh),
        "in a spawned process the same seed gave other random numbers: nothing that differs between processes, such as "
        "the hash of a text, may take part",
    )
    child.join(patient(_EXIT_TIMEOUT_S))
    status = child.exitcode
    require(status is not None, f"a spawned process has not ended {patient(_EXIT_TIMEOUT_S):g} s after it failed")
    # Some native libraries crash while they are taken apart, which hides nothing.
    require(
        status == _FAILED_STATUS or (status or 0) < 0,
        f"a spawned process failed with status {_FAILED_STATUS} after a run, and ended with status {status}: let no "
        "exit handler end the process",
    )


@check(
    "D7",
    level=1,
    needs="session",
    fault="perf_device_info reports another card, a capacity in another unit, or nothing",
)
def device_info_agrees_with_probe(subject: PluginUnderTest) -> None:
    """Runtime and probe report the same driver, and for each device name, UUID, PCI address and capacity (to 2 %).

    The version of torch is torch's own. While memory of the first device is in use, the probe finds the same devices.
    """
    import torch

    uuid_declared = Capability.UUID in subject.info.capabilities
    with not_run_on(PluginError, "the probe fails, see B1"):
        probe = probe_vendor(subject.entry)
    devices = probe.devices
    infos: list[DeviceInfo] = []
    with not_run_on(PluginError, "a device cannot be used, see D1"):
        # The first one is current while the others are asked for.
        initialized = all_devices(subject)
    for number, (device, probed) in enumerate(zip(initialized, devices, strict=True)):
        which, info = f"the device of local rank {number}", subject.session.device_info(device)
        fault = fault_of_identity(info, probed, number)
        require(fault is None, str(fault))
        for known in subject.info.known_devices:
            # Core has put the part into the name. The plugin's own says more than a size.
            is_this = info.name.casefold() == f"{known.name} {info.part}".casefold()
            require(
                not is_this or info.part != known.part(info.total_bytes or 0),
                f"{which} has {info.total_bytes} bytes, but {known.name} has {known.memory_bytes} by "
                "VendorInfo.known_devices, so that core takes it for a part of a card, and no peak applies: correct "
                "memory_bytes, or say in `part` what part it is",
            )
        for other in infos:
            for key in ("uuid", "pci_bus_id"):
                value = getattr(info, key)
                require(value is None or value != getattr(other, key), f"two devices have the {key} {value}")
        infos.append(info)
        require(
            not uuid_declared or (info.uuid and probed.uuid),
            f"{info.name} has no UUID (probe: {probed.uuid}, perf_device_info: {info.uuid}), but Capability.UUID is "
            "declared",
        )
        require(
            uuid_declared or info.uuid is None,
            f"{info.name} has UUID {info.uuid}, but Capability.UUID is not declared",
        )
    # Not written, so that a host gives no pages for it; without room for so much, a part of it is in use already.
    with suppress(RuntimeError):
        _held = torch.empty((infos[0].total_bytes or 0) // _HELD_PART, dtype=torch.uint8, device=initialized[0])
    found = [(each.index, each.uuid, each.pci_bus_id, each.name) for each in probed_devices(subject)]
    require(
        found == [(each.index, each.uuid, each.pci_bus_id, each.name) for each in devices],
        f"while memory of {initialized[0]} is in use, the probe finds {len(found)} device(s), {found}, and "
        f"{len(devices)} before: list and number all devices, whoever uses them",
    )
    driver = subject.runtime.driver
    require(
        None in (driver, probe.driver_version) or _numbers(driver) == _numbers(probe.driver_version),
        f"the driver is {driver!r} by perf_load_runtime, but {probe.driver_version!r} by the probe: ask the driver",
    )
    require(
        subject.runtime.torch == torch.__version__,
        f"torch is {subject.runtime.torch!r} by perf_load_runtime, and calls itself {torch.__version__!r}",
    )


@check("D8", level=1, fault="a device has the name of the vendor, of the device type, or of another vendor's product")
def device_has_product_name(subject: PluginUnderTest) -> None:
    """Each device has a product name, not the name of the vendor, the device type or another vendor's product."""
    info = subject.info
    generic = {"cuda", "gpu", "device", info.device_type, info.name, *in_all_languages(info.title)}
    for device in all_devices(subject):
        name = subject.session.device_info(device).name
        require(
            name.isprintable() and name == name.strip(),
            f"perf_device_info calls {device} {name!r}: take what is no part of the name off",
        )
        require(
            name.casefold() not in {word.casefold() for word in generic},
            f"perf_device_info calls {device} {name!r}, which names no product: ask the driver for the product's name",
        )
        for mention in foreign_names(subject, name):
            # A vendor of accelerators may also make the host's processor.
            require(
                device.type == "cpu" and mention.card is None,
                f"perf_device_info calls {device} {name!r}, but {mention.text} is {mention.vendor}'s: name the real "
                "product",
            )


@check("D9", level=1, fault="after an error the process can no longer use the device")
def device_survives_shape_error(subject: PluginUnderTest) -> None:
    """After an operator has rejected its operands, the device still computes correctly."""
    import torch

    device = subject.device
    operand = torch.ones(2, 3, device=device)
    try:
        torch.mm(operand, operand)
        subject.session.synchronize(device)
    except RuntimeError:
        require_computes(subject, device, "after an operator rejected its operands")
    else:
        fail(f"torch.mm of two 2x3 matrices on {device} should raise RuntimeError, it raised nothing")


@check(
    "D10",
    level=1,
    fault="the plugin patches torch, sets variables that no record has, or changes logging, signals or defaults",
)
def process_is_left_to_core(subject: PluginUnderTest) -> None:
    """The runtime and the hooks of the device change nothing in the process that core or a case depends on."""
    import torch

    session = subject.session
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        look = partial(watched, place=place, streams=(), of_runtime=subject.entry)
        with look("perf_load_runtime") as changes:
            _ = subject.runtime
        with look("perf_device_init") as found:
            last = len(all_devices(subject)) - 1
            device = session.device_init(job_ranks(last + 1)[last])
        changes += found
        with look("a hook of the device") as found:
            for precision in (*PRECISIONS, "fp32"):
                with suppress(UnsupportedPrecision):
                    policy = session.precision(precision, device)
                    session.prepare_model(small_network().to(device), policy, device)
            # As no hook leaves it that seeds.
            torch.rand(1)
            drawn, switches = torch.get_rng_state(), read_switches(device.type)
            info = session.device_info(device)
            session.loader_options(device)
            # Core knows no backend for every type of device.
            if Capability.DISTRIBUTED in subject.info.capabilities:
                session.distributed_setup(subject.rank, device)
            with suppress(PerfError):
                session.telemetry(info)
            session.memory_reset_peak(device)
            call_between_steps(subject, device, UNTRAINED_STEPS)
            is_random_left = torch.equal(torch.get_rng_state(), drawn)
            switched = [name for name, value in read_switches(device.type).items() if value != switches.get(name)]
            begin_run(subject, device)
            current = torch.empty(0, device=device.type).device
            running = set(threading.enumerate())
            session.device_teardown(device)
            started = [thread.name for thread in threading.enumerate() if thread not in running]
        changes += found
        if started:
            changes.append(f"perf_device_teardown leaves threads running: {', '.join(started)}")
        if switched:
            changes.append(
                f"a hook of the device other than perf_seed and perf_precision switches {', '.join(switched)}"
            )
        if not is_random_left:
            changes.append("a hook of the device other than perf_seed seeds torch's generator, or draws from it")
        if (current.index or 0) != (device.index or 0):
            changes.append(f"a hook of {device} makes {current} current")
        os.chdir("/")
    require(
        not changes,
        f"{'; '.join(changes)}: return variables from perf_environment, and undo what the vendor's software changes",
    )


def _numbers(version: str | None) -> list[str]:
    return re.findall(r"\d+", version or "")


def _initialize_again(subject: PluginUnderTest, device: torch.device, *, times: int) -> None:
    for _ in range(times):
        again = subject.session.device_init(Rank())
        require(again == device, f"initializing again returned {again} instead of {device}")


def _draw_in_run(subject: PluginUnderTest) -> list[float]:
    """Return random numbers that the device of a run draws after its seed."""
    import torch

    begin_run(subject, subject.device)
    drawn: list[float] = torch.rand(_DRAWN, device=subject.device).tolist()
    return drawn


def _compute_in_spawned_process(subject: PluginUnderTest, answer: Connection) -> None:
    """Compute on the device in a thread, send the reason for a failure, or ``None`` and the random numbers of a run.

    Then fail after a run's last hook. Runs in a spawned process.
    """

    def compute() -> None:
        require_computes(subject, subject.device, "after initialization")

    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(compute).exception()
    drawn: list[float] = []
    if error is None:
        drawn = _draw_in_run(subject)
        subject.session.device_teardown(subject.device)
    answer.send((error and (str(error) if isinstance(error, Failed) else reason_of(error)), drawn))
    sys.exit(_FAILED_STATUS)

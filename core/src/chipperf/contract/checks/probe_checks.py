"""B: checks of the probe, which lists the vendor's devices on this machine without loading a runtime."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chipperf.contract import tolerances
from chipperf.contract.check import NotApplicable, NotRun, check, fp32, require
from chipperf.contract.devices import fault_of_identity, require_computes
from chipperf.contract.isolation import CallOutcome, call_in_fork, call_in_new_interpreter, patient
from chipperf.contract.plugin_under_test import PluginUnderTest
from chipperf.contract.probing import Probing, make_faulty_tools, make_foreign_pci, make_impersonator, probe
from chipperf.contract.texts import count_words
from chipperf.errors import DeviceError
from chipperf.plugin.installed import PluginEntry, vendors
from chipperf.plugin.probe_process import PROBE_TIMEOUT_S, ask_all
from chipperf.plugin.session import bind
from chipperf.plugin.types import DeviceInfo, ProbedDevice, ProbeResult, Rank
from chipperf.run.ranks import describe_card, job_ranks

if TYPE_CHECKING:
    import torch

_INITIALIZE_TIMEOUT_S: Final = 80.0
_NO_DEVICE: Final = "no-device"
"""Entry of a visible-devices variable that names none."""


@check("B1", level=0, fault="the probe crashes or hangs on machines without the vendor's software, or on unusual ones")
def probe_returns_anywhere(subject: PluginUnderTest) -> None:
    """Without tools, PCI devices, home or space, and with faulty tools, the probe returns soon and raises nothing."""
    here, bare = probe(subject.entry), _probe_bare(subject)
    situations = {"with an empty PATH and without PCI devices": bare}
    same_machine = {
        "without a home, a working directory and space for files": probe(
            subject.entry, variables={"HOME": "/nonexistent", "TMPDIR": "/nonexistent"}, bereft=True
        ),
        "without the variables of a login, in the locale C": probe(
            subject.entry, variables={**dict.fromkeys(("HOME", "USER", "LOGNAME", "LANG", "TERM")), "LC_ALL": "C"}
        ),
        "with messages in Chinese": probe(
            subject.entry, variables=dict.fromkeys(("LC_ALL", "LANG", "LANGUAGE"), "zh_CN.UTF-8")
        ),
    }
    situations |= same_machine
    if here.tools:
        directories = make_faulty_tools(subject.workspace / "faulty_tools", here.tools)
        for fault, directory in directories.items():
            path = os.pathsep.join((directory, os.environ.get("PATH", os.defpath)))
            situations[f"with {', '.join(here.tools)} that {fault}"] = probe(subject.entry, variables={"PATH": path})
    limit_s = patient(tolerances.PROBE_S)
    for situation, probing in situations.items():
        require(probing.fault is None, f"{situation}: {probing.fault}")
    # With a driver, it takes as long as that one needs, up to core's own limit.
    require(
        bare.seconds <= limit_s,
        f"with an empty PATH and without PCI devices perf_probe took {bare.seconds:.1f} s instead of {limit_s:g} s",
    )
    # The fastest one, because any of them may have waited for a busy machine.
    fastest_s, idle_s = min(probing.seconds for probing in situations.values()), tolerances.IDLE_PROBE_S
    require(fastest_s <= idle_s, f"perf_probe takes {fastest_s:.1f} s even {next(iter(situations))}: it must not wait")
    if not here.fault and _probe_here(subject).devices == here.devices:
        for situation, probing in same_machine.items():
            require(
                probing.devices == here.devices,
                f"{situation} the probe finds {_list(probing.devices)} instead of {_list(here.devices)}",
            )


@check(
    "B2",
    level=0,
    fault="the reason for a missing device does not say what to do, or the probe fails on a machine with a card",
)
def probe_gives_reasons(subject: PluginUnderTest) -> None:
    """The probe lists the devices; without one, the reason says what the probe looked for and what to do."""
    here, bare = probe(subject.entry), _probe_bare(subject)
    if here.fault and bare.fault:
        raise NotRun(f"perf_probe fails, see B1: {here.fault}")
    require(here.fault is None, f"on this machine as it is: {here.fault}")
    for probing in (here, bare):
        if not probing.fault:
            _require_reason(probing)


@check(
    "B3", level=1, needs="device", fault="the probe opens a context, and forked processes can no longer use a device"
)
def probe_leaves_devices_to_children(subject: PluginUnderTest) -> None:
    """After a probe, a forked process can initialize a device and compute on it."""
    timeout_s = 2 * _INITIALIZE_TIMEOUT_S
    outcome = call_in_new_interpreter(initialize_after_probe, asdict(subject.entry), timeout_s=timeout_s)
    fault = outcome.fault or outcome.value
    require(
        fault is None,
        f"in a process forked after the probe, the device cannot be used: {fault}; the probe must not open a context",
    )


def initialize_after_probe(entry: Mapping[str, str]) -> str | None:
    """Probe in this process, fork, and return why the device cannot be used there, or ``None``."""
    bind(PluginEntry(**entry)).probe()
    # This process has a time limit, which the time-out factor has reached.
    return call_in_fork(compute_on_first_device, entry, timeout_s=math.inf).fault


def compute_on_first_device(entry: Mapping[str, str]) -> dict[str, Any]:
    """Initialize the first device, compute on it, and return its identity."""
    subject = PluginUnderTest(PluginEntry(**entry), Rank(), fp32()[0], Path())
    require_computes(subject, subject.device, "after initialization")
    return asdict(subject.session.device_info(subject.device))


@check(
    "B4",
    level=0,
    fault="the probe claims another vendor's card because torch calls it cuda, or because it is a PCI card",
)
def probe_resists_impersonators(subject: PluginUnderTest) -> None:
    """The probe claims no device because of a torch that reports a CUDA device or PCI cards of unknown vendors."""
    here = _probe_here(subject)
    path = make_impersonator(subject.workspace / "impersonator")
    pci = make_foreign_pci(subject.workspace / "foreign_pci")
    deceived = probe(subject.entry, pci=pci, path=path)
    situation = "with a torch that claims a CUDA device, and PCI cards of an unknown vendor,"
    require(deceived.fault is None, f"{situation} {deceived.fault}")
    claimed = sorted(set(deceived.identities) - set(here.identities))
    if claimed and _probe_here(subject).identities != here.identities:
        raise NotRun("every probe finds other devices, see B5")
    require(
        not claimed, f"{situation} the probe claims {', '.join(claimed)}: look for the vendor's own PCI id and driver"
    )
    require(
        not deceived.imported_torch, "the probe imports torch, which cannot distinguish devices of different vendors"
    )


@check(
    "B5",
    level=0,
    fault="the list of devices changes between probes, or the devices are numbered differently from the runtime",
)
def probe_is_consistent(subject: PluginUnderTest) -> None:
    """Every probe finds the same devices, numbered from 0 without gaps, and every UUID is unique."""
    first, second = _probe_here(subject), _probe_here(subject, calls=10)
    require(
        first.devices == second.devices,
        f"one probe found {_list(first.devices)}, the next one {_list(second.devices)}",
    )
    require(
        second.unlike is None,
        f"one call in a process found {_list(second.devices)}, a later one returned {second.unlike}",
    )
    indices = [device.index for device in first.devices]
    require(
        indices == list(range(len(indices))),
        f"the devices are numbered {indices}: number the visible ones from 0, in the order of the runtime",
    )
    uuids = [device.uuid for device in first.devices if device.uuid is not None]
    require(len(set(uuids)) == len(uuids), f"a UUID occurs twice: {', '.join(uuids)}")


@check("B6", level=1, fault="the benchmark runs on another card than the reserved one, or calls it by another number")
def visible_devices_are_honored(subject: PluginUnderTest) -> None:
    """Probe and runtime see the same devices of the visible-devices variable, in its order, and none if it is empty.

    However numbers are written there: with blanks, with nothing or with no device between commas, or one twice.
    The probe describes each device as it does without the variable, but for its index.
    """
    everything = _probe_here(subject)
    names = everything.visible_devices_env
    if not names:
        raise NotApplicable("VendorInfo.visible_devices_env names no variable")
    if _probe_here(subject).devices != everything.devices:
        raise NotRun("two probes disagree, see B5: devices cannot be distinguished")
    if fault := _fault_of_runtime(call_in_fork, subject, everything, {}):
        raise NotRun(f"without a variable, {fault}, see D4 and D7")
    # If a scheduler has set the variable, use its names for the devices.
    words = names_of_devices(names, len(everything.devices), os.environ)
    variable, *others = names
    first, last = words[0], words[-1]
    orders: tuple[list[int], ...] = ([], [len(words) - 1], [1, 0] if len(words) > 1 else [0])
    tidy = {",".join(words[index] for index in order): order for order in orders}
    untidy = [f"{last}, {first}", f"{last},,{first}", f"{last},{_NO_DEVICE},{first}", f"{last},{last}"]
    if not first.isdecimal():
        # How names have to be written, not even torch and its driver agree on.
        untidy.clear()
    described = {_physical_name(device): replace(device, index=0) for device in everything.devices}
    for value in (*tidy, *untidy):
        variables = {**dict.fromkeys(others), variable: value}
        situation = f"with {variable}={value!r}"
        probing = probe(subject.entry, variables=variables)
        require(probing.fault is None, f"{situation}: {probing.fault}")
        if value in tidy:
            expected = [_physical_name(everything.devices[index]) for index in tidy[value]]
            # Only the set is compared here; the order is compared with the runtime's order.
            require(
                sorted(map(_physical_name, probing.devices)) == sorted(expected),
                f"{situation} the probe finds {_list(probing.devices)} instead of {', '.join(expected) or 'none'}",
            )
        _require_reason(probing, f"{situation} ")
        indices = [device.index for device in probing.devices]
        require(
            indices == list(range(len(indices))),
            f"{situation} the devices are numbered {indices}: number the visible ones from 0",
        )
        for device in probing.devices:
            whole = described.get(_physical_name(device))
            require(
                replace(device, index=0) == whole,
                f"{situation} the probe describes a device as {device}, and without it as {whole}",
            )
        # The process that imported torch may not be told of a variable that is set later.
        if (fault := _fault_of_runtime(call_in_fork, subject, probing, variables)) is not None:
            fault = _fault_of_runtime(call_in_new_interpreter, subject, probing, variables)
        require(fault is None, f"{situation} {fault}")


def _fault_of_runtime(
    call: Callable[..., CallOutcome], subject: PluginUnderTest, probing: Probing, variables: Mapping[str, str | None]
) -> str | None:
    """Say how the devices of the runtime, in a process with these variables, differ from those of a probe."""
    arguments = {"entry": asdict(subject.entry), "most": len(probing.devices) + 1}
    outcome = call(list_devices, arguments, timeout_s=_INITIALIZE_TIMEOUT_S, environment=variables)
    if outcome.fault and probing.devices:
        return f"the first device cannot be used: {outcome.fault}"
    used: list[dict[str, Any]] = outcome.value or []
    if len(used) != len(probing.devices):
        of_runtime = ", ".join(str(info["uuid"] or info["pci_bus_id"] or info["name"]) for info in used) or "none"
        return f"the probe finds {_list(probing.devices)}, and the runtime {of_runtime}: read it as the runtime does"
    faults = (
        fault_of_identity(DeviceInfo(**info), device, number)
        for number, (device, info) in enumerate(zip(probing.devices, used, strict=True))
    )
    return next(filter(None, faults), None)


def list_devices(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compute on the first device of the runtime, and return the identities of all, but of no more than ``most``."""
    subject = PluginUnderTest(PluginEntry(**arguments["entry"]), Rank(), fp32()[0], Path())
    _ = subject.runtime
    devices: list[torch.device] = []
    with suppress(DeviceError):
        for rank in job_ranks(arguments["most"]):
            devices.append(subject.session.device_init(rank))
            if rank.is_main:
                require_computes(subject, devices[0], "after initialization")
    return [asdict(subject.session.device_info(device)) for device in dict.fromkeys(devices)]


def names_of_devices(names: Sequence[str], count: int, environment: Mapping[str, str]) -> list[str]:
    """Return the entries that select ``count`` visible devices in the first of the variables ``names``.

    If a scheduler has set a variable, these are its names for the devices, otherwise their numbers.
    """
    value = next((environment[name] for name in names if name in environment), "")
    words = value.split(",")
    return words if value and len(words) == count else [str(index) for index in range(count)]


@check("B7", level=0, fault="two vendors claim the same card")
def probe_claims_only_own_devices(subject: PluginUnderTest) -> None:
    """The probe claims neither the host's processor nor a device that another installed vendor's probe finds."""
    own = _probe_here(subject).devices
    others = [entry for entry in vendors() if entry.name != subject.entry.name]
    for entry, answer in ask_all(others, "probe", ProbeResult, timeout_s=patient(PROBE_TIMEOUT_S)):
        for device in answer.devices if isinstance(answer, ProbeResult) else ():
            claimed = next((each for each in own if _is_same(each, device)), None)
            require(
                claimed is None,
                f"the probe claims {claimed and claimed.name!r}, which {entry} finds as well: "
                "look for a property that only this vendor's devices have",
            )


def _require_reason(probing: Probing, situation: str = "") -> None:
    """Check that a probe without a device says why; a ProbeResult rejects wrong devices itself."""
    least = tolerances.LEAST_REASON_WORDS
    require(
        probing.devices or count_words(probing.reason) >= least,
        f"{situation}the reason {probing.reason!r} has fewer than {least:g} words: say what the probe looked for and "
        "what to do",
    )


def _probe_bare(subject: PluginUnderTest) -> Probing:
    pci = subject.workspace / "no_pci"
    pci.mkdir(exist_ok=True)
    return probe(subject.entry, variables={"PATH": ""}, pci=pci)


def _probe_here(subject: PluginUnderTest, *, calls: int = 1) -> Probing:
    probing = probe(subject.entry, calls=calls)
    if probing.fault:
        raise NotRun(f"perf_probe fails, see B1 and B2: {probing.fault}")
    return probing


def _physical_name(device: ProbedDevice) -> str:
    """Return what tells a device apart whatever its place among the visible ones; without it, the product's name."""
    return device.uuid or device.pci_bus_id or device.name


def _is_same(one: ProbedDevice, other: ProbedDevice) -> bool:
    if one.uuid and other.uuid:
        return one.uuid == other.uuid
    if one.pci_bus_id and other.pci_bus_id:
        return one.pci_bus_id == other.pci_bus_id
    return one.name.casefold() == other.name.casefold()


def _list(devices: Sequence[ProbedDevice]) -> str:
    return ", ".join(map(describe_card, devices)) or "none"

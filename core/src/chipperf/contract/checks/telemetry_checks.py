"""R: checks of the values of telemetry, and of its cost."""

from __future__ import annotations

import itertools
import math
import os
import resource
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

from chipperf.contract import tolerances
from chipperf.contract.check import Failed, check, fail, not_run_on, require
from chipperf.contract.devices import all_devices, other_process, require_kept, resources, train
from chipperf.contract.isolation import ForkServer, patient, undisturbed_s
from chipperf.errors import PluginError
from chipperf.plugin.installed import PluginEntry
from chipperf.plugin.session import bind
from chipperf.plugin.types import Capability, DeviceInfo, TelemetrySample
from chipperf.run.telemetry_process import TelemetrySampler

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import torch

    from chipperf.contract.plugin_under_test import PluginUnderTest
    from chipperf.plugin.session import Session

_CALLS: Final = 500
_CALLS_S: Final = 5.0
"""Time after which no further call is made, because the management library of some devices needs 0.1 s for one."""

_FIRST_CALLS: Final = 3
"""Calls before those that count: they open the management library."""

_MIB: Final = 2**20
_BLOCKS_BYTES: Final = (320 * _MIB, 240 * _MIB, 160 * _MIB)
_READ_S: Final = 60.0
_SETTLE_S: Final = 4.0
"""Longest time until a management library notices a change: they average over up to a second."""

_WIDTH: Final = 512
_CALLS_UNDER_LOAD: Final = 20
_CALLS_OF_OTHER: Final = 7
_QUEUED_S: Final = 0.2
"""Time between two waits for a device under load: nearly all of it has work then."""

_PAUSE_S: Final = 0.02
_TURN_BYTES: Final = 48 * _MIB
"""What each turn of rest and work adds to the memory in use."""

_SILENCES: Final = (0.1, 1.0, 1.0)
"""Before the first reading of a device at rest, as fractions of the time that it may take. A mean over the last
readings is then still that of the load."""

_BURST: Final = range(4, 20)
"""Least and most further readings at once, in which a mean over readings changes and the device does not."""

_BURST_S: Final = 0.2
_LEFT: Final = 0.25
"""Part of the rise under load that may be left then."""

_LEAST_RISE: Final = 0.2
"""Of a device's power at rest: what it has to draw more under load to be compared."""

_MEASURED: Final = ("power_w", "temperature_c", "utilization_percent", "memory_used_bytes", "clock_mhz")
_FOLLOWING: Final = ("power_w", "utilization_percent", "memory_used_bytes")
"""Readings that a turn changes."""

_OTHER_DIGITS: Final = str.maketrans("0123456789abcdefABCDEF", "9876543210fedcbaFEDCBA")
_CHANGED_DIGITS: Final = 4
"""At the end of a UUID, in which those of two cards differ too."""

_BLOCK_S: Final = 1.5
"""Longer than the time between two readings, so that every block has one."""

_STUDENT_T: Final = {4: 5.841, 8: 3.499}
"""Numbers of rounds after which the cost is judged, with the 99.5 % one-sided quantile of Student's distribution. The
first judgment finds a large cost early. Both judgments together are wrong in 1 % of cases."""

_SAMPLER_START_S: Final = 60.0


@check(
    "R1",
    level=1,
    capability=Capability.TELEMETRY,
    fault="a value is of another unit, card or time, made up, or 0 if unknown; a call is slow, leaks or needs torch",
)
def readings_are_of_device(subject: PluginUnderTest) -> None:
    """In a process without torch, telemetry follows the use of the device with the UUID; no call is slow or leaks.

    The witness is what this process does to the devices: it allocates memory, and keeps one busy. Another process holds
    as much memory.
    """
    # What a host reads is everybody's use of it, and always in motion.
    if Capability.UNIFIED_MEMORY in subject.info.capabilities:
        _require_readings(subject, follow_use=False)
    else:
        with other_process(subject, _BLOCKS_BYTES[-1]):
            _require_readings(subject, follow_use=True)


def _require_readings(subject: PluginUnderTest, *, follow_use: bool) -> None:
    devices = all_devices(subject)
    infos = [subject.session.device_info(device) for device in devices]
    # Without a UUID it can only be found by its index.
    count = max(2, len(infos))
    asked = [info if info.uuid is None else replace(info, index=(info.index + 1) % count) for info in infos]
    with not_run_on(PluginError, "the check needs another process"):
        server = ForkServer(os.environ, (__name__,))
    with closing(server):
        reader = _Reader(server, subject, asked)
        reader.read(0, calls=_CALLS)
        if follow_use:
            _require_load_shown(subject, reader, len(devices) - 1, devices[-1])
            for number in {0, len(devices) - 1}:
                _require_memory_followed(subject, reader, number, devices[number])


@dataclass(frozen=True, slots=True)
class _Reader:
    """Calls perf_telemetry in a process without torch, with the identity of each device but the index of another."""

    server: ForkServer
    subject: PluginUnderTest
    devices: Sequence[DeviceInfo]

    def read(self, number: int, *, calls: int = 0, turns: Path | None = None) -> list[TelemetrySample]:
        """Return the readings of one device, which are possible, and were neither slow nor left anything behind.

        With ``turns``, the device has to work while the number of files in that directory is odd, and they go on until
        they show it. Those of another device must not. Later ones must show that it rests, and must not be repeated
        when none can be taken.
        """
        device = self.devices[number]
        arguments = {"entry": asdict(self.subject.entry), "device": asdict(device), "calls": calls}
        arguments |= {"turns": turns and str(turns), "settle_s": patient(_SETTLE_S)}
        arguments["other"] = asdict(self.devices[0]) if number else None
        target = f"{__name__}:{call_telemetry.__name__}"
        outcome = self.server.call(target, arguments, timeout_s=patient(_READ_S))
        require(
            outcome.fault is None,
            f"perf_telemetry fails in a process without torch, for {device}: {outcome.fault}; find the device by its "
            "UUID, whatever its index",
        )
        found: dict[str, Any] = outcome.value
        require(found["fault"] is None, str(found["fault"]))
        most_s = patient(tolerances.TELEMETRY_CALL_S)
        slow = [seconds for seconds in found["seconds"] if seconds > most_s]
        require(
            len(slow) <= max(1, tolerances.SLOW_CALLS * len(found["seconds"])),
            f"{len(slow)} of {len(found['seconds'])} calls of perf_telemetry take more than {most_s:g} s, up to "
            f"{max(slow, default=0):.3f} s: use a management library instead of starting a tool, or keep its handle "
            "open",
        )
        samples = [TelemetrySample(**sample) for sample in found["samples"]]
        for sample in samples:
            _require_possible(sample, self.devices[number].total_bytes)
        for one, other in itertools.combinations(_MEASURED, 2):
            pairs = {(getattr(sample, one), getattr(sample, other)) for sample in samples}
            require(
                len(pairs) < 2 or any(value is None or value != same for value, same in pairs),
                f"perf_telemetry gives the same numbers as {one} and as {other} in {len(samples)} readings: give each "
                "its own",
            )
        return samples

    def memory(self, number: int) -> int | None:
        """Return the used memory of one device."""
        return self.read(number)[0].memory_used_bytes


def call_telemetry(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Call perf_telemetry; return the readings, the time of each call, and what the calls did to the process."""
    session = bind(PluginEntry(**arguments["entry"]), purpose="inspect")
    device = DeviceInfo(**arguments["device"])
    samples = [session.telemetry(device)]
    seconds: list[float] = []
    fault = None
    if arguments["turns"]:
        turns, settle_s = Path(arguments["turns"]), arguments["settle_s"]
        other = arguments["other"] and DeviceInfo(**arguments["other"])
        uses, rest = [_use(session, other)], _burst(session, device)
        _next_turn(turns)
        settled_s = time.monotonic() + settle_s
        while time.monotonic() < settled_s and not (len(seconds) >= arguments["calls"] and _show_load(samples)):
            samples.append(_timed(session, device, seconds))
            time.sleep(_PAUSE_S)
        if _show_load(samples):
            uses.append(_use(session, other))
            fault = _fault_at_rest(session, device, samples, turns, settle_s)
            uses.append(_use(session, other))
            fault = fault or _fault_of_missing(rest, samples[-1])
            fault = fault or _fault_of_other_device(device, other, uses, samples)
            fault = fault or _fault_of_repetition(session, device, turns, settle_s)
    elif arguments["calls"]:
        for _ in range(_FIRST_CALLS):
            session.telemetry(device)
        before, end_s = resources(), time.monotonic() + _CALLS_S
        while len(seconds) < arguments["calls"] and time.monotonic() < end_s:
            samples.append(_timed(session, device, seconds))
        try:
            require_kept(before, f"{len(seconds)} calls of perf_telemetry", "keep one handle open, or close each")
        except Failed as error:
            fault = str(error)
        fault = fault or _fault_of_unknown_device(session, device)
    if "torch" in sys.modules:
        fault = "perf_telemetry imports torch: a process beside the training calls it, which needs none"
    return {"samples": [asdict(sample) for sample in samples], "seconds": seconds, "fault": fault}


def _use(session: Session, device: DeviceInfo | None) -> dict[str, float]:
    """Return utilization and power in most of some readings, as far as they are known; empty without a device."""
    samples: list[TelemetrySample] = []
    while device is not None and len(samples) < _CALLS_OF_OTHER:
        samples.append(session.telemetry(device))
        time.sleep(_PAUSE_S)
    values = {name: [getattr(each, name) for each in samples] for name in ("utilization_percent", "power_w")}
    return {name: statistics.median(found) for name, found in values.items() if found and None not in found}


def _fault_of_other_device(
    device: DeviceInfo,
    other: DeviceInfo | None,
    uses: Sequence[Mapping[str, float]],
    samples: Sequence[TelemetrySample],
) -> str | None:
    """Say what is wrong with the use of another device before, while and after the device had work.

    ``samples`` are the readings of the device from before until then.
    """
    rest_w, busy_w = samples[0].power_w or 0.0, samples[-1].power_w or 0.0
    for name, most in (
        ("utilization_percent", tolerances.BUSY_PERCENT),
        ("power_w", max(_LEAST_RISE * rest_w, (busy_w - rest_w) / 2)),
    ):
        before, during, after = (use.get(name) for use in uses)
        # Others may use it, but they hardly begin and end together with this process.
        if before is None or during is None or after is None or during - max(before, after) <= most:
            continue
        return (
            f"{name} of {other} by perf_telemetry was {before:g}, {during:g} while {device} had work, and {after:g} "
            "after that: read the device with the UUID alone"
        )
    return None


def _timed(session: Session, device: DeviceInfo, seconds: list[float]) -> TelemetrySample:
    started_s = undisturbed_s()
    sample = session.telemetry(device)
    seconds.append(undisturbed_s() - started_s)
    return sample


def _next_turn(turns: Path) -> None:
    """Let the device begin to work, or to rest if it does, and have more memory in use."""
    (turns / str(len(os.listdir(turns)) + 1)).touch()


def _fault_of_missing(rest: Sequence[TelemetrySample], busy: TelemetrySample) -> str | None:
    """Say what no reading of the device at rest has, though it is measured: without these, a mean is too high."""
    missing = [
        name
        for name, value in asdict(busy).items()
        if value is not None and all(getattr(sample, name) is None for sample in rest)
    ]
    if not missing:
        return None
    return f"perf_telemetry has no {', '.join(missing)} at rest, and has it under load: 0 is a value, too"


def _fault_at_rest(
    session: Session, device: DeviceInfo, samples: Sequence[TelemetrySample], turns: Path, settle_s: float
) -> str | None:
    """Say what is wrong with readings of a device whose work has ended; ``samples`` show how it began.

    The first one is of now if it has left that under load, and if those that are taken at once after it are alike.
    """
    busy = replace(samples[-1], utilization_percent=_utilization(samples))
    fault = None
    for number, silence in enumerate(_SILENCES):
        if number:
            _next_turn(turns)
            time.sleep(settle_s)
            _burst(session, device)
        _next_turn(turns)
        time.sleep(silence * settle_s)
        fault = next(_stale(busy, samples[0], *_burst(session, device)), None)
        if fault is None:
            return None
    return f"{fault}, {settle_s:g} s after its work had ended: return the device's own reading, not a mean over others"


def _burst(session: Session, device: DeviceInfo) -> list[TelemetrySample]:
    found, end_s = [session.telemetry(device)], time.monotonic() + _BURST_S
    while len(found) <= _BURST.start or (len(found) < _BURST.stop and time.monotonic() < end_s):
        found.append(session.telemetry(device))
    return found


def _stale(busy: TelemetrySample, rest: TelemetrySample, *readings: TelemetrySample) -> Iterator[str]:
    """Yield what is still, in part, that of a ``busy`` device in the first of the ``readings`` after its work."""
    later = readings[-len(readings) // 2 :]
    for name, least in (("utilization_percent", tolerances.BUSY_PERCENT), ("power_w", 0.0)):
        high, low, found, *others = (getattr(each, name) for each in (busy, rest, readings[0], *later))
        # Others may keep the device busy.
        if None in (high, low, found, *others) or high - low <= max(least, _LEAST_RISE * low):
            continue
        follows = statistics.median(others)
        # The power falls slowly.
        if max(found - follows, found - low if name == "utilization_percent" else 0) > _LEFT * (high - low):
            yield f"{name} by perf_telemetry was {high:g} under load, then {found:g}, and {follows:g} in the next calls"


def _fault_of_repetition(session: Session, device: DeviceInfo, turns: Path, settle_s: float) -> str | None:
    """Say which readings are those of before, if the device or its tool cannot be reached, or no file be opened."""
    for what, out_of_reach in (
        ("without PATH and without visible devices", partial(_hidden, session)),
        ("when no file can be opened", _no_more_files),
    ):
        with suppress(PluginError):
            last = session.telemetry(device)
            _next_turn(turns)
            settled_s = time.monotonic() + settle_s
            with out_of_reach():
                found = last
                while any(getattr(last, name) is not None for name in _FOLLOWING):
                    if time.monotonic() > settled_s:
                        return (
                            f"perf_telemetry repeats its last reading {what}: after {settle_s:g} s in which the device "
                            f"began or ended work and got memory, it is still {found}: raise an error, or return None"
                        )
                    found = session.telemetry(device)
                    if any(getattr(found, name) != getattr(last, name) for name in _FOLLOWING):
                        break
                    time.sleep(_PAUSE_S)
    return None


def _hidden(session: Session) -> AbstractContextManager[object]:
    """Return a block in which management tools are not found, and no device is visible."""
    return patch.dict(os.environ, dict.fromkeys(("PATH", *session.vendor_info().visible_devices_env), ""))


@contextmanager
def _no_more_files() -> Iterator[None]:
    """In the block, neither a file can be opened nor a program started with pipes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _fault_of_unknown_device(session: Session, device: DeviceInfo) -> str | None:
    """Say what is wrong with the reading of a device with another UUID, which no device has."""
    if device.uuid is None:
        return None
    earlier = session.telemetry(device)
    start, end = device.uuid[:-_CHANGED_DIGITS], device.uuid[-_CHANGED_DIGITS:]
    unknown = replace(device, uuid=start + end.translate(_OTHER_DIGITS), pci_bus_id=None)
    with suppress(Exception):
        sample = session.telemetry(unknown)
        if replace(sample, source="") != TelemetrySample(source=""):
            return (
                f"perf_telemetry gives {sample} for {unknown}, which does not exist, after it was asked for "
                f"{device.uuid}: raise an error, or return None for each value"
            )
    later = session.telemetry(device)
    lost = [name for name in _MEASURED if getattr(later, name) is None is not getattr(earlier, name)]
    return f"after a call for {unknown}, perf_telemetry has no {', '.join(lost)} for {device}" if lost else None


def _show_load(samples: Sequence[TelemetrySample]) -> bool:
    return not any(_faults_under_load(samples))


def _faults_under_load(samples: Sequence[TelemetrySample]) -> Iterator[str]:
    """Say what is wrong with readings of a device that was at rest in the first one, and then had work and memory."""
    first, last = samples[0], samples[-1]
    if last.utilization_percent is not None and _utilization(samples) < tolerances.BUSY_PERCENT:
        yield f"utilization_percent is {_utilization(samples):g} most of the time"
    # Others may keep the device busy, which leaves its utilization as it was, but not its power.
    for name in ("power_w", "utilization_percent"):
        values = {getattr(sample, name) for sample in samples}
        if None not in values:
            if len(values) == 1:
                yield f"{name} stays what it was at rest"
            break
    temperatures = [sample.temperature_c for sample in samples if sample.temperature_c is not None]
    if temperatures and max(temperatures) - min(temperatures) > tolerances.TEMPERATURE_CHANGE_C:
        yield f"temperature_c went from {min(temperatures):g} to {max(temperatures):g} within seconds"
    if first.memory_used_bytes is not None:
        used_bytes = last.memory_used_bytes or 0
        if used_bytes < first.memory_used_bytes + _TURN_BYTES // 2:
            yield f"memory_used_bytes was {first.memory_used_bytes} at rest and is {used_bytes}"


def _utilization(samples: Sequence[TelemetrySample]) -> float:
    """Return that of most of the last readings: there is a moment without work between two waits."""
    return statistics.median(each.utilization_percent or 0 for each in samples[-_CALLS_UNDER_LOAD:])


def _require_possible(sample: TelemetrySample, total_bytes: int | None) -> None:
    bounds = {
        "power_w": tolerances.POWER_W,
        "temperature_c": tolerances.TEMPERATURE_C,
        "utilization_percent": (0, 100),
        "clock_mhz": tolerances.CLOCK_MHZ,
        "memory_used_bytes": (0, total_bytes or math.inf),
    }
    known = {name: getattr(sample, name) for name in bounds if getattr(sample, name) is not None}
    require(known, "telemetry is declared, but every reading is None")
    for name, value in known.items():
        least, most = bounds[name]
        require(
            least <= value <= most,
            f"perf_telemetry gives {name} = {value:g}, which should be {least:g} to {most:g}: check the unit the "
            "device reports in, and return None for unknown values",
        )


def _require_memory_followed(subject: PluginUnderTest, reader: _Reader, number: int, device: torch.device) -> None:
    """Check that memory allocated on one device is used there, by its size, and on no other."""
    import torch

    if reader.memory(number) is None:
        return
    last = len(reader.devices) - 1
    others = {0, last} - {number}
    held = []
    growths: dict[str, int] = {}
    for size_bytes in _BLOCKS_BYTES:
        before = [reader.memory(other) or 0 for other in (number, *others)]
        held.append(torch.full((size_bytes // 4,), 1.0, device=device))
        subject.session.synchronize(device)
        deadline_s = time.monotonic() + patient(_SETTLE_S)
        while True:
            after = [reader.memory(other) or 0 for other in (number, *others)]
            own, *foreign = (later - earlier for earlier, later in zip(before, after, strict=True))
            wrong = [growth for growth in foreign if abs(growth) > tolerances.ALLOCATION_BYTES]
            if abs(own - size_bytes) <= tolerances.ALLOCATION_BYTES and not wrong:
                used_bytes = subject.session.memory_query(device).used_bytes
                total_bytes = reader.devices[number].total_bytes or 0
                require(
                    used_bytes is None
                    or abs(after[0] - used_bytes) <= tolerances.USED_MEMORY * total_bytes + tolerances.ALLOCATION_BYTES,
                    f"perf_telemetry says {after[0]} bytes of {device} are used, and perf_memory_query {used_bytes}",
                )
                return
            if time.monotonic() > deadline_s:
                break
            time.sleep(_PAUSE_S)
        # Other processes use the devices as well, but not always just now.
        growths[f"{size_bytes} bytes"] = own
        if wrong:
            growths["other devices"] = wrong[0]
    fail(
        f"memory_used_bytes of {device} by perf_telemetry did not follow tensors there: it grew by "
        f"{', '.join(f'{growth} ({what})' for what, growth in growths.items())}: report the bytes in use on the device "
        "with the UUID"
    )


def _require_load_shown(subject: PluginUnderTest, reader: _Reader, number: int, device: torch.device) -> None:
    """Check that the readings of one process change when the device gets work and memory, and are of a busy device."""
    import torch

    operand = torch.ones(_WIDTH, _WIDTH, device=device)
    held: list[torch.Tensor] = []
    with TemporaryDirectory(dir=subject.workspace) as turns, ThreadPoolExecutor(1) as pool:
        reading = pool.submit(reader.read, number, calls=_CALLS_UNDER_LOAD, turns=Path(turns))
        while not reading.done():
            if len(held) < len(os.listdir(turns)):
                held.append(torch.full((_TURN_BYTES // 4,), 1.0, device=device))
            elif len(held) % 2:
                queued_s = time.monotonic() + _QUEUED_S
                while time.monotonic() < queued_s:
                    torch.mm(operand, operand)
                subject.session.synchronize(device)
            else:
                time.sleep(_PAUSE_S)
    faults = [*_faults_under_load(reading.result())]
    require(
        not faults,
        f"{device} computes without a pause and holds {_TURN_BYTES} more bytes, but by perf_telemetry "
        f"{'; '.join(faults)}: read the device with the UUID in each call, and report percent and bytes",
    )


@check(
    "R2",
    level=2,
    capability=Capability.TELEMETRY,
    fault="telemetry uses the host's cores or stops the device while it reads",
    timeout_s=600,
)
def sampling_costs_little(subject: PluginUnderTest) -> None:
    """Sampling telemetry during training costs less than 2 % of the throughput."""
    path = subject.workspace / "telemetry.jsonl"
    # The sampling process must find the plugin in the same place as this process.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    sampler = TelemetrySampler(subject.session, path, [subject.session.device_info(subject.device)], {})
    train(subject, 2)
    steps, block_s = 1, 0.0
    while block_s < _BLOCK_S:
        steps = max(2 * steps, math.ceil(steps * _BLOCK_S / max(block_s, 1e-3)) if block_s else 0)
        block_s = _block_s(subject, steps, None, path)
    costs = []
    for turn in range(max(_STUDENT_T)):
        # The order alternates, so that a drift of the machine's speed affects both equally.
        order = (sampler, None) if turn % 2 else (None, sampler)
        seconds = {each is None: _block_s(subject, steps, each, path) for each in order}
        costs.append(math.log(seconds[False] / seconds[True]))
        if len(costs) in _STUDENT_T:
            margin = _STUDENT_T[len(costs)] * statistics.stdev(costs) / math.sqrt(len(costs))
            least = math.expm1(statistics.fmean(costs) - margin)
            require(
                least <= tolerances.SAMPLER_COST,
                f"with telemetry sampled once a second, {steps} steps take at least {least:.1%} longer (99 % "
                f"confidence, {len(costs)} rounds), where {tolerances.SAMPLER_COST:.0%} are allowed: let "
                "perf_telemetry do less",
            )


def _block_s(subject: PluginUnderTest, steps: int, sampler: TelemetrySampler | None, path: Path) -> float:
    path.unlink(missing_ok=True)
    with sampler or nullcontext():
        # A run starts the sampling process only once, so its start does not count.
        limit_s = patient(_SAMPLER_START_S)
        deadline_s = time.monotonic() + limit_s
        while sampler is not None and not (path.exists() and path.stat().st_size):
            if time.monotonic() > deadline_s:
                fail(f"the sampling process gave no reading within {limit_s:g} s")
            time.sleep(0.02)
        started_s = time.perf_counter()
        train(subject, steps)
        return time.perf_counter() - started_s

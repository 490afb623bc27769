"""Torch-free tools for probes and telemetry: PCI devices, driver files, management tools and their output.

A probe must return within seconds and must not raise on any machine. Therefore a missing file, tool or permission
raises nothing here, and every call that could hang has a time limit.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

from chipperf.plugin.probe_process import MAX_OUTPUT_BYTES, file_in_memory
from chipperf.plugin.types import ProbeResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    Layout = tuple[tuple[str, ...], Callable[[str], "DeviceReport"]]
    Sections = dict[tuple[str, ...], str]
    Units = Mapping[str, float]

Device = TypeVar("Device")
Result = TypeVar("Result")

PCI_ROOT = Path("/sys/bus/pci/devices")
_PCI_ADDRESS = re.compile(r"\b([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])\b", re.IGNORECASE)
_DISPLAY_CLASS = 0x03
_QUANTITY = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*([A-Za-z%]*)\s*")

# Management tools count in powers of 2**10, whatever spelling they use: one prints 67108864 KB for 64 GiB.
BYTES: Final[Units] = {"B": 1, "KB": 2**10, "KiB": 2**10, "MB": 2**20, "MiB": 2**20, "GB": 2**30, "GiB": 2**30}
"""Units for :func:`quantity`: size by spelling."""
WATTS: Final[Units] = {"W": 1, "mW": 1e-3}
CELSIUS: Final[Units] = {"C": 1}
PERCENT: Final[Units] = {"%": 1}
MEGAHERTZ: Final[Units] = {"MHz": 1}
UNSTATED: Final[Units] = {"": 1}
"""For output without units; the specification of its format gives the unit."""
_UNITS: Final = {"power_w": WATTS, "temperature_c": CELSIUS, "utilization_percent": PERCENT, "clock_mhz": MEGAHERTZ}
# "N/A", "[Not Supported]" and the like, which tools print in place of a value that they do not have.
_NO_VALUE = re.compile(r"\[.*|n/?a|none|null|unknown(?: error)?|err(?:or)?!*|not (?:available|supported)|[-?]+", re.I)
_TERMINAL_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
# Some libraries write "GPU-" in front of a UUID.
_UUID_PREFIX = re.compile(r"[a-z]{2,3}-")


@dataclass(frozen=True, slots=True, kw_only=True)
class PciDevice:
    """A PCI function that the kernel lists; the address has the form of :func:`normalize_pci_address`.

    ``is_virtual`` functions are parts of a card (SR-IOV); in a virtual machine, the kernel does not report them.
    """

    address: str
    vendor_id: int
    device_id: int
    class_code: int
    is_virtual: bool = False

    @property
    def is_display(self) -> bool:
        """True for display controllers; accelerators without a video output are display controllers too."""
        return self.class_code >> 16 == _DISPLAY_CLASS


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReading:
    """Values of one device at one moment, from a management tool or library; ``None`` is unknown.

    Attributes:
        device_id: The tool's number of the device.
        node: The number of its device node, if the tool tells it.
        pci_bus_id: Address, in the form of :func:`normalize_pci_address`.
        serial: Serial number of the card.
        power_w: Power of the board.
        temperature_c: Temperature of the chip; the highest if there are several.
        utilization_percent: Busy share of the compute units.
        memory_used_bytes: Device memory in use by all processes.
        clock_mhz: Clock of the compute units.
    """

    device_id: int | None = None
    node: int | None = None
    pci_bus_id: str | None = None
    uuid: str | None = None
    serial: str | None = None
    name: str | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    utilization_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    clock_mhz: float | None = None

    def sensors(self) -> dict[str, Any]:
        """Return the values for a ``TelemetrySample``, by its attribute names."""
        names = ("power_w", "temperature_c", "utilization_percent", "memory_used_bytes", "clock_mhz")
        return {name: getattr(self, name) for name in names}

    def identity(self, index: int, name: str) -> dict[str, Any]:
        """Return the values for a ``ProbedDevice`` or ``DeviceInfo``; ``name`` is for a device without one."""
        identity = {"index": index, "name": self.name or name, "uuid": self.uuid, "pci_bus_id": self.pci_bus_id}
        return {**identity, "total_bytes": self.memory_total_bytes}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReport:
    """Values of all devices at one moment, in the tool's order; ``None`` is unknown.

    Attributes:
        source: Where the readings come from, for example ``acme-smi 2.1 --summary``.
        problem: Why there are no readings, or what the tool complained of beside them.
        sdk_version: Version of the vendor's software, or of the library that the tool uses.
    """

    readings: tuple[DeviceReading, ...] = ()
    source: str = ""
    problem: str = ""
    tool_version: str | None = None
    driver_version: str | None = None
    sdk_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOutput:
    """Standard output of a management tool, and what went wrong; ``None`` if the tool succeeded.

    ``is_whole`` is False if the tool was not run to its end, so that devices may be missing. A tool that cannot reach
    one device often prints all others and then ends with an error.
    """

    stdout: str = ""
    problem: str | None = None
    is_whole: bool = True


def find_pci_devices(root: Path | None = None) -> tuple[PciDevice, ...]:
    """Return the PCI functions with readable ids, sorted by address; none if ``root`` does not exist.

    ``root``, by default :data:`PCI_ROOT`, has a directory per function, with the files ``vendor``, ``device`` and
    ``class``.
    """
    devices: list[PciDevice] = []
    with suppress(OSError):
        for entry in sorted((root or PCI_ROOT).iterdir()):
            address = normalize_pci_address(entry.name)
            with suppress(ValueError):
                vendor, device, code = (
                    int(read_text(entry / name) or "", 16) for name in ("vendor", "device", "class")
                )
                if address:
                    ids = {"vendor_id": vendor, "device_id": device, "class_code": code}
                    devices.append(PciDevice(address=address, is_virtual=(entry / "physfn").exists(), **ids))
    return tuple(devices)


def probe_cards(
    root: Path,
    is_card: Callable[[PciDevice], bool],
    examine: Callable[[tuple[PciDevice, ...]], ProbeResult | str],
    *,
    called: str,
    criterion: str,
    driver_version: str | None,
    otherwise: str = "",
) -> ProbeResult:
    """Probe a vendor's cards: find them on the PCI bus, then ask ``examine`` which devices can be used.

    Args:
        root: Directory that holds ``sys``.
        is_card: Returns whether a PCI function is a card of the vendor.
        examine: Takes the cards, at least one. Returns the result, or the problem and what to do, as the end of a
            sentence.
        called: Name of a card in messages, for example ``ACME GPU``.
        criterion: What identifies a card, as the end of a sentence, for example ``has vendor id 0x10de``.
        driver_version: Version of the kernel driver, for a result without devices.
        otherwise: Why this machine has a card that is not on the PCI bus, and what to do, if it is known to have one.
    """
    pci_root = root / "sys/bus/pci/devices"
    functions = find_pci_devices(pci_root)
    cards = tuple(filter(is_card, functions))
    if cards:
        examined = examine(cards)
        if isinstance(examined, ProbeResult):
            virtual = {card.address for card in cards if card.is_virtual}
            devices = (
                replace(each, part="virtual function") if each.part is None and each.pci_bus_id in virtual else each
                for each in examined.devices
            )
            return replace(examined, devices=tuple(devices))
        reason = f"PCI lists {called}s at {', '.join(card.address for card in cards)}, but {examined}"
    else:
        reason = otherwise or (
            f"no {called}: none of the {len(functions)} PCI devices under {pci_root} {criterion}; check that the card "
            "is powered, seated and passed to this machine or container"
        )
    return ProbeResult(available=False, reason=reason, driver_version=driver_version)


def select_visible(
    choice: str, find: Callable[[str], Device | None], *, repetition_hides_all: bool = True
) -> tuple[Device, ...]:
    """Return the devices that a variable such as ``CUDA_VISIBLE_DEVICES`` selects, in its order.

    As in CUDA, an entry that names no device ends the list, and one that repeats a device hides all of them; without
    ``repetition_hides_all``, it ends the list too.

    Args:
        choice: Value of the variable: entries separated by commas.
        find: Returns the device that an entry names, or ``None``.
    """
    chosen: list[Device] = []
    for entry in choice.split(","):
        device = find(entry.strip())
        if device is None:
            break
        if device in chosen:
            return () if repetition_hides_all else tuple(chosen)
        chosen.append(device)
    return tuple(chosen)


def only(matches: Iterable[Device]) -> Device | None:
    """Return the only match; ``None`` if there are none or several, for example for an abbreviated UUID."""
    found = list(matches)
    return found[0] if len(found) == 1 else None


def quantity(text: str | None, units: Units) -> float | None:
    """Return a number with its unit, in the unit that ``units`` maps to 1; ``None`` for any other text."""
    match = _QUANTITY.fullmatch(text or "")
    return float(match[1]) * units[match[2]] if match and match[2] in units else None


def stated(text: str | None) -> str | None:
    """Return a value that a tool prints, or ``None`` for none, and for words such as ``N/A`` in its place."""
    value = (text or "").strip()
    return None if not value or _NO_VALUE.fullmatch(value) else value


def read_device(texts: Mapping[str, object], *, unstated: Units | None = None, **known: Any) -> DeviceReading:
    """Return a reading from the texts that a tool prints; a text that cannot be parsed is unknown.

    Args:
        texts: Texts by attribute name of :class:`DeviceReading`, each quantity with its unit.
        unstated: :data:`UNSTATED` if numbers without units are in the usual units; memory always needs a unit.
        known: Attributes whose values are already known.
    """
    values: dict[str, Any] = {}
    for name, text in texts.items():
        if name.endswith("_bytes"):
            size = quantity(str(text), BYTES)
            values[name] = None if size is None else round(size)
        elif name in ("device_id", "node"):
            values[name] = int(str(text)) if str(text).isdecimal() else None
        elif name in _UNITS:
            values[name] = quantity(str(text), {**_UNITS[name], **(unstated or {})})
        else:
            value = stated(None if text is None else str(text))
            values[name] = normalize_pci_address(value or "") if name == "pci_bus_id" else value
    return DeviceReading(**{**values, **known})


def read_table(text: str, patterns: Mapping[str, re.Pattern[str]]) -> Iterator[dict[str, str | None]]:
    """Yield the texts about each device of a table that is drawn with ``|``, for :func:`read_device`.

    The lines about a device begin with the one that has its PCI address, and end before the next rule. The first group
    of the pattern of an attribute of :class:`DeviceReading` is its text.
    """
    block = ""
    for line in (*text.splitlines(), ""):
        in_table = line.lstrip().startswith("|")
        starts = in_table and normalize_pci_address(line) is not None
        if block and (starts or not in_table):
            found = {name: pattern.search(block) for name, pattern in patterns.items()}
            yield {"pci_bus_id": block, **{name: match and match[1] for name, match in found.items()}}
            block = ""
        if starts or block:
            block += f"{line.strip()}\n"


def read_sections(text: str, heading: re.Pattern[str]) -> tuple[Sections, list[tuple[re.Match[str], Sections]]]:
    """Read lines ``key : value`` that are grouped by indented titles, as far as they came.

    Returns:
        The values before the first line that matches ``heading``, and for each such line, which begins a device, the
        match and the device's values. A value is found by the titles around it and its key.
    """
    general: Sections = {}
    devices: list[tuple[re.Match[str], Sections]] = []
    titles: list[tuple[int, str]] = []
    for line in text.splitlines():
        device = heading.fullmatch(line)
        if device:
            devices.append((device, {}))
            titles = []
            continue
        indentation = len(line) - len(line.lstrip())
        while titles and titles[-1][0] >= indentation:
            titles.pop()
        key, colon, value = line.partition(" : ")
        if colon:
            path = (*(title for _, title in titles), key.strip())
            (devices[-1][1] if devices else general)[path] = value.strip()
        elif line.strip():
            titles.append((indentation, line.strip()))
    return general, devices


def find_reading(
    readings: Sequence[DeviceReading], *, uuid: str | None, pci_bus_id: str | None
) -> DeviceReading | None:
    """Return the reading with this UUID, else with this address; ``None`` unless exactly one matches.

    UUIDs are compared without a prefix such as ``GPU-``, ignoring case.
    """
    same_uuid = [each for each in readings if uuid and each.uuid and _bare(each.uuid) == _bare(uuid)]
    return only(same_uuid or (each for each in readings if pci_bus_id and each.pci_bus_id == pci_bus_id))


def _bare(uuid: str) -> str:
    return _UUID_PREFIX.sub("", uuid.casefold(), count=1)


def normalize_pci_address(text: str) -> str | None:
    """Return the PCI address in ``text`` in the form ``0000:1b:00.0``, or ``None`` if there is none."""
    # Management tools print a domain of four or eight digits, in upper or lower case.
    match = _PCI_ADDRESS.search(text)
    if match is None:
        return None
    domain, bus, device, function = match.groups()
    return f"{int(domain, 16):04x}:{bus.lower()}:{device.lower()}.{function}"


def read_text(path: Path) -> str | None:
    """Return the stripped content of a small text file, or ``None`` if it cannot be read."""
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return None


def distribution_version(name: str) -> str | None:
    """Return the version of a distribution from its metadata, without importing it; ``None`` if not installed."""
    # Broken metadata can raise anything.
    with suppress(Exception):
        return importlib.metadata.version(name)
    return None


def run_tool(
    argv: Sequence[str], *, timeout_s: float = 5.0, environment: Mapping[str, str] | None = None
) -> ToolOutput:
    """Run a management tool, without a shell, and return its output up to the end or the timeout, without colors.

    After ``timeout_s`` the tool and its children are killed. ``environment`` is by default that of this process. The
    output goes to files of limited size: a tool may print without end, or leave a daemon that keeps a pipe open.
    """
    with file_in_memory() as output, file_in_memory() as complaints:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=complaints,
                start_new_session=True,
                env=environment,
            )
        except OSError as error:
            return ToolOutput(problem=f"{argv[0]} cannot be run: {error.strerror or error}", is_whole=False)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            # A tool that is stuck inside the kernel does not die. It is left running, because the probe must return.
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
            problem = f"{argv[0]} did not finish within {timeout_s:g} s"
            return ToolOutput(stdout=_printed(output), problem=problem, is_whole=False)
        stdout, stderr = _printed(output), _printed(complaints)
        is_full = os.pread(output.fileno(), 1, MAX_OUTPUT_BYTES - 1) not in (b"", b"\0")
    if is_full:
        problem = f"{argv[0]} prints more than {MAX_OUTPUT_BYTES // 2**20} MiB"
        return ToolOutput(stdout=stdout, problem=problem, is_whole=False)
    if process.returncode != 0:
        complaint = (stderr.strip() or stdout.strip() or "no message").splitlines()[0]
        problem = f"{argv[0]} ended with status {process.returncode}: {complaint}"
        return ToolOutput(stdout=stdout, problem=problem, is_whole=process.returncode > 0)
    return ToolOutput(stdout=stdout)


def _printed(file: BinaryIO) -> str:
    file.seek(0)
    text = file.read().rstrip(b"\0").decode(errors="replace").replace("\r\n", "\n")
    return _TERMINAL_SEQUENCE.sub("", text)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagementTool:
    """A vendor's command line tool: the first of its names that is installed, on ``PATH`` or in its directories."""

    names: tuple[str, ...]
    directories: tuple[Path, ...] = ()

    def find(self) -> str | None:
        """Return the tool's path, or ``None`` if it is not installed."""
        search_path = os.pathsep.join((os.environ.get("PATH", os.defpath), *map(str, self.directories)))
        return next(filter(None, (shutil.which(name, path=search_path) for name in self.names)), None)

    def run(self, options: Sequence[str], *, timeout_s: float) -> ToolOutput:
        """Run the tool; its problem names the tool without a directory, because records quote it."""
        tool = self.find()
        if tool is None:
            return ToolOutput(problem=f"{self.names[0]} is not installed", is_whole=False)
        output = run_tool([tool, *options], timeout_s=timeout_s)
        return replace(output, problem=output.problem and output.problem.replace(tool, Path(tool).name))

    def report(self, options: Sequence[str], parse: Callable[[str], DeviceReport], *, timeout_s: float) -> DeviceReport:
        """Run the tool and parse its output; nothing is known where it does not come to its end."""
        output = self.run(options, timeout_s=timeout_s)
        return parse(output.stdout) if output.is_whole else DeviceReport()


@dataclass(eq=False)
class LayoutReader:
    """Reads all devices from a tool whose versions print different layouts, given with their options, best first.

    ``misread`` is the problem of an output that no layout can use, with the call as ``{call}``. ``tells`` returns
    whether a report is useful.
    """

    tool: ManagementTool
    layouts: Sequence[Layout]
    misread: str
    tells: Callable[[DeviceReport], bool] = lambda report: bool(report.readings)

    def read(self, *, timeout_s: float) -> DeviceReport:
        """Return the report of the first layout that gives a useful one; the next call begins with that layout.

        All calls together take ``timeout_s`` seconds. A tool that hangs is not called again.
        """
        deadline_s = time.monotonic() + timeout_s
        problem = ""
        for place, (options, parse) in enumerate(self.layouts):
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0:
                break
            output = self.tool.run(options, timeout_s=max(0.1, round(remaining_s, 1)))
            report = parse(output.stdout) if output.is_whole else DeviceReport()
            name = Path(self.tool.find() or self.tool.names[0]).name
            if self.tells(report):
                self.layouts = self.layouts[place:]
                source = " ".join((name, *filter(None, [report.tool_version]), *options))
                return replace(report, source=source, problem=output.problem or "")
            problem = problem or output.problem or self.misread.format(call=" ".join((name, *options)))
        return DeviceReport(problem=problem)


@dataclass(eq=False)
class SharedReport:
    """Caches a report on all devices for ``fresh_s`` seconds, because telemetry reads one device after the other."""

    take: Callable[[], DeviceReport]
    fresh_s: float = 0.5
    _report: DeviceReport = field(default=DeviceReport(), init=False)
    _taken_s: float = field(default=float("-inf"), init=False)

    def current(self) -> DeviceReport:
        """Return the latest report, or a new one if it is too old."""
        if time.monotonic() - self._taken_s > self.fresh_s:
            self._report, self._taken_s = self.take(), time.monotonic()
        return self._report


def call_bounded(function: Callable[[], Result], *, timeout_s: float = 5.0) -> Result:
    """Call a library function that may hang in a thread of its own, and pass its exceptions on.

    After ``timeout_s`` seconds the thread is abandoned, which is a ``TimeoutError``.
    """
    future: Future[Result] = Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=work, name="chipperf-bounded-call", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {timeout_s:g} s")
    return future.result()

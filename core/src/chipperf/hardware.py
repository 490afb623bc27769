"""Torch-free tools for a vendor's probe and telemetry: PCI devices, driver files, management tools and what they print.

A probe must return within seconds and must not raise, on every machine. So nothing here raises because a file, a tool
or a permission is missing, and whatever could hang takes a time limit.
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
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Layout = tuple[tuple[str, ...], Callable[[str], "DeviceReport"]]

Device = TypeVar("Device")
Result = TypeVar("Result")

PCI_ROOT = Path("/sys/bus/pci/devices")
_PCI_ADDRESS = re.compile(r"\b([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])\b", re.IGNORECASE)
_DISPLAY_CLASS = 0x03
_QUANTITY = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*([A-Za-z%]*)\s*")
_KILL_WAIT_S = 0.5

# Management tools count in units of 2**10, however they spell them: one prints 67108864 KB for 64 GiB.
BYTES: Final[Mapping[str, float]] = MappingProxyType(
    {"B": 1, "KB": 2**10, "KiB": 2**10, "MB": 2**20, "MiB": 2**20, "GB": 2**30, "GiB": 2**30}
)
"""Units for :func:`quantity`: spellings of a unit, each with its size."""
WATTS: Final[Mapping[str, float]] = MappingProxyType({"W": 1, "mW": 1e-3})
CELSIUS: Final[Mapping[str, float]] = MappingProxyType({"C": 1})
PERCENT: Final[Mapping[str, float]] = MappingProxyType({"%": 1})
MEGAHERTZ: Final[Mapping[str, float]] = MappingProxyType({"MHz": 1})
UNSTATED: Final[Mapping[str, float]] = MappingProxyType({"": 1})
"""For formats whose specification, and not their text, gives the unit."""
_UNITS: Final[Mapping[str, Mapping[str, float]]] = MappingProxyType(
    {
        "power_w": WATTS,
        "temperature_c": CELSIUS,
        "utilization_percent": PERCENT,
        "memory_used_bytes": BYTES,
        "memory_total_bytes": BYTES,
        "clock_mhz": MEGAHERTZ,
    }
)
# "GPU-", which some libraries write in front of a UUID and others do not.
_UUID_PREFIX = re.compile(r"[a-z]{2,3}-")


@dataclass(frozen=True, slots=True, kw_only=True)
class PciDevice:
    """A PCI function as the kernel lists it.

    Attributes:
        address: Domain, bus, device and function, in the form of :func:`normalize_pci_address`.
        vendor_id: 16-bit vendor id.
        device_id: 16-bit device id.
        class_code: 24-bit class code: class, subclass, programming interface.
    """

    address: str
    vendor_id: int
    device_id: int
    class_code: int

    @property
    def is_display(self) -> bool:
        """True for display controllers, which include accelerators without a video output."""
        return self.class_code >> 16 == _DISPLAY_CLASS


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReading:
    """What a management tool or library says of one device at one moment; ``None`` is unknown.

    Attributes:
        device_id: The tool's own number of the device.
        pci_bus_id: Address, in the form of :func:`normalize_pci_address`.
        uuid: UUID, as the plugin writes it.
        serial: Serial number of the card.
        name: Product's or chip's name.
        power_w: Power of the board.
        temperature_c: Temperature of the chip; of several, the highest.
        utilization_percent: Busy share of the compute units.
        memory_used_bytes: Device memory in use by everybody.
        memory_total_bytes: Capacity.
        clock_mhz: Clock of the compute units.
    """

    device_id: int | None = None
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
        """Return the values that a ``TelemetrySample`` has, by its names."""
        names = ("power_w", "temperature_c", "utilization_percent", "memory_used_bytes", "clock_mhz")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReport:
    """What a management tool or library says of all devices at one moment; ``None`` is unknown.

    Attributes:
        readings: One per device, in the tool's order.
        source: Where the readings come from, for example ``acme-smi 2.1 --summary``.
        problem: Why there are no readings.
        tool_version: Version of the tool, which is not the driver's.
        driver_version: Version of the kernel driver.
        sdk_version: Version of the vendor's software or of the library behind the tool.
    """

    readings: tuple[DeviceReading, ...] = ()
    source: str = ""
    problem: str = ""
    tool_version: str | None = None
    driver_version: str | None = None
    sdk_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOutput:
    """What a management tool printed.

    Attributes:
        stdout: Its output, empty if it did not run.
        problem: Why the output is not to be trusted; ``None`` if the tool ended well.
    """

    stdout: str = ""
    problem: str | None = None


def find_pci_devices(root: Path | None = None) -> tuple[PciDevice, ...]:
    """List the machine's PCI functions by address.

    Args:
        root: Directory with one entry per function, each with the files ``vendor``, ``device`` and ``class``;
            :data:`PCI_ROOT` if not given.

    Returns:
        Functions whose identity is readable; none if ``root`` does not exist.
    """
    with suppress(OSError):
        entries = sorted((root or PCI_ROOT).iterdir())
        return tuple(device for device in map(_read_pci_device, entries) if device is not None)
    return ()


def _read_pci_device(entry: Path) -> PciDevice | None:
    address = normalize_pci_address(entry.name)
    try:
        vendor_id, device_id, class_code = (int(read_text(entry / n) or "", 16) for n in ("vendor", "device", "class"))
    except ValueError:
        return None
    if address is None:
        return None
    return PciDevice(address=address, vendor_id=vendor_id, device_id=device_id, class_code=class_code)


def find_cards(
    root: Path, is_card: Callable[[PciDevice], bool], *, called: str, criterion: str
) -> tuple[tuple[PciDevice, ...], str]:
    """Find a vendor's cards among the machine's PCI functions.

    Args:
        root: Directory that holds ``sys``.
        is_card: Whether a function is a card of the vendor.
        called: What a card is called: ``ACME GPU``.
        criterion: What a card would be, as the end of a sentence: ``has vendor id 0x10de``.

    Returns:
        The cards by address, and words for a probe's reason: where they are, or what was looked for and what to do.
    """
    pci_root = root / "sys/bus/pci/devices"
    functions = find_pci_devices(pci_root)
    cards = tuple(filter(is_card, functions))
    if cards:
        return cards, f"PCI lists {called}s at {', '.join(card.address for card in cards)}"
    return (), (
        f"no {called}: none of the {len(functions)} PCI devices under {pci_root} {criterion}; check that the card is "
        "powered, seated and passed to this machine or container"
    )


def select_visible(
    choice: str, find: Callable[[str], Device | None], *, repetition_hides_all: bool = True
) -> tuple[Device, ...]:
    """Return the devices that a variable such as ``CUDA_VISIBLE_DEVICES`` leaves, in its order.

    As in CUDA, the first entry that names no device hides itself and all behind it.

    Args:
        choice: The variable's value: entries separated by commas.
        find: Returns the device that an entry names, or ``None``.
        repetition_hides_all: Whether an entry that repeats a device hides all devices, as in CUDA, or only itself and
            all behind it.
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
    """Return the single match; ``None`` if there is none or more than one, as for an abbreviated UUID."""
    found = list(matches)
    return found[0] if len(found) == 1 else None


def quantity(text: str | None, units: Mapping[str, float]) -> float | None:
    """Return the number in ``text`` in the unit that ``units`` maps to 1; ``None`` if it is not such a quantity.

    Args:
        text: A number and its unit, alone.
        units: Accepted spellings of the unit, each with its size.
    """
    match = _QUANTITY.fullmatch(text or "")
    return float(match[1]) * units[match[2]] if match and match[2] in units else None


def whole(value: float | None) -> int | None:
    """Return ``value`` as an integer, for counts of bytes."""
    return None if value is None else round(value)


def read_device(
    texts: Mapping[str, object], *, unstated: Mapping[str, float] = MappingProxyType({}), **known: Any
) -> DeviceReading:
    """Return a reading from the texts that a tool prints; a text that is not such a value is unknown.

    Args:
        texts: Texts by the names of :class:`DeviceReading`, each quantity with its unit; ``None`` is unknown.
        unstated: :data:`UNSTATED` where a tool prints bare numbers in the usual units; memory always has its unit.
        known: Attributes whose values are found in another way.
    """
    values: dict[str, Any] = {}
    for name, text in texts.items():
        if name in _UNITS:
            is_memory = name.endswith("_bytes")
            units = _UNITS[name] if is_memory else {**_UNITS[name], **unstated}
            number = quantity(None if text is None else str(text), units)
            values[name] = whole(number) if is_memory else number
        else:
            values[name] = (normalize_pci_address(str(text or "")) if name == "pci_bus_id" else text) or None
    return DeviceReading(**{**values, **known})


def find_reading(
    readings: Iterable[DeviceReading], *, uuid: str | None, pci_bus_id: str | None
) -> DeviceReading | None:
    """Return the reading of the device with this UUID, or else at this address; ``None`` unless it is exactly one.

    A UUID is compared without the prefix that some write in front of it (``GPU-``), and in either case.
    """
    listed = tuple(readings)
    same_uuid = [reading for reading in listed if uuid and reading.uuid and _bare(reading.uuid) == _bare(uuid)]
    return only(same_uuid or [reading for reading in listed if pci_bus_id and reading.pci_bus_id == pci_bus_id])


def _bare(uuid: str) -> str:
    return _UUID_PREFIX.sub("", uuid.casefold(), count=1)


def normalize_pci_address(text: str) -> str | None:
    """Return the PCI address in ``text`` as ``0000:1b:00.0``, or ``None`` if there is none.

    Management tools print the same address with a domain of four or eight digits and in either case.
    """
    match = _PCI_ADDRESS.search(text)
    if match is None:
        return None
    domain, bus, device, function = match.groups()
    return f"{int(domain, 16):04x}:{bus.lower()}:{device.lower()}.{function}"


def read_text(path: Path) -> str | None:
    """Return a small text file without surrounding white space, or ``None`` if it cannot be read."""
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return None


def distribution_version(name: str) -> str | None:
    """Return the version of an installed distribution from its metadata, importing nothing; ``None`` if absent."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def find_tool(name: str, directories: Iterable[Path] = ()) -> str | None:
    """Find an executable on ``PATH``, then in the directories where its vendor installs it; ``None`` if absent."""
    search_path = (os.environ.get("PATH", os.defpath), *map(str, directories))
    return shutil.which(name, path=os.pathsep.join(search_path))


def run_tool(
    argv: Sequence[str], *, timeout_s: float = 5.0, environment: Mapping[str, str] | None = None
) -> ToolOutput:
    """Run a management tool and return what it printed, in about ``timeout_s`` seconds at most.

    Args:
        argv: Program and arguments; no shell is involved.
        timeout_s: Time after which the tool and its children are killed.
        environment: Its environment variables; this process's if not given.

    Returns:
        The output, as far as it came; ``problem`` is set if the tool is missing, failed, or did not finish.
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            env=environment,
        )
    except OSError as error:
        return ToolOutput(problem=f"{argv[0]} cannot be run: {error.strerror or error}")
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        _kill_group(process)
        printed = error.output.decode(errors="replace") if isinstance(error.output, bytes) else error.output or ""
        return ToolOutput(stdout=printed, problem=f"{argv[0]} did not finish within {timeout_s:g} s")
    if process.returncode != 0:
        complaint = (stderr.strip() or stdout.strip() or "no message").splitlines()[0]
        return ToolOutput(stdout=stdout, problem=f"{argv[0]} ended with status {process.returncode}: {complaint}")
    return ToolOutput(stdout=stdout)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagementTool:
    """A vendor's command line tool.

    Attributes:
        names: Names of the program; the first one that is installed is run.
        directories: Where the vendor installs it, searched after ``PATH``.
    """

    names: tuple[str, ...]
    directories: tuple[Path, ...] = ()

    def find(self) -> str | None:
        """Return the tool's path, or ``None`` if it is not installed."""
        return next(filter(None, (find_tool(name, self.directories) for name in self.names)), None)

    def run(self, options: Sequence[str], *, timeout_s: float) -> ToolOutput:
        """Run the tool; records quote the problem, which therefore names the tool without its directory."""
        tool = self.find()
        if tool is None:
            return ToolOutput(problem=f"{self.names[0]} is not installed")
        output = run_tool([tool, *options], timeout_s=timeout_s)
        return replace(output, problem=output.problem and output.problem.replace(tool, Path(tool).name))


class LayoutReader:
    """Reads all devices from a tool whose releases print different layouts.

    Args:
        tool: The tool.
        layouts: Options and parser of each layout, the best one first.
        misread: What is wrong with an output that tells nothing; ``{call}`` is the call.
        tells: Whether a report is of use; if not given, whether it has readings.
    """

    def __init__(
        self,
        tool: ManagementTool,
        layouts: Sequence[Layout],
        *,
        misread: str,
        tells: Callable[[DeviceReport], bool] = lambda report: bool(report.readings),
    ) -> None:
        self._tool = tool
        self._layouts = tuple(layouts)
        self._misread = misread
        self._tells = tells

    def read(self, *, timeout_s: float) -> DeviceReport:
        """Return the report of the first layout that tells something; the next call begins with that layout.

        Args:
            timeout_s: Time for all calls together. A tool that hangs is not called again.
        """
        deadline_s = time.monotonic() + timeout_s
        problem = ""
        for place, (options, parse) in enumerate(self._layouts):
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0:
                break
            output = self._tool.run(options, timeout_s=max(0.1, round(remaining_s, 1)))
            report = parse(output.stdout) if output.problem is None else DeviceReport()
            name = Path(self._tool.find() or self._tool.names[0]).name
            if self._tells(report):
                self._layouts = self._layouts[place:]
                return replace(report, source=" ".join((name, *filter(None, [report.tool_version]), *options)))
            problem = problem or output.problem or self._misread.format(call=" ".join((name, *options)))
        return DeviceReport(problem=problem)


class SharedReport:
    """One report for all devices of the machine, which are asked about one after the other.

    Args:
        take: Takes a report.
        fresh_s: How long a report serves.
    """

    def __init__(self, take: Callable[[], DeviceReport], *, fresh_s: float = 0.5) -> None:
        self._take = take
        self._fresh_s = fresh_s
        self._report = DeviceReport()
        self._taken_s = float("-inf")

    def current(self) -> DeviceReport:
        """Return the latest report, taken anew if it is too old."""
        if time.monotonic() - self._taken_s > self._fresh_s:
            self._report, self._taken_s = self._take(), time.monotonic()
        return self._report


def _kill_group(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # A tool that is stuck inside the kernel does not die: it is left behind, because the probe must return.
    with suppress(subprocess.TimeoutExpired):
        process.wait(_KILL_WAIT_S)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def call_bounded(function: Callable[[], Result], *, timeout_s: float = 5.0) -> Result:
    """Call a function of a foreign library that may hang, and wait ``timeout_s`` seconds for it at most.

    Args:
        function: What to call, in a thread of its own; when it hangs, the thread is abandoned.
        timeout_s: How long to wait.

    Returns:
        What the function returned.

    Raises:
        TimeoutError: The function did not finish in time. What it raises itself is passed on.
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

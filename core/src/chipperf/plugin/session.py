"""The session: one bound vendor and its observers, with one typed and checked method per hook.

Other modules call plugins only through :class:`Session`, and it calls hooks through pluggy. The functions of the two
hooks that are called during a measurement are looked up once, so that the measured time does not include pluggy.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import signal
import sys
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from chipperf.errors import (
    PerfError,
    PluginError,
    PluginLoadError,
    TrainingStopped,
    UnsupportedPrecision,
    VendorHookError,
)
from chipperf.plugin import defaults, installed, registration
from chipperf.plugin.hook_results import describe_mismatch
from chipperf.plugin.types import (
    CaseOverrides,
    DeviceInfo,
    DistributedConfig,
    EnvironmentSettings,
    EnvironmentVariable,
    LoaderOptions,
    MemoryStats,
    PeakFlops,
    PluginDescription,
    PrecisionPolicy,
    ProbedDevice,
    ProbeResult,
    Rank,
    RuntimeInfo,
    TelemetrySample,
    ToolCommand,
    VendorInfo,
)
from chipperf.precisions import PRECISIONS, Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

    import torch

    from chipperf.plugin.installed import PluginEntry
    from chipperf.plugin.registration import Purpose
    from chipperf.plugin.types import Event

T = TypeVar("T")
Identity = TypeVar("Identity", ProbedDevice, DeviceInfo)

logger = logging.getLogger(__name__)


OLDEST_TORCH: Final = (2, 0)
"""The oldest version of torch that works, for images whose vendor builds no newer one."""


class _Overdue(BaseException):
    """The time limit of a block passed. No handler of an observer's own errors catches it."""


def require_recent_torch() -> None:
    """Refuse a torch that is too old by its metadata: to import it may already fail."""
    with suppress(PackageNotFoundError, ValueError):
        found = version("torch")
        if tuple(map(int, found.split(".")[:2])) < OLDEST_TORCH:
            oldest = ".".join(map(str, OLDEST_TORCH))
            # All in the message: what a rank or a probe says is passed on without its hint.
            raise PluginError(
                f"torch {found} in {sys.prefix} is too old: chipperf needs torch {oldest} or later; use an image of "
                "the vendor with a newer one"
            )


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise _Overdue

    if not seconds:
        yield
        return
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def bind(entry: PluginEntry, *, observers: Iterable[PluginEntry] = (), purpose: Purpose = "train") -> Session:
    """Load a vendor and observers, and check them against the specification and the hooks that ``purpose`` requires.

    An observer that cannot be imported is disabled. A :class:`PluginLoadError` lists every fault of a plugin, a
    :class:`VendorHookError` is one of ``perf_vendor_info``.
    """
    vendor = registration.BoundPlugin(entry, registration.VENDOR_HOOKS)
    registration.require_hooks(vendor, purpose)
    session = Session(vendor)
    registration.require_consistent(vendor, session.vendor_info(), purpose)
    for observer in observers:
        session.add_observer(observer)
    return session


class Session:
    """A bound vendor with its observers; made by :func:`bind`.

    There is one method per vendor hook, with the arguments of the hook; of an optional hook that the vendor does not
    implement, it gives the result of :mod:`chipperf.plugin.defaults`, but ``step_end`` is ``None``. If a hook raises or
    returns another type, the method raises :class:`~chipperf.errors.VendorHookError`. Errors of chipperf that a hook
    raises, such as :class:`~chipperf.errors.UnsupportedPrecision`, are raised again with the plugin's name.
    """

    def __init__(self, vendor: registration.BoundPlugin) -> None:
        self.entry = vendor.entry
        self._vendor = vendor
        measured = ("perf_synchronize", "perf_step_end")
        self._resolved = {hook: vendor.resolve(hook) for hook in measured if hook in vendor.hooks}
        self._observers: list[registration.BoundPlugin] = []
        self._disabled: list[tuple[PluginEntry, str]] = []
        self._info = self._checked("perf_vendor_info", VendorInfo)
        self.observer_limit_s = 0.0
        self.step_end: Callable[[torch.device], None] | None = None
        if self.has("perf_step_end"):
            self.step_end = functools.partial(self._void, "perf_step_end")

    @property
    def simulated(self) -> bool:
        """True if a variable names a fake stack in place of the vendor's. The record then calls the run simulated."""
        return "PERF_SIMULATED_STACK" in os.environ

    def has(self, hook: str) -> bool:
        """Return whether the vendor implements ``hook``, a full name such as ``perf_telemetry``."""
        return hook in self._vendor.hooks

    def vendor_info(self) -> VendorInfo:
        """Return the vendor's info. The hook was called once, when the session was bound."""
        return self._info

    def describe(self) -> PluginDescription:
        """Return the vendor's info, and the required hooks that the plugin lacks."""
        lacks = sorted(hook for hook in registration.REQUIRED_HOOKS if not self.has(hook))
        return self._info, tuple(lacks)

    def probe(self) -> ProbeResult:
        """Probe in this process. :func:`chipperf.plugin.probe_process.probe_vendor` probes in a child process."""
        result = self._checked("perf_probe", ProbeResult)
        return replace(result, devices=tuple(map(self._as_part, result.devices)))

    def environment(self, rank: Rank, settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
        """Return the variables that a worker needs before its interpreter starts."""
        return self._checked("perf_environment", tuple[EnvironmentVariable, ...], rank, settings)

    def load_runtime(self) -> RuntimeInfo:
        """Import torch and the vendor's extension."""
        require_recent_torch()
        try:
            return self._checked("perf_load_runtime", RuntimeInfo)
        except VendorHookError as error:
            broken = installed.unreadable_distributions()
            if not broken:
                raise
            # When torch and triton are imported, they read the entry points of every distribution.
            raise VendorHookError(
                f"{error.message}; the entry points of {', '.join(broken)} cannot be read, so torch does not load",
                hint="repair the distribution with 'pip install --force-reinstall', or 'pip uninstall' it",
            ) from error

    def device_init(self, rank: Rank) -> torch.device:
        """Make the rank's device current and return it: of the declared type, and but for a CPU with the local rank as
        index.
        """
        import torch

        device = self._checked("perf_device_init", torch.device, rank)
        declared = self._info.device_type
        if device.type != declared and not (self.simulated and device.type == "cpu"):
            self._fail("perf_device_init", f"returned a device of type {device.type!r}, but declares {declared!r}")
        if device.type != "cpu" and device.index != rank.local_rank:
            self._fail("perf_device_init", f"returned {device} for local rank {rank.local_rank}")
        return device

    def device_info(self, device: torch.device) -> DeviceInfo:
        """Return the identity of the device."""
        return self._as_part(self._checked("perf_device_info", DeviceInfo, device))

    def synchronize(self, device: torch.device) -> None:
        """Wait until all work queued on the device is finished."""
        self._void("perf_synchronize", device)

    def memory_query(self, device: torch.device) -> MemoryStats:
        """Read the device's memory."""
        return self._checked("perf_memory_query", MemoryStats, device)

    def memory_reset_peak(self, device: torch.device) -> None:
        """Reset the device's peak counters to the current values."""
        self._void("perf_memory_reset_peak", device)

    def distributed_setup(self, rank: Rank, device: torch.device) -> DistributedConfig:
        """Return how to initialize the process group."""
        return self._checked("perf_distributed_setup", DistributedConfig, rank, device)

    def seed(self, seed: int, device: torch.device, deterministic: bool) -> None:
        """Seed the device's generators. Core seeds Python, NumPy and torch's CPU generator itself."""
        self._void("perf_seed", seed, device, deterministic)

    def precision(self, requested: Precision, device: torch.device) -> PrecisionPolicy:
        """Set up the device for a precision; one that is unknown or cannot be run is an ``UnsupportedPrecision``."""
        if requested not in PRECISIONS:
            raise UnsupportedPrecision(
                f"there is no precision {requested!r}", hint=f"precisions: {', '.join(PRECISIONS)}"
            )
        policy = self._checked("perf_precision", PrecisionPolicy, requested, device)
        if policy.requested != requested:
            self._fail("perf_precision", f"was asked for {requested} and answered {policy.requested}")
        return policy

    def prepare_model(
        self, model: torch.nn.Module, precision: PrecisionPolicy, device: torch.device
    ) -> torch.nn.Module:
        """Let the vendor change the model's memory layout."""
        import torch

        prepared = self._call("perf_prepare_model", model, precision, device)
        if not isinstance(prepared, torch.nn.Module):
            self._fail("perf_prepare_model", f"returned {type(prepared).__name__} instead of a torch.nn.Module")
        return prepared

    def loader_options(self, device: torch.device) -> LoaderOptions:
        """Return the vendor's options of the data loader."""
        return self._checked("perf_loader_options", LoaderOptions, device)

    def case_overrides(self, case: str, rank: Rank, device_name: str) -> CaseOverrides:
        """Return the hyperparameters that the vendor tunes. Their keys are not checked here."""
        return self._checked("perf_case_overrides", CaseOverrides, case, rank, device_name)

    def telemetry(self, device_info: DeviceInfo) -> TelemetrySample:
        """Read power, temperature, utilization and memory of one device; call :meth:`has` first."""
        return self._checked("perf_telemetry", TelemetrySample, device_info)

    def tool_commands(self) -> tuple[ToolCommand, ...]:
        """Return the calls of management tools that the plugin parses or that show its sensors."""
        return self._checked("perf_tool_commands", tuple[ToolCommand, ...])

    def peak_flops(self, device_name: str, precision: str) -> PeakFlops | None:
        """Return the dense peak rate at the *effective* ``precision``, or ``None`` if it is unknown."""
        peak: PeakFlops | None = self._call("perf_peak_flops", device_name, precision)
        if peak is not None:
            self._check("perf_peak_flops", PeakFlops, peak)
        return peak

    def device_teardown(self, device: torch.device) -> None:
        """Let the vendor release the device."""
        self._void("perf_device_teardown", device)

    @property
    def disabled_observers(self) -> tuple[tuple[PluginEntry, str], ...]:
        """Observers that are no longer called, each with the reason, in the order in which they failed."""
        return tuple(self._disabled)

    def notify(self, event: Event) -> None:
        """Send an event to the hook of its type of every observer. An observer that raises is not called again.

        An observer that takes longer than ``observer_limit_s`` is interrupted, if that is not 0; only the main thread
        can do that.
        """
        limit_s = self.observer_limit_s
        hook = registration.EVENT_HOOKS[type(event).__name__]
        for observer in list(self._observers):
            if hook not in observer.hooks:
                continue
            try:
                with _time_limit(limit_s):
                    observer.call(hook, event)
            except _Overdue:
                self._disable(observer.entry, f"{hook} did not return within {limit_s:g} s")
            except (KeyboardInterrupt, TrainingStopped):
                raise
            # SystemExit too: an observer must not end a run.
            except BaseException as error:
                self._disable(observer.entry, f"{hook} raised {type(error).__name__}: {error}")

    def add_observer(self, observer: PluginEntry) -> None:
        """Add an observer, which receives all later events, or disable it if it cannot be imported."""
        try:
            installed.load(observer)
        except PluginLoadError as error:
            self._disable(observer, error.message)
        else:
            self._observers.append(registration.BoundPlugin(observer, registration.OBSERVER_HOOKS))

    def _disable(self, observer: PluginEntry, reason: str) -> None:
        self._observers = [other for other in self._observers if other.entry != observer]
        self._disabled.append((observer, reason))
        logger.warning("%s is disabled: %s", observer, reason)

    def _as_part(self, device: Identity) -> Identity:
        """Return a part of a card with the part in its name; what has too little memory for its product is a part."""
        part, total_bytes, product = device.part, device.total_bytes, self._info.product(device.name)
        # In a virtual machine, the kernel does not tell virtual functions, but their names may.
        is_virtual = os.path.exists(f"/sys/bus/pci/devices/{device.pci_bus_id}/physfn")
        if part is None and (is_virtual or re.search(r"\bVF\b", device.name)):
            part = "virtual function"
        elif part is None and product and total_bytes:
            part = product.part(total_bytes)
        if part is None:
            return device
        named = part.casefold() in device.name.casefold()
        return replace(device, part=part, name=device.name if named else f"{device.name} {part}")

    def _checked(self, hook: str, expected: type[T], *arguments: object) -> T:
        result: T = self._call(hook, *arguments)
        self._check(hook, expected, result)
        return result

    def _check(self, hook: str, expected: type, result: object) -> None:
        fault = describe_mismatch(result, expected)
        if fault:
            self._fail(hook, f"returned {fault}")

    def _void(self, hook: str, *arguments: object) -> None:
        result = self._call(hook, *arguments)
        if result is not None:
            self._fail(hook, f"returned {type(result).__name__}, but it has no result")

    def _call(self, hook: str, *arguments: object) -> Any:
        try:
            if hook in self._resolved:
                return self._resolved[hook](*arguments)
            if self.has(hook):
                return self._vendor.call(hook, *arguments)
            if hook in defaults.RESULTS:
                return defaults.RESULTS[hook]
            default: registration.Hook | None = getattr(defaults, hook, None)
            if default is None:
                self._fail(hook, "is needed here, but the plugin does not implement it")
            return default(*arguments)
        except PerfError as error:
            if str(self.entry) not in error.message:
                error.message = f"{self.entry}: {error.message}"
                error.args = (error.message,)
            raise
        # SystemExit too: a hook that exits must not end the run without a message.
        except (Exception, SystemExit) as error:
            raise VendorHookError(
                f"{self.entry}: {hook} raised {type(error).__name__}: {error}",
                hint=f"PERF_DEBUG=1 shows where; report it to the authors of {self.entry.distribution}",
            ) from error

    def _fail(self, hook: str, fault: str) -> NoReturn:
        raise VendorHookError(
            f"{self.entry}: {hook} {fault}", hint=f"correct {hook} in {self.entry.value}; docs/hooks.md specifies it"
        )

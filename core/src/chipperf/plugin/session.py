"""One vendor and any observers, bound and checked, behind one typed method per hook.

Everything outside this module talks to plugins through :class:`Session`. It calls hooks through pluggy, except the two
that are called inside a measurement: their functions are resolved once, so that no time of pluggy is measured.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from chipperf.errors import PerfError, PluginLoadError, TrainingStopped, VendorHookError
from chipperf.plugin import defaults, installed
from chipperf.plugin.hook_results import fault_of
from chipperf.plugin.registration import (
    EVENT_HOOKS,
    OBSERVER_HOOKS,
    VENDOR_HOOKS,
    BoundPlugin,
    register,
    require_consistent,
    require_hooks,
)
from chipperf.plugin.types import (
    CaseOverrides,
    DeviceInfo,
    DistributedConfig,
    EnvironmentSettings,
    EnvironmentVariable,
    LoaderOptions,
    MemoryStats,
    PeakFlops,
    Precision,
    PrecisionPolicy,
    ProbeResult,
    Rank,
    RuntimeInfo,
    TelemetrySample,
    ToolCommand,
    VendorInfo,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import torch

    from chipperf.plugin.installed import PluginEntry
    from chipperf.plugin.registration import Hook, Purpose
    from chipperf.plugin.types import Event

T = TypeVar("T")

logger = logging.getLogger(__name__)

MEASURED_HOOKS: Final = ("perf_synchronize", "perf_step_end")
"""Hooks that are called between the edges of a measurement."""

SIMULATION_VARIABLE: Final = "PERF_SIMULATED_STACK"
"""Names the fake stack that stands in for a vendor's; set, a run can never be recorded as measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisabledObserver:
    """An observer that is no longer called, and why."""

    name: str
    distribution: str
    version: str
    reason: str


def bind(entry: PluginEntry, *, observers: Iterable[PluginEntry] = (), purpose: Purpose = "train") -> Session:
    """Load a vendor and observers, each into a plugin manager of its own, and check them against the specification.

    Args:
        entry: The vendor.
        observers: Observers that are told what happens. One that cannot be imported is disabled.
        purpose: How much of the specification the vendor must implement.

    Raises:
        PluginLoadError: The vendor cannot be imported, or a plugin breaks the specification; every fault is listed.
        VendorHookError: ``perf_vendor_info`` raised or returned something else.
    """
    vendor = register(entry, VENDOR_HOOKS)
    require_hooks(vendor, purpose)
    session = Session(vendor)
    require_consistent(vendor, session.vendor_info(), purpose)
    for observer in observers:
        try:
            installed.load(observer)
        except PluginLoadError as error:
            session.disable_observer(observer, error.message)
        else:
            session.add_observer(register(observer, OBSERVER_HOOKS))
    return session


class Session:
    """A bound vendor with its observers; made by :func:`bind`.

    There is one method per vendor hook. Its arguments are the hook's; its result is checked. Where the vendor does not
    implement an optional hook, the method does what :mod:`chipperf.plugin.defaults` says. A hook that raises, or that
    returns something other than what is specified, gives a :class:`~chipperf.errors.VendorHookError`; errors of
    chipperf that a hook raises, such as :class:`~chipperf.errors.UnsupportedPrecision`, pass with the plugin's name
    added.

    Attributes:
        entry: The vendor's entry point.
        step_end: The vendor's ``perf_step_end``, or ``None`` if it has none and a step needs no end mark.
    """

    def __init__(self, vendor: BoundPlugin) -> None:
        self.entry = vendor.entry
        self._vendor = vendor
        self._resolved = {hook: vendor.resolve(hook) for hook in MEASURED_HOOKS if hook in vendor.hooks}
        self._observers: list[BoundPlugin] = []
        self._disabled: list[DisabledObserver] = []
        self._info = self._checked("perf_vendor_info", VendorInfo)
        self.step_end: Callable[[torch.device], None] | None = self._step_end if self.has("perf_step_end") else None

    @property
    def simulated(self) -> bool:
        """True if fake modules stand in for the vendor's stack; the record then says so and measures nothing real."""
        return SIMULATION_VARIABLE in os.environ

    def has(self, hook: str) -> bool:
        """Return True if the vendor implements ``hook``, a full name such as ``perf_telemetry``."""
        return hook in self._vendor.hooks

    def vendor_info(self) -> VendorInfo:
        """Return who the vendor is; asked once, when the session is bound."""
        return self._info

    def probe(self) -> ProbeResult:
        """Find the vendor's devices, in this process; :func:`chipperf.plugin.probe.probe_vendor` does it in another."""
        return self._checked("perf_probe", ProbeResult)

    def environment(self, rank: Rank, settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
        """Return the variables a worker needs before its interpreter starts."""
        return self._checked("perf_environment", tuple[EnvironmentVariable, ...], rank, settings)

    def load_runtime(self) -> RuntimeInfo:
        """Import torch and the vendor's extension."""
        return self._checked("perf_load_runtime", RuntimeInfo)

    def device_init(self, rank: Rank) -> torch.device:
        """Make the rank's device current and return it.

        Raises:
            VendorHookError: It is not a ``torch.device`` of the declared type whose index is the local rank. (A cpu
                has no index.)
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
        """Identify the device."""
        return self._checked("perf_device_info", DeviceInfo, device)

    def synchronize(self, device: torch.device) -> None:
        """Wait until all work queued on the device is finished."""
        self._void("perf_synchronize", device)

    def memory_query(self, device: torch.device) -> MemoryStats:
        """Read the device's memory."""
        return self._checked("perf_memory_query", MemoryStats, device)

    def memory_reset_peak(self, device: torch.device) -> None:
        """Set the device's peak counters back to the current values."""
        self._void("perf_memory_reset_peak", device)

    def distributed_setup(self, rank: Rank, device: torch.device) -> DistributedConfig:
        """Return how to initialise the process group."""
        return self._checked("perf_distributed_setup", DistributedConfig, rank, device)

    def seed(self, seed: int, device: torch.device, deterministic: bool) -> None:
        """Seed the device's generators; core seeds Python, NumPy and torch's CPU generator itself."""
        self._void("perf_seed", seed, device, deterministic)

    def precision(self, requested: Precision, device: torch.device) -> PrecisionPolicy:
        """Set the device up for a precision.

        Raises:
            UnsupportedPrecision: The device cannot run it.
            VendorHookError: The policy answers another request.
        """
        policy = self._checked("perf_precision", PrecisionPolicy, requested, device)
        if policy.requested != requested:
            self._fail("perf_precision", f"was asked for {requested} and answered {policy.requested}")
        return policy

    def prepare_model(
        self, model: torch.nn.Module, precision: PrecisionPolicy, device: torch.device
    ) -> torch.nn.Module:
        """Let the vendor change the model's layout."""
        import torch

        prepared = self._call("perf_prepare_model", model, precision, device)
        if not isinstance(prepared, torch.nn.Module):
            self._fail("perf_prepare_model", f"returned {type(prepared).__name__} instead of a torch.nn.Module")
        return prepared

    def loader_options(self, device: torch.device) -> LoaderOptions:
        """Return what the vendor asks of the data loader."""
        return self._checked("perf_loader_options", LoaderOptions, device)

    def case_overrides(self, case: str, rank: Rank, device_name: str) -> CaseOverrides:
        """Return the hyperparameters the vendor tunes; their keys are not checked here."""
        return self._checked("perf_case_overrides", CaseOverrides, case, rank, device_name)

    def telemetry(self, device_info: DeviceInfo) -> TelemetrySample:
        """Read power, temperature, utilisation and memory of one device.

        Raises:
            VendorHookError: The vendor implements no telemetry; ask :meth:`has` first.
        """
        return self._checked("perf_telemetry", TelemetrySample, device_info)

    def tool_commands(self) -> tuple[ToolCommand, ...]:
        """Return the management tool calls whose output the plugin parses."""
        return self._checked("perf_tool_commands", tuple[ToolCommand, ...])

    def peak_flops(self, device_name: str, precision: str) -> PeakFlops | None:
        """Return the dense peak rate at the *effective* ``precision``, or ``None`` if it is not known."""
        peak: PeakFlops | None = self._call("perf_peak_flops", device_name, precision)
        if peak is not None:
            self._check("perf_peak_flops", PeakFlops, peak)
        return peak

    def device_teardown(self, device: torch.device) -> None:
        """Release what the vendor took or changed."""
        self._void("perf_device_teardown", device)

    @property
    def disabled_observers(self) -> tuple[DisabledObserver, ...]:
        """Observers that are no longer called, in the order in which they failed."""
        return tuple(self._disabled)

    def notify(self, event: Event) -> None:
        """Tell each observer, alone, what happened. One that raises is disabled and never called again.

        Args:
            event: A frozen event; its type decides which hook is called.
        """
        hook = EVENT_HOOKS[type(event).__name__]
        for observer in list(self._observers):
            if hook not in observer.hooks:
                continue
            try:
                observer.call(hook, event)
            except (KeyboardInterrupt, TrainingStopped):
                raise
            # SystemExit too: an observer must not end a run.
            except BaseException as error:
                self.disable_observer(observer.entry, f"{hook} raised {type(error).__name__}: {error}")

    def add_observer(self, observer: BoundPlugin) -> None:
        """Call ``observer`` from now on."""
        self._observers.append(observer)

    def disable_observer(self, observer: PluginEntry, reason: str) -> None:
        """Call ``observer`` no longer, list it among the disabled and say so in the log."""
        self._observers = [other for other in self._observers if other.entry != observer]
        self._disabled.append(
            DisabledObserver(
                name=observer.name, distribution=observer.distribution, version=observer.version, reason=reason
            )
        )
        logger.warning("%s is disabled: %s", observer, reason)

    def _step_end(self, device: torch.device) -> None:
        self._void("perf_step_end", device)

    def _checked(self, hook: str, expected: type[T], *arguments: object) -> T:
        result: T = self._call(hook, *arguments)
        self._check(hook, expected, result)
        return result

    def _check(self, hook: str, expected: type, result: object) -> None:
        fault = fault_of(result, expected)
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
            return self._default(hook)(*arguments)
        except PerfError as error:
            _add_source(error, self.entry)
            raise
        # SystemExit as well: a hook that exits must not end the run without a word.
        except (Exception, SystemExit) as error:
            raise VendorHookError(
                f"{self.entry}: {hook} raised {type(error).__name__}: {error}",
                hint=f"PERF_DEBUG=1 shows where; report it to the authors of {self.entry.distribution}",
            ) from error

    def _default(self, hook: str) -> Hook:
        function: Hook | None = getattr(defaults, hook.removeprefix("perf_"), None)
        if function is None:
            self._fail(hook, "is needed here, but the plugin does not implement it")
        return function

    def _fail(self, hook: str, fault: str) -> NoReturn:
        raise VendorHookError(
            f"{self.entry}: {hook} {fault}", hint=f"correct {hook} in {self.entry.value}; docs/hooks.md specifies it"
        )


def _add_source(error: PerfError, entry: PluginEntry) -> None:
    if str(entry) not in error.message:
        error.message = f"{entry}: {error.message}"
        error.args = (error.message,)

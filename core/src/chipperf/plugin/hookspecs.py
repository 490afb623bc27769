"""The contract: every hook a vendor or an observer may implement.

A vendor plugin is a module whose functions carry :data:`chipperf.hookimpl`; its entry point in the group
``chipperf.vendors`` names that module. An observer does the same in ``chipperf.observers``. Arguments that are torch
objects are imported for type checkers only, so that this module, and every plugin's import, stays free of torch.

Every docstring holds an example that a test runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pluggy

if TYPE_CHECKING:
    import torch

    from chipperf.plugin.types import (
        CaseOverrides,
        DeviceInfo,
        DistributedConfig,
        EnvironmentSettings,
        EnvironmentVariable,
        EpochFinished,
        EvaluationFinished,
        LoaderOptions,
        MemoryStats,
        PeakFlops,
        Precision,
        PrecisionPolicy,
        ProbeResult,
        Rank,
        RunFailed,
        RunFinished,
        RunStarted,
        RuntimeInfo,
        TelemetrySample,
        ToolCommand,
        VendorInfo,
        WindowFinished,
    )

PROJECT_NAME: Final = "perf"

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)


class VendorSpecs:
    """Hooks of a vendor: exactly one implementation of each is bound to a run."""

    @hookspec(firstresult=True)
    def perf_vendor_info(self) -> VendorInfo:
        """Say who the plugin speaks for; required.

        Example:
            from chipperf import Title, VendorInfo, hookimpl

            @hookimpl
            def perf_vendor_info():
                return VendorInfo(
                    name="acme",
                    title=Title(zh="艾克米", en="ACME"),
                    report_title=Title(zh="艾克米 A1 配置与运行信息参考", en="ACME A1 configuration and results"),
                    device_type="cuda",
                    visible_devices_env=("ACME_VISIBLE_DEVICES",),
                )

        Returns:
            Name, titles, device type, capabilities and known products. A constant: no device is touched.
        """

    @hookspec(firstresult=True)
    def perf_probe(self) -> ProbeResult:
        """Find the vendor's devices without torch and without creating a context; required.

        Looks for physical identity: PCI vendor ids, driver files, the management library. It returns within seconds,
        never raises, leaves the process unchanged, and does not claim a device of another vendor that presents
        itself under the same torch device type.

        Example:
            from pathlib import Path
            from chipperf import ProbeResult, ProbedDevice, hookimpl

            @hookimpl
            def perf_probe():
                nodes = sorted(Path("/dev").glob("acme[0-9]*"))
                if not nodes:
                    return ProbeResult(available=False, reason="no /dev/acme*: load the acme kernel module")
                devices = tuple(ProbedDevice(index=i, name="ACME A1") for i, _ in enumerate(nodes))
                return ProbeResult(available=True, reason=f"{len(nodes)} /dev/acme* nodes", devices=devices)

        Returns:
            The devices, or a reason the user can act on.
        """

    @hookspec(firstresult=True)
    def perf_environment(self, rank: Rank, settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
        """Return the variables a worker needs before its interpreter starts; default none.

        Core applies and records them. The hook only returns them: it must not touch ``os.environ``. A variable the
        user has already set keeps the user's value.

        Example:
            from chipperf import EnvironmentVariable, hookimpl

            @hookimpl
            def perf_environment(rank, settings):
                return (EnvironmentVariable(name="ACME_RING", value="1", reason="ring all-reduce over PCIe"),)

        Args:
            rank: Place of the worker in the job.
            settings: Case, precision and determinism of the run.

        Returns:
            Variables, each with its reason.
        """

    @hookspec(firstresult=True)
    def perf_load_runtime(self) -> RuntimeInfo:
        """Import torch and the vendor's extension, once per worker; required.

        Example:
            from chipperf import RuntimeInfo, hookimpl

            @hookimpl
            def perf_load_runtime():
                import torch
                return RuntimeInfo(torch=torch.__version__, sdk=torch.version.cuda)

        Returns:
            Versions of the stack that is now loaded.
        """

    @hookspec(firstresult=True)
    def perf_device_init(self, rank: Rank) -> torch.device:
        """Make this rank's device current and return it; required, idempotent.

        Example:
            from chipperf import hookimpl

            @hookimpl
            def perf_device_init(rank):
                import torch
                device = torch.device("cuda", rank.local_rank)
                if torch.cuda.is_available():
                    torch.cuda.set_device(device)
                return device

        Args:
            rank: Place of the worker in the job; the device's index is its local rank, except on the CPU, where torch
                knows one device that all ranks share.

        Returns:
            A ``torch.device`` of the declared type, with an index.

        Raises:
            DeviceError: The index is out of range; the message gives the number of devices.
        """

    @hookspec(firstresult=True)
    def perf_device_info(self, device: torch.device) -> DeviceInfo:
        """Identify a device; required. It must agree with what the probe found.

        Example:
            from chipperf import DeviceInfo, hookimpl

            @hookimpl
            def perf_device_info(device):
                return DeviceInfo(index=device.index or 0, name="ACME A1", total_bytes=64 * 2**30)

        Args:
            device: The ``torch.device`` that ``perf_device_init`` returned.

        Returns:
            Product name (not the vendor's or device type's name), UUID and capacity.
        """

    @hookspec
    def perf_synchronize(self, device: torch.device) -> None:
        """Wait until *all* work queued on the device, on every stream, is finished; required.

        Core calls it at the edges of measurement windows. If it returns early, every throughput is wrong.

        Example:
            from chipperf import hookimpl

            @hookimpl
            def perf_synchronize(device):
                import torch
                if device.type != "cpu":
                    torch.cuda.synchronize(device)

        Args:
            device: The device to wait for, no other.
        """

    @hookspec(firstresult=True)
    def perf_memory_query(self, device: torch.device) -> MemoryStats:
        """Read the device's memory in bytes; required, read-only: it resets nothing.

        Example:
            from chipperf import MemoryStats, hookimpl

            @hookimpl
            def perf_memory_query(device):
                return MemoryStats(source="acme management library", used_bytes=2**30, total_bytes=64 * 2**30)

        Args:
            device: The device to read.

        Returns:
            What is known, ``None`` for the rest, and the source.
        """

    @hookspec
    def perf_memory_reset_peak(self, device: torch.device) -> None:
        """Set the peak counters back to the current values; required. Called once, after warm-up.

        Example:
            from chipperf import hookimpl

            @hookimpl
            def perf_memory_reset_peak(device):
                import torch
                if device.type != "cpu":
                    torch.cuda.reset_peak_memory_stats(device)

        Args:
            device: The device whose counters to reset.
        """

    @hookspec(firstresult=True)
    def perf_distributed_setup(self, rank: Rank, device: torch.device) -> DistributedConfig:
        """Say how to initialise the process group; required if ``distributed`` is declared.

        Core itself initialises and destroys the group.

        Example:
            from chipperf import DistributedConfig, hookimpl

            @hookimpl
            def perf_distributed_setup(rank, device):
                return DistributedConfig(backend="gloo", timeout_s=600)

        Args:
            rank: Place of the worker in the job.
            device: The worker's device.

        Returns:
            Backend, rendezvous, time-out and DDP options. Without the hook: gloo, on cpu devices only.
        """

    @hookspec
    def perf_seed(self, seed: int, device: torch.device, deterministic: bool) -> None:
        """Seed the device's generators and, if asked, make its kernels deterministic.

        Core has already seeded Python, NumPy and torch's CPU generator. Default: ``manual_seed_all`` of torch's
        module for the device type, and ``torch.use_deterministic_algorithms``.

        Example:
            from chipperf import hookimpl

            @hookimpl
            def perf_seed(seed, device, deterministic):
                import torch
                torch.manual_seed(seed)

        Args:
            seed: Seed of this rank.
            device: The worker's device.
            deterministic: True if two runs must give equal bits.
        """

    @hookspec(firstresult=True)
    def perf_precision(self, requested: Precision, device: torch.device) -> PrecisionPolicy:
        """Set the device up for a precision and describe it; default supports fp32 only.

        Example:
            from chipperf import PrecisionPolicy, UnsupportedPrecision, hookimpl

            @hookimpl
            def perf_precision(requested, device):
                if requested == "fp32":
                    return PrecisionPolicy(requested="fp32", effective="fp32")
                raise UnsupportedPrecision(f"ACME A1 does not run {requested}", hint="use --precision fp32")

        Args:
            requested: What the user asked for.
            device: The worker's device.

        Returns:
            What is in effect, with every knob that takes part.

        Raises:
            UnsupportedPrecision: The device cannot run it. Never run another precision instead.
        """

    @hookspec(firstresult=True)
    def perf_prepare_model(
        self, model: torch.nn.Module, precision: PrecisionPolicy, device: torch.device
    ) -> torch.nn.Module:
        """Change the model's layout for the device; default identity.

        Parameters keep their names, shapes and number.

        Example:
            from chipperf import hookimpl

            @hookimpl
            def perf_prepare_model(model, precision, device):
                import torch
                return model.to(memory_format=torch.channels_last)

        Args:
            model: A ``torch.nn.Module`` that is already on the device.
            precision: The policy in force.
            device: The worker's device.

        Returns:
            The model to train. Inputs follow its memory format.
        """

    @hookspec(firstresult=True)
    def perf_loader_options(self, device: torch.device) -> LoaderOptions:
        """Say what the data loader should do for this device; default nothing special.

        Example:
            from chipperf import LoaderOptions, hookimpl

            @hookimpl
            def perf_loader_options(device):
                return LoaderOptions(pin_memory=True)

        Args:
            device: The worker's device.

        Returns:
            Pinned memory, workers per rank, how workers start.
        """

    @hookspec(firstresult=True)
    def perf_case_overrides(self, case: str, rank: Rank, device_name: str) -> CaseOverrides:
        """Return the hyperparameters this vendor tunes for a case and topology; default none.

        Example:
            from chipperf import CaseOverride, CaseOverrides, hookimpl

            @hookimpl
            def perf_case_overrides(case, rank, device_name):
                if case != "resnet50":
                    return CaseOverrides()
                batch_size = CaseOverride(key="batch_size", value=256, reason="fills the 64 GiB card")
                return CaseOverrides(overrides=(batch_size,))

        Args:
            case: Name of the case.
            rank: Topology of the job.
            device_name: Product name, empty if it is not known yet.

        Returns:
            Overrides with reasons. An unknown or locked key is an error.
        """

    @hookspec(firstresult=True)
    def perf_telemetry(self, device: DeviceInfo) -> TelemetrySample:
        """Read power, temperature, utilisation and memory of one device; needs ``telemetry``.

        Called about once a second from a process beside the workers, without torch. The device is found by its UUID,
        never by its index.

        Example:
            from chipperf import TelemetrySample, hookimpl

            @hookimpl
            def perf_telemetry(device):
                return TelemetrySample(source="acme-smi", power_w=61.0, temperature_c=38.0)

        Args:
            device: Identity of the device.

        Returns:
            What could be read, ``None`` for the rest.
        """

    @hookspec(firstresult=True)
    def perf_tool_commands(self) -> tuple[ToolCommand, ...]:
        """List the management tool calls whose output the plugin parses; default none.

        ``perf record-tools`` runs them and keeps their output as test data for the plugin's parsers. Calls that change
        a device are never listed.

        Example:
            from chipperf import ToolCommand, hookimpl

            @hookimpl
            def perf_tool_commands():
                query = ToolCommand(name="acme-smi-query", argv=("acme-smi", "-q"), private_patterns=(r"SN[0-9]{8}",))
                return (query,)

        Returns:
            Commands, each under the name of its recording.
        """

    @hookspec(firstresult=True)
    def perf_peak_flops(self, device_name: str, precision: str) -> PeakFlops | None:
        """Give the dense peak rate that MFU is computed against; default unknown.

        Example:
            from chipperf import PeakFlops, hookimpl

            @hookimpl
            def perf_peak_flops(device_name, precision):
                peaks = {("ACME A1", "bf16"): 256e12}
                peak = peaks.get((device_name, precision))
                return peak and PeakFlops(flops_per_s=peak, source="ACME A1 data sheet, revision 3")

        Args:
            device_name: Product name.
            precision: *Effective* precision.

        Returns:
            Peak and source, or ``None`` if it is not known.
        """

    @hookspec
    def perf_step_end(self, device: torch.device) -> None:
        """Mark the end of a training step, for stacks that record a graph until told; default nothing.

        Example:
            from chipperf import hookimpl

            @hookimpl
            def perf_step_end(device):
                pass

        Args:
            device: The worker's device.
        """

    @hookspec
    def perf_device_teardown(self, device: torch.device) -> None:
        """Release what ``perf_device_init`` and ``perf_precision`` took or changed; also called after a failure.

        Default: empties the cache of torch's module for the device type.

        Example:
            from chipperf import hookimpl

            @hookimpl
            def perf_device_teardown(device):
                import torch
                if device.type != "cpu":
                    torch.cuda.empty_cache()

        Args:
            device: The worker's device.
        """


class ObserverSpecs:
    """Hooks of observers: any number, each called alone; one that raises is disabled and listed in the record."""

    @hookspec
    def perf_run_started(self, event: RunStarted) -> None:
        """Take note that training begins.

        Example:
            from chipperf import hookimpl

            @hookimpl
            def perf_run_started(event):
                print(event.case, event.precision)

        Args:
            event: Frozen description of what happened.
        """

    @hookspec
    def perf_window_finished(self, event: WindowFinished) -> None:
        """Take note of a measurement window.

        Example:
            from chipperf import hookimpl

            @hookimpl
            def perf_window_finished(event):
                print(event.step, event.samples / event.seconds)

        Args:
            event: Frozen description of what happened.
        """

    @hookspec
    def perf_epoch_finished(self, event: EpochFinished) -> None:
        """Take note that an epoch's training steps are done.

        Example:
            from chipperf import hookimpl

            @hookimpl
            def perf_epoch_finished(event):
                print(event.epoch, event.mean_loss)

        Args:
            event: Frozen description of what happened.
        """

    @hookspec
    def perf_evaluation_finished(self, event: EvaluationFinished) -> None:
        """Take note of an evaluation.

        Example:
            from chipperf import hookimpl

            @hookimpl
            def perf_evaluation_finished(event):
                print(event.metric, event.value)

        Args:
            event: Frozen description of what happened.
        """

    @hookspec
    def perf_run_finished(self, event: RunFinished) -> None:
        """Take note that the run completed and its record is written.

        Example:
            from chipperf import hookimpl

            @hookimpl
            def perf_run_finished(event):
                print(event.record_path)

        Args:
            event: Frozen description of what happened.
        """

    @hookspec
    def perf_run_failed(self, event: RunFailed) -> None:
        """Take note that the run failed.

        Example:
            from chipperf import hookimpl

            @hookimpl
            def perf_run_failed(event):
                print(event.failure_class, event.message)

        Args:
            event: Frozen description of what happened.
        """

"""The hook specifications: every hook that a vendor or an observer may implement.

A vendor plugin is a module. Its functions carry the decorator :data:`chipperf.hookimpl`, and an entry point in the
group ``chipperf.vendors`` names the module. An observer has an entry point in ``chipperf.observers``. Types of
torch are imported only for type checkers, so neither this module nor a plugin imports torch.

Several hooks take ``rank``, the worker's place in the job; ``device``, what ``perf_device_init`` returned; and
``device_name``, the product's name. Every docstring contains an example, which a test runs after ``from chipperf import
hookimpl``. A sentence about plugins names the checks of the contract that hold them to it, such as ``[M4]``.
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
    from chipperf.precisions import Precision

PROJECT_NAME: Final = "perf"

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)


class MachineSpecs:
    """Hooks about the vendor, its devices on this machine and its software."""

    @hookspec(firstresult=True)
    def perf_vendor_info(self) -> VendorInfo:
        """Return the vendor's name, titles, device type, capabilities and known products; required [A9, A10].

        They are constant, and the hook needs no device [A10].

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
        """

    @hookspec(firstresult=True)
    def perf_probe(self) -> ProbeResult:
        """Find the vendor's devices without torch and without creating a context; required [A9, B3].

        The probe looks for physical devices: PCI vendor ids, driver files, the management library [B4]. It returns
        within seconds and never raises [B1]. It does not change the process [A5]. It claims no devices of other vendors
        that have the same torch device type [B4, B7].

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
            The visible devices, the same at each call, also those in use [B5, B6, D7]. If there is none, a reason that
            tells the user what to do [B2, B6].
        """

    @hookspec(firstresult=True)
    def perf_environment(self, rank: Rank, settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
        """Return the variables that a worker needs before its interpreter starts, with reasons; default none [A10].

        The hook does not change ``os.environ``, and returns the same variables in each process [A10, P10]. It leaves
        ``RANK`` and other variables of launchers alone [P6]. The ranks of a job differ at most in their cards, cores
        and files [P10]. What deterministic runs need does not depend on the case [S3]. Core sets and records them.
        Core keeps the value of a variable that the user has already set.

        Example:
            from chipperf import EnvironmentVariable, hookimpl

            @hookimpl
            def perf_environment(rank, settings):
                return (EnvironmentVariable(name="ACME_RING", value="1", reason="ring all-reduce over PCIe"),)
        """

    @hookspec(firstresult=True)
    def perf_load_runtime(self) -> RuntimeInfo:
        """Import torch and the vendor's extension, and return the versions of the stack; required [A9, D6].

        Core calls it once per worker.

        Example:
            from chipperf import RuntimeInfo, hookimpl

            @hookimpl
            def perf_load_runtime():
                import torch
                return RuntimeInfo(torch=torch.__version__, sdk=torch.version.cuda)
        """


class DeviceSpecs:
    """Hooks about the device of one rank and its memory."""

    @hookspec(firstresult=True)
    def perf_device_init(self, rank: Rank) -> torch.device:
        """Make this rank's device current and return it; required [A9, D2]. Repeated calls work [D3, D5].

        Example:
            @hookimpl
            def perf_device_init(rank):
                import torch
                if torch.accelerator.is_available():
                    torch.accelerator.set_device_index(rank.local_rank)
                return torch.device("cuda", rank.local_rank)

        Args:
            rank: Core gives the worker's place in the job. The device's index is the local rank, except on the CPU,
                where all ranks share one device [D1, P5].

        Returns:
            A ``torch.device`` of the declared type, with an index [D1].

        Raises:
            DeviceError: The index is out of range; the message gives the number of devices [D4].
        """

    @hookspec(firstresult=True)
    def perf_device_info(self, device: torch.device) -> DeviceInfo:
        """Return the identity of a device; required [A9]. It agrees with the probe [D7].

        Example:
            from chipperf import DeviceInfo, hookimpl

            @hookimpl
            def perf_device_info(device):
                return DeviceInfo(index=device.index or 0, name="ACME A1", total_bytes=64 * 2**30)

        Returns:
            Product name, not the name of the vendor or device type [D8]; UUID and capacity [D7].
        """

    @hookspec
    def perf_synchronize(self, device: torch.device) -> None:
        """Wait until *all* work that is queued on the device is finished, on every stream; required [A9, T1].

        The time until it returns grows with the work [T2, T3]. On an idle device it returns at once [T4]. It raises the
        errors of the runtime [T5].
        Core calls it at the start and the end of measurement windows: if it returns early, every throughput is wrong.

        Example:
            @hookimpl
            def perf_synchronize(device):
                import torch
                if device.type != "cpu":
                    torch.accelerator.synchronize(device)

        Args:
            device: The device to wait for; the hook does not wait for others [T5].
        """

    @hookspec(firstresult=True)
    def perf_memory_query(self, device: torch.device) -> MemoryStats:
        """Return the device's memory in bytes, and the source; required [A9, M1, M2].

        The query changes nothing [M4], and also works before the first allocation [M5].

        Example:
            from chipperf import MemoryStats, hookimpl

            @hookimpl
            def perf_memory_query(device):
                return MemoryStats(source="acme management library", used_bytes=2**30, total_bytes=64 * 2**30)
        """

    @hookspec
    def perf_memory_reset_peak(self, device: torch.device) -> None:
        """Reset the device's peak counters to the current values; required [A9, M3].

        Core calls it once, after warm-up.

        Example:
            @hookimpl
            def perf_memory_reset_peak(device):
                import torch
                if device.type != "cpu":
                    torch.accelerator.reset_peak_memory_stats(device)
        """


class TrainingSpecs:
    """Hooks that set a training run up."""

    @hookspec(firstresult=True)
    def perf_distributed_setup(self, rank: Rank, device: torch.device) -> DistributedConfig:
        """Return how to initialize the process group; required if ``distributed`` is declared [A12].

        Core initializes the group, and lets it end with the process. No hook destroys it [P12]. Another one can be made
        beside it, and after it [P7]. All ranks need the same options [P1].

        A collective fails within the group's time limit if a rank stays away [P11].

        Example:
            from chipperf import DistributedConfig, hookimpl

            @hookimpl
            def perf_distributed_setup(rank, device):
                return DistributedConfig(backend="gloo", timeout_s=600)

        Returns:
            Backend, rendezvous, timeout and DDP options [P1]. Core uses gloo without the hook, and only on the CPU.
        """

    @hookspec
    def perf_seed(self, seed: int, device: torch.device, deterministic: bool) -> None:
        """Seed the device's generators [S1] and, if asked, make its kernels deterministic [S3].

        Nothing but the seed, of 32 bits, decides which numbers the device draws, in any process [S1, D6]. Core has
        already seeded Python, NumPy and torch's CPU generator, and no hook changes these [S2]. Default:
        ``manual_seed_all`` of torch's module for the device type, and ``torch.use_deterministic_algorithms``.

        Example:
            @hookimpl
            def perf_seed(seed, device, deterministic):
                import torch
                torch.manual_seed(seed)

        Args:
            deterministic: True if two runs give bit-equal results, in jobs of any size [S3, S5].
        """

    @hookspec(firstresult=True)
    def perf_precision(self, requested: Precision, device: torch.device) -> PrecisionPolicy:
        """Set up the device for a precision and describe it with every knob that affects it [N2, N3].

        Default: fp32 only.

        A later call, for any precision, must undo what an earlier one has set [N2, N3].

        Example:
            from chipperf import Capability, hookimpl
            from chipperf.torchtools import precision_policy, require_precision

            @hookimpl
            def perf_precision(requested, device):
                require_precision(requested, {Capability.BF16}, who="the ACME A1")
                return precision_policy(requested)

        Raises:
            UnsupportedPrecision: The device cannot run the precision; the hook never uses another one instead [N3].
        """

    @hookspec(firstresult=True)
    def perf_prepare_model(
        self, model: torch.nn.Module, precision: PrecisionPolicy, device: torch.device
    ) -> torch.nn.Module:
        """Change the model's memory layout for the device [N8].

        Its modules with their settings, and names, shapes, values and number of its parameters and buffers do not
        change, and it gets no hooks [N8]. Core warns in the record if the results are of another model. Default: the
        model unchanged.

        Example:
            @hookimpl
            def perf_prepare_model(model, precision, device):
                import torch
                return model.to(memory_format=torch.channels_last)

        Args:
            model: Core has already moved this ``torch.nn.Module`` to the device.

        Returns:
            The model to train [N5, N8]. Core converts inputs to its memory format.
        """

    @hookspec(firstresult=True)
    def perf_loader_options(self, device: torch.device) -> LoaderOptions:
        """Return options of the data loader for this device, such as pinned memory; default core's options [N5, R5].

        Example:
            from chipperf import LoaderOptions, hookimpl

            @hookimpl
            def perf_loader_options(device):
                return LoaderOptions(pin_memory=True)
        """

    @hookspec(firstresult=True)
    def perf_case_overrides(self, case: str, rank: Rank, device_name: str) -> CaseOverrides:
        """Return the hyperparameters that this vendor tunes for a case and topology; default none [C3].

        Core's :func:`chipperf.read_case_overrides` takes them from a ``configs.toml`` beside the plugin.

        Example:
            from chipperf import CaseOverride, CaseOverrides, hookimpl

            @hookimpl
            def perf_case_overrides(case, rank, device_name):
                if case != "resnet50":
                    return CaseOverrides()
                batch_size = CaseOverride(key="batch_size", value=256, reason="fills the 64 GiB card")
                return CaseOverrides(overrides=(batch_size,))

        Args:
            device_name: Core gives the product's name, empty if it is not known yet.

        Returns:
            Overrides with reasons [C2]. Their keys are known to the case and not locked [C1]. A case that the plugin
            does not know has none [A10].
        """


class MonitoringSpecs:
    """Hooks that observe a device, and facts to compare a measurement with."""

    @hookspec(firstresult=True)
    def perf_telemetry(self, device: DeviceInfo) -> TelemetrySample:
        """Read power, temperature, utilization and memory of one device; needs ``telemetry`` [A12, R1].

        Core calls the hook about once a second during training, in a process without torch. A call takes little time
        [R1], and does not slow training down [R2]. The hook finds the device by its UUID, not by its index [R1].
        A reading is of now: no mean over a longer time, and never an earlier one in place of one that failed [R1].
        What is measured under load is measured at rest, too [R1].

        Example:
            from chipperf import TelemetrySample, hookimpl

            @hookimpl
            def perf_telemetry(device):
                return TelemetrySample(source="acme-smi", power_w=61.0, temperature_c=38.0)
        """

    @hookspec(firstresult=True)
    def perf_tool_commands(self) -> tuple[ToolCommand, ...]:
        """Return the calls of management tools that the plugin parses or that show its sensors; default none [A10].

        Core's ``perf record-tools`` runs them and stores their output as test data for the plugin's parsers, and to
        compare telemetry with. No call changes a device [A10].

        Example:
            from chipperf import ToolCommand, hookimpl

            @hookimpl
            def perf_tool_commands():
                query = ToolCommand(name="acme-smi-query", argv=("acme-smi", "-q"), private_patterns=(r"SN[0-9]{8}",))
                return (query,)
        """

    @hookspec(firstresult=True)
    def perf_peak_flops(self, device_name: str, precision: str) -> PeakFlops | None:
        """Return the dense peak rate for the computation of MFU, with its source; default unknown [A10].

        Example:
            from chipperf import PeakFlops, hookimpl

            @hookimpl
            def perf_peak_flops(device_name, precision):
                peaks = {("ACME A1", "bf16"): 256e12}
                peak = peaks.get((device_name, precision))
                return peak and PeakFlops(flops_per_s=peak, source="ACME A1 data sheet, revision 3")

        Args:
            precision: Core gives the *effective* precision.
        """


class VendorSpecs(MachineSpecs, DeviceSpecs, TrainingSpecs, MonitoringSpecs):
    """All hooks of a vendor: exactly one implementation of each is bound to a run."""

    @hookspec
    def perf_step_end(self, device: torch.device) -> None:
        """Mark the end of a training step, for stacks that record operations until this call; default nothing [M7, N5].

        It seeds no generator and draws no numbers [S1, S2, S3].

        Example:
            @hookimpl
            def perf_step_end(device):
                pass
        """

    @hookspec
    def perf_device_teardown(self, device: torch.device) -> None:
        """Undo what the hooks of the run allocated, and set the switches that they changed to what they were [D5, S4].

        It can be repeated [D5, S4]. It leaves the process group as it is [P12], and no thread running [D10].

        Core also calls it after a failure. Default: empties the cache of torch's module for the device type.

        Example:
            @hookimpl
            def perf_device_teardown(device):
                import torch
                if device.type != "cpu":
                    torch.accelerator.empty_cache()
        """


class ObserverSpecs:
    """Hooks of observers. A run may have several. An observer that raises is disabled and listed in the record."""

    @hookspec
    def perf_run_started(self, event: RunStarted) -> None:
        """Handle the start of training.

        Example:
            @hookimpl
            def perf_run_started(event):
                print(event.case, event.precision)
        """

    @hookspec
    def perf_window_finished(self, event: WindowFinished) -> None:
        """Handle the end of a measurement window.

        Example:
            @hookimpl
            def perf_window_finished(event):
                print(event.step, event.samples / event.seconds)
        """

    @hookspec
    def perf_epoch_finished(self, event: EpochFinished) -> None:
        """Handle the end of an epoch's training steps.

        Example:
            @hookimpl
            def perf_epoch_finished(event):
                print(event.epoch, event.mean_loss)
        """

    @hookspec
    def perf_evaluation_finished(self, event: EvaluationFinished) -> None:
        """Handle the end of an evaluation.

        Example:
            @hookimpl
            def perf_evaluation_finished(event):
                print(event.metric, event.value)
        """

    @hookspec
    def perf_run_finished(self, event: RunFinished) -> None:
        """Handle the end of a completed run, after its record is written.

        Example:
            @hookimpl
            def perf_run_finished(event):
                print(event.record_path)
        """

    @hookspec
    def perf_run_failed(self, event: RunFailed) -> None:
        """Handle the failure of a run.

        Example:
            @hookimpl
            def perf_run_failed(event):
                print(event.failure_class, event.message)
        """

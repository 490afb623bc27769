"""Hooks of the MetaX plugin: C500 family under MACA builds of torch, whose devices are called ``cuda``.

Events are not used for timing: they were seen to measure nothing. TF32 is set by the older names (``allow_tf32``) on
purpose: every build of MetaX's has them, setting them sets the newer ones of torch 2.9 too, and a process that mixes
both can no longer read either.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chipperf import (
    DeviceError,
    DeviceInfo,
    DistributedConfig,
    EnvironmentVariable,
    Knob,
    PluginError,
    RuntimeInfo,
    UnsupportedPrecision,
    hookimpl,
    read_case_overrides,
    read_variables,
    read_vendor_info,
    torchtools,
)
from chipperf.hardware import DeviceReport, read_text
from chipperf.torchtools import perf_device_teardown as perf_device_teardown
from chipperf.torchtools import perf_loader_options as perf_loader_options

# The runtime keeps to the slice of a shared GPU, whereas mx-smi counts the whole board.
from chipperf.torchtools import perf_memory_query as perf_memory_query
from chipperf.torchtools import perf_memory_reset_peak as perf_memory_reset_peak
from chipperf.torchtools import perf_synchronize as perf_synchronize

from chipperf_metax.mx_smi import TOOL, Query, parse_list, parse_log, parse_table
from chipperf_metax.mx_smi import perf_tool_commands as perf_tool_commands
from chipperf_metax.probe import built_with_maca, describe_new_stack, find_conflict, probe
from chipperf_metax.telemetry import ask_library
from chipperf_metax.telemetry import perf_telemetry as perf_telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch
    from chipperf import CaseOverrides, EnvironmentSettings, Precision, PrecisionPolicy, ProbeResult, Rank, VendorInfo

NCHW_VARIABLE: Final = "PYTORCH_DEFAULT_NCHW"

AUTOTUNE_VARIABLE: Final = "CHIPPERF_METAX_CUDNN_BENCHMARK"
"""1 lets torch choose convolution algorithms by trying them, unless the run is to be reproducible."""

_CONFIGS: Final = Path(__file__).with_name("configs.toml")
_VENDOR: Final = read_vendor_info(Path(__file__).with_name("products.toml"))
_VARIABLES: Final = read_variables(Path(__file__).with_name("variables.toml"))
_MACA_HOME: Final = Path("/opt/maca")
_TIMEOUT_S: Final = 5.0
_TF32_SWITCHES: Final = {
    torchtools.MATMUL_TF32: "fp32 matrix products may be computed in TF32",
    torchtools.CUDNN_TF32: "fp32 convolutions may be computed in TF32",
}


@hookimpl
def perf_vendor_info() -> VendorInfo:
    """Name MetaX, its products and what this plugin can do."""
    return _VENDOR


@hookimpl
def perf_probe() -> ProbeResult:
    """Find MetaX's PCI devices and driver, and ask mx-smi about them."""
    return probe()


@hookimpl
def perf_load_runtime() -> RuntimeInfo:
    """Import torch and make sure that it is MetaX's: others drive other devices under the same name ``cuda``."""
    import torch

    built_with = getattr(torch.version, "maca", None) or built_with_maca(torch.__version__)
    if built_with is None:
        raise PluginError(
            f"torch {torch.__version__} is not a MetaX build{describe_new_stack()}",
            hint="install MetaX's torch (+metax or +mc) from its own image or site",
        )
    driver, maca = installed_versions()
    nccl = torchtools.nccl_version()
    defaults = torchtools.switch_knobs(dict.fromkeys(_TF32_SWITCHES, "this build's default, before the run sets it"))
    return RuntimeInfo(
        torch=str(torch.__version__),
        driver=driver,
        # The two differ on machines that work, so that a difference is a fact and not a fault.
        sdk=f"{'MACA' if maca is None else f'MACA {maca}'} (torch built with {built_with})",
        # torch knows MetaX's MCCL as nccl.
        collectives=nccl and f"MCCL (nccl interface {nccl})",
        framework=f"pytorch-{torch.__version__}",
        knobs=(*(replace(knob, name=f"{knob.name} (default)") for knob in defaults), *environment_knobs()),
    )


def installed_versions(root: Path = Path("/")) -> tuple[str | None, str | None]:
    """Return the versions of the kernel-mode driver and of MACA: by the library, then the tool, then the kernel."""

    def reports() -> Iterator[DeviceReport]:
        with suppress(Exception):
            yield ask_library(timeout_s=_TIMEOUT_S)
        yield TOOL.report(Query.VERSION.value, parse_log, timeout_s=_TIMEOUT_S)
        yield TOOL.report(Query.TABLE.value, parse_table, timeout_s=_TIMEOUT_S)

    driver = maca = None
    for report in reports():
        driver, maca = driver or report.driver_version, maca or report.sdk_version
        if driver and maca:
            break
    return driver or read_text(root / "sys/module/metax/version"), maca


@hookimpl
def perf_environment(settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
    """Name the SDK, ask for reproducible kernels if wanted, and refuse contradicting choices of devices."""
    conflict = find_conflict(os.environ)
    if conflict:
        problem, _, remedy = conflict.rpartition(": ")
        raise DeviceError(problem, hint=remedy)
    # FlagPerf's METAX_USE_TF32 is left out on purpose: TF32 is a precision that is asked for.
    variables = _VARIABLES.settings["always"]
    if settings.deterministic:
        variables += _VARIABLES.settings["deterministic"]
    if _MACA_HOME.is_dir():
        reason = "MetaX's torch takes itself for an upstream build if it is not set"
        variables += (EnvironmentVariable(name="MACA_PATH", value=str(_MACA_HOME), reason=reason),)
    return variables


def environment_knobs(environment: Mapping[str, str] = os.environ) -> tuple[Knob, ...]:
    """Return the variables that are set, whoever set them, and change numerics, memory or speed.

    The layout switch is reported in any case, because its absence means channels-last.
    """
    knobs = []
    for name, meaning in _VARIABLES.meanings["presence"].items():
        if name in environment:
            knobs.append(Knob(name=name, value=f"{environment[name]!r}: on, whatever its value", reason=meaning))
        elif name == NCHW_VARIABLE:
            knobs.append(Knob(name=name, value="not set", reason=f"if set, {meaning}"))
    meanings = {variable.name: variable.reason for variable in _VARIABLES.settings["deterministic"]}
    meanings = {**_VARIABLES.meanings["reported"], **meanings}
    return (*knobs, *torchtools.user_variables(meanings, environment=environment))


@hookimpl
def perf_seed(seed: int, deterministic: bool) -> None:
    """Seed the devices' generators, and decide between autotuned and reproducible kernels."""
    import torch

    torch.cuda.manual_seed_all(seed)
    torchtools.set_determinism(deterministic, cudnn=True, autotune=os.environ.get(AUTOTUNE_VARIABLE) == "1")


@hookimpl
def perf_precision(requested: Precision, device: torch.device) -> PrecisionPolicy:
    """Allow TF32 if, and only if, it is asked for, and describe what is in force.

    Raises:
        UnsupportedPrecision: The plugin does not run the precision, or a switch does not keep what it is set to.
    """
    import torch

    torchtools.require_precision(requested, _VENDOR.capabilities, who="the MetaX plugin")
    for name, wanted in torchtools.set_tf32(requested == "tf32", older_names=True).items():
        if torchtools.read_switch(name) != wanted:
            raise UnsupportedPrecision(
                f"{requested} cannot be run: torch.backends.{name} stays {not wanted}",
                hint="unset TORCH_ALLOW_TF32_CUBLAS_OVERRIDE and every PYTORCH_*_TF32 variable",
            )
    layout = Knob(
        name="layout of 4-D tensors copied to the device",
        value="contiguous" if torch.zeros(1, 2, 2, 2).to(device).is_contiguous() else "channels_last",
        reason=f"found by copying one; {NCHW_VARIABLE} makes this build keep contiguous tensors",
    )
    knobs = torchtools.switch_knobs({**_TF32_SWITCHES, **torchtools.KERNEL_SWITCHES})
    return torchtools.precision_policy(requested, knobs=(*knobs, layout))


@hookimpl
def perf_prepare_model(model: torch.nn.Module, precision: PrecisionPolicy) -> torch.nn.Module:
    """Lay the model out as this build lays out its inputs, and convert it for fp16.

    By default MetaX's torch turns 4-D tensors channels-last when it copies them to the device. Saying so explicitly
    gives every version of it the same layout, which core then records.
    """
    import torch

    if NCHW_VARIABLE not in os.environ:
        model = model.to(memory_format=torch.channels_last)
    return torchtools.convert_parameters(model, precision.requested)


@hookimpl
def perf_device_init(rank: Rank) -> torch.device:
    """Make the GPU, or slice, of the local rank current."""
    import torch

    variables = _VENDOR.visible_devices_env
    try:
        return torchtools.use_device(torch.cuda, "cuda", rank, called="MetaX device", visible_devices_env=variables)
    except OSError as error:
        # Counting goes through MetaX's management library.
        raise DeviceError(
            f"MetaX's torch cannot count its devices: {error}", hint="add /opt/mxdriver/lib to LD_LIBRARY_PATH"
        ) from error


@hookimpl
def perf_device_info(device: torch.device) -> DeviceInfo:
    """Identify the device by torch, whose UUIDs ``mx-smi -L`` lists, also those of slices."""
    info = torchtools.perf_device_info(device)
    listed = parse_list(TOOL.run(Query.LIST.value, timeout_s=_TIMEOUT_S).stdout).devices
    return replace(info, part=next((each.part for each in listed if info.uuid and each.uuid == info.uuid), None))


@hookimpl
def perf_distributed_setup(rank: Rank, device: torch.device) -> DistributedConfig:
    """Use MCCL, whose name in torch is nccl: mccl is the name of another vendor's backend there."""
    return DistributedConfig(backend="nccl")


@hookimpl
def perf_case_overrides(case: str, rank: Rank) -> CaseOverrides:
    """Return FlagPerf's C500 values for the case and topology."""
    return read_case_overrides(_CONFIGS, case, rank)

"""The software of a run: versions of MetaX's stack, variables of its workers, kernels, precisions and their layout.

TF32 is set by the older names (``allow_tf32``) on purpose: every build of MetaX's has them, setting them sets the newer
ones of torch 2.9 too, and a process that mixes both can no longer read either.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chipperf import (
    DeviceError,
    EnvironmentVariable,
    Knob,
    PluginError,
    RuntimeInfo,
    UnsupportedPrecision,
    hookimpl,
    read_variables,
    read_vendor_info,
)
from chipperf.hardware import DeviceReport, call_bounded, read_text
from chipperf.torchtools import (
    CUDNN_TF32,
    KERNEL_SWITCHES,
    MATMUL_TF32,
    convert_parameters,
    nccl_version,
    precision_policy,
    read_switch,
    require_precision,
    set_determinism,
    set_tf32,
    switch_knobs,
    user_variables,
)

from chipperf_metax.mx_smi import TOOL, Query, parse_log, parse_table
from chipperf_metax.probe import built_with_maca, find_conflict
from chipperf_metax.telemetry import open_library, read_library

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch
    from chipperf import EnvironmentSettings, Precision, PrecisionPolicy

VENDOR: Final = read_vendor_info(Path(__file__).with_name("products.toml"))

_TF32_SWITCHES: Final = {
    MATMUL_TF32: "fp32 matrix products may be computed in TF32",
    CUDNN_TF32: "fp32 convolutions may be computed in TF32",
}

_MACA_HOME: Final = Path("/opt/maca")

NCHW_VARIABLE: Final = "PYTORCH_DEFAULT_NCHW"

AUTOTUNE_VARIABLE: Final = "CHIPPERF_METAX_CUDNN_BENCHMARK"
"""1 lets torch choose convolution algorithms by trying them, unless the run is to be reproducible."""

_VARIABLES: Final = read_variables(Path(__file__).with_name("variables.toml"))

_TIMEOUT_S = 5.0


@hookimpl
def perf_load_runtime() -> RuntimeInfo:
    """Import torch and make sure that it is MetaX's.

    Raises:
        PluginError: It is somebody else's build, which would drive other devices under the same name ``cuda``.
    """
    import torch

    built_with = getattr(torch.version, "maca", None) or built_with_maca(torch.__version__)
    if built_with is None:
        raise PluginError(
            f"torch {torch.__version__} is not a MetaX build",
            hint="install MetaX's torch (+metax or +mc) from its own image or site",
        )
    driver, maca = installed_versions()
    nccl = nccl_version()
    sdk = "MACA" if maca is None else f"MACA {maca}"
    return RuntimeInfo(
        torch=str(torch.__version__),
        driver=driver,
        # The two differ on machines that work, so that a difference is a fact and not a fault.
        sdk=f"{sdk} (torch built with {built_with})",
        # torch knows MetaX's MCCL as nccl.
        collectives=nccl and f"MCCL (nccl interface {nccl})",
        framework=f"pytorch-{torch.__version__}",
        knobs=(*default_knobs(), *environment_knobs()),
    )


def installed_versions(root: Path = Path("/")) -> tuple[str | None, str | None]:
    """Return the versions of the kernel-mode driver and of MACA: by the library, then the tool, then the kernel.

    Args:
        root: Directory that holds ``sys``.
    """
    driver = maca = None
    for report in _reports():
        driver, maca = driver or report.driver_version, maca or report.sdk_version
        if driver and maca:
            break
    return driver or read_text(root / "sys/module/metax/version"), maca


def _reports() -> Iterator[DeviceReport]:
    library = open_library()
    if library:
        with suppress(TimeoutError):
            yield call_bounded(lambda: read_library(library), timeout_s=_TIMEOUT_S)
    for query, parse in ((Query.VERSION, parse_log), (Query.TABLE, parse_table)):
        output = TOOL.run(query.value, timeout_s=_TIMEOUT_S)
        if output.problem is None:
            yield parse(output.stdout)


@hookimpl
def perf_environment(settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
    """Name the SDK, ask for reproducible kernels if wanted, and refuse contradicting choices of devices."""
    return worker_environment(settings)


def worker_environment(
    settings: EnvironmentSettings, environment: Mapping[str, str] = os.environ, maca_home: Path = _MACA_HOME
) -> tuple[EnvironmentVariable, ...]:
    """Return what a worker's environment must hold, on a machine whose SDK would be at ``maca_home``.

    FlagPerf's ``METAX_USE_TF32`` is left out on purpose: TF32 is a precision that is asked for.

    Raises:
        DeviceError: The variables that choose devices contradict each other.
    """
    conflict = find_conflict(environment)
    if conflict:
        problem, _, remedy = conflict.rpartition(": ")
        raise DeviceError(problem, hint=remedy)
    variables = _VARIABLES.settings["always"]
    if settings.deterministic:
        variables += _VARIABLES.settings["deterministic"]
    if not maca_home.is_dir():
        return variables
    home = EnvironmentVariable(
        name="MACA_PATH",
        value=str(maca_home),
        reason="MetaX's torch takes itself for an upstream build if it is not set",
    )
    return (home, *variables)


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
    reproducible = {variable.name: variable.reason for variable in _VARIABLES.settings["deterministic"]}
    return (*knobs, *user_variables({**_VARIABLES.meanings["reported"], **reproducible}, environment=environment))


def default_knobs() -> tuple[Knob, ...]:
    """Return the build's own choice of TF32, which differs between MetaX's versions; read it before anything is set."""
    reason = "this build's default, before the run sets it"
    return tuple(Knob(name=f"{name} (default)", value=str(read_switch(name)), reason=reason) for name in _TF32_SWITCHES)


@hookimpl
def perf_seed(seed: int, deterministic: bool) -> None:
    """Seed the devices' generators, and decide between autotuned and reproducible kernels."""
    import torch

    torch.cuda.manual_seed_all(seed)
    set_determinism(deterministic, cudnn=True, autotune=os.environ.get(AUTOTUNE_VARIABLE) == "1")


@hookimpl
def perf_precision(requested: Precision, device: torch.device) -> PrecisionPolicy:
    """Allow TF32 if, and only if, it is asked for, and describe what is in force.

    Raises:
        UnsupportedPrecision: The plugin does not run the precision, or a switch does not keep what it is set to.
    """
    require_precision(requested, VENDOR.capabilities, who="the MetaX plugin")
    for name, wanted in set_tf32(requested == "tf32", older_names=True).items():
        if read_switch(name) != wanted:
            raise UnsupportedPrecision(
                f"{requested} cannot be run: torch.backends.{name} stays {not wanted}",
                hint="unset TORCH_ALLOW_TF32_CUBLAS_OVERRIDE and every PYTORCH_*_TF32 variable",
            )
    return precision_policy(
        requested, knobs=(*switch_knobs({**_TF32_SWITCHES, **KERNEL_SWITCHES}), _layout_knob(device))
    )


@hookimpl
def perf_prepare_model(model: torch.nn.Module, precision: PrecisionPolicy) -> torch.nn.Module:
    """Lay the model out as this build lays out its inputs, and convert it for fp16.

    By default MetaX's torch turns 4-D tensors channels-last when it copies them to the device. Saying so explicitly
    gives every version of it the same layout, which core then records.
    """
    import torch

    if NCHW_VARIABLE not in os.environ:
        model = model.to(memory_format=torch.channels_last)
    return convert_parameters(model, precision.requested)


def _layout_knob(device: torch.device) -> Knob:
    import torch

    moved = torch.zeros(1, 2, 2, 2).to(device)
    return Knob(
        name="layout of 4-D tensors copied to the device",
        value="contiguous" if moved.is_contiguous() else "channels_last",
        reason=f"found by copying one; {NCHW_VARIABLE} makes this build keep contiguous tensors",
    )

"""What a run is set to: the variables of its workers, kernels, precisions and the layout that goes with them.

TF32 is set by the older names (``allow_tf32``) on purpose: every build of MetaX's has them, setting them sets the newer
ones of torch 2.9 too, and a process that mixes both can no longer read either.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chipperf import Capability, DeviceError, EnvironmentVariable, Knob, UnsupportedPrecision, hookimpl
from chipperf.torchtools import (
    CUDNN_TF32,
    KERNEL_SWITCHES,
    MATMUL_TF32,
    convert_parameters,
    precision_policy,
    read_switch,
    require_precision,
    set_determinism,
    set_tf32,
    switch_knobs,
    user_variables,
)

from chipperf_metax.probe import find_conflict

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from chipperf import EnvironmentSettings, Precision, PrecisionPolicy

CAPABILITIES: Final = frozenset(
    {
        Capability.BF16,
        Capability.CHANNELS_LAST,
        Capability.DETERMINISTIC,
        Capability.DISTRIBUTED,
        Capability.FP16,
        Capability.MEMORY_RESERVED,
        Capability.MULTI_DEVICE,
        Capability.TELEMETRY,
        Capability.TF32,
        Capability.UUID,
    }
)

_TF32_SWITCHES: Final = {
    MATMUL_TF32: "fp32 matrix products may be computed in TF32",
    CUDNN_TF32: "fp32 convolutions may be computed in TF32",
}

_MACA_HOME: Final = Path("/opt/maca")

NCHW_VARIABLE: Final = "PYTORCH_DEFAULT_NCHW"

AUTOTUNE_VARIABLE: Final = "CHIPPERF_METAX_CUDNN_BENCHMARK"
"""1 lets torch choose convolution algorithms by trying them, unless the run is to be reproducible."""

_AUTOTUNE: Final = EnvironmentVariable(
    name=AUTOTUNE_VARIABLE,
    value="0",
    reason="FlagPerf's batches nearly fill the GPU, and trying convolution algorithms needs memory of its own",
)

_DETERMINISTIC: Final = (
    EnvironmentVariable(
        name="CUBLAS_WORKSPACE_CONFIG",
        value=":4096:8",
        reason="torch demands a fixed workspace for reproducible matrix products",
    ),
    EnvironmentVariable(name="MCDNN_USE_DETERMINISTIC_ALGO", value="1", reason="reproducible convolutions"),
    EnvironmentVariable(name="ENABLE_BLAS_DETERMINISTIC_MODE", value="1", reason="reproducible matrix products"),
)

# MetaX's torch only looks whether these exist: with the value 0 they are on as well.
_PRESENCE_SWITCHES: Final[Mapping[str, str]] = {
    NCHW_VARIABLE: "4-D tensors keep their layout when they are copied to the device",
    "PYTORCH_DEFAULT_NDHWC": "5-D tensors are copied to the device channels-last",
    "PYTORCH_DEFAULT_NLC": "3-D tensors are copied to the device channels-last",
    "PYTORCH_ALLOW_CUDA_CUDNN_TF32": "changes the build's default of TF32 convolutions; this run sets it itself",
    "PYTORCH_DISABLE_CUDA_CUDNN_TF32": "changes the build's default of TF32 convolutions; this run sets it itself",
    "PYTORCH_ENABLE_SAME_RAND_A100": "random numbers are drawn in the grid of an A100",
}
_VALUE_SETTINGS: Final[Mapping[str, str]] = {
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "forces TF32 matrix products",
    "METAX_USE_TF32": "has no effect here: it belongs to FlagPerf",
    "PYTORCH_CUDA_ALLOC_CONF": "settings of the memory allocator",
    "PYTORCH_ALLOC_CONF": "settings of the memory allocator",
    "MACA_SMALL_PAGESIZE_ENABLE": "page size of device memory",
    "MACA_MPS_MODE": "several processes may use one GPU",
    "MACA_LAUNCH_BLOCKING": "every kernel is waited for, which is slow",
    "ISU_FASTMODEL": "MetaX sets it for some language models to avoid precision errors",
    **{variable.name: variable.reason for variable in _DETERMINISTIC},
}


@hookimpl
def perf_environment(settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
    """Name the SDK, ask for reproducible kernels if wanted, and refuse contradicting choices of devices."""
    return worker_environment(settings)


def worker_environment(
    settings: EnvironmentSettings, environment: Mapping[str, str] = os.environ, maca_home: Path = _MACA_HOME
) -> tuple[EnvironmentVariable, ...]:
    """Return what a worker's environment must hold before its interpreter starts.

    FlagPerf's ``METAX_USE_TF32`` is left out on purpose: TF32 is a precision that is asked for.

    Args:
        settings: What the run is about to do.
        environment: The environment so far.
        maca_home: Where the SDK is installed by default.

    Raises:
        DeviceError: The variables that choose devices contradict each other.
    """
    conflict = find_conflict(environment)
    if conflict:
        problem, _, remedy = conflict.rpartition(": ")
        raise DeviceError(problem, hint=remedy)
    variables = (_AUTOTUNE, *(_DETERMINISTIC if settings.deterministic else ()))
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
    for name, meaning in _PRESENCE_SWITCHES.items():
        if name in environment:
            knobs.append(Knob(name=name, value=f"{environment[name]!r}: on, whatever its value", reason=meaning))
        elif name == NCHW_VARIABLE:
            knobs.append(Knob(name=name, value="not set", reason=f"if set, {meaning}"))
    return (*knobs, *user_variables(_VALUE_SETTINGS, environment=environment))


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
    require_precision(requested, CAPABILITIES, who="the MetaX plugin")
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

"""Variables a worker needs before its interpreter starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chipperf import EnvironmentVariable

if TYPE_CHECKING:
    from chipperf import EnvironmentSettings

AUTOTUNE_VARIABLE: Final = "CHIPPERF_NVIDIA_CUDNN_BENCHMARK"
"""``1`` lets cuDNN time its convolution algorithms; read by :mod:`chipperf_nvidia.seeding`."""

_FIXED_SIZE_CASES: Final = frozenset({"mobilenetv2", "resnet50"})


def variables(settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
    """Return the variables of a run, each with its reason."""
    order = EnvironmentVariable(
        name="CUDA_DEVICE_ORDER", value="PCI_BUS_ID", reason="an index means the same GPU to CUDA and to NVML"
    )
    if not settings.deterministic:
        return (order, _autotune(settings.case))
    workspace = EnvironmentVariable(
        name="CUBLAS_WORKSPACE_CONFIG",
        value=":4096:8",
        reason="deterministic: cuBLAS gives equal bits only with fixed workspaces",
    )
    autotune = EnvironmentVariable(
        name=AUTOTUNE_VARIABLE, value="0", reason="deterministic: the fastest algorithm may differ between runs"
    )
    return (order, workspace, autotune)


def _autotune(case: str) -> EnvironmentVariable:
    if case in _FIXED_SIZE_CASES:
        return EnvironmentVariable(
            name=AUTOTUNE_VARIABLE, value="1", reason="image size is fixed: cuDNN times its algorithms once per layer"
        )
    return EnvironmentVariable(
        name=AUTOTUNE_VARIABLE, value="0", reason="image sizes may vary, and cuDNN would time every new one"
    )

"""Core's defaults for optional hooks. Each function replaces the hook with its name if the vendor does not have it.

The functions import torch themselves, because binding a session and listing its vendor must work without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chipperf.errors import VendorHookError
from chipperf.plugin.torch_helpers import (
    CUDNN_TF32,
    DETERMINISTIC_ALGORITHMS,
    MATMUL_PRECISION,
    call_if_there,
    convert_parameters,
    precision_policy,
    require_precision,
    restore_switches,
    set_switch,
    switch_knobs,
)
from chipperf.plugin.types import (
    CaseOverrides,
    DistributedConfig,
    EnvironmentSettings,
    EnvironmentVariable,
    LoaderOptions,
    PeakFlops,
    PrecisionPolicy,
    Rank,
    ToolCommand,
)

if TYPE_CHECKING:
    import torch

    from chipperf.precisions import Precision


def environment(rank: Rank, settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
    """Set no variable."""
    return ()


def distributed_setup(rank: Rank, device: torch.device) -> DistributedConfig:
    """Use gloo on the CPU. For other devices core has no backend that works for every vendor."""
    if device.type != "cpu":
        raise VendorHookError(
            f"core knows no collective backend for {device.type} devices",
            hint="the plugin has to implement perf_distributed_setup and declare Capability.DISTRIBUTED",
        )
    return DistributedConfig(backend="gloo")


def seed(seed: int, device: torch.device, deterministic: bool) -> None:
    """Seed the generators of torch's module for the device type, and set torch's deterministic algorithms."""
    import torch

    set_switch(DETERMINISTIC_ALGORITHMS, deterministic)
    # Core has seeded torch's CPU generator.
    if device.type == "cpu":
        return
    manual_seed_all = getattr(getattr(torch, device.type, None), "manual_seed_all", None)
    if manual_seed_all is None:
        raise VendorHookError(
            f"torch.{device.type}.manual_seed_all does not exist", hint="the plugin has to implement perf_seed"
        )
    manual_seed_all(seed)


def precision(requested: Precision, device: torch.device) -> PrecisionPolicy:
    """Run only fp32, with torch's shortcuts for fp32 products switched off."""
    require_precision(requested, (), who="a plugin without perf_precision")
    reasons = {MATMUL_PRECISION: "fp32 products are not rounded"}
    set_switch(MATMUL_PRECISION, "highest")
    if device.type == "cuda":
        # Convolutions have a separate switch, which torch leaves on.
        set_switch(CUDNN_TF32, False)
        reasons[CUDNN_TF32] = "fp32 convolutions are not rounded"
    return precision_policy(requested, knobs=switch_knobs(reasons))


def prepare_model(model: torch.nn.Module, precision: PrecisionPolicy, device: torch.device) -> torch.nn.Module:
    """Train the model as it is, with parameters of the precision's type."""
    return convert_parameters(model, precision.requested)


def loader_options(device: torch.device) -> LoaderOptions:
    """Return the default options of the data loader."""
    return LoaderOptions()


def case_overrides(case: str, rank: Rank, device_name: str) -> CaseOverrides:
    """Override no hyperparameter."""
    return CaseOverrides()


def tool_commands() -> tuple[ToolCommand, ...]:
    """List no command."""
    return ()


def peak_flops(device_name: str, precision: str) -> PeakFlops | None:
    """Return ``None``: the peak is unknown."""
    return None


def device_teardown(device: torch.device) -> None:
    """Put back the switches that the defaults set, and empty the cache of torch's module for the device type."""
    import torch

    restore_switches()
    call_if_there(getattr(torch, device.type, None), "empty_cache")

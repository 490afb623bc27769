"""Core's defaults for optional hooks that the vendor does not have: results, and functions with the names of hooks.

The functions import torch themselves, because binding a session and listing its vendor must work without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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
from chipperf.plugin.types import CaseOverrides, DistributedConfig, LoaderOptions, PrecisionPolicy, Rank

if TYPE_CHECKING:
    import torch

    from chipperf.precisions import Precision


RESULTS: Final = {
    "perf_environment": (),
    "perf_loader_options": LoaderOptions(),
    "perf_case_overrides": CaseOverrides(),
    "perf_tool_commands": (),
    "perf_peak_flops": None,
}


def perf_distributed_setup(rank: Rank, device: torch.device) -> DistributedConfig:
    """Use gloo on the CPU. For other devices core has no backend that works for every vendor."""
    if device.type != "cpu":
        raise VendorHookError(
            f"core knows no collective backend for {device.type} devices",
            hint="the plugin has to implement perf_distributed_setup and declare Capability.DISTRIBUTED",
        )
    return DistributedConfig(backend="gloo")


def perf_seed(seed: int, device: torch.device, deterministic: bool) -> None:
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


def perf_precision(requested: Precision, device: torch.device) -> PrecisionPolicy:
    """Run only fp32, with torch's shortcuts for fp32 products switched off."""
    require_precision(requested, (), who="a plugin without perf_precision")
    reasons = {MATMUL_PRECISION: "fp32 products are not rounded"}
    set_switch(MATMUL_PRECISION, "highest")
    if device.type == "cuda":
        # Convolutions have a separate switch, which torch leaves on.
        set_switch(CUDNN_TF32, False)
        reasons[CUDNN_TF32] = "fp32 convolutions are not rounded"
    return precision_policy(requested, knobs=switch_knobs(reasons))


def perf_prepare_model(model: torch.nn.Module, precision: PrecisionPolicy, device: torch.device) -> torch.nn.Module:
    """Train the model as it is, with parameters of the precision's type."""
    return convert_parameters(model, precision.requested)


def perf_device_teardown(device: torch.device) -> None:
    """Put back the switches that the defaults set, and empty the cache of torch's module for the device type."""
    import torch

    restore_switches()
    call_if_there(getattr(torch, device.type, None), "empty_cache")

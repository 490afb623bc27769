"""What core does where a vendor implements no hook; each function stands for the hook of its name.

torch is imported inside the functions: a session can be bound, and its vendor listed, without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chipperf.errors import UnsupportedPrecision, VendorHookError
from chipperf.plugin.types import (
    CaseOverrides,
    DistributedConfig,
    EnvironmentSettings,
    EnvironmentVariable,
    Knob,
    LoaderOptions,
    PeakFlops,
    Precision,
    PrecisionPolicy,
    Rank,
    ToolCommand,
)

if TYPE_CHECKING:
    import torch


def environment(rank: Rank, settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
    """Set no variable."""
    return ()


def distributed_setup(rank: Rank, device: torch.device) -> DistributedConfig:
    """Use gloo, on cpu devices only: no other backend is right for every vendor.

    Raises:
        VendorHookError: The device is not a cpu.
    """
    if device.type != "cpu":
        raise VendorHookError(
            f"core knows no collective backend for {device.type} devices",
            hint="the plugin has to implement perf_distributed_setup and declare Capability.DISTRIBUTED",
        )
    return DistributedConfig(backend="gloo")


def seed(seed: int, device: torch.device, deterministic: bool) -> None:
    """Seed the generators of torch's module for the device type, and set torch's deterministic algorithms.

    Raises:
        VendorHookError: That module cannot seed; the run would not be reproducible.
    """
    import torch

    if torch.are_deterministic_algorithms_enabled() != deterministic:
        # The call imports the compiler, which takes seconds: it is left out where it changes nothing.
        torch.use_deterministic_algorithms(deterministic)
    if device.type == "cpu":
        # Core has seeded torch's CPU generator.
        return
    manual_seed_all = getattr(getattr(torch, device.type, None), "manual_seed_all", None)
    if manual_seed_all is None:
        raise VendorHookError(
            f"torch.{device.type}.manual_seed_all does not exist", hint="the plugin has to implement perf_seed"
        )
    manual_seed_all(seed)


def precision(requested: Precision, device: torch.device) -> PrecisionPolicy:
    """Run fp32 and nothing else, with torch's shortcuts for fp32 products switched off.

    Raises:
        UnsupportedPrecision: Something other than fp32 was requested.
    """
    if requested != "fp32":
        raise UnsupportedPrecision(
            f"{requested} is not supported: the plugin does not implement perf_precision", hint="use --precision fp32"
        )
    import torch

    torch.set_float32_matmul_precision("highest")
    knobs = [Knob(name="float32_matmul_precision", value="highest", reason="fp32 products are not rounded")]
    if device.type == "cuda":
        # Convolutions have a switch of their own, which torch leaves on.
        torch.backends.cudnn.allow_tf32 = False
        knobs.append(Knob(name="cudnn.allow_tf32", value="False", reason="fp32 convolutions are not rounded"))
    return PrecisionPolicy(requested="fp32", effective="fp32", knobs=tuple(knobs))


def prepare_model(model: torch.nn.Module, precision: PrecisionPolicy, device: torch.device) -> torch.nn.Module:
    """Train the model as it is."""
    return model


def loader_options(device: torch.device) -> LoaderOptions:
    """Ask nothing of the data loader."""
    return LoaderOptions()


def case_overrides(case: str, rank: Rank, device_name: str) -> CaseOverrides:
    """Keep the case's hyperparameters."""
    return CaseOverrides()


def tool_commands() -> tuple[ToolCommand, ...]:
    """List none."""
    return ()


def peak_flops(device_name: str, precision: str) -> PeakFlops | None:
    """Leave the peak unknown."""
    return None


def device_teardown(device: torch.device) -> None:
    """Empty the cache of torch's module for the device type, if it has one."""
    import torch

    empty_cache = getattr(getattr(torch, device.type, None), "empty_cache", None)
    if empty_cache is not None:
        empty_cache()

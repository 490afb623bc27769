"""The two incompatible software stacks of Kunlunxin, and which of them this installation has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Protocol

from chipperf import PluginError
from chipperf.hardware import distribution_version

from chipperf_kunlunxin import p800, r300

if TYPE_CHECKING:
    import torch
    from chipperf import (
        Capability,
        DeviceInfo,
        DistributedConfig,
        EnvironmentSettings,
        EnvironmentVariable,
        LoaderOptions,
        MemoryStats,
        Precision,
        PrecisionPolicy,
        Rank,
        RuntimeInfo,
    )

PROFILE_VARIABLE: Final = "PERF_KUNLUNXIN_PROFILE"


class Profile(Protocol):
    """What the modules :mod:`chipperf_kunlunxin.r300` and :mod:`chipperf_kunlunxin.p800` have in common.

    Each function is the hook of its name on that stack.
    """

    @property
    def DEVICE_TYPE(self) -> str:
        """``torch.device`` type."""

    @property
    def VISIBLE_DEVICES_ENV(self) -> str:
        """Environment variable that restricts the visible devices."""

    @property
    def KEEPS_VISIBLE_ORDER(self) -> bool:
        """Whether torch numbers devices in that variable's order."""

    @property
    def CAPABILITIES(self) -> frozenset[Capability]:
        """What the stack can do beyond the required hooks."""

    def environment(self, rank: Rank, settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
        """See ``perf_environment``."""

    def load_runtime(self) -> RuntimeInfo:
        """See ``perf_load_runtime``."""

    def device_init(self, rank: Rank) -> torch.device:
        """See ``perf_device_init``."""

    def device_info(self, device: torch.device) -> DeviceInfo:
        """See ``perf_device_info``."""

    def synchronize(self, device: torch.device) -> None:
        """See ``perf_synchronize``."""

    def memory_query(self, device: torch.device) -> MemoryStats:
        """See ``perf_memory_query``."""

    def memory_reset_peak(self, device: torch.device) -> None:
        """See ``perf_memory_reset_peak``."""

    def distributed_setup(self, rank: Rank, device: torch.device) -> DistributedConfig:
        """See ``perf_distributed_setup``."""

    def seed(self, seed: int, device: torch.device, deterministic: bool) -> None:
        """See ``perf_seed``."""

    def precision(self, requested: Precision, device: torch.device) -> PrecisionPolicy:
        """See ``perf_precision``."""

    def prepare_model(
        self, model: torch.nn.Module, precision: PrecisionPolicy, device: torch.device
    ) -> torch.nn.Module:
        """See ``perf_prepare_model``."""

    def loader_options(self, device: torch.device) -> LoaderOptions:
        """See ``perf_loader_options``."""

    def device_teardown(self, device: torch.device) -> None:
        """See ``perf_device_teardown``."""


PROFILES: Final[dict[str, Profile]] = {"r300": r300, "p800": p800}


def choose_profile() -> Profile:
    """Return the profile that ``PERF_KUNLUNXIN_PROFILE`` names, or else the one of the installed torch.

    The torch version is read from the metadata of its distribution. Without torch nothing can be trained, and the
    current stack is assumed.

    Raises:
        PluginError: The variable names no profile.
    """
    name = os.environ.get(PROFILE_VARIABLE) or _installed_profile()
    try:
        return PROFILES[name]
    except KeyError as error:
        raise PluginError(
            f"{PROFILE_VARIABLE}={name} names no Kunlunxin profile", hint=f"use one of: {', '.join(PROFILES)}"
        ) from error


def _installed_profile() -> str:
    version = distribution_version("torch")
    return "r300" if version is not None and version.startswith("1.") else "p800"

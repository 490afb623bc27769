"""The two incompatible software stacks of Kunlunxin, and which of them this installation has."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from chipperf import PluginError
from chipperf.hardware import distribution_version

PROFILE_VARIABLE: Final = "PERF_KUNLUNXIN_PROFILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How a stack presents itself to torch.

    Attributes:
        device_type: ``torch.device`` type.
        visible_devices_env: Environment variable that restricts the visible devices.
    """

    device_type: str
    visible_devices_env: str


PROFILES: Final = {
    # torch 1.x and torch_xmlir, with a device type of its own (Kunlun 2: R200, R300).
    "r300": Profile(device_type="xpu", visible_devices_env="XPU_VISIBLE_DEVICES"),
    # XPyTorch on torch 2.x, which impersonates CUDA (Kunlun 3: P800). XPU_VISIBLE_DEVICES breaks its import.
    "p800": Profile(device_type="cuda", visible_devices_env="CUDA_VISIBLE_DEVICES"),
}


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

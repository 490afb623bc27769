"""Loads torch and says what the stack consists of; refuses builds that only imitate CUDA."""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from chipperf import DeviceError, PluginError, RuntimeInfo, hookimpl, read_variables
from chipperf.hardware import distribution_version
from chipperf.torchtools import nccl_version, user_variables

from chipperf_nvidia.nvml import take_inventory
from chipperf_nvidia.probe import read_driver_version
from chipperf_nvidia.run_settings import VARIABLES

_FOREIGN: Final = read_variables(Path(__file__).with_name("foreign.toml")).meanings


@hookimpl
def perf_load_runtime() -> RuntimeInfo:
    """Import torch, unless it is another vendor's build.

    Raises:
        PluginError: The installed torch is another vendor's and only presents itself as CUDA.
        DeviceError: The installed torch has no CUDA.
    """
    # Before torch is imported: importing it may load the other vendor's stack.
    _refuse(_foreign_installation())

    import torch

    _refuse(_foreign_build(torch))
    if torch.version.cuda is None:
        raise DeviceError(
            f"torch {torch.__version__} is built without CUDA",
            hint="install a CUDA build of torch; perf doctor shows which torch is in use",
        )
    nccl = nccl_version()
    return RuntimeInfo(
        torch=torch.__version__,
        driver=_driver_version(),
        sdk=_sdk(torch),
        collectives=nccl and f"NCCL {nccl}",
        framework=f"pytorch-{torch.__version__}",
        knobs=user_variables(VARIABLES.meanings["reported"]),
    )


def _refuse(stack: str | None) -> None:
    if stack is not None:
        raise PluginError(
            f"the installed torch is not NVIDIA's: {stack} only presents itself as CUDA",
            hint="choose the vendor of the cards with --vendor, or use an environment with an upstream build of torch",
        )


def _foreign_installation() -> str | None:
    """Name the imitation by what is installed, importing nothing; ``None`` if there is none."""
    for module, stack in _FOREIGN["modules"].items():
        if importlib.util.find_spec(module) is not None:
            return f"{stack} ({module})"
    # torch_fl is a backend that upstream torch loads.
    found = (_foreign_version(distribution_version(name) or "") for name in ("torch", "torch_fl"))
    return next(filter(None, found), None)


def _foreign_build(torch: Any) -> str | None:
    """Name the imitation by what torch says of itself; ``None`` if there is none."""
    for attribute, owner in _FOREIGN["attributes"].items():
        value = getattr(torch.version, attribute, None) or getattr(torch, attribute, None)
        if value:
            return f"{owner} build {torch.__version__}"
    return _foreign_version(torch.__version__)


def _foreign_version(version: str) -> str | None:
    local = version.partition("+")[2].lower()
    owner = next((owner for tag, owner in _FOREIGN["tags"].items() if local.startswith(tag)), None)
    return owner and f"{owner} build {version}"


def _driver_version() -> str | None:
    version = read_driver_version(Path("/"))
    with suppress(Exception):  # WSL2 has no such file; NVML is foreign code.
        version = version or take_inventory().driver_version
    return version


def _sdk(torch: Any) -> str:
    cudnn = torch.backends.cudnn.version()
    return f"CUDA {torch.version.cuda}" + ("" if cudnn is None else f", cuDNN {cudnn}")

"""FAKE: puts the NVIDIA plugin's device on the CPU; Python imports this when it starts with this folder on its path.

``FAKE_NVIDIA_ROOT`` is a directory that stands for the machine's file system. What a run in such a process records is
no measurement of any GPU.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType

CUDA_VERSION = "12.8"
DEVICE_NAME = "NVIDIA H200"
DEVICE_UUID = "00000000-0000-0000-0000-000000000000"


class AfterImport(MetaPathFinder):
    """Changes a module right after it was imported for the first time."""

    def __init__(self, name: str, change: Callable[[ModuleType], None]) -> None:
        self.name = name
        self.change = change

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        execute = spec.loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            self.change(module)

        spec.loader.exec_module = execute_and_change
        return spec


def use_fake_file_system(plugin: Any) -> None:
    plugin.probe = functools.partial(plugin.probe, Path(os.environ["FAKE_NVIDIA_ROOT"]))


def put_cuda_on_the_cpu(torch: Any) -> None:
    real_device = torch.device

    class DeviceType(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, real_device)

        def __call__(cls, kind: Any, index: int | None = None) -> Any:
            if str(kind).startswith("cuda"):
                return real_device("cpu", 0)
            return real_device(kind) if index is None else real_device(kind, index)

    torch.device = DeviceType("device", (), {})
    torch.version.cuda = torch.version.cuda or CUDA_VERSION
    torch.Tensor.pin_memory = lambda tensor, device=None: tensor
    properties = SimpleNamespace(name=DEVICE_NAME, uuid=DEVICE_UUID, total_memory=150_000_000_000)
    fakes: dict[str, Callable[..., Any]] = {
        "device_count": lambda: 1,
        "set_device": lambda device: None,
        "synchronize": lambda device=None: None,
        "manual_seed_all": lambda seed: None,
        "empty_cache": lambda: None,
        "get_device_properties": lambda device: properties,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_name": lambda device=None: DEVICE_NAME,
        "init": lambda: None,
        "memory_stats": lambda device=None: {
            f"{counter}.all.{moment}": resident_bytes(key)
            for counter in ("allocated_bytes", "reserved_bytes")
            for moment, key in (("current", "VmRSS"), ("peak", "VmHWM"))
        },
        "reset_peak_memory_stats": lambda device=None: None,
    }
    for name, fake in fakes.items():
        setattr(torch.cuda, name, fake)


def resident_bytes(key: str) -> int:
    """Return a size of this process, which stands in for the allocator's."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


sys.meta_path.insert(0, AfterImport("torch", put_cuda_on_the_cpu))
sys.meta_path.insert(0, AfterImport("chipperf_nvidia.plugin", use_fake_file_system))

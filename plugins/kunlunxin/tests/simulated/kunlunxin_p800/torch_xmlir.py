"""FAKE of XPyTorch: torch's CUDA side answers as on a machine with two P800, and computes on the CPU."""

import os
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import psutil
import torch

__version__ = OrderedDict(
    XPYTORCH="XMLIR--fake", XHPC="20770323", XTDK="3.6.0.1", XRE="5.13.0.0", XCCL="20260209_9", arch="x86_64"
)

UUIDS = ("00000000-0000-0000-0000-0000000000a1", "00000000-0000-0000-0000-0000000000b2")
TOTAL_BYTES = 98304 * 2**20

_real_device = torch.device
_peak_bytes = 0


class _CpuForCuda(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _real_device)

    def __call__(cls, *arguments: Any, **options: Any) -> Any:
        device = _real_device(*arguments, **options)
        return _real_device("cpu", device.index or 0) if device.type == "cuda" else device


class _FakeDevice(metaclass=_CpuForCuda):
    pass


def _resident_bytes() -> int:
    global _peak_bytes
    resident_bytes = psutil.Process().memory_info().rss
    _peak_bytes = max(_peak_bytes, resident_bytes)
    return resident_bytes


def _memory_stats(device: torch.device) -> dict[str, int]:
    current_bytes = _resident_bytes()
    return {
        f"{counter}.all.{moment}": value
        for counter in ("allocated_bytes", "reserved_bytes")
        for moment, value in (("current", current_bytes), ("peak", _peak_bytes))
    }


def _reset_peak_memory_stats(device: torch.device) -> None:
    global _peak_bytes
    _peak_bytes = 0


def _device_count() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return len(UUIDS) if visible is None else len(visible.split(","))


def _properties(device: torch.device) -> SimpleNamespace:
    return SimpleNamespace(name="GPU", uuid=UUIDS[device.index], total_memory=TOTAL_BYTES, pci_bus_id=0)


_FAKES = {
    "device_count": _device_count,
    "empty_cache": lambda *_: None,
    "get_device_properties": _properties,
    "init": lambda *_: None,
    "manual_seed_all": lambda *_: None,
    "mem_get_info": lambda device: (TOTAL_BYTES - _resident_bytes(), TOTAL_BYTES),
    "memory_stats": _memory_stats,
    "reset_peak_memory_stats": _reset_peak_memory_stats,
    "set_device": lambda *_: None,
    "synchronize": lambda *_: None,
}

torch.device = _FakeDevice  # type: ignore[assignment,misc]
for _name, _fake in _FAKES.items():
    setattr(torch.cuda, _name, _fake)

"""FAKE: turns the installed torch into something that looks like MetaX's build with one C500, and computes on the CPU.

Like MetaX's build, it lays 4-D tensors out channels-last when they are copied to the device, unless
``PYTORCH_DEFAULT_NCHW`` exists. Its allocator counts the process's resident memory.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

MACA_VERSION = "3.5.3.9"
DEVICE = SimpleNamespace(
    name="MetaX C500",
    total_memory=65120 * 2**20,
    uuid="00000000-0000-0000-0000-000000000001",
    pci_domain_id=0,
    pci_bus_id=0x37,
    pci_device_id=0,
)


def put_on_the_cpu(torch: Any) -> None:
    real_device, real_to = torch.device, torch.Tensor.to

    class DeviceType(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, real_device)

        def __call__(cls, *arguments: Any) -> Any:
            return real_device("cpu", 0) if str(arguments[0]).startswith("cuda") else real_device(*arguments)

    def to(tensor: Any, *arguments: Any, **options: Any) -> Any:
        moved = real_to(tensor, *arguments, **options)
        # Only the fake GPU has an index; the host is plain "cpu".
        to_gpu = any(isinstance(item, real_device) and item.index == 0 for item in (*arguments, *options.values()))
        is_image = moved.dim() == 4 and moved.shape[1] > 1
        if not to_gpu or not is_image or "memory_format" in options or "PYTORCH_DEFAULT_NCHW" in os.environ:
            return moved
        return moved.contiguous(memory_format=torch.channels_last)

    torch.__version__ = torch.__version__.partition("+")[0] + f"+metax{MACA_VERSION}"
    torch.version.maca = MACA_VERSION
    torch.device = DeviceType("device", (), {})
    torch.Tensor.to = to
    torch.accelerator.is_available = lambda: False
    fakes = {
        "device_count": lambda: 1,
        "set_device": lambda device: None,
        "get_device_properties": lambda device: DEVICE,
        "synchronize": lambda device: None,
        "manual_seed_all": lambda seed: None,
        "mem_get_info": lambda device: (DEVICE.total_memory - resident_bytes("VmRSS"), DEVICE.total_memory),
        "init": lambda: None,
        "memory_stats": lambda device: {
            f"{counter}.all.{moment}": resident_bytes(key)
            for counter in ("allocated_bytes", "reserved_bytes")
            for moment, key in (("current", "VmRSS"), ("peak", "VmHWM"))
        },
        "reset_peak_memory_stats": lambda device: Path("/proc/self/clear_refs").write_text("5"),
        "empty_cache": lambda: None,
    }
    for name, fake in fakes.items():
        setattr(torch.cuda, name, fake)


def resident_bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

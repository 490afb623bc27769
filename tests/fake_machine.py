"""Machines as directory trees, so that a probe can be shown cards that are not here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

DISPLAY_3D = 0x030200
ETHERNET = 0x020000
ACCELERATOR = 0x120000


@dataclass
class FakeMachine:
    """A file system root, and a directory that is the whole ``PATH``."""

    root: Path
    bin: Path

    def add_pci(self, address: str, vendor_id: int, device_id: int, class_code: int = DISPLAY_3D) -> None:
        for name, value in (("vendor", vendor_id), ("device", device_id), ("class", class_code)):
            self.add_file(f"sys/bus/pci/devices/{address}/{name}", f"{value:#06x}\n")

    def add_file(self, path: str, text: str = "") -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def add_tool(self, name: str, output: str = "", *, script: str | None = None) -> Path:
        tool = self.bin / name
        printed = self.bin / f"{name}.output"
        printed.write_text(output, encoding="utf-8")
        tool.write_text(f"#!/bin/sh\n{script or f'/bin/cat {printed}'}\n", encoding="utf-8")
        tool.chmod(0o755)
        return tool

"""FAKE of pymxsml with two boards and a third that is divided among virtual machines."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

UUIDS = ("GPU-00000000-0000-0000-0000-000000000001", "GPU-00000000-0000-0000-0000-000000000002")


class FakeError(Exception):
    """What the library raises for a quantity it cannot read."""


@dataclass
class FakePymxsml:
    """The calls the plugin makes, in the library's units; ``refused`` names calls that raise."""

    refused: set[str] = field(default_factory=set)
    initialized: int = 0

    MXSML_VIRTUALIZATION_MODE_PF = 1
    MXSML_VERSION_DRIVER = 1
    MXSML_TEMPERATURE_HOTSPOT = 0
    MXSML_USAGE_XCORE = 4

    def mxSmlInit(self) -> None:
        self._refuse("mxSmlInit")
        self.initialized += 1

    def mxSmlGetDeviceCount(self) -> int:
        self._refuse("mxSmlGetDeviceCount")
        return 3

    def mxSmlGetDeviceInfo(self, index: int) -> Any:
        self._refuse("mxSmlGetDeviceInfo")
        return SimpleNamespace(
            deviceName="MXC500",
            bdfId=f"0000:3{index + 7}:00.0",
            uuid=UUIDS[index] if index < 2 else "GPU-pf",
            mode=self.MXSML_VIRTUALIZATION_MODE_PF if index == 2 else 0,
        )

    def mxSmlGetMemoryInfo(self, index: int) -> Any:
        self._refuse("mxSmlGetMemoryInfo")
        return SimpleNamespace(vramTotal=67108864, vramUse=15518872, visVramUse=1, xttUse=207256)

    def mxSmlGetTemperatureInfo(self, index: int, sensor: int) -> int:
        self._refuse("mxSmlGetTemperatureInfo")
        assert sensor == self.MXSML_TEMPERATURE_HOTSPOT
        return 3850

    def mxSmlGetDeviceIpUsage(self, index: int, ip: int) -> int | None:
        self._refuse("mxSmlGetDeviceIpUsage")
        assert ip == self.MXSML_USAGE_XCORE
        return None if index else 71

    def mxSmlGetBoardPowerInfo(self, index: int) -> list[Any]:
        self._refuse("mxSmlGetBoardPowerInfo")
        return [SimpleNamespace(power=way) for way in (25789, 26652, 9574)]

    def mxSmlGetDeviceVersion(self, index: int, unit: int) -> str:
        self._refuse("mxSmlGetDeviceVersion")
        assert unit == self.MXSML_VERSION_DRIVER
        return "3.8.30"

    def mxSmlGetMacaVersion(self) -> str:
        self._refuse("mxSmlGetMacaVersion")
        return "3.5.3.20"

    def _refuse(self, call: str) -> None:
        if call in self.refused:
            raise FakeError(call)

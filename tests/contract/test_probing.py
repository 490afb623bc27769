"""Probing where another machine's devices stand in for this one's."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import chipperf.hardware
import pytest
from chipperf.contract import probing
from chipperf.contract.isolation import call_in_new_interpreter
from chipperf.contract.probing import Probing, make_foreign_pci
from chipperf.hardware import find_pci_devices
from chipperf.plugin.installed import find_vendor
from chipperf.plugin.types import ProbedDevice

if TYPE_CHECKING:
    from collections.abc import Mapping


def list_pci(arguments: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the PCI functions as core and as the kernel list them, seen with a foreign list; called elsewhere."""
    probing._replace_pci(Path(arguments["pci"]))
    return {
        "core": [function.address for function in find_pci_devices()],
        "kernel": sorted(path.name for path in Path("/sys/bus/pci/devices").glob("*")),
    }


def test_foreign_list_is_read_like_the_kernels(tmp_path: Path) -> None:
    functions = find_pci_devices(make_foreign_pci(tmp_path / "pci"))
    assert [(function.address, function.is_display) for function in functions] == [
        ("0000:f1:00.0", True),
        ("0000:f2:00.0", False),
    ]
    assert {function.vendor_id for function in functions} == {0xFFFE}


def test_foreign_list_takes_the_place_of_the_kernels(tmp_path: Path) -> None:
    pci = make_foreign_pci(tmp_path / "pci")
    outcome = call_in_new_interpreter(list_pci, {"pci": str(pci)}, timeout_s=60)
    assert outcome.fault is None
    assert outcome.value["core"] == ["0000:f1:00.0", "0000:f2:00.0"]
    if outcome.value["kernel"] != outcome.value["core"]:
        pytest.skip("this kernel lets no process mount something for itself")
    assert Path("/sys/bus/pci/devices/0000:f1:00.0").exists() is False


def test_foreign_list_is_core_s_where_the_kernel_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chipperf.hardware, "PCI_ROOT", chipperf.hardware.PCI_ROOT)
    monkeypatch.setattr(probing.ctypes, "CDLL", lambda *arguments, **options: object())
    probing._replace_pci(make_foreign_pci(tmp_path / "pci"))
    assert len(find_pci_devices()) == 2


def test_probe_runs_with_other_variables_and_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "board_plugin.py").write_text(
        """
import os
from chipperf import ProbedDevice, ProbeResult, Title, VendorInfo, hookimpl

@hookimpl
def perf_vendor_info():
    title = Title(zh="t", en="t")
    return VendorInfo(name="board", title=title, report_title=title, device_type="board")

@hookimpl
def perf_probe():
    import torch
    name = f"{os.environ['BOARD']} {'BOARDS' in os.environ} {torch.cuda.is_available()}"
    return ProbeResult(available=True, reason="found", devices=(ProbedDevice(index=0, name=name),))
"""
    )
    monkeypatch.setenv("BOARDS", "0")
    entry = {**asdict(find_vendor("cpu")), "name": "board", "value": "board_plugin"}
    arguments = {
        "entry": entry,
        "pci": None,
        "path": str(probing.make_impersonator(tmp_path / "impersonator")),
        "bereft": False,
        "calls": 1,
    }
    variables = {"BOARD": "A1", "BOARDS": None}
    outcome = call_in_new_interpreter(probing.run_probe, arguments, timeout_s=60, environment=variables)
    assert outcome.fault is None
    assert outcome.value["devices"][0]["name"] == "A1 False True"
    assert outcome.value["imported_torch"]


def test_identity_is_the_best_that_is_known() -> None:
    devices = (
        ProbedDevice(index=0, name="A1", uuid="u", pci_bus_id="p"),
        ProbedDevice(index=1, name="A1", pci_bus_id="q"),
        ProbedDevice(index=2, name="A1"),
    )
    assert Probing(devices=devices).identities == ("u", "q", "A1 #2")

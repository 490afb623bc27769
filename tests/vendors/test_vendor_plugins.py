"""What the three plugins have in common: no side effects, and the truth where no card is."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy
import pytest
from chipperf import ProbeResult, VendorInfo
from chipperf.plugin import hookspecs

if TYPE_CHECKING:
    from types import ModuleType

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

VENDORS = ("kunlunxin", "metax", "nvidia")
PLUGINS = Path(__file__).parents[2] / "plugins"

SIDE_EFFECTS = """
import builtins, os, sys, threading
environment, importer = dict(os.environ), builtins.__import__
import chipperf_{vendor}.plugin as plugin
plugin.perf_vendor_info()
plugin.perf_probe()
assert dict(os.environ) == environment
assert builtins.__import__ is importer
assert threading.active_count() == 1
print(*sorted({{name.partition(".")[0] for name in sys.modules}} & {{"torch", "torchvision", "numpy", "torch_xmlir"}}))
"""


def load(vendor: str) -> ModuleType:
    return importlib.import_module(f"chipperf_{vendor}.plugin")


@pytest.mark.parametrize("vendor", VENDORS)
def test_distribution_names_the_plugin_and_never_torch(vendor: str) -> None:
    project = tomllib.loads((PLUGINS / vendor / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == f"chipperf-{vendor}"
    assert project["entry-points"] == {"chipperf.vendors": {vendor: f"chipperf_{vendor}.plugin"}}
    assert project["requires-python"] == ">=3.10"
    assert "chipperf>=0.1,<1" in project["dependencies"]
    assert not [requirement for requirement in project["dependencies"] if requirement.startswith("torch")]


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_hook_is_one_of_the_specification(vendor: str) -> None:
    manager = pluggy.PluginManager(hookspecs.PROJECT_NAME)
    manager.add_hookspecs(hookspecs.VendorSpecs)
    manager.register(load(vendor))
    manager.check_pending()
    implemented = {caller.name for caller in manager.get_hookcallers(load(vendor)) or ()}
    assert implemented >= {"perf_vendor_info", "perf_probe", "perf_case_overrides"}


@pytest.mark.parametrize(
    ("vendor", "zh_report_title"),
    [
        ("kunlunxin", "昆仑芯XPU配置与运行信息参考"),
        ("metax", "沐曦集成电路 C500 GPU配置与运行信息参考"),
        ("nvidia", "NVIDIA GPU配置与运行信息参考"),
    ],
)
def test_vendor_info_is_complete(vendor: str, zh_report_title: str) -> None:
    info = load(vendor).perf_vendor_info()
    assert isinstance(info, VendorInfo)
    assert info.name == vendor
    assert info.report_title.zh == zh_report_title
    assert info.title.zh
    assert info.report_title.en.startswith(info.title.en)
    assert info.visible_devices_env
    assert len({device.name for device in info.known_devices}) == len(info.known_devices)


@pytest.mark.parametrize(
    ("vendor", "reported", "short"),
    [
        ("kunlunxin", "R300", "R300"),
        ("kunlunxin", "P800 OAM", "P800"),
        ("metax", "MetaX C500", "MXC500"),
        ("metax", "MXC500", "MXC500"),
        ("nvidia", "NVIDIA A100-SXM4-40GB", "A100"),
        ("nvidia", "NVIDIA H200", "H200"),
        ("nvidia", "NVIDIA T4", "NVIDIA T4"),
    ],
)
def test_reported_name_has_a_short_name(vendor: str, reported: str, short: str) -> None:
    assert load(vendor).perf_vendor_info().short_name(reported) == short


@pytest.mark.parametrize("vendor", VENDORS)
def test_plugin_and_probe_leave_the_process_unchanged(vendor: str) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", SIDE_EFFECTS.format(vendor=vendor)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert (run.stdout.strip(), run.stderr) == ("", "")


@pytest.mark.parametrize(("vendor", "vendor_id"), [("kunlunxin", "0x1d22"), ("metax", "0x9999"), ("nvidia", "0x10de")])
def test_probe_of_this_machine_says_what_it_looked_for(vendor: str, vendor_id: str) -> None:
    result = load(vendor).perf_probe()
    assert isinstance(result, ProbeResult)
    if result.available:
        pytest.skip(f"this machine has the card: {result.reason}")
    assert re.search(rf"{vendor_id}|PCI lists", result.reason)
    assert "/sys/bus/pci/devices" in result.reason or "PCI lists" in result.reason


def test_no_probe_claims_a_machine_without_cards(tmp_path: Path) -> None:
    for vendor in VENDORS:
        result = importlib.import_module(f"chipperf_{vendor}.probe").probe(tmp_path)
        assert not result.available
        assert f"none of the 0 PCI devices under {tmp_path}" in result.reason

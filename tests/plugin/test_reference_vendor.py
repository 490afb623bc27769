"""The reference goes the way of every vendor: entry point, probe in a child process, bound session."""

from pathlib import Path

import pytest
from chipperf import Capability, Rank
from chipperf.errors import VendorSelectionError
from chipperf.plugin import installed
from chipperf.plugin.installed import REFERENCE_VENDOR, VENDOR_GROUP, find_vendor
from chipperf.plugin.selection import select_vendor
from chipperf.plugin.session import bind

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

CORE = Path(__file__).parents[2] / "core" / "pyproject.toml"


@pytest.fixture
def reference(plugins, tmp_path, monkeypatch):
    """The reference alone, provided by the entry points that core's pyproject.toml declares."""
    project = tomllib.loads(CORE.read_text(encoding="utf-8"))["project"]
    points = project["entry-points"][VENDOR_GROUP]
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    site = tmp_path / "core"
    plugins.distribution("chipperf", f"[{VENDOR_GROUP}]\n{lines}", version=project["version"], root=site)
    monkeypatch.syspath_prepend(site)
    return find_vendor(REFERENCE_VENDOR)


def test_reference_runs_when_asked_for_and_is_never_chosen(reference):
    assert select_vendor(REFERENCE_VENDOR).entry == reference
    assert [entry.name for entry in installed.vendors()] == [REFERENCE_VENDOR]
    with pytest.raises(VendorSelectionError, match="no vendor plugin is installed") as caught:
        select_vendor()
    assert "never chosen automatically" in caught.value.hint


def test_reference_fulfils_the_whole_specification(reference):
    session = bind(reference)
    device = session.device_init(Rank())

    assert session.vendor_info().device_type == device.type == "cpu"
    assert session.load_runtime().torch
    assert session.memory_query(device).total_bytes == session.device_info(device).total_bytes
    assert session.precision("fp32", device).effective == "fp32"
    assert session.has("perf_distributed_setup") == (Capability.DISTRIBUTED in session.vendor_info().capabilities)
    session.synchronize(device)
    session.device_teardown(device)

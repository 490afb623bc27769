"""Fake distributions: a module and a hand-written dist-info, found through the real entry-point machinery."""

import importlib
import itertools
import textwrap

import pytest
from chipperf.plugin import installed
from support import FakeDistributions, forget_modules

HEAD = """
import chipperf
from chipperf import hookimpl
"""

REQUIRED_HOOKS = {
    "perf_vendor_info": """
        @hookimpl
        def perf_vendor_info():
            title = chipperf.Title(zh="测试", en="Test")
            info = dict(name={name!r}, title=title, report_title=title, device_type="cpu")
            return chipperf.VendorInfo(**{{**info, **dict({info})}})
        """,
    "perf_probe": """
        @hookimpl
        def perf_probe():
            device = chipperf.ProbedDevice(index=0, name="A1")
            return chipperf.ProbeResult(available=True, reason="one A1", devices=(device,))
        """,
    "perf_load_runtime": """
        @hookimpl
        def perf_load_runtime():
            return chipperf.RuntimeInfo(torch="2.9", sdk="acme 3")
        """,
    "perf_device_init": """
        @hookimpl
        def perf_device_init(rank):
            import torch
            return torch.device("cpu")
        """,
    "perf_device_info": """
        @hookimpl
        def perf_device_info(device):
            return chipperf.DeviceInfo(index=0, name="A1", total_bytes=2**30)
        """,
    "perf_synchronize": """
        calls = []

        @hookimpl
        def perf_synchronize(device):
            calls.append(("synchronize", device))
        """,
    "perf_memory_query": """
        @hookimpl
        def perf_memory_query(device):
            return chipperf.MemoryStats(source="acme library", used_bytes=5, total_bytes=10)
        """,
    "perf_memory_reset_peak": """
        @hookimpl
        def perf_memory_reset_peak(device):
            calls.append(("reset", device))
        """,
}

UNAVAILABLE = """
@hookimpl
def perf_probe():
    return chipperf.ProbeResult(available=False, reason="no /dev/acme0: load the acme kernel module")
"""


class FakePlugins:
    """Distributions in a directory that is first on ``sys.path``."""

    unavailable = UNAVAILABLE
    _numbers = itertools.count()

    def __init__(self, root):
        self.root = root

    def distribution(self, name, entry_points="", *, version="1.2", root=None):
        """Write a dist-info, without a module."""
        FakeDistributions(root or self.root).add(name, entry_points, version=version)
        importlib.invalidate_caches()

    def plugin(self, name, source, *, group=installed.VENDOR_GROUP, distribution=None, version="1.2"):
        """Write a module and the distribution that provides it, and return the entry that should be found."""
        # Python caches modules by name, so every one of a test run has its own.
        module = f"fake_{name}_{next(self._numbers)}"
        (self.root / f"{module}.py").write_text(HEAD + textwrap.dedent(source))
        distribution = distribution or f"perf-{name}"
        self.distribution(distribution, f"[{group}]\n{name} = {module}\n", version=version)
        return installed.PluginEntry(group=group, name=name, value=module, distribution=distribution, version=version)

    def vendor(self, name="acme", *, info="", distribution=None, version="1.2", **changes):
        """Write a vendor with every required hook.

        ``info`` is Python for keyword arguments of VendorInfo. ``perf_x="source"`` replaces or adds a hook and
        ``perf_x=None`` leaves it out; any other name adds source too.
        """
        hooks = {**REQUIRED_HOOKS, **changes}
        hooks["perf_vendor_info"] = hooks["perf_vendor_info"].format(name=name, info=info)
        source = "\n".join(textwrap.dedent(code) for code in hooks.values() if code)
        return self.plugin(name, source, distribution=distribution, version=version)

    def observer(self, name, source):
        """Write an observer."""
        return self.plugin(name, source, group=installed.OBSERVER_GROUP)


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Fake distributions, and no others: what is really installed is hidden behind empty distributions of its name."""
    fakes = FakePlugins(tmp_path / "site")
    fakes.root.mkdir()
    present = {entry.distribution for entry in (*installed.vendors(), *installed.observers())}
    monkeypatch.syspath_prepend(fakes.root)
    for distribution in present:
        fakes.distribution(distribution, version="0")
    monkeypatch.delenv(installed.VENDOR_VARIABLE, raising=False)
    yield fakes
    forget_modules(fakes.root)

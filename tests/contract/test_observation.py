"""What an import leaves behind is noticed, one thing at a time; the mutants cover the usual ones."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest
from chipperf.contract import plugin_side_effects
from chipperf.contract.isolation import CallOutcome, call_in_new_interpreter
from chipperf.plugin.installed import PluginEntry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOOKS = """
from chipperf import ProbeResult, Title, VendorInfo, hookimpl

@hookimpl
def perf_vendor_info():
    title = Title(zh="t", en="t")
    return VendorInfo(name="board", title=title, report_title=title, device_type="board")

@hookimpl
def perf_probe():
    return ProbeResult(available=False, reason="none")
"""


@pytest.fixture
def observe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CallOutcome]:
    def call(function: Callable[..., object], code: str) -> CallOutcome:
        (tmp_path / "board_plugin.py").write_text(code + HOOKS)
        monkeypatch.syspath_prepend(tmp_path)
        entry = PluginEntry(
            group="chipperf.vendors", name="board", value="board_plugin", distribution="board", version="1"
        )
        return call_in_new_interpreter(function, asdict(entry), timeout_s=60)

    return call


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("import os; os.chdir('/')", "its import changes the working directory to /"),
        ("import sys; sys.path.append('/opt/board')", "its import changes sys.path: /opt/board"),
        ("import sys; sys.path[:] = sys.path[::-1]", "its import changes sys.path: its order"),
        ("import sys; sys.meta_path.append(object())", "its import changes sys.meta_path or sys.path_hooks"),
        ("import io, sys; sys.stderr = io.StringIO()", "its import replaces sys.stderr"),
        ("import sys, types; sys.modules['json'] = types.ModuleType('json')", "its import replaces modules: json"),
        ("import os; os.write(1, b'hello')", "its import prints 'hello' to standard output"),
    ],
)
def test_change_is_observed(observe: Callable[..., CallOutcome], code: str, change: str) -> None:
    outcome = observe(plugin_side_effects.observe_changes, code)
    assert outcome.fault is None
    assert len(outcome.value) == 1
    assert outcome.value[0].startswith(change)


def test_quiet_plugin_changes_nothing(observe: Callable[..., CallOutcome]) -> None:
    code = "import threading\nthread = threading.Thread(target=int)\nthread.start()\nthread.join()\n"
    assert observe(plugin_side_effects.observe_changes, code).value == []


def test_loaded_modules_and_libraries_are_observed(observe: Callable[..., CallOutcome]) -> None:
    outcome = observe(plugin_side_effects.observe_import, "import colorsys, ctypes\nctypes.CDLL('libc.so.6')\n")
    assert {"board_plugin", "colorsys"} <= set(outcome.value["modules"])
    assert "chipperf.plugin.session" not in outcome.value["modules"]
    assert outcome.value["libraries"] == ["libc.so.6"]


def test_first_registration_that_fails_is_no_repetition(observe: Callable[..., CallOutcome]) -> None:
    outcome = observe(plugin_side_effects.register_again, "raise RuntimeError('always')\n")
    assert outcome.fault is not None
    assert "RuntimeError: always" in outcome.fault

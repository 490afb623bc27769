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
        ("import os; os.chdir('/')", "its import changes: the working directory"),
        ("import sys; sys.path.append('/opt/board')", "its import changes: sys.path"),
        ("import sys; sys.path[:] = sys.path[::-1]", "its import changes: sys.path"),
        ("import sys; sys.meta_path.append(object())", "its import changes: import hooks"),
        ("import io, sys; sys.stderr = io.StringIO()", "its import replaces: sys.stderr"),
        ("import sys, types; sys.modules['json'] = types.ModuleType('json')", "its import replaces modules: json"),
        ("import os; os.write(1, b'hello')", "its import prints 'hello'"),
        ("import os; os.write(2, b'hello')", "its import prints 'hello'"),
        ("import locale; locale.setlocale(locale.LC_ALL, 'C.UTF-8')", "its import changes: the locale"),
        ("import os; os.umask(0o077)", "its import changes: the umask"),
        ("import gc; gc.disable()", "its import changes: the garbage collection"),
        ("import socket; socket.setdefaulttimeout(5)", "its import changes: the time-out of sockets"),
        ("import resource as r; r.setrlimit(r.RLIMIT_CORE, (0, 0))", "its import changes: limits of the process"),
        ("import logging; logging.disable()", "its import changes the logging of: all loggers"),
        (
            "import logging; logging.getLogger('b').addHandler(logging.StreamHandler())",
            "its import changes the logging of: b",
        ),
        ("import sys; sys.excepthook = print", "its import replaces functions: sys.excepthook"),
        ("import subprocess; subprocess.Popen.poll = id", "its import replaces functions: subprocess.Popen.poll"),
        ("import os; held = os.open(os.devnull, os.O_RDONLY)", "its import leaves open: /dev/null"),
        ("open('board.log', 'w').close()", "its import leaves or changes files: "),
        ("import tempfile; tempfile.mkdtemp()", "its import leaves or changes files: "),
    ],
)
def test_change_is_observed(observe: Callable[..., CallOutcome], code: str, change: str) -> None:
    outcome = observe(plugin_side_effects.observe_changes, code)
    assert outcome.fault is None
    assert len(outcome.value) == 1
    assert outcome.value[0].startswith(change)


def test_quiet_plugin_changes_nothing(observe: Callable[..., CallOutcome]) -> None:
    code = """
import logging, tempfile, threading
logging.getLogger(__name__).addHandler(logging.NullHandler())
with tempfile.TemporaryDirectory() as directory:
    open(f"{directory}/board", "w").close()
thread = threading.Thread(target=int)
thread.start()
thread.join()
"""
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

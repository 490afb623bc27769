"""Reading a plugin's source without importing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chipperf.contract.plugin_source import named_templates, private_names, source_files
from chipperf.plugin.installed import PluginEntry, find_vendor

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from chipperf.plugin.session import _add_source", ["line 1: chipperf.plugin.session._add_source"]),
        ("import chipperf._secret", ["line 1: chipperf._secret"]),
        ("import os\nimport chipperf.plugin.session as s\ns._fail()", ["line 3: chipperf.plugin.session._fail"]),
        ("from chipperf import hardware as h\nx = h._kill", ["line 2: chipperf.hardware._kill"]),
        ('import_module("chipperf.cases._torch")', ["line 1: chipperf.cases._torch"]),
        ("from chipperf import VendorInfo, __version__\nVendorInfo.__doc__", []),
        ("from chipperf_acme._board import _probe\nfrom . import _x\nfrom ._y import _z", []),
        ("class A:\n    _x = 1\nA._x", []),
        ('"see chipperf.cases._torch for more"', []),
    ],
)
def test_private_names(source: str, expected: list[str]) -> None:
    assert private_names(source) == expected


def test_named_templates_are_whole_strings() -> None:
    source = '"""Renders report.md.j2"""\nA = "report.md.j2"\nB = f"{A}.{A}.md.j2"\nC = "*.j2"\n'
    assert named_templates(source) == ["report.md.j2"]


def test_source_of_a_plugin_is_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("board/__init__.py", "board/hooks/plugin.py", "lone.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)

    def found(module: str) -> list[str]:
        entry = PluginEntry(group="g", name="board", value=module, distribution="d", version="1")
        return [str(path.relative_to(tmp_path)) for path in source_files(entry)]

    assert found("board.hooks.plugin") == ["board/__init__.py", "board/hooks/plugin.py"]
    assert found("lone") == ["lone.py"]
    assert found("absent_board.plugin") == []


def test_source_of_a_plugin_in_core_is_not_all_of_core() -> None:
    assert {path.parent.name for path in source_files(find_vendor("cpu"))} == {"vendors"}

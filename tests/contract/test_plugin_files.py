"""Reading what a plugin's distribution and source say, without importing it."""

from __future__ import annotations

from importlib.metadata import Distribution, PathDistribution
from typing import TYPE_CHECKING

import pytest
from chipperf.contract.plugin_files import (
    importable_names,
    imposed,
    license_files,
    named_templates,
    private_names,
    requirements,
    source_files,
)
from chipperf.plugin.installed import PluginEntry, find_vendor

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def distribution(site: Path, *lines: str, record: Iterable[str] | None = (), **files: str) -> Distribution:
    folder = site / "board-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", "Name: board", "Version: 1.0", *lines]) + "\n")
    for name, text in files.items():
        (folder / name).write_text(text)
    if record is not None:
        (folder / "RECORD").write_text("".join(f"{name},,\n" for name in record))
    return PathDistribution(folder)


@pytest.mark.parametrize(
    ("text", "lower", "upper"),
    [
        ("chipperf<1,>=0.1", True, True),
        ("chipperf (>=0.1,<1)", True, True),
        ("ChipPerf[train]~=0.1", True, True),
        ("chipperf == 0.1.*", True, True),
        ("chipperf>0.1,<=0.9", True, True),
        ("chipperf>=0.1", True, False),
        ("chipperf<1", False, True),
        ("chipperf!=0.3", False, False),
        ("chipperf", False, False),
        ("chipperf @ file:///src/chipperf", False, False),
    ],
)
def test_bounds_of_a_requirement(tmp_path: Path, text: str, lower: bool, upper: bool) -> None:
    (found,) = requirements(distribution(tmp_path, f"Requires-Dist: {text}"))
    assert found.name == "chipperf"
    assert (found.has_lower_bound, found.has_upper_bound, found.optional) == (lower, upper, False)


def test_requirement_of_an_extra_is_optional(tmp_path: Path) -> None:
    found = requirements(
        distribution(tmp_path, "Requires-Dist: tomli>=2; python_version < '3.11'", "Requires-Dist: torch; extra == 'x'")
    )
    assert [(each.name, each.optional) for each in found] == [("tomli", False), ("torch", True)]


def test_importable_names_follow_requirements_but_not_extras(tmp_path: Path) -> None:
    record = [
        "board/__init__.py",
        "_board.cpython-311-x86_64-linux-gnu.so",
        "../../bin/board",
        "board-1.0.dist-info/RECORD",
    ]
    names = importable_names(
        distribution(tmp_path, "Requires-Dist: pluggy", "Requires-Dist: pytest; extra == 'test'", record=record)
    )
    assert {"board", "_board", "pluggy"} <= names
    assert not {"pytest", "bin", "", "..", "board-1"} & names


def test_importable_names_of_an_editable_installation(tmp_path: Path) -> None:
    source = tmp_path / "project" / "src"
    (source / "board_tools").mkdir(parents=True)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "_board.pth").write_text(f"import sys\n{source}\n")
    assert importable_names(distribution(tmp_path / "site", record=["_board.pth"])) == {"board_tools"}


def test_importable_names_without_a_list_of_files_are_guessed(tmp_path: Path) -> None:
    assert importable_names(distribution(tmp_path, record=None)) == {"board"}


@pytest.mark.parametrize(
    ("line", "beside", "expected"),
    [
        ("import __editable___board_finder; __editable___board_finder.install()", "board", []),
        ("{source}", "torch", []),
        ("{source}", "sitecustomize.py", ["sitecustomize"]),
        ("import board.start", "board", ["_board.pth, which runs code"]),
    ],
)
def test_what_a_path_file_imposes(tmp_path: Path, line: str, beside: str, expected: list[str]) -> None:
    source = tmp_path / "src"
    (source / beside).mkdir(parents=True)
    (tmp_path / "_board.pth").write_text(line.format(source=source) + "\n")
    provider = distribution(tmp_path, record=["_board.pth", "board/__init__.py", "../../bin/torch"])
    assert imposed(provider, {"torch"}) == expected


def test_licence_is_one_that_is_there_and_belongs_to_the_metadata(tmp_path: Path) -> None:
    files = ("LICENCE.txt", "LICENSE", "COPYING")
    record = [*(f"board-1.0.dist-info/{file}" for file in files), "board/license.py"]
    found = license_files(distribution(tmp_path, record=record, COPYING="text", LICENSE=""))
    assert found == [tmp_path / "board-1.0.dist-info" / "COPYING"]


def test_licence_is_unknown_without_a_list_of_files(tmp_path: Path) -> None:
    assert license_files(distribution(tmp_path, record=None, LICENSE="text")) is None


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from chipperf.plugin.session import _add_source", ["line 1: chipperf.plugin.session._add_source"]),
        ("import chipperf._secret", ["line 1: chipperf._secret"]),
        ("import os\nimport chipperf.plugin.session as s\ns._fail()", ["line 3: chipperf.plugin.session._fail"]),
        ("from chipperf import hardware as h\nx = h._kill", ["line 2: chipperf.hardware._kill"]),
        ("import chipperf.hardware\nchipperf.hardware._kill", ["line 2: chipperf.hardware._kill"]),
        ("from chipperf import hardware\ngetattr(hardware, '_kill')", ["line 2: chipperf.hardware._kill"]),
        ("from chipperf import hardware\nsetattr(hardware, 'PCI_ROOT', None)", []),
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

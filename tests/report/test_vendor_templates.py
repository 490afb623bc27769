"""Where a vendor plugin's templates are found, without importing the plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chipperf.plugin.installed import PluginEntry, find_vendor
from chipperf.report.render import template_directory

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("board.plugin", "board/templates"),
        ("board.hooks.vendor.plugin", "board/templates"),
        ("board:plugin", "board/templates"),
        ("bare.plugin", None),
        ("lone", None),
        ("absent_board.plugin", None),
    ],
)
def test_templates_lie_in_the_top_level_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, expected: str | None
) -> None:
    for name in ("board/__init__.py", "bare/__init__.py", "lone.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise RuntimeError('imported')\n")
    (tmp_path / "board" / "templates").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    entry = PluginEntry(group="chipperf.vendors", name="board", value=module, distribution="board", version="1")
    assert template_directory(entry) == (tmp_path / expected if expected else None)


def test_templates_of_core_are_not_the_reference_vendors() -> None:
    assert template_directory(find_vendor("cpu")) is None

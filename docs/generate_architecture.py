"""Writes the rooms into docs/architecture.md and its translation: ``python docs/generate_architecture.py``."""

from __future__ import annotations

import ast
from pathlib import Path

from chipperf.toml import parse_toml
from marked_list import markdown, with_lists

PAGE = Path(__file__).with_name("architecture.md")
TRANSLATION = PAGE.parent / "zh" / PAGE.name
ROOT = PAGE.parents[1]
CORE = ROOT / "core" / "src" / "chipperf"


def page(path: Path = PAGE) -> str:
    """Return the content of the page or of its translation: what it says now, with the rooms and rules of today."""
    return with_lists(path, Path(__file__).name, {"rooms": _rooms(), "rules": _rules()})


def _contracts() -> list[dict[str, object]]:
    project = parse_toml((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts: list[dict[str, object]] = project["tool"]["importlinter"]["contracts"]
    return contracts


def _rooms() -> str:
    (layers,) = (each["layers"] for each in _contracts() if each["type"] == "layers")
    rows = [
        f"| {level} | `{room}` | {_purpose(room)} |"
        for level, layer in enumerate(layers, 1)  # type: ignore[arg-type]
        for room in layer.split(" | ")
    ]
    return "\n".join(["| Layer | Room | What it holds |", "| --- | --- | --- |", *rows]) + "\n"


def _purpose(room: str) -> str:
    file = CORE / room / "__init__.py" if (CORE / room).is_dir() else CORE / f"{room}.py"
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return markdown(docstring.partition("\n\n")[0].replace("\n", " "))


def _rules() -> str:
    return "".join(f"* {each['name']}.\n" for each in _contracts())


if __name__ == "__main__":
    for written in (PAGE, TRANSLATION):
        written.write_text(page(written), encoding="utf-8")

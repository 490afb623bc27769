"""How the code base is built, in figures: ``python tests/structure/structure.py`` prints them as a table."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core" / "src" / "chipperf"
VENDORS = ("kunlunxin", "metax", "nvidia")


def sources(directory: Path) -> list[Path]:
    """Return the Python files of a directory, without tests."""
    return sorted(path for path in directory.rglob("*.py") if "tests" not in path.relative_to(ROOT).parts)


def shipped() -> list[Path]:
    """Return the Python files of core and of all plugins."""
    return sources(CORE) + sources(ROOT / "plugins")


def count_lines(paths: list[Path]) -> int:
    """Return the number of lines of files."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def classes() -> Iterator[tuple[str, Path, int]]:
    """Yield name, file and number of lines of every class."""
    for path in shipped():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                yield node.name, path, (node.end_lineno or node.lineno) - node.lineno + 1


def shared_class_names() -> dict[str, list[str]]:
    """Return the public class names that several files define, with these files."""
    return _several((name, path) for name, path, _ in classes() if not name.startswith("_"))


def shared_file_names() -> dict[str, list[str]]:
    """Return the names of files that core or plugins have several times, with these files.

    Files that are the same part of several packages are no second meaning: ``__init__.py``, the parts of vendors'
    plugins, the parts of each kind of case.
    """
    parallel = {"__init__.py", "case.py", "hyperparameters.py", "workload.py"}
    found = _several((path.name, path) for path in sources(CORE) if path.name not in parallel)
    vendors = {path.name for vendor in VENDORS for path in sources(ROOT / "plugins" / vendor)}
    for name in sorted({path.name for path in sources(CORE)} & vendors - parallel):
        found.setdefault(name, [name])
    return found


def files_that_mention(word: str) -> list[Path]:
    """Return the files of core, plugins and templates in which a word stands."""
    templates = [path for path in (ROOT / "templates").rglob("*") if path.is_file()]
    return [path for path in shipped() + templates if word in path.read_text(encoding="utf-8")]


def _several(found: Iterator[tuple[str, Path]]) -> dict[str, list[str]]:
    places: Mapping[str, list[str]] = defaultdict(list)
    for name, path in found:
        places[name].append(str(path.relative_to(ROOT)))
    return {name: paths for name, paths in sorted(places.items()) if len(paths) > 1}


def table() -> str:
    """Return the figures as Markdown."""
    largest = max((lines, f"{path.stem}.{name}") for name, path, lines in classes())
    rows = {
        "modules at the root of chipperf": len([path for path in CORE.glob("*.py") if path.name != "__init__.py"]),
        "files of core": len(sources(CORE)),
        "lines of core": count_lines(sources(CORE)),
        **{f"lines of {vendor}": count_lines(sources(ROOT / "plugins" / vendor)) for vendor in VENDORS},
        "lines of tests": count_lines([*(ROOT / "tests").rglob("*.py"), *ROOT.glob("plugins/*/tests/**/*.py")]),
        "largest class": f"{largest[1]}, {largest[0]} lines",
        "class names with several meanings": len(shared_class_names()),
        "file names with several meanings": len(shared_file_names()),
        "files that mention p_core": len(files_that_mention("p_core")),
    }
    return "\n".join(["| Measure | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])


if __name__ == "__main__":
    print(table())

"""What a plugin's distribution and source say, read without importing the plugin.

The functions work for installed wheels and for editable installations.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from chipperf.plugin.installed import CORE_PACKAGE, PluginEntry, normal_name, package_directory

_REQUIREMENT: Final = re.compile(r"\s*(?P<name>[\w.-]+)\s*(\[[^\]]*\])?\s*(?P<rest>[^;]*)(;(?P<marker>.*))?")
_LOWER: Final = re.compile(r"(>=|>|==|~=)\s*\d")
_UPPER: Final = re.compile(r"(<=|<(?!=)|==|~=)\s*\d")
_LICENCE: Final = re.compile(r"(licen[cs]e|copying)", re.IGNORECASE)

_OF_CORE: Final = re.compile(rf"{CORE_PACKAGE}(\.|$)")
_MODULE_OF_CORE: Final = re.compile(rf"{CORE_PACKAGE}(\.\w+)+")
_PRIVATE: Final = re.compile(r"(^|\.)_(?!_)")
_TEMPLATE: Final = re.compile(r"[\w./-]+\.j2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """A distribution that another one requires, by its normal name. It is optional if only an extra requires it."""

    name: str
    has_lower_bound: bool
    has_upper_bound: bool
    optional: bool


def requirements(of: Distribution) -> list[Requirement]:
    """Return the requirements of a distribution."""
    return [
        Requirement(
            name=normal_name(match["name"]),
            has_lower_bound=_LOWER.search(match["rest"]) is not None,
            has_upper_bound=_UPPER.search(match["rest"]) is not None,
            optional="extra" in (match["marker"] or ""),
        )
        for match in map(_REQUIREMENT.match, of.requires or ())
        if match
    ]


def importable_names(of: Distribution) -> set[str]:
    """Return the top-level modules and packages of a distribution and of everything it requires."""
    names: set[str] = set()
    pending, seen = [of], {normal_name(of.metadata["Name"])}
    while pending:
        current = pending.pop()
        names |= _top_level_names(current)
        for requirement in requirements(current):
            if not requirement.optional and requirement.name not in seen:
                seen.add(requirement.name)
                try:
                    pending.append(distribution(requirement.name))
                except PackageNotFoundError:
                    # This platform or version of Python does not need it.
                    continue
    return names


def license_files(of: Distribution) -> list[Path] | None:
    """Return the license files of a distribution; ``None`` if its installation does not list its files (no RECORD)."""
    if of.files is None:
        return None
    metadata = [file for file in of.files if file.parts[0].endswith(".dist-info")]
    candidates = [Path(str(of.locate_file(file))) for file in metadata if _LICENCE.match(file.name)]
    return [path for path in candidates if path.is_file()]


def _top_level_names(of: Distribution) -> set[str]:
    names = set((of.read_text("top_level.txt") or "").split())
    for file in of.files or ():
        first = file.parts[0]
        if first.endswith(".pth"):
            names |= _names_beside(Path(str(of.locate_file(file))))
        elif not first.startswith(("..", "__pycache__")) and not first.endswith((".dist-info", ".data")):
            names.add(first.partition(".")[0])
    return names or {of.metadata["Name"].replace("-", "_")}


def _names_beside(path_file: Path) -> set[str]:
    """Return the names in the directories that an editable installation adds to the path."""
    lines = path_file.read_text(encoding="utf-8").splitlines() if path_file.is_file() else []
    directories = [Path(line) for line in lines if line and not line.startswith(("import ", "#"))]
    return {entry.name.partition(".")[0] for each in directories if each.is_dir() for entry in each.iterdir()}


def source_files(entry: PluginEntry) -> tuple[Path, ...]:
    """Return the Python files of a plugin's package or, if it has none, of its module; empty if there is no source."""
    directory = package_directory(entry)
    if directory is not None:
        return tuple(sorted(directory.rglob("*.py")))
    module = entry.value.partition(":")[0]
    spec = None if "." in module else find_spec(module)
    path = Path(spec.origin) if spec and spec.origin else None
    return (path,) if path is not None and path.suffix == ".py" else ()


def private_names(source: str) -> list[str]:
    """Return each use of a private name of core in Python source, as ``line N: NAME``."""
    nodes = list(ast.walk(ast.parse(source)))
    uses: set[tuple[int, str]] = set()
    meanings: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _OF_CORE.match(alias.name):
                    uses.add((node.lineno, alias.name))
                    meanings[alias.asname or CORE_PACKAGE] = alias.name if alias.asname else CORE_PACKAGE
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and _OF_CORE.match(node.module or ""):
            for alias in node.names:
                uses.add((node.lineno, f"{node.module}.{alias.name}"))
                meanings[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _MODULE_OF_CORE.fullmatch(node.value):
            # For example the argument of importlib.import_module.
            uses.add((node.lineno, node.value))
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in meanings:
            uses.add((node.lineno, f"{meanings[node.value.id]}.{node.attr}"))
    return [f"line {line}: {name}" for line, name in sorted(uses) if _PRIVATE.search(name)]


def named_templates(source: str) -> list[str]:
    """Return the names of templates in Python source: complete strings that end in ``.j2``."""
    nodes = list(ast.walk(ast.parse(source)))
    pieces = {id(value) for node in nodes if isinstance(node, ast.JoinedStr) for value in node.values}
    strings = (node.value for node in nodes if isinstance(node, ast.Constant) and id(node) not in pieces)
    return [text for text in strings if isinstance(text, str) and _TEMPLATE.fullmatch(text)]

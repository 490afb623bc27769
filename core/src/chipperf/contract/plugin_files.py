"""What a plugin's distribution and source say, read without importing the plugin.

The functions work for installed wheels and for editable installations.
"""

from __future__ import annotations

import ast
import re
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chipperf.plugin.installed import CORE_PACKAGE, PluginEntry, normal_name, package_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

_REQUIREMENT: Final = re.compile(
    r"\s*(?P<name>[\w.-]+)\s*(\[(?P<extras>[^\]]*)\])?\s*(?P<rest>[^;]*)(;(?P<marker>.*))?"
)
_EXTRA: Final = re.compile(r"""extra\s*==\s*["']([\w.-]+)["']""")
_LOWER: Final = re.compile(r"(>=|>|==|~=)\s*\d")
_UPPER: Final = re.compile(r"(<=|<(?!=)|==|~=)\s*\d")
_LICENCE: Final = re.compile(r"(licen[cs]e|copying)", re.IGNORECASE)

_AT_START: Final = {"sitecustomize", "usercustomize"}
"""Modules that Python imports when it starts."""


_OF_CORE: Final = re.compile(rf"{CORE_PACKAGE}(\.|$)")
_MODULE_OF_CORE: Final = re.compile(rf"{CORE_PACKAGE}(\.\w+)+")
_PRIVATE: Final = re.compile(r"(^|\.)_(?!_)")
_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9_]{2,}")
_TEMPLATE: Final = re.compile(r"[\w./-]+\.j2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """A distribution that another one requires, by its normal name, with the ``extras`` of that one.

    It is ``optional`` if only an extra requires it.
    """

    name: str
    extras: frozenset[str]
    has_lower_bound: bool
    has_upper_bound: bool
    optional: bool


def requirements(of: Distribution, extras: frozenset[str] = frozenset()) -> list[Requirement]:
    """Return the requirements of a distribution. Those of its ``extras`` are not optional."""
    return [
        Requirement(
            name=normal_name(match["name"]),
            extras=frozenset(map(str.strip, (match["extras"] or "").split(","))),
            has_lower_bound=_LOWER.search(match["rest"]) is not None,
            has_upper_bound=_UPPER.search(match["rest"]) is not None,
            optional="extra" in (match["marker"] or "") and not extras & set(_EXTRA.findall(match["marker"])),
        )
        for match in map(_REQUIREMENT.match, of.requires or ())
        if match
    ]


def required_distributions(of: Distribution) -> dict[str, Distribution | None]:
    """Return by its normal name everything that a distribution requires, also indirectly; ``None`` if not installed."""
    found: dict[str, Distribution | None] = {}
    pending: list[tuple[Distribution, frozenset[str]]] = [(of, frozenset())]
    while pending:
        for requirement in requirements(*pending.pop()):
            if not requirement.optional and requirement.name not in found:
                found[requirement.name] = None
                # This platform or version of Python may not need it.
                with suppress(PackageNotFoundError):
                    required = distribution(requirement.name)
                    found[requirement.name] = required
                    pending.append((required, requirement.extras))
    return found


def importable_names(of: Distribution) -> set[str]:
    """Return the top-level modules and packages of a distribution and of everything it requires."""
    return set().union(*map(_top_level_names, filter(None, (of, *required_distributions(of).values()))))


def license_files(of: Distribution) -> list[Path] | None:
    """Return the license files of a distribution that are not empty; ``None`` if there is no list of its files."""
    if of.files is None:
        return None
    metadata = [file for file in of.files if file.parts[0].endswith(".dist-info")]
    candidates = [Path(str(of.locate_file(file))) for file in metadata if _LICENCE.match(file.name)]
    return [path for path in candidates if path.is_file() and path.stat().st_size]


def imposed(of: Distribution, others: set[str]) -> list[str]:
    """Return what a distribution makes every Python process run, and its modules that are those of ``others``."""
    files = of.files or ()
    found = {file.parts[0].partition(".")[0] for file in files} & (_AT_START | others)
    for path in (Path(str(of.locate_file(file))) for file in files if len(file.parts) == 1 and file.suffix == ".pth"):
        found |= _names_beside(path) & _AT_START
        # The finder of an editable installation.
        if path.is_file() and any(
            line.startswith(("import ", "import\t")) and "editable" not in line
            for line in path.read_text(encoding="utf-8").splitlines()
        ):
            found.add(f"{path.name}, which runs code")
    return sorted(found)


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
        if isinstance(node, ast.Attribute) and (owner := _meaning(node.value, meanings)):
            uses.add((node.lineno, f"{owner}.{node.attr}"))
        elif isinstance(node, ast.Call) and len(node.args) > 1:
            # getattr, setattr and others take an object and a name.
            owner, name = _meaning(node.args[0], meanings), node.args[1]
            if owner and isinstance(name, ast.Constant) and isinstance(name.value, str):
                uses.add((node.lineno, f"{owner}.{name.value}"))
    return [f"line {line}: {name}" for line, name in sorted(uses) if _PRIVATE.search(name)]


def _meaning(node: ast.expr, meanings: Mapping[str, str]) -> str | None:
    """Return the dotted name that an expression has in core, or ``None`` if it is nothing of core's."""
    if isinstance(node, ast.Attribute):
        owner = _meaning(node.value, meanings)
        return owner and f"{owner}.{node.attr}"
    return meanings.get(node.id) if isinstance(node, ast.Name) else None


def named_variables(source: str) -> list[str]:
    """Return the texts in Python source that may be names of environment variables."""
    nodes = ast.walk(ast.parse(source))
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [text for text in texts if _VARIABLE.fullmatch(text)]


def named_templates(source: str) -> list[str]:
    """Return the names of templates in Python source: complete strings that end in ``.j2``."""
    nodes = list(ast.walk(ast.parse(source)))
    pieces = {id(value) for node in nodes if isinstance(node, ast.JoinedStr) for value in node.values}
    strings = (node.value for node in nodes if isinstance(node, ast.Constant) and id(node) not in pieces)
    return [text for text in strings if isinstance(text, str) and _TEMPLATE.fullmatch(text)]

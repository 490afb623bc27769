"""Reading a plugin's source without importing it: private names of core, and names of templates."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from chipperf.plugin.installed import CORE_PACKAGE, package_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.plugin.installed import PluginEntry

_PRIVATE_NAME: Final = re.compile(r"_(?!_)")
_MODULE_OF_CORE: Final = re.compile(rf"{CORE_PACKAGE}(\.\w+)+")
_TEMPLATE: Final = re.compile(r"[\w./-]+\.j2")


class _Import(NamedTuple):
    """An import from core: the imported name, the name that it is bound to, and the meaning of this name."""

    line: int
    imported: str
    name: str
    meaning: str


def source_files(entry: PluginEntry) -> tuple[Path, ...]:
    """Return the Python files of a plugin's package, or the file of its module if it has no package.

    The result is empty if there is no source.

    See :func:`~chipperf.plugin.installed.package_directory`.
    """
    directory = package_directory(entry)
    if directory is not None:
        return tuple(sorted(directory.rglob("*.py")))
    module = entry.value.partition(":")[0]
    spec = None if "." in module else find_spec(module)
    path = Path(spec.origin) if spec and spec.origin else None
    return (path,) if path is not None and path.suffix == ".py" else ()


def private_names(source: str) -> list[str]:
    """Return each use of a private name of core in Python source, as ``line N: NAME``.

    Raises:
        SyntaxError: The source is not Python.
    """
    tree = ast.parse(source)
    imports = list(_imports_of_core(tree))
    meanings = {each.name: each.meaning for each in imports}
    uses = [(each.line, each.imported) for each in imports]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in meanings:
            uses.append((node.lineno, f"{meanings[node.value.id]}.{node.attr}"))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _MODULE_OF_CORE.fullmatch(node.value):
            # For example the argument of importlib.import_module.
            uses.append((node.lineno, node.value))
    return [f"line {line}: {name}" for line, name in sorted(set(uses)) if _is_private(name)]


def named_templates(source: str) -> list[str]:
    """Return the names of templates in Python source: complete strings that end in ``.j2``.

    Raises:
        SyntaxError: The source is not Python.
    """
    nodes = list(ast.walk(ast.parse(source)))
    pieces = {id(value) for node in nodes if isinstance(node, ast.JoinedStr) for value in node.values}
    strings = (node.value for node in nodes if isinstance(node, ast.Constant) and id(node) not in pieces)
    return [text for text in strings if isinstance(text, str) and _TEMPLATE.fullmatch(text)]


def _imports_of_core(tree: ast.Module) -> Iterator[_Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _is_of_core(alias.name):
                    name, meaning = (alias.asname, alias.name) if alias.asname else (CORE_PACKAGE, CORE_PACKAGE)
                    yield _Import(node.lineno, alias.name, name, meaning)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and _is_of_core(node.module or ""):
            for alias in node.names:
                imported = f"{node.module}.{alias.name}"
                yield _Import(node.lineno, imported, alias.asname or alias.name, imported)


def _is_of_core(module: str) -> bool:
    return module.partition(".")[0] == CORE_PACKAGE


def _is_private(name: str) -> bool:
    return any(_PRIVATE_NAME.match(part) for part in name.split("."))

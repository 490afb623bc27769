"""Reading the configurations next to a report: FlagPerf's Python files and variables, and chipperf's TOML files.

FlagPerf's files are parsed but never run.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from chipperf.documents.markdown import read_text
from chipperf.documents.topology import CardTopology, parse_config_name
from chipperf.errors import ConfigError, DocumentError
from chipperf.toml import parse_toml

_VARIABLE: Final = re.compile(r"^\s*(?:export\s+)?([A-Za-z_]\w*)=([^\s#]*)", re.MULTILINE)
_OPERATORS: Final[Mapping[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


@dataclass(frozen=True, slots=True)
class Assigned:
    """A value of a configuration and its line. The value is ``None`` if its expression is not supported."""

    value: Any
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One configuration file. ``topology`` is ``None`` if the file's name has no topology."""

    path: Path
    topology: CardTopology | None
    values: Mapping[str, Assigned]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigDirectory:
    """All configuration of a vendor's runs of a case: that of one or all topologies, and values common to all.

    ``unreadable`` are the files that are named like a configuration and cannot be loaded, with the reason, and ``base``
    is the case's base configuration, empty if not found.
    """

    path: Path
    configs: tuple[Config, ...]
    common: Mapping[str, Assigned]
    variables: Mapping[str, Assigned]
    unreadable: Mapping[Path, str]
    base: Mapping[str, Assigned]

    def of_topology(self, shape: str) -> list[Config]:
        """Return the configurations for a topology such as ``1x8``. chipperf's TOML files apply to every topology."""
        return [
            config
            for config in self.configs
            if (config.topology.label == shape if config.topology else config.path.suffix == ".toml")
        ]

    def value(self, config: Config, *keys: str) -> Any:
        """Return the value of the first key that a configuration sets, or else that all configurations set."""
        for values in (config.values, self.common):
            value = next((values[key].value for key in keys if key in values), None)
            if value is not None:
                return value
        return None


@lru_cache(maxsize=4096)
def read_configs(path: Path) -> ConfigDirectory:
    """Read a directory of configurations, or one file; a path that does not exist is a :class:`ConfigError`."""
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
    else:
        raise ConfigError(f"there is no configuration at {path}", hint="name a directory or file with --config")
    configs: list[Config] = []
    common: Mapping[str, Assigned] = {}
    variables: Mapping[str, Assigned] = {}
    unreadable: dict[Path, str] = {}
    for file in files:
        if file.name == "environment_variables.sh":
            variables = _values(file, _variables, unreadable)
        elif file.suffix not in (".py", ".toml"):
            if file.name.startswith("config_"):
                unreadable[file] = "its name does not end in .py, so that nothing loads it"
        elif file.name == "config_common.py":
            common = _values(file, _python, unreadable)
        elif file.name not in ("_base.py", "__init__.py"):
            values = _values(file, _toml if file.suffix == ".toml" else _python, unreadable)
            if file not in unreadable:
                configs.append(Config(path=file, topology=parse_config_name(file.stem), values=values))
    return ConfigDirectory(
        path=path,
        configs=tuple(configs),
        common=common,
        variables=variables,
        unreadable=unreadable,
        base=_base(path if path.is_dir() else path.parent),
    )


def _values(
    path: Path, read: Callable[[str], Iterator[tuple[str, Assigned]]], unreadable: dict[Path, str]
) -> Mapping[str, Assigned]:
    try:
        return dict(read(read_text(path)))
    except DocumentError as error:
        unreadable[path] = error.message
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        unreadable[path] = f"{type(error).__name__}: {error}"
    return {}


def _toml(text: str) -> Iterator[tuple[str, Assigned]]:
    lines = text.split("\n")
    for key, value in parse_toml(text).get("hyperparameters", {}).items():
        line = next((number for number, line in enumerate(lines, start=1) if line.strip().startswith(key)), 1)
        yield key, Assigned(value, line)


def _python(text: str) -> Iterator[tuple[str, Assigned]]:
    known: dict[str, Any] = {}
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Assign):
            targets, expression = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets, expression = [statement.target], statement.value
        else:
            continue
        value = _evaluate(expression, known)
        for target in targets:
            if isinstance(target, ast.Name):
                known[target.id] = value
                yield target.id, Assigned(value, statement.lineno)


def _evaluate(node: ast.expr, known: Mapping[str, Any]) -> Any:
    """Return the value of a constant or of simple arithmetic, otherwise ``None``."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        operand = _evaluate(node.operand, known)
        return -operand if isinstance(operand, int | float) else None
    if isinstance(node, ast.BinOp) and (compute := _OPERATORS.get(type(node.op))):
        left, right = _evaluate(node.left, known), _evaluate(node.right, known)
        if isinstance(left, int | float) and isinstance(right, int | float):
            try:
                return compute(left, right)
            except (ArithmeticError, ValueError):
                return None
    return None


def _variables(text: str) -> Iterator[tuple[str, Assigned]]:
    for match in _VARIABLE.finditer(text):
        yield match[1], Assigned(match[2].strip("\"'"), text.count("\n", 0, match.start(1)) + 1)


def _base(directory: Path) -> Mapping[str, Assigned]:
    """Return FlagPerf's base configuration, from ``benchmarks`` next to the vendor's directory."""
    case_directory = directory.absolute().parent
    case, _, framework = case_directory.name.partition("-")
    base = case_directory.parent.parent / "benchmarks" / case / framework / "config" / "_base.py"
    return _values(base, _python, {}) if framework and base.is_file() else {}

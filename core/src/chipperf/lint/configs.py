"""What a tree contains about a case: the configurations beside a report, and the benchmark's base values and keys.

FlagPerf's Python files are parsed but never run. chipperf's TOML files are read as they are.
"""

from __future__ import annotations

import ast
import operator
import os
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chipperf.documents import wording
from chipperf.documents.markdown import read_text
from chipperf.documents.topology import CardTopology, parse_config_name
from chipperf.errors import ConfigError, DocumentError
from chipperf.toml import parse_toml

if TYPE_CHECKING:
    from chipperf.cases.base import Case

NOT_EVALUATED: Final = object()
"""Value of an expression that is not supported."""

BATCH_SIZE_KEYS: Final = ["train_batch_size", "batch_size", "per_device_train_batch_size", "batchsize", "localbs"]
LEARNING_RATE_KEYS: Final = ["lr", "learning_rate"]
EPOCHS_KEYS: Final = ["max_epoch", "max_epochs", "epochs", "epoch", "train_epochs", "num_epochs", "num_train_epochs"]

_VARIABLE: Final = re.compile(r"^\s*(?:export\s+)?([A-Za-z_]\w*)=([^\s#]*)", re.MULTILINE)
_SOURCED: Final = re.compile(r"^\s*(?:source|\.)\s+[\"']?([^\s\"';#]+)", re.MULTILINE)
_UNREAD_VARIABLE: Final = re.compile(
    r"^\s*(?:export|declare|typeset|eval)\b.*?(?<![\w=:\"'}/])[\"']?\$.*", re.MULTILINE
)
_SETS_ANY_KEY: Final = ("__import__", "eval", "exec", "globals", "import_module", "locals", "setattr", "vars")
_ENVIRONMENT: Final = ("putenv", "setdefault", "update")
_TORCH_SWITCHES: Final = ("allow_tf32", "set_float32_matmul_precision", "fp32_precision")
_READ: Final = re.compile(r"""\.([A-Za-z_]\w*)|["']([A-Za-z_]\w*)["']|\$\{?([A-Za-z_]\w*)""")
_SOURCES: Final = (".py", ".sh")
_DECLARATIONS: Final = ("_base.py", "mutable_params.py")
_LARGEST: Final = sys.float_info.max
"""Python's integers may be larger, and take as long to compute as they have digits."""

_OPERATORS: Final[Mapping[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


@dataclass(frozen=True, slots=True)
class Assigned:
    """A value of a configuration, its file and its line. The value may be :data:`NOT_EVALUATED`."""

    value: Any
    path: Path
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One configuration with what it imports. ``topology`` is ``None`` if the file's name has no topology.

    ``unread`` are the lines that may set any key, and ``switches`` the environment variables and the settings of
    torch's arithmetic that it sets.
    """

    path: Path
    topology: CardTopology | None
    values: Mapping[str, Assigned]
    unread: tuple[str, ...] = ()
    switches: tuple[tuple[str, Assigned], ...] = ()

    def unread_line(self, keys: Collection[str], beginning: str = "") -> str | None:
        """Return where it perhaps sets one of several keys, or one with this beginning, to what is not known."""
        for key, assigned in self.values.items():
            is_meant = key in keys or (beginning and key.startswith(beginning))
            if is_meant and assigned.value is NOT_EVALUATED:
                return f"{assigned.path.name}:{assigned.line}"
        return next(iter(self.unread), None)

    def value(self, keys: Sequence[str]) -> Any:
        """Return the first value that the configuration sets. As in FlagPerf, a key set to ``None`` is not set."""
        values = (self.values[key].value for key in keys if key in self.values)
        return next((value for value in values if value is not None), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigDirectory:
    """All configurations of a vendor's runs of a case.

    ``unreadable`` are the files that are named like a configuration and cannot be loaded, with the reason.
    """

    path: Path
    configs: tuple[Config, ...]
    variables: Mapping[str, Assigned]
    unread_variables: tuple[str, ...]
    unreadable: Mapping[Path, str]

    def of_topology(self, shape: str, card: str = "") -> list[Config]:
        """Return the configurations for a topology such as ``1x8`` of a card, or of any card if it is unknown.

        chipperf's TOML files apply to every card and topology.
        """
        return [
            config
            for config in self.configs
            if (
                config.topology.label == shape and _is_same_card(card, config.topology.card)
                if config.topology
                else config.path.suffix == ".toml"
            )
        ]


def _is_same_card(one: str, other: str) -> bool:
    """Return whether two names can be of one card: ``C500`` and ``MXC500``, but not ``R300`` and ``R300p``."""
    short, long = sorted((re.sub(r"[\W_]", "", name).casefold() for name in (one, other)), key=len)
    before = r"(?<!\d)" if short[:1].isdigit() else ""
    # The size of the memory may stand behind the card.
    return not short or re.search(rf"{before}{re.escape(short)}(?:\d+gb?)?$", long) is not None


@dataclass(frozen=True, slots=True)
class Target:
    """A target of a case: its key in the configuration, the metric that the key names, and the value as written."""

    key: str
    metric: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseValues:
    """Base values of a case, from FlagPerf's base configuration or else from the installed case.

    Attributes:
        origin: What they are called in messages.
        values: Every value by its key.
        targets: The targets among them.
        uses_own_keys: Whether configurations have the same keys as ``values``.
    """

    origin: str
    values: Mapping[str, Any]
    targets: tuple[Target, ...]
    uses_own_keys: bool

    def value(self, keys: Sequence[str]) -> Any:
        """Return the first value that is set."""
        return next((value for key in keys if (value := self.values.get(key)) is not None), None)

    def targets_called(self, name: str) -> list[Target]:
        """Return the targets of a metric: the one with its very name, otherwise all of its kind.

        A name of no metric, such as "result", means the only target.
        """
        own = [target for target in self.targets if wording.normal(target.metric) == wording.normal(name)]
        found = own or [target for target in self.targets if wording.is_same_metric(name, target.metric)]
        return found or [target for target in self.targets if len(self.targets) == 1 and not wording.quality_kind(name)]

    def read_keys(self, keys: Sequence[str]) -> Sequence[str]:
        """Return those of several names of one setting that the case reads; all names if that is not known."""
        return [key for key in keys if key in self.values] if self.uses_own_keys else keys


def is_number(value: Any) -> bool:
    """Return whether a configuration's value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


@lru_cache(maxsize=256)
def base_of_tree(benchmark: Path) -> BaseValues | None:
    """Return the values of a benchmark's base configuration, or ``None`` if it has none that can be read."""
    file = benchmark / "config" / "_base.py"
    values = {key: assigned.value for key, assigned in _values(file, _python, {}).items()} if file.is_file() else {}
    return (
        BaseValues(
            origin="the base configuration",
            values=values,
            targets=tuple(targets_in(values)),
            uses_own_keys=True,
        )
        if values
        else None
    )


def base_of_case(case: Case) -> BaseValues:
    """Return the base values of an installed case."""
    return BaseValues(
        origin=f"{case.name} {case.version}",
        values=case.base.model_dump(),
        targets=(Target("target", case.report.quality_column, case.base.target),),
        uses_own_keys=False,
    )


def targets_in(values: Mapping[str, Any]) -> Iterator[Target]:
    """Yield the targets among values."""
    for key, value in values.items():
        if key.startswith("target_") and is_number(value):
            yield Target(key, key.removeprefix("target_"), value)


def find_benchmark(case_directory: Path) -> Path | None:
    """Return FlagPerf's directory of the case and framework for which a vendor's directory is named, or ``None``.

    If the name has no framework, it is the directory of the only framework of the case.
    """
    case, _, framework = case_directory.name.partition("-")
    root = case_directory.parent.parent / "benchmarks"
    if not root.is_dir():
        return None
    same = sorted(
        (each for each in _names(root) if each.casefold() == case.casefold() and (root / each).is_dir()),
        key=lambda each: each != case,
    )
    frameworks = [framework] if framework else [name for each in same[:1] for name in _names(root / each)]
    found = [path for each in same for name in frameworks if (path := root / each / name).is_dir()]
    return found[0] if found and (framework or len(found) == 1) else None


@lru_cache(maxsize=64)
def _names(directory: Path) -> tuple[str, ...]:
    return tuple(each.name for each in directory.iterdir())


@lru_cache(maxsize=1024)
def names_read(directory: Path) -> frozenset[str]:
    """Return every name that sources below a directory may read, as an attribute, a string or a shell's variable.

    FlagPerf's declarations of keys do not read them.
    """
    found: set[str] = set()
    for file in directory.rglob("*"):
        if file.suffix in _SOURCES and file.name not in _DECLARATIONS and file.is_file():
            try:
                text = read_text(file)
            except DocumentError:
                continue
            found.update(name for match in _READ.findall(text) for name in match if name)
    return frozenset(found)


def names_used(paths: Iterable[Path]) -> frozenset[str]:
    """Return the names that the expressions in configurations use."""
    nodes = (node for path in paths for node in ast.walk(_parsed(path)))
    return frozenset(node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))


def missing_modules(config: Path) -> Iterator[str]:
    """Yield the modules from which a configuration imports a constant, and which are in no directory above it."""
    for statement in _parsed(config).body:
        if isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            own = any(alias.name.isupper() for alias in statement.names)
            known = statement.module.partition(".")[0] in sys.stdlib_module_names
            file = f"{statement.module.replace('.', '/')}.py"
            # os.path, because a name may be too long for a file, for which methods of Path raise an exception.
            if own and not known and not any(os.path.isfile(above / file) for above in config.parents):
                yield statement.module


@lru_cache(maxsize=4096)
def read_configs(path: Path) -> ConfigDirectory:
    """Read a directory of configurations, or one file; a path that does not exist is a :class:`ConfigError`."""
    if path.is_file():
        files = [path]
    elif path.is_dir():
        try:
            files = sorted(file for file in path.iterdir() if file.is_file())
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}", hint="check its permissions") from error
    else:
        raise ConfigError(f"there is no configuration at {path}", hint="name a directory or file with --config")
    configs: list[Config] = []
    variables: Mapping[str, Assigned] = {}
    unread_variables: tuple[str, ...] = ()
    unreadable: dict[Path, str] = {}
    for file in files:
        topology = parse_config_name(file.stem)
        if file.name == "environment_variables.sh":
            variables = _values(file, _variables, unreadable)
            unread_variables = tuple(key for key, each in variables.items() if each.value is NOT_EVALUATED)
        elif file.suffix == ".toml" or (file.suffix == ".py" and (topology or file == path)):
            values = _values(file, _toml if file.suffix == ".toml" else _python, unreadable)
            if file not in unreadable:
                unread, switches = _effects(file) if file.suffix == ".py" else ((), ())
                config = Config(path=file, topology=topology, values=values, unread=unread, switches=switches)
                configs.append(config)
        elif file.name.startswith("config_") and not file.suffix:
            unreadable[file] = "its name does not end in .py, so nothing loads it"
    return ConfigDirectory(
        path=path,
        configs=tuple(configs),
        variables={key: each for key, each in variables.items() if key not in unread_variables},
        unread_variables=unread_variables,
        unreadable=unreadable,
    )


def _values(
    path: Path, read: Callable[[Path], Iterator[tuple[str, Assigned]]], unreadable: dict[Path, str]
) -> Mapping[str, Assigned]:
    try:
        return dict(read(path))
    except DocumentError as error:
        unreadable[path] = error.message
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        unreadable[path] = f"{type(error).__name__}: {error}"
    return {}


def _toml(path: Path) -> Iterator[tuple[str, Assigned]]:
    text = read_text(path)
    lines = text.split("\n")
    table = parse_toml(text).get("hyperparameters", {})
    if not isinstance(table, dict):
        raise ValueError("hyperparameters is not a table")
    for key, value in table.items():
        line = next((number for number, line in enumerate(lines, start=1) if line.strip().startswith(key)), 1)
        yield key, Assigned(value, path, line)


@lru_cache(maxsize=1024)
def _parsed(path: Path) -> ast.Module:
    with warnings.catch_warnings():
        # Python warns of escapes such as "\d", which are no fault of the report.
        warnings.simplefilter("ignore")
        return ast.parse(read_text(path))


def _python(path: Path, importing: tuple[Path, ...] = ()) -> Iterator[tuple[str, Assigned]]:
    """Yield the values of a module's names in order, among them those that it imports from files beside it."""
    known: dict[str, Any] = {}
    for statement in _parsed(path).body:
        for key, assigned in _statement(statement, path, known, importing):
            known[key] = assigned.value
            yield key, assigned


def _statement(
    statement: ast.stmt, path: Path, known: Mapping[str, Any], importing: tuple[Path, ...]
) -> Iterator[tuple[str, Assigned]]:
    if isinstance(statement, ast.ImportFrom):
        yield from _imported(statement, path, importing)
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        if statement.value is None:
            return
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            before = ast.Name(statement.target.id, ctx=ast.Load())
            value = _evaluate(ast.BinOp(before, statement.op, statement.value), known)
        else:
            value = _evaluate(statement.value, known)
        for target in targets:
            for name, found in _unpacked(target, statement.value, value, known):
                yield name, Assigned(found, path, statement.lineno)
        within = (node for node in ast.walk(statement.value) if isinstance(node, ast.NamedExpr))
        yield from ((each.target.id, Assigned(NOT_EVALUATED, path, each.lineno)) for each in within)
    elif isinstance(statement, ast.FunctionDef):
        names = (name for node in ast.walk(statement) if isinstance(node, ast.Global) for name in node.names)
        yield from ((name, Assigned(NOT_EVALUATED, path, statement.lineno)) for name in names)
    elif not isinstance(statement, ast.ClassDef):
        # Whether the statement runs is not known.
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id, Assigned(NOT_EVALUATED, path, node.lineno)


def _unpacked(
    target: ast.expr, source: ast.expr | None, value: Any, known: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Yield the names of a target and their values; several names take theirs from a source of as many."""
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple | ast.List):
        sources = source.elts if isinstance(source, ast.Tuple | ast.List) else []
        paired = len(sources) == len(target.elts) and not any(isinstance(each, ast.Starred) for each in target.elts)
        for index, each in enumerate(target.elts):
            own = sources[index] if paired else None
            yield from _unpacked(each, own, _evaluate(own, known) if own else NOT_EVALUATED, known)
    elif isinstance(target, ast.Starred):
        yield from _unpacked(target.value, None, NOT_EVALUATED, known)


def _imported(statement: ast.ImportFrom, path: Path, importing: tuple[Path, ...]) -> Iterator[tuple[str, Assigned]]:
    if statement.level > 1 or not statement.module:
        return
    source = path.parent / f"{statement.module.replace('.', '/')}.py"
    if source in importing or not source.is_file():
        return
    values = dict(_python(source, (*importing, path)))
    for alias in statement.names:
        if alias.name == "*":
            yield from ((key, assigned) for key, assigned in values.items() if not key.startswith("_"))
        elif alias.name in values:
            yield alias.asname or alias.name, values[alias.name]


def _effects(path: Path) -> tuple[tuple[str, ...], tuple[tuple[str, Assigned], ...]]:
    """Return the lines of a configuration, and of what it imports, that may set any key, and the switches it sets."""
    unread: list[str] = []
    switches: list[tuple[str, Assigned]] = []
    files = [path]
    for file in files:
        try:
            nodes = list(ast.walk(_parsed(file)))
        except (DocumentError, SyntaxError, ValueError, RecursionError, MemoryError):
            unread.append(f"{file.name}:1")
            continue
        for node in nodes:
            modules = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and node.level < 2:
                modules = [node.module]
            beside = [file.parent / f"{module.replace('.', '/')}.py" for module in modules]
            files += [each for each in beside if each.is_file() and each not in files]
            if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
                sets_any_key = not any(each.is_file() for each in beside)
            else:
                sets_any_key = isinstance(node, ast.Call) and _name_of(node.func) in _SETS_ANY_KEY
            if sets_any_key:
                unread.append(f"{file.name}:{getattr(node, 'lineno', 1)}")
            line = getattr(node, "lineno", 1)
            switches += [(name, Assigned(value, file, line)) for name, value in _switches(node)]
    return tuple(unread), tuple(switches)


def _name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _switches(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """Yield the environment variables and the settings of torch's arithmetic that a node sets."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Subscript) and _name_of(target.value) == "environ":
                yield str(_evaluate(target.slice, {})), _evaluate(node.value, {})
            elif isinstance(target, ast.Attribute) and target.attr in _TORCH_SWITCHES:
                yield target.attr, _evaluate(node.value, {})
    elif isinstance(node, ast.Call) and (name := _name_of(node.func)) in (*_ENVIRONMENT, *_TORCH_SWITCHES):
        values = [_evaluate(each, {}) for each in node.args]
        if name in _TORCH_SWITCHES:
            yield name, values[0] if values else NOT_EVALUATED
        elif isinstance(node.func, ast.Attribute) and "environ" in ast.dump(node.func) or name == "putenv":
            yield str(values[0] if values else NOT_EVALUATED), values[1] if len(values) > 1 else NOT_EVALUATED


def _evaluate(node: ast.expr, known: Mapping[str, Any]) -> Any:
    """Return the value of a constant or of simple arithmetic, otherwise :data:`NOT_EVALUATED`."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return known.get(node.id, NOT_EVALUATED)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        operand = _evaluate(node.operand, known)
        return -operand if isinstance(operand, int | float) else NOT_EVALUATED
    if isinstance(node, ast.BinOp) and (compute := _OPERATORS.get(type(node.op))):
        left, right = _evaluate(node.left, known), _evaluate(node.right, known)
        if is_number(left) and is_number(right):
            try:
                value = compute(left, right)
            except ArithmeticError:
                return NOT_EVALUATED
            return value if is_number(value) else NOT_EVALUATED
    return NOT_EVALUATED


def _variables(path: Path, sourcing: tuple[Path, ...] = ()) -> Iterator[tuple[str, Assigned]]:
    """Yield the variables that a script sets; one that cannot be read has its place as a name."""
    text = read_text(path)
    for match in _VARIABLE.finditer(text):
        yield match[1], Assigned(match[2].strip("\"'"), path, _line(text, match))
    for match in _UNREAD_VARIABLE.finditer(text):
        yield f"{path.name}:{_line(text, match)}", Assigned(NOT_EVALUATED, path, _line(text, match))
    for match in _SOURCED.finditer(text):
        file = path.parent / match[1]
        if file.is_file() and file not in (*sourcing, path):
            yield from _variables(file, (*sourcing, path))
        else:
            yield f"{path.name}:{_line(text, match)}", Assigned(NOT_EVALUATED, path, _line(text, match))


def _line(text: str, match: re.Match[str]) -> int:
    return text.count("\n", 0, match.end()) + 1

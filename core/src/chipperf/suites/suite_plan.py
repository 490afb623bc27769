"""The plan of a suite: all runs of its file, checked before the first one starts.

The file is TOML with a matrix of runs, or a list of FlagPerf's case keys.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import BeforeValidator, Field, ValidationError

from chipperf.cases.config import ConfigFile, contradicting_values, read_config_file, resolve
from chipperf.cases.registry import find_case
from chipperf.durations import parse_duration
from chipperf.errors import ConfigError, PerfError, did_you_mean
from chipperf.plugin import installed, selection
from chipperf.precisions import DEFAULT_PRECISION, Precision
from chipperf.records.files import read_bounded
from chipperf.records.repeats import repeat_seeds
from chipperf.records.schema import Setting, StrictModel
from chipperf.toml import parse_toml

_TOPOLOGY = r"^[1-9][0-9]*x[1-9][0-9]*$"

_Count = Annotated[int, Field(ge=1)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
_Topology = Annotated[str, Field(pattern=_TOPOLOGY)]
_Path = Annotated[Path, Field(strict=False)]

_T = TypeVar("_T")
_OneOrMore = Annotated[
    list[_T], Field(min_length=1), BeforeValidator(lambda value: value if isinstance(value, list) else [value])
]
"""A list, or one item without brackets."""

_KEY_FIELDS = ("model", "framework", "hardware", "nnodes", "nproc", "repeat")
_KEY = re.compile(r"""^["']?(?P<key>[^\s"',]+?)["']?(?:\s*[:,\s]\s*["']?(?P<data>/[^"',\s]*)["']?)?\s*,?$""")
_FRAMEWORK = "pytorch"
_LISTED_CHANGES = 5


class RunOptions(StrictModel, strict=True):
    """Options of ``[defaults]`` and of every ``[[run]]``, with the defaults of ``perf train``.

    A list is one dimension of the matrix. Paths are relative to the suite's file.
    """

    precision: _OneOrMore[Precision] = [DEFAULT_PRECISION]
    topology: _OneOrMore[_Topology] = ["1x1"]
    repeats: _Count = 1
    vendor: str | None = None
    preset: str = "full"
    data: _Path | None = None
    config: _Path | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    max_epochs: _Count | None = None
    max_steps: _Count | None = None
    budget: str | None = None
    device_check: bool = True
    set: dict[str, Setting] = {}


class RunEntry(RunOptions):
    """One ``[[run]]``: a matrix of cases, precisions, topologies and repeats, or FlagPerf's keys for some of these.

    ``name`` is the first part of the names of its runs, and distinguishes entries that differ only in options.
    """

    name: _Name | None = None
    case: _OneOrMore[str] | None = None
    case_keys: _OneOrMore[str] | None = None


class SuiteFile(StrictModel, strict=True):
    """Content of a suite's file."""

    defaults: RunOptions = RunOptions()
    run: Annotated[list[RunEntry], Field(min_length=1)]


class PlannedRun(StrictModel):
    """One run of a suite with all its options.

    Attributes:
        configuration: Name of the configuration, which all its repeats share, and of their directory.
        repeat: Number of the repeat, from 1.
        topology: Machines x devices, for example ``1x8``.
        arguments: Arguments of ``perf train``, except ``--out``, the machine's number and the rendezvous.
    """

    configuration: str
    repeat: int
    case: str
    precision: str
    topology: str
    seed: int
    arguments: tuple[str, ...]
    config_sha256: str | None = None

    @property
    def name(self) -> str:
        """Name of the run, which is also the name of its directory in the suite's directory."""
        return f"{self.configuration}/repeat-{self.repeat}"

    @property
    def nnodes(self) -> int:
        """Number of machines that the run needs."""
        return int(self.topology.partition("x")[0])


class SuitePlan(StrictModel):
    """All runs of a suite in order, and the parts of its file that have no effect."""

    runs: tuple[PlannedRun, ...]
    ignored: tuple[str, ...]

    @property
    def nnodes(self) -> int:
        """Number of machines that the largest run needs."""
        return max(run.nnodes for run in self.runs)

    def require_same(self, begun: Iterable[PlannedRun]) -> None:
        """Check that a suite continues with the plan it was started with; a :class:`ConfigError` names the changes."""
        before = {run.name: run for run in begun}
        now = {run.name: run for run in self.runs}
        changes = [
            *(f"{name} is new" for name in now.keys() - before.keys()),
            *(f"{name} is gone" for name in before.keys() - now.keys()),
            *(f"{name} has other options" for name in now.keys() & before.keys() if now[name] != before[name]),
        ]
        if changes:
            listed = ", ".join(sorted(changes)[:_LISTED_CHANGES])
            more = f" and {len(changes) - _LISTED_CHANGES} more" if len(changes) > _LISTED_CHANGES else ""
            raise ConfigError(
                f"the suite was started with another plan: {listed}{more}",
                hint="restore the file, or choose another --out",
            )


class MatrixRow(NamedTuple):
    """A configuration of a suite without its precision, from an entry or one of its FlagPerf keys.

    ``ignored`` has the parts of a key that have no effect here, and what is used instead.
    """

    case: str
    topology: str
    repeats: int
    data: Path | None
    ignored: tuple[str, ...] = ()


def plan_suite(path: Path) -> SuitePlan:
    """Read a suite's file and expand its matrix, in the order of the file; repeats of a configuration follow each
    other.

    A :class:`ConfigError` or :class:`.MissingDataset` names the place of an entry that is wrong or not possible.
    """
    file = _read_suite_file(path)
    entries = {f"[[run]] {number}": entry for number, entry in enumerate(file.run, start=1)}
    for table, options in {"[defaults]": file.defaults, **entries}.items():
        if options.seed is not None and options.set.get("seed", options.seed) != options.seed:
            what = contradicting_values("seed", options.seed, "set", options.set["seed"], "seed")
            raise ConfigError(f"{path}: {table}: {what.message}", hint=what.hint)
    runs: list[PlannedRun] = []
    ignored: dict[str, None] = {}
    origins: dict[str, str] = {}
    for number, entry in enumerate(file.run, start=1):
        place = f"{path}: [[run]] {number}"
        given = {key: getattr(entry, key) for key in entry.model_fields_set & RunOptions.model_fields.keys()}
        options = file.defaults.model_copy(update=given | {"set": file.defaults.set | entry.set})
        for row, precision in product(_rows(entry, options, place), options.precision):
            ignored.update(dict.fromkeys(row.ignored))
            name = "-".join(part for part in (entry.name, row.case, precision, row.topology) if part)
            try:
                configuration = _configuration(name, row, precision, options, path.parent)
            except PerfError as error:
                raise type(error)(f"{place}: {error.message}", hint=error.hint) from error
            if name in origins:
                raise ConfigError(
                    f"{place} plans {name}, as {origins[name]} does", hint="give one of the two its own name"
                )
            origins[name] = f"[[run]] {number}"
            runs += configuration
    return SuitePlan(runs=tuple(runs), ignored=tuple(ignored))


def option_arguments(options: Mapping[str, object]) -> list[str]:
    """Return options of ``perf train``, by name without dashes, as arguments; ``None`` is not given, lists repeat."""
    arguments = []
    for name, value in options.items():
        if isinstance(value, bool):
            arguments.append(f"--{name}" if value else f"--no-{name}")
        elif value is not None:
            items = value if isinstance(value, list | tuple) else [value]
            arguments += [f"--{name}={item}" for item in items]
    return arguments


def _rows(entry: RunEntry, options: RunOptions, place: str) -> list[MatrixRow]:
    if entry.case is not None:
        pairs = product(entry.case, options.topology)
        return [MatrixRow(case, topology, options.repeats, options.data) for case, topology in pairs]
    rows = [parse_case_key(text, f"{place}: case_keys") for text in entry.case_keys or ()]
    return [row._replace(data=row.data or options.data) for row in rows]


def _configuration(
    name: str, row: MatrixRow, precision: Precision, options: RunOptions, root: Path
) -> list[PlannedRun]:
    """Return the repeats of one configuration. Refuse everything that ``perf train`` would refuse."""
    case = find_case(row.case)
    if options.vendor is not None and options.vendor != selection.AUTO:
        installed.find_vendor(options.vendor)
    if options.budget is not None:
        parse_duration(options.budget, "budget")
    paths = (row.data, options.config)
    data, config = (None if path is None else (root / path.expanduser()).resolve() for path in paths)
    if data is not None:
        case.data.require(data, "paths are relative to the suite's file")
    file = read_config_file(config) if config else ConfigFile(hyperparameters={}, environment={})
    own = options.set if options.seed is None else options.set | {"seed": options.seed}
    values = resolve(case, preset=options.preset, file=file.hyperparameters, command_line=own).values
    nnodes, nproc = row.topology.split("x")
    arguments = option_arguments(
        {
            "precision": precision,
            "nproc": nproc,
            "nnodes": None if nnodes == "1" else nnodes,
            "preset": options.preset,
            "vendor": options.vendor,
            "data": data,
            "config": config,
            "max-epochs": options.max_epochs,
            "max-steps": options.max_steps,
            "budget": options.budget,
            "device-check": None if options.device_check else False,
            "set": [f"{key}={_text(value)}" for key, value in options.set.items() if key != "seed"],
        }
    )
    config_sha256 = hashlib.sha256(read_bounded(config)).hexdigest() if config else None
    return [
        PlannedRun(
            configuration=name,
            repeat=repeat,
            case=row.case,
            precision=precision,
            topology=row.topology,
            seed=seed,
            arguments=(row.case, *arguments, f"--seed={seed}"),
            config_sha256=config_sha256,
        )
        for repeat, seed in enumerate(repeat_seeds(values.seed, row.repeats), start=1)
    ]


def _text(value: Setting) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read_suite_file(path: Path) -> SuiteFile:
    """Read a suite's file: TOML if its name ends so, otherwise FlagPerf's case keys."""
    try:
        text = read_bounded(path).decode()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="name a suite's file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a text: byte {error.start} is not UTF-8") from error
    if path.suffix != ".toml":
        return SuiteFile(run=[RunEntry(case_keys=_case_keys(text, path))])
    try:
        file = SuiteFile.model_validate(parse_toml(text))
    except ValidationError as error:
        raise _explain(error.errors()[0], path) from error
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}", hint="see docs/suites.md for an example") from error
    for number, entry in enumerate(file.run, start=1):
        place = f"{path}: [[run]] {number}"
        if (entry.case is None) == (entry.case_keys is None):
            raise ConfigError(f"{place} needs either case or case_keys", hint='for example case = "resnet50"')
        for key in ("topology", "repeats"):
            if entry.case_keys is not None and key in entry.model_fields_set:
                raise ConfigError(f"{place} sets {key}, which its case_keys already set", hint=f"leave out {key}")
    return file


def parse_case_key(text: str, place: str) -> MatrixRow:
    """Parse a key ``model:framework:hardware:nnodes:nproc:repeat``. A dataset's directory may follow it.

    ``text`` is a line of FlagPerf's ``test_conf.py``, with or without its quotes, or a bare key. A :class:`ConfigError`
    names its ``place``, file and line, and the field that is wrong.
    """
    hint = f"write {':'.join(_KEY_FIELDS)}, for example resnet50:pytorch_1.13:A100:1:8:1"
    match = _KEY.match(text.strip())
    fields = match["key"].split(":") if match else []
    if match is None or len(fields) != len(_KEY_FIELDS) or not all(fields):
        raise ConfigError(f"{place}: {text.strip()!r} is not a case key", hint=hint)
    model, framework, hardware, *numbers = fields
    for name, number in zip(_KEY_FIELDS[3:], numbers, strict=True):
        if not (number.isascii() and number.isdigit()) or int(number) < 1:
            raise ConfigError(f"{place}: {name} is {number!r}, not a number from 1 on", hint=hint)
    if framework.partition("_")[0] != _FRAMEWORK:
        raise ConfigError(
            f"{place}: framework {framework!r} is not {_FRAMEWORK}", hint="cases of other frameworks cannot be run"
        )
    nnodes, nproc, repeats = map(int, numbers)
    ignored = (
        f"{match['key']}: hardware {hardware!r}: the vendor is chosen by the key vendor, PERF_VENDOR or its devices",
        f"{match['key']}: framework {framework!r}: the torch that is installed is used",
    )
    return MatrixRow(model, f"{nnodes}x{nproc}", repeats, Path(match["data"]) if match["data"] else None, ignored)


def _case_keys(text: str, path: Path) -> list[str]:
    """Return the keys of a file with one on each line, without comments and brackets of a Python dictionary."""
    keys = []
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].strip()
        if content and not re.fullmatch(r"(\w+\s*=\s*)?[{}\[\]],?", content):
            parse_case_key(content, f"{path}:{number}")
            keys.append(content)
    if not keys:
        raise ConfigError(f"{path} names no runs", hint="write one case key per line, or a suite as .toml")
    return keys


def _explain(fault: Mapping[str, Any], path: Path) -> ConfigError:
    """Return the error for a fault. It names the table, because TOML's parser keeps no line numbers."""
    top, *inner = fault["loc"]
    place = f"{path}: "
    model: type[StrictModel] = SuiteFile
    if inner and top == "run":
        number, *inner = inner
        place, model = f"{path}: [[run]] {number + 1}: ", RunEntry
    elif inner:
        place, model = f"{path}: [{top}]: ", RunOptions
    keys = [part for part in inner if isinstance(part, str)] or [top]
    # What follows the key are pydantic's names for the members of a union.
    key = ".".join(keys[: 2 if keys[0] == "set" else 1])
    if fault["type"] == "extra_forbidden":
        known = list(model.model_fields)
        return ConfigError(
            f"{place}unknown key {key!r}{did_you_mean(key, known)}", hint=f"keys here: {', '.join(known)}"
        )
    if fault["type"] == "missing":
        return ConfigError(f"{place}{key} is missing", hint="a suite has at least one [[run]]")
    return ConfigError(f"{place}{key}: {_message(fault)}", hint="docs/suites.md lists keys and values")


def _message(fault: Mapping[str, Any]) -> str:
    value = fault["input"]
    shown = "a table" if isinstance(value, dict) else repr(value)
    if fault["loc"] == ("run",):
        return "runs are tables, each below a line [[run]] with two brackets"
    if "set" in fault["loc"] and fault["loc"][-1] != "set":
        return f"{shown} is not a number, boolean or string"
    if fault["type"] == "literal_error":
        known = str(fault["ctx"]["expected"]).replace("'", "")
        near = did_you_mean(value, known.replace(" or ", ", ").split(", ")) if isinstance(value, str) else ""
        return f"{shown} is none of {known}{near}"
    if fault["type"] == "string_pattern_mismatch" and fault["ctx"]["pattern"] == _TOPOLOGY:
        return f"{shown} is not machines x devices, for example 1x8"
    return f"{shown}: {fault['msg']}"

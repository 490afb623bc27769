"""Suite files: TOML with a matrix of runs, or a list of FlagPerf's case keys."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from chipperf.errors import ConfigError, did_you_mean
from chipperf.precisions import DEFAULT_PRECISION, Precision
from chipperf.records.schema import Setting

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOPOLOGY = r"^[1-9][0-9]*x[1-9][0-9]*$"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

_Count = Annotated[int, Field(ge=1)]
_Name = Annotated[str, Field(pattern=_NAME)]
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


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RunOptions(_Table):
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

    Attributes:
        name: First part of the names of its runs. It distinguishes entries that differ only in options.
        case: Names of cases.
        case_keys: FlagPerf's keys, which set case, topology and repeats.
    """

    name: _Name | None = None
    case: _OneOrMore[str] | None = None
    case_keys: _OneOrMore[str] | None = None


class SuiteFile(_Table):
    """Content of a suite's file."""

    defaults: RunOptions = RunOptions()
    run: Annotated[list[RunEntry], Field(min_length=1)]


class MatrixRow(NamedTuple):
    """A configuration of a suite without its precision, from an entry or one of its FlagPerf keys.

    Attributes:
        ignored: The parts of a key that have no effect here, and what is used instead.
    """

    case: str
    topology: str
    repeats: int
    data: Path | None
    ignored: tuple[str, ...] = ()


def read_suite_file(path: Path) -> SuiteFile:
    """Read a suite's file: TOML if its name ends so, otherwise FlagPerf's case keys.

    Raises:
        ConfigError: The file cannot be read, or an entry is unknown or has the wrong type. The message names the place.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="name a suite's file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a text: byte {error.start} is not UTF-8") from error
    if path.suffix != ".toml":
        return SuiteFile(run=[RunEntry(case_keys=_case_keys(text, path))])
    try:
        file = SuiteFile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}", hint="see docs/suites.md for an example") from error
    except ValidationError as error:
        raise _explain(error.errors()[0], path) from error
    for number, entry in enumerate(file.run, start=1):
        place = f"{path}: [[run]] {number}"
        if (entry.case is None) == (entry.case_keys is None):
            raise ConfigError(f"{place} needs either case or case_keys", hint='for example case = "resnet50"')
        for key in ("topology", "repeats"):
            if entry.case_keys is not None and key in entry.model_fields_set:
                raise ConfigError(f"{place} sets {key}, which its case_keys say already", hint=f"leave out {key}")
    return file


def parse_case_key(text: str, place: str) -> MatrixRow:
    """Parse a key ``model:framework:hardware:nnodes:nproc:repeat``. A dataset's directory may follow it.

    Args:
        text: A line of FlagPerf's ``test_conf.py``, with or without its quotes, or a bare key.
        place: File and line, for the error.

    Raises:
        ConfigError: The text is not a key, or has another framework. The message names the place and the field.
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
    model: type[_Table] = SuiteFile
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
        return f"{shown} is neither a number, a truth value nor a text"
    if fault["type"] == "literal_error":
        known = str(fault["ctx"]["expected"]).replace("'", "")
        near = did_you_mean(value, known.replace(" or ", ", ").split(", ")) if isinstance(value, str) else ""
        return f"{shown} is none of {known}{near}"
    if fault["type"] == "string_pattern_mismatch" and fault["ctx"]["pattern"] == _TOPOLOGY:
        return f"{shown} is not machines x devices, for example 1x8"
    return f"{shown}: {fault['msg']}"

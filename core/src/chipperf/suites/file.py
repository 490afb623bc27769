"""Suite files: TOML with a matrix of runs, or a list of FlagPerf's case keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from chipperf.errors import ConfigError, did_you_mean
from chipperf.precisions import Precision
from chipperf.records.schema import Setting
from chipperf.suites.case_keys import CaseKey, parse_case_key, parse_case_key_lines
from chipperf.toml import parse_toml

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOPOLOGY = r"^[1-9][0-9]*x[1-9][0-9]*$"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

_Count = Annotated[int, Field(ge=1)]
_Name = Annotated[str, Field(pattern=_NAME)]
_Topology = Annotated[str, Field(pattern=_TOPOLOGY)]
_Path = Annotated[Path, Field(strict=False)]

_T = TypeVar("_T")
_OneOrMore = Annotated[list[_T], Field(min_length=1), BeforeValidator(lambda value: _as_list(value))]
"""A list, or one item without brackets."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RunOptions(_Table):
    """Options of ``[defaults]`` and of every ``[[run]]``. A list is one dimension of the matrix.

    ``None`` means that the option is not given. Paths are relative to the suite's file.
    """

    precision: _OneOrMore[Precision] | None = None
    topology: _OneOrMore[_Topology] | None = None
    repeats: _Count | None = None
    vendor: str | None = None
    preset: str | None = None
    data: _Path | None = None
    config: _Path | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    max_epochs: _Count | None = None
    max_steps: _Count | None = None
    budget: str | None = None
    device_check: bool | None = None
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


_ENTRY_OF_KEYS = ("case", "topology", "repeats")


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
        keys = parse_case_key_lines(text, path)
        if not keys:
            raise ConfigError(f"{path} names no runs", hint="write one case key per line, or a suite as .toml")
        lines = [f"{key.text} {key.data}" if key.data else key.text for key in keys]
        return SuiteFile(run=[RunEntry(case_keys=lines)])
    try:
        content = parse_toml(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}", hint="see docs/suites.md for an example") from error
    try:
        file = SuiteFile.model_validate(content)
    except ValidationError as error:
        raise _explain(error.errors()[0], path) from error
    for number, entry in enumerate(file.run, start=1):
        _require_cases(entry, f"{path}: [[run]] {number}")
    return file


def keys_of(entry: RunEntry, place: str) -> list[CaseKey]:
    """Return the entry's FlagPerf keys.

    Raises:
        ConfigError: An item is not a key.
    """
    return [parse_case_key(text, f"{place}: case_keys") for text in entry.case_keys or ()]


def _as_list(value: object) -> object:
    return value if isinstance(value, list) or value is None else [value]


def _require_cases(entry: RunEntry, place: str) -> None:
    if (entry.case is None) == (entry.case_keys is None):
        raise ConfigError(f"{place} needs either case or case_keys", hint='for example case = "resnet50"')
    if entry.case_keys is not None:
        for key in _ENTRY_OF_KEYS:
            if getattr(entry, key) is not None:
                raise ConfigError(f"{place} sets {key}, which its case_keys say already", hint=f"leave out {key}")


def _explain(fault: Mapping[str, Any], path: Path) -> ConfigError:
    location = list(fault["loc"])
    place = f"{path}: {_place(location)}"
    key = next((part for part in reversed(location) if isinstance(part, str) and part.isidentifier()), "")
    if fault["type"] == "extra_forbidden":
        table = location[0] if len(location) > 1 else None
        model: type[BaseModel] = {"defaults": RunOptions, "run": RunEntry}.get(str(table), SuiteFile)
        known = list(model.model_fields)
        return ConfigError(
            f"{place}unknown key {key!r}{did_you_mean(key, known)}", hint=f"keys here: {', '.join(known)}"
        )
    if fault["type"] == "missing":
        return ConfigError(f"{place}{key} is missing", hint="a suite has at least one [[run]]")
    return ConfigError(f"{place}{_key_of(location)}: {_message(fault)}", hint="docs/suites.md lists keys and values")


def _message(fault: Mapping[str, Any]) -> str:
    value = fault["input"]
    shown = "a table" if isinstance(value, dict) else repr(value)
    if fault["loc"] == ("run",):
        return "runs are tables, each below a line [[run]] with two brackets"
    if "set" in fault["loc"] and len(fault["loc"]) > fault["loc"].index("set") + 1:
        return f"{shown} is neither a number, a truth value nor a text"
    if fault["type"] == "literal_error":
        known = str(fault["ctx"]["expected"]).replace("'", "")
        near = did_you_mean(value, known.replace(" or ", ", ").split(", ")) if isinstance(value, str) else ""
        return f"{shown} is none of {known}{near}"
    if fault["type"] == "string_pattern_mismatch" and fault["ctx"]["pattern"] == _TOPOLOGY:
        return f"{shown} is not machines x devices, for example 1x8"
    return f"{shown}: {fault['msg']}"


def _place(location: list[Any]) -> str:
    """Return the name of a place's table, because TOML's parser keeps no line numbers."""
    if len(location) > 1 and location[0] == "run" and isinstance(location[1], int):
        return f"[[run]] {location[1] + 1}: "
    return f"[{location[0]}]: " if len(location) > 1 else ""


def _key_of(location: list[Any]) -> str:
    """Return the key of a place without pydantic's names for the members of a union."""
    rest = location[2:] if location[0] == "run" and len(location) > 1 else location[1:]
    keys = [str(part) for part in rest if isinstance(part, str)]
    return ".".join(keys[:2] if keys[:1] == ["set"] else keys[:1]) or str(location[0])

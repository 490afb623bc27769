"""Resolution of hyperparameters: case base < preset < vendor < file < command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from chipperf.cases.base import Role
from chipperf.errors import ConfigError, UsageError, did_you_mean
from chipperf.records.files import read_bounded
from chipperf.records.schema import HyperparameterChange, Setting
from chipperf.toml import parse_toml

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from chipperf.cases.base import Case, Hyperparameters
    from chipperf.plugin.types import CaseOverrides

Origin = Literal["preset", "vendor", "file", "command line"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """A user's configuration file: hyperparameters, and facts that core cannot detect on the machine."""

    hyperparameters: Mapping[str, Setting]
    environment: Mapping[str, str]


STATEABLE_FACTS = ("machine", "card_title", "network", "container", "dependencies", "compiler")
"""Environment facts that a user may state in the ``[environment]`` table of a configuration file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Resolved hyperparameters, their differences from the case's base, and remarks about them."""

    values: Hyperparameters
    changes: tuple[HyperparameterChange, ...]
    notes: tuple[str, ...]


def resolve(
    case: Case,
    *,
    preset: str = "full",
    vendor: str = "",
    vendor_overrides: CaseOverrides | None = None,
    file: Mapping[str, Setting] | None = None,
    command_line: Mapping[str, Setting] | None = None,
) -> Resolved:
    """Resolve the hyperparameters: each source overrides the case's base values and earlier sources.

    Args:
        preset: Name of a preset of the case, the only source that may change locked keys.
        vendor: Name of the vendor of the overrides, for error messages.
        command_line: Values from ``--set`` and ``--seed``.

    Raises:
        ConfigError: A preset or key is unknown, a key is locked, or a value is invalid.
    """
    if preset not in case.presets:
        raise ConfigError(f"case {case.name} has no preset {preset!r}", hint=_suggest(preset, case.presets, "presets"))
    layers: list[tuple[Origin, str, Mapping[str, Setting], Mapping[str, str]]] = [
        ("preset", f"preset {preset!r}", case.presets[preset], {})
    ]
    if vendor_overrides:
        tuned = {override.key: override.value for override in vendor_overrides.overrides}
        why = {override.key: override.reason for override in vendor_overrides.overrides}
        layers.append(("vendor", f"vendor {vendor!r}", tuned, why))
    layers.append(("file", "the configuration file", file or {}, {}))
    layers.append(("command line", "the command line", command_line or {}, {}))

    base = case.base.model_dump()
    merged, resolved = base, case.base
    sources: dict[str, tuple[Origin, str]] = {}
    for origin, who, values, reasons in layers:
        for key, value in values.items():
            require_settable(case, key, origin, who)
            merged = merged | {key: value}
            resolved = _validate(case, merged, who)
            sources[key] = (origin, reasons.get(key, ""))
    final = resolved.model_dump()
    changes = tuple(
        HyperparameterChange(key=key, base=base[key], value=final[key], origin=origin, reason=reason)
        for key, (origin, reason) in sources.items()
        if base[key] != final[key]
    )
    return Resolved(values=resolved, changes=changes, notes=vendor_overrides.notes if vendor_overrides else ())


def parse_assignments(assignments: Sequence[str]) -> dict[str, Setting]:
    """Parse ``key=value`` texts from the command line; numbers and booleans are converted.

    Raises:
        UsageError: A text is not of the form ``key=value``.
    """
    parsed: dict[str, Setting] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key.strip():
            raise UsageError(f"--set {assignment!r} is not key=value", hint="for example --set lr=0.2")
        parsed[key.strip()] = text.strip()
    return parsed


def contradicting_values(one: str, value: Setting, other: str, another: Setting, key: str) -> UsageError:
    """Return the error for a hyperparameter that two options of a command or keys of a file set differently."""
    what = f"{one} and {other} set {key} to different values, {value} and {another}"
    return UsageError(what, hint="leave one of them out")


def read_config_file(path: Path) -> ConfigFile:
    """Read a TOML file with the tables ``[hyperparameters]`` and ``[environment]``.

    Raises:
        ConfigError: The file is missing, not TOML, or has unknown tables or keys; the message names the place.
    """
    try:
        content = parse_toml(read_bounded(path).decode())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="check --config") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}", hint="see docs/training.md for an example") from error
    tables = ("hyperparameters", "environment")
    for name, table in content.items():
        if name not in tables:
            raise ConfigError(f"{path}: unknown table or key {name!r}", hint=_suggest(name, tables, "tables"))
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {name!r} is a value", hint=f"write a table: [{name}]")
    environment = content.get("environment", {})
    for key, value in environment.items():
        if key not in STATEABLE_FACTS:
            raise ConfigError(f"{path}: unknown fact {key!r}", hint=_suggest(key, STATEABLE_FACTS, "facts"))
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(f"{path}: fact {key!r} must be a text that is not empty")
    return ConfigFile(hyperparameters=content.get("hyperparameters", {}), environment=environment)


def require_settable(case: Case, key: str, origin: Origin, who: str) -> None:
    """Raise :class:`ConfigError` unless ``who`` may set a hyperparameter: only presets may set a locked one."""
    keys = case.base.keys()
    if key not in keys:
        raise ConfigError(
            f"{who} sets unknown hyperparameter {key!r} of case {case.name}", hint=_suggest(key, keys, "keys")
        )
    if origin != "preset" and case.base.role(key) is Role.LOCKED:
        settable = [name for name in keys if case.base.role(name) is not Role.LOCKED]
        remedy = "use --max-epochs to shorten a run" if key == "epochs" else _suggest(key, settable, "settable keys")
        raise ConfigError(f"{who} sets {key!r}, which case {case.name} locks", hint=remedy)


def _validate(case: Case, values: Mapping[str, Any], who: str) -> Hyperparameters:
    try:
        return type(case.base).model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{who}: hyperparameter {key!r} cannot be {first['input']!r}: {first['msg']}",
            hint=f"'perf cases {case.name}' lists keys and base values",
        ) from error


def _suggest(name: str, known: Collection[str], what: str) -> str:
    return f"{what}: {', '.join(known)}{did_you_mean(name, known)}"

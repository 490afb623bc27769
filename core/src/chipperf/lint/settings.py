"""Settings of lint, from ``[tool.chipperf.lint]`` in pyproject.toml or ``[lint]`` in chipperf.toml.

As with ruff, the nearest file above a document holds for it; of two in one directory, chipperf.toml.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ConfigDict, ValidationError

from chipperf.errors import ConfigError, UsageError, did_you_mean
from chipperf.lint.rule import Rule, choose_rules
from chipperf.records.files import read_bounded
from chipperf.records.schema import StrictModel
from chipperf.toml import parse_toml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_FILES: Final[Mapping[str, tuple[str, ...]]] = {"chipperf.toml": (), "pyproject.toml": ("tool", "chipperf")}
"""Names of files, and the table in each that is chipperf's own."""

_HINT: Final = "docs/lint.md has an example"

_FORMS: Final = {"tuple_type": 'a list such as ["L24"]', "dict_type": "a table", "string_type": "a text"}
"""What a value has to be, by pydantic's name of the fault."""


class _Table(StrictModel):
    model_config = ConfigDict(alias_generator=lambda name: name.replace("_", "-"))

    select: tuple[str, ...] = ()
    extend_select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    per_file_ignores: dict[str, tuple[str, ...]] = {}
    baseline: str | None = None


class _Own(StrictModel):
    lint: _Table | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings for the documents below a directory."""

    directory: Path
    _table: _Table = field(default_factory=_Table)
    file: Path | None = None

    @property
    def baseline(self) -> Path | None:
        """The baseline."""
        return self.directory / self._table.baseline if self._table.baseline else None

    def rules_of(
        self, document: Path, select: Sequence[str], ignore: Sequence[str], extend_select: Sequence[str]
    ) -> tuple[Rule, ...]:
        """Return the rules to check on a document. Those that the command line selects take the place of the file's."""
        table = self._table
        if not select:
            select, ignore = table.select, (*table.ignore, *self._ignored_in(document), *ignore)
            extend_select = (*table.extend_select, *extend_select)
        return choose_rules(select, ignore, extend_select)

    def _ignored_in(self, document: Path) -> list[str]:
        relative = os.path.relpath(document, self.directory)
        return [
            id
            for pattern, ids in self._table.per_file_ignores.items()
            # As with ruff, * matches slashes too, and **/ also the directory of the settings.
            if any(fnmatchcase(text, pattern) for text in (relative, f"./{relative}", document.name))
            for id in ids
        ]


def settings_of(document: Path) -> Settings:
    """Return the settings for a document; a :class:`ConfigError` says what is wrong in which file."""
    return _settings_in(Path(os.path.abspath(document)).parent)


def turned_off(
    documents: Sequence[Path],
    settings: Callable[[Path], Settings],
    select: Sequence[str],
    ignore: Sequence[str],
    extend_select: Sequence[str],
) -> list[str]:
    """Return for each file of settings which rules it turns off in how many documents."""
    wanted = choose_rules(select, ignore, extend_select)
    counts: Counter[tuple[Path, str]] = Counter()
    for document in documents:
        found = settings(document)
        kept = found.rules_of(document, select, ignore, extend_select)
        if found.file and (off := [rule.id for rule in wanted if rule not in kept]):
            counts[found.file, ", ".join(off)] += 1
    return [f"{file} turns off {ids} in {count} documents" for (file, ids), count in counts.items()]


@cache
def _settings_in(directory: Path) -> Settings:
    for name, steps in _FILES.items():
        file = directory / name
        if file.is_file() and (table := _read(file, steps)) is not None:
            return Settings(directory, table, file)
    return Settings(directory) if directory == directory.parent else _settings_in(directory.parent)


def _read(file: Path, steps: Sequence[str]) -> _Table | None:
    """Return the settings in a file, ``None`` if there are none."""
    try:
        own: Any = parse_toml(read_bounded(file).decode())
        for step in steps:
            own = own.get(step, {})
            if not isinstance(own, dict):
                raise ConfigError(f"{file}: {step} is not a table", hint=_HINT)
        table = _Own.model_validate(own).lint
        for ids in (table.select, table.extend_select, table.ignore, *table.per_file_ignores.values()) if table else ():
            choose_rules(ids)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}", hint="check its permissions") from error
    except ValidationError as error:
        raise ConfigError(f"{file}: {_fault(error, steps)}", hint=_HINT) from error
    except UsageError as error:
        raise ConfigError(f"{file}: {error.message}", hint=error.hint) from error
    except ValueError as error:
        raise ConfigError(f"{file} is not TOML: {error}", hint=_HINT) from error
    return table


def _fault(error: ValidationError, steps: Sequence[str]) -> str:
    """Return the first fault; that of an unknown key names the nearest known one."""
    first = error.errors(include_url=False)[0]
    *above, key = map(str, first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{'.'.join((*steps, *above, key))} has to be {_FORMS.get(first['type'], 'a table')}"
    model = _Table if above else _Own
    known = [field.alias or name for name, field in model.model_fields.items()]
    return f"{'.'.join((*steps, *above)) or 'top level'}: unknown key {key!r}{did_you_mean(key, known)}"

"""Reading ``configs.toml``: the hyperparameters that a vendor sets for its devices, as data of its plugin.

A plugin's ``perf_case_overrides`` hands the file to :func:`read_case_overrides`. The file is a list of rows::

    without_row = "FlagPerf has no ACME configuration"

    [[config]]
    case = "resnet50"
    topology = "1x8"
    card = "ACME A1"
    batch_size = { value = 256, reason = "27.6 GiB of the card's 40 GiB in use" }
    notes = ["FlagPerf's README publishes this row with batch_size 512"]

``topology`` is nodes x devices per node. ``card`` is a name as the runtime reports it, or a list of names; a row
without one is for every card, and a row of the card comes before it. Every other key is a hyperparameter.
``without_row`` begins the note that a case and topology without a row get. ``notes`` above the rows are those of every
row.
"""

from __future__ import annotations

import functools
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from chipperf.errors import PluginError, did_you_mean
from chipperf.plugin.types import CaseOverride, CaseOverrides

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pathlib import Path

    from chipperf.plugin.types import Rank

_TOPOLOGY: Final = re.compile(r"[1-9]\d*x[1-9]\d*")
_KEYS: Final = ("without_row", "notes", "config")
_SETTING: Final = 'write KEY = { value = ..., reason = "why this value" }'


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseConfig:
    """One row; ``cards`` are names in lower case, none for every card."""

    case: str
    topology: str
    cards: frozenset[str]
    overrides: CaseOverrides


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseConfigs:
    """Content of the file."""

    without_row: str
    rows: tuple[CaseConfig, ...]


def read_case_overrides(path: Path, case: str, rank: Rank, device_name: str = "") -> CaseOverrides:
    """Return the hyperparameters of a case on a topology and card; without a row, no values and a note.

    Args:
        path: The plugin's ``configs.toml``.
        case: Name of the case.
        rank: Place of the process, which says the topology.
        device_name: The card's name as the runtime reports it.

    Raises:
        PluginError: The file cannot be read, or a row or key of it is wrong.
    """
    configs = read_case_configs(path)
    found = [row for row in configs.rows if (row.case, row.topology) == (case, rank.topology)]
    for row in found:
        if device_name.casefold() in row.cards:
            return row.overrides
    for row in found:
        if not row.cards:
            return row.overrides
    note = f"{configs.without_row} of {case} on {rank.topology}: the case's base values apply"
    return CaseOverrides(notes=(note,))


@functools.cache
def read_case_configs(path: Path) -> CaseConfigs:
    """Read and check a ``configs.toml``; what its keys mean to a case is checked when a run is set up.

    Raises:
        PluginError: The file cannot be read, or a row or key of it is wrong.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PluginError(f"cannot read {path}: {error.strerror}", hint="reinstall the plugin") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PluginError(f"{path} is not TOML: {error}", hint="correct the plugin's file") from error
    for key in content:
        if key not in _KEYS:
            raise PluginError(
                f"{path}: unknown key {key!r}{did_you_mean(key, _KEYS)}", hint=f"keys: {', '.join(_KEYS)}"
            )
    without_row = content.get("without_row")
    if not _is_text(without_row):
        raise PluginError(f"{path}: without_row is not a text", hint='for example "FlagPerf has no configuration"')
    tables = content.get("config", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise PluginError(f"{path}: 'config' is not a list of tables", hint="write rows below [[config]]")
    shared = _texts(content.get("notes", []), f"{path}: notes")
    rows = tuple(_row(table, shared, f"{path}: [[config]] {number}") for number, table in enumerate(tables, start=1))
    seen: set[tuple[str, str, frozenset[str]]] = set()
    for row in rows:
        key = (row.case, row.topology, row.cards)
        if key in seen:
            raise PluginError(f"{path}: two rows are of {row.case} on {row.topology}", hint="leave one of them")
        seen.add(key)
    return CaseConfigs(without_row=without_row, rows=rows)


def _row(table: dict[str, Any], shared_notes: tuple[str, ...], place: str) -> CaseConfig:
    case, topology = table.pop("case", None), table.pop("topology", None)
    if not _is_text(case):
        raise PluginError(f"{place}: case is not a text", hint='for example case = "resnet50"')
    if not isinstance(topology, str) or not _TOPOLOGY.fullmatch(topology):
        raise PluginError(f"{place}: topology is {topology!r}", hint='nodes x devices per node: topology = "1x8"')
    place = f"{place} ({case} on {topology})"
    cards = _texts(table.pop("card", []), f"{place}: card")
    notes = _texts(table.pop("notes", []), f"{place}: notes")
    overrides = tuple(_override(key, setting, f"{place}: {key}") for key, setting in table.items())
    return CaseConfig(
        case=case,
        topology=topology,
        cards=frozenset(map(str.casefold, cards)),
        overrides=CaseOverrides(overrides=overrides, notes=(*shared_notes, *notes)),
    )


def _override(key: str, setting: object, place: str) -> CaseOverride:
    if not isinstance(setting, dict) or set(setting) != {"value", "reason"}:
        raise PluginError(f"{place} is not a value with its reason", hint=_SETTING)
    value, reason = setting["value"], setting["reason"]
    if not isinstance(value, bool | int | float | str):
        raise PluginError(f"{place}: the value is neither a number, a truth value nor a text", hint=_SETTING)
    if not _is_text(reason):
        raise PluginError(f"{place}: the reason is not a text", hint=_SETTING)
    return CaseOverride(key=key, value=value, reason=reason)


def _texts(value: object, place: str) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [value]
    if not all(map(_is_text, texts)):
        raise PluginError(f"{place}: not every entry is a text", hint="write a list of texts that are not empty")
    return tuple(texts)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())

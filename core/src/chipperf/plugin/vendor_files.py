"""Reading what a vendor states as data in TOML files of its plugin: hyperparameters, products, variables.

``docs/plugin-guide.md`` says what is in ``configs.toml``, ``products.toml`` and ``variables.toml``. If a file cannot be
read, or has something missing or wrong, each function raises a :class:`~chipperf.errors.PluginError`.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard

from chipperf.errors import PluginError, did_you_mean
from chipperf.plugin.types import (
    Capability,
    CaseOverride,
    CaseOverrides,
    EnvironmentVariable,
    KnownDevice,
    PeakFlops,
    Title,
    VendorInfo,
)
from chipperf.precisions import ARITHMETICS
from chipperf.toml import parse_toml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from chipperf.plugin.types import Rank

_PRODUCT_TABLES: Final = ("vendor", "data_sheet", "product")
_TOPOLOGY: Final = re.compile(r"[1-9]\d*x[1-9]\d*")
_VENDOR: Final = "write name, title, report_title, device_type, visible_devices_env and capabilities"
_VENDOR_TYPES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "title": lambda texts: Title(**texts),
    "report_title": lambda texts: Title(**texts),
    "visible_devices_env": tuple,
    "capabilities": lambda names: frozenset(map(Capability, names)),
}
_SETTING_KEYS: Final = {"value", "reason"}
_SETTING: Final = 'write KEY = { value = ..., reason = "why this value" }'


RowKey: TypeAlias = tuple[str, str, frozenset[str]]
"""Case, topology and cards of a row of ``configs.toml``; the cards are names in lower case, none for every card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseConfigs:
    """Content of ``configs.toml``."""

    without_row: str
    rows: Mapping[RowKey, CaseOverrides]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variables:
    """Variables of the environment, by table: what those do that the plugin reports, and which it sets."""

    meanings: Mapping[str, Mapping[str, str]]
    settings: Mapping[str, tuple[EnvironmentVariable, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Products:
    """What a vendor sells, and the peak rates by the product's name and the effective precision."""

    known_devices: tuple[KnownDevice, ...]
    peaks: Mapping[tuple[str, str], PeakFlops]

    def peak_flops(self, device_name: str, precision: str) -> PeakFlops | None:
        """Return the dense peak rate of a product, or ``None`` if no data sheet states it."""
        return self.peaks.get((device_name, precision))


def read_case_overrides(path: Path, case: str, rank: Rank, device_name: str = "") -> CaseOverrides:
    """Return the hyperparameters that a ``configs.toml`` has for a case, the topology of ``rank`` and a card.

    Without a row, there are no values, but a note.
    """
    configs = read_case_configs(path)
    note = f"{configs.without_row} of {case} on {rank.topology}: the case's base values apply"
    for_any_card = configs.rows.get((case, rank.topology, frozenset()), CaseOverrides(notes=(note,)))
    for (*place, cards), overrides in configs.rows.items():
        if place == [case, rank.topology] and device_name.casefold() in cards:
            return overrides
    return for_any_card


@functools.cache
def read_case_configs(path: Path) -> CaseConfigs:
    """Read and check a ``configs.toml``; what its keys mean to a case is checked when a run is set up."""
    content = _load(path, ("without_row", "notes", "config"))
    without_row = content.get("without_row")
    if not _is_text(without_row):
        raise PluginError(f"{path}: without_row is not a text", hint='for example "FlagPerf has no configuration"')
    shared = _texts(content.get("notes", []), f"{path}: notes")
    rows: dict[RowKey, CaseOverrides] = {}
    for number, table in enumerate(_tables(content, "config", path), start=1):
        key, overrides = _row(table, shared, f"{path}: [[config]] {number}")
        if rows.setdefault(key, overrides) is not overrides:
            raise PluginError(f"{path}: two rows are of {key[0]} on {key[1]}", hint="leave one of them")
    return CaseConfigs(without_row=without_row, rows=rows)


def read_vendor_info(path: Path, **decided: Any) -> VendorInfo:
    """Return who the vendor is: the table ``[vendor]`` of a ``products.toml``, with the products.

    ``decided`` are attributes that the file leaves to the plugin, for example those of the installed stack.
    """
    table = _load(path, _PRODUCT_TABLES).get("vendor", {})
    try:
        facts = {**table, **decided}
        for key, make in _VENDOR_TYPES.items():
            facts[key] = make(facts[key])
        return VendorInfo(known_devices=read_products(path).known_devices, **facts)
    except (KeyError, TypeError, ValueError) as error:
        raise PluginError(f"{path}: [vendor] lacks an attribute or has a wrong one: {error}", hint=_VENDOR) from error


@functools.cache
def read_products(path: Path) -> Products:
    """Read and check a ``products.toml``."""
    content = _load(path, _PRODUCT_TABLES)
    devices, peaks = [], {}
    for number, table in enumerate(_tables(content, "product", path), start=1):
        place = f"{path}: [[product]] {number}"
        _require_keys(table, ("name", "short_name", "memory_gib", "data_sheet"), place)
        name, short_name, memory_gib = table.get("name"), table.get("short_name"), table.get("memory_gib")
        if not (_is_text(name) and _is_text(short_name)):
            raise PluginError(f"{place}: name and short_name are not both texts", hint='for example name = "ACME A1"')
        if memory_gib is not None and not _is_positive(memory_gib):
            raise PluginError(f"{place} ({name}): memory_gib is {memory_gib!r}", hint="write the capacity in GiB")
        memory_bytes = None if memory_gib is None else round(memory_gib * 2**30)
        devices.append(KnownDevice(name=name, short_name=short_name, memory_bytes=memory_bytes))
        if "data_sheet" in table:
            found = _peaks(content.get("data_sheet"), table["data_sheet"], f"{place} ({name})")
            peaks.update({(name, precision): peak for precision, peak in found.items()})
    return Products(known_devices=tuple(devices), peaks=peaks)


@functools.cache
def read_variables(path: Path) -> Variables:
    """Read and check a ``variables.toml``."""
    meanings: dict[str, dict[str, str]] = {}
    settings: dict[str, tuple[EnvironmentVariable, ...]] = {}
    for group, table in _load(path).items():
        if not isinstance(table, dict):
            raise PluginError(f"{path}: {group} is not a table", hint=f"write variables below [{group}]")
        meanings[group] = {name: entry for name, entry in table.items() if _is_text(entry)}
        entries = {name: entry for name, entry in table.items() if name not in meanings[group]}
        for name, entry in entries.items():
            if not isinstance(entry, dict) or set(entry) != _SETTING_KEYS or not all(map(_is_text, entry.values())):
                raise PluginError(
                    f"{path}: {group}.{name} is neither a text nor a value with its reason",
                    hint='write what it does, or { value = "1", reason = "why this value" }',
                )
        settings[group] = tuple(EnvironmentVariable(name=name, **entry) for name, entry in entries.items())
    return Variables(meanings=meanings, settings=settings)


def _peaks(sheets: object, title: object, place: str) -> dict[str, PeakFlops]:
    sheet = sheets.get(title) if isinstance(sheets, dict) and isinstance(title, str) else None
    if not isinstance(sheet, dict):
        raise PluginError(f"{place}: there is no data sheet {title!r}", hint=f"write a table [data_sheet.{title}]")
    place = f"{place}: data sheet {title}"
    _require_keys(sheet, ("title", "tflops"), place)
    rates = sheet.get("tflops")
    if not _is_text(sheet.get("title")) or not isinstance(rates, dict):
        raise PluginError(f"{place} lacks its title or its rates", hint="write title and tflops = { fp16 = 312 }")
    for precision, rate in rates.items():
        if precision not in ARITHMETICS or not _is_positive(rate):
            raise PluginError(
                f"{place}: {precision} = {rate!r} is no rate",
                hint=f"in 1e12 FLOP/s, by one of {', '.join(ARITHMETICS)}",
            )
    return {name: PeakFlops(flops_per_s=rate * 1e12, source=sheet["title"]) for name, rate in rates.items()}


def _load(path: Path, keys: tuple[str, ...] | None = None) -> dict[str, Any]:
    try:
        content = parse_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PluginError(f"cannot read {path}: {error.strerror}", hint="reinstall the plugin") from error
    except ValueError as error:
        raise PluginError(f"{path} is not TOML: {error}", hint="correct the plugin's file") from error
    if keys is not None:
        _require_keys(content, keys, str(path))
    return content


def _require_keys(table: Mapping[str, Any], keys: tuple[str, ...], place: str) -> None:
    for key in table:
        if key not in keys:
            raise PluginError(f"{place}: unknown key {key!r}{did_you_mean(key, keys)}", hint=f"keys: {', '.join(keys)}")


def _tables(content: Mapping[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    tables: list[dict[str, Any]] = content.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise PluginError(f"{path}: {key!r} is not a list of tables", hint=f"write rows below [[{key}]]")
    return tables


def _row(table: dict[str, Any], shared_notes: tuple[str, ...], place: str) -> tuple[RowKey, CaseOverrides]:
    case, topology = table.pop("case", None), table.pop("topology", None)
    if not _is_text(case):
        raise PluginError(f"{place}: case is not a text", hint='for example case = "resnet50"')
    if not isinstance(topology, str) or not _TOPOLOGY.fullmatch(topology):
        raise PluginError(f"{place}: topology is {topology!r}", hint='nodes x devices per node: topology = "1x8"')
    place = f"{place} ({case} on {topology})"
    cards = _texts(table.pop("card", []), f"{place}: card")
    notes = _texts(table.pop("notes", []), f"{place}: notes")
    overrides = []
    for key, setting in table.items():
        if not isinstance(setting, dict) or set(setting) != _SETTING_KEYS:
            raise PluginError(f"{place}: {key} is not a value with its reason", hint=_SETTING)
        if not isinstance(setting["value"], bool | int | float | str):
            fault = "the value is not a number, boolean or string"
            raise PluginError(f"{place}: {key}: {fault}", hint=_SETTING)
        if not _is_text(setting["reason"]):
            raise PluginError(f"{place}: {key}: the reason is not a text", hint=_SETTING)
        overrides.append(CaseOverride(key=key, **setting))
    row_key = (case, topology, frozenset(map(str.casefold, cards)))
    return row_key, CaseOverrides(overrides=tuple(overrides), notes=(*shared_notes, *notes))


def _texts(value: object, place: str) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [value]
    if not all(map(_is_text, texts)):
        raise PluginError(f"{place}: not every entry is a text", hint="write a list of texts that are not empty")
    return tuple(texts)


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value.strip())


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0

"""Names of accelerators and their vendors, from installed plugins, from ``card_names.toml``, and from the user."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from chipperf.errors import ConfigError, PluginError, first_fault
from chipperf.languages import in_all_languages
from chipperf.plugin import installed
from chipperf.plugin.session import bind
from chipperf.toml import parse_toml

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chipperf.plugin.types import VendorInfo

SHIPPED_FILE: Final = Path(__file__).with_name("card_names.toml")


class VendorNames(BaseModel):
    """Names of a vendor, its servers and its cards. ``cards`` has the other names of a card by its name in reports."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    titles: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    cards: dict[str, tuple[str, ...]] = {}


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    vendors: dict[str, VendorNames]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """A name found in a text.

    Attributes:
        text: The name as written.
        start: Index of its first character.
        vendor: The vendor that the name belongs to.
        card: The card's name in reports; ``None`` for a vendor or a server.
        machine: True for a server.
    """

    text: str
    start: int
    vendor: str
    card: str | None = None
    machine: bool = False


@dataclass(frozen=True, slots=True)
class _Name:
    text: str
    vendor: str
    card: str | None = None
    machine: bool = False


class CardNames:
    """All known names."""

    def __init__(self) -> None:
        self._names: dict[str, _Name] = {}
        self._pattern: re.Pattern[str] | None = None
        self._vendors: set[str] = set()
        self._memory_bytes: dict[tuple[str, str], set[int]] = {}
        self._infos: dict[str, VendorInfo] = {}

    @property
    def vendors(self) -> frozenset[str]:
        """All vendors with a known name."""
        return frozenset(self._vendors)

    def info(self, vendor: str) -> VendorInfo | None:
        """Return the info of the vendor's plugin, or ``None`` if the plugin is not installed."""
        return self._infos.get(vendor)

    def titles(self, vendor: str) -> tuple[str, ...]:
        """Return the vendor's names."""
        return tuple(
            name.text
            for name in self._names.values()
            if name.vendor == vendor and not name.card and not name.machine and name.text != vendor
        )

    def cards(self, vendor: str) -> tuple[str, ...]:
        """Return every name of the vendor's cards."""
        return tuple(name.text for name in self._names.values() if name.vendor == vendor and name.card)

    def memory_bytes(self, vendor: str, card: str) -> frozenset[int]:
        """Return the memory sizes, according to data sheets, of the products with this name in reports."""
        return frozenset(self._memory_bytes.get((vendor, card), ()))

    def find(self, text: str) -> list[Mention]:
        """Return the names in a text, in their order. If names overlap, return only the longest."""
        if self._pattern is None:
            longest_first = sorted(self._names, key=len, reverse=True)
            self._pattern = re.compile("|".join(_word(name) for name in longest_first) or r"(?!)", re.IGNORECASE)
        found = []
        for match in self._pattern.finditer(text):
            # With IGNORECASE, some letters match although their lower case differs.
            name = self._names.get(match[0].casefold())
            if name is None:
                continue
            found.append(
                Mention(text=match[0], start=match.start(), vendor=name.vendor, card=name.card, machine=name.machine)
            )
        return found

    def add(self, vendor: str, names: VendorNames) -> None:
        """Add a vendor's names. A known name keeps its meaning."""
        self._vendors.add(vendor)
        for title in (vendor, *names.titles):
            self._put(_Name(title, vendor))
        for machine in names.machines:
            self._put(_Name(machine, vendor, machine=True))
        for card, others in names.cards.items():
            for text in (card, *others):
                self._put(_Name(text, vendor, card=card))

    def add_plugin(self, info: VendorInfo) -> None:
        """Add the names in the info of an installed plugin."""
        self._infos[info.name] = info
        if info.name == installed.REFERENCE_VENDOR:
            # The reference's name is a common word, which occurs in the texts of all vendors.
            self._vendors.add(info.name)
            return
        cards: dict[str, tuple[str, ...]] = {}
        for device in info.known_devices:
            cards[device.short_name] = (*cards.get(device.short_name, ()), device.name)
            if device.memory_bytes:
                self._memory_bytes.setdefault((info.name, device.short_name), set()).add(device.memory_bytes)
        self.add(info.name, VendorNames(titles=in_all_languages(info.title), cards=cards))

    def _put(self, name: _Name) -> None:
        self._names.setdefault(name.text.casefold(), name)
        self._pattern = None


def read_card_names(files: Sequence[Path] = ()) -> CardNames:
    """Return the names from the user's files, installed plugins and core's file. The first meaning of a name wins.

    Raises:
        ConfigError: A file cannot be read, or does not have the format of ``card_names.toml``. The message says where.
    """
    names = CardNames()
    for file in files:
        _add_file(names, file)
    for info in _installed():
        names.add_plugin(info)
    _add_file(names, SHIPPED_FILE)
    return names


@cache
def _installed() -> tuple[VendorInfo, ...]:
    infos = []
    for entry in _unique(installed.vendors()):
        # Ignore a broken plugin; `perf doctor` reports it.
        with suppress(PluginError):
            infos.append(bind(entry, purpose="inspect").vendor_info())
    return tuple(infos)


def _unique(entries: Iterable[installed.PluginEntry]) -> list[installed.PluginEntry]:
    return list({entry.name: entry for entry in entries}.values())


def _add_file(names: CardNames, path: Path) -> None:
    try:
        content = _File.model_validate(parse_toml(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="check --cards") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_fault(error)}", hint=f"{SHIPPED_FILE} is an example") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}", hint=f"{SHIPPED_FILE} is an example") from error
    for vendor, vendor_names in content.vendors.items():
        names.add(vendor, vendor_names)


def _word(name: str) -> str:
    # Ideographs have no word boundaries. A Latin name next to digits or letters is part of another name.
    before = r"(?<![A-Za-z0-9])" if name[0].isascii() else ""
    after = r"(?![A-Za-z0-9])" if name[-1].isascii() else ""
    return f"{before}{re.escape(name)}{after}"

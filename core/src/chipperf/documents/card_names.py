"""Names of accelerators and their vendors, from installed plugins, from ``card_names.toml``, and from the user."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from chipperf.errors import ConfigError, first_fault
from chipperf.languages import in_all_languages
from chipperf.plugin.installed import REFERENCE_VENDOR
from chipperf.plugin.probe_process import installed_infos
from chipperf.records.files import read_bounded
from chipperf.records.schema import StrictModel
from chipperf.toml import parse_toml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chipperf.plugin.types import KnownDevice, VendorInfo

SHIPPED_FILE: Final = Path(__file__).with_name("card_names.toml")

# Ideographs have no word boundaries. A Latin name next to digits or letters is part of another name. Written once, not
# with each name: hundreds of names take tens of milliseconds to compile with it.
_BEFORE: Final = r"(?:(?=[^\x00-\x7f])|(?<![A-Za-z0-9]))"
_AFTER: Final = r"(?:(?<=[^\x00-\x7f])|(?![A-Za-z0-9+]))"


class VendorNames(StrictModel):
    """Names of a vendor, its servers and its cards. ``cards`` has the other names of a card by its name in reports."""

    titles: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    cards: dict[str, tuple[str, ...]] = {}


class _File(StrictModel):
    vendors: dict[str, VendorNames]


@dataclass(frozen=True, slots=True)
class Mention:
    """A name as written, its vendor, and the card's name in reports, ``None`` for a vendor or a server."""

    text: str
    vendor: str
    card: str | None = None
    machine: bool = False


class CardNames:
    """All known names, and the vendors that have one."""

    def __init__(self) -> None:
        self.vendors: set[str] = set()
        self._names: dict[str, Mention] = {}
        self._pattern: re.Pattern[str] | None = None
        self._infos: dict[str, VendorInfo] = {}

    def info(self, vendor: str) -> VendorInfo | None:
        """Return the info of the vendor's plugin, or ``None`` if it is not installed."""
        return self._infos.get(vendor)

    def titles(self, vendor: str) -> tuple[str, ...]:
        """Return the vendor's names."""
        own = (name for name in self._names.values() if name.vendor == vendor and not name.card and not name.machine)
        return tuple(name.text for name in own if name.text != vendor)

    def cards(self, vendor: str) -> tuple[str, ...]:
        """Return every name of the vendor's cards."""
        return tuple(name.text for name in self._names.values() if name.vendor == vendor and name.card)

    def products(self, card: Mention) -> tuple[KnownDevice, ...]:
        """Return the products with the card's name in reports whose memory is known from a data sheet."""
        devices = self._infos[card.vendor].known_devices if card.vendor in self._infos else ()
        return tuple(each for each in devices if each.short_name == card.card and each.memory_bytes)

    def sizes(self, card: Mention) -> tuple[KnownDevice, ...]:
        """Return the products with known memory of every size of a card: of A100 also those of A100-80G."""
        devices = self._infos[card.vendor].known_devices if card.vendor in self._infos else ()
        size = re.compile(rf"{re.escape(card.card or '')}(?:[- ]\d+G)?")
        return tuple(each for each in devices if size.fullmatch(each.short_name) and each.memory_bytes)

    def find(self, text: str) -> list[Mention]:
        """Return the names in a text, in their order. If names overlap, return only the longest."""
        if self._pattern is None:
            longest_first = sorted(filter(None, self._names), key=len, reverse=True)
            names = "|".join(map(re.escape, longest_first)) or r"(?!)"
            self._pattern = re.compile(f"{_BEFORE}(?:{names}){_AFTER}", re.IGNORECASE)
        # With IGNORECASE, some letters match although their lower case differs.
        found = ((match[0], self._names.get(match[0].casefold())) for match in self._pattern.finditer(text))
        return [replace(name, text=written) for written, name in found if name]

    def add(self, vendor: str, names: VendorNames) -> None:
        """Add a vendor's names. A known name keeps its meaning."""
        self.vendors.add(vendor)
        mentions = [Mention(title, vendor) for title in (vendor, *names.titles)]
        mentions += [Mention(machine, vendor, machine=True) for machine in names.machines]
        for card, others in names.cards.items():
            mentions += [Mention(text, vendor, card) for text in (card, *others)]
        for mention in mentions:
            self._names.setdefault(mention.text.casefold(), mention)
        self._pattern = None

    def add_file(self, path: Path) -> None:
        """Add the names in a file; a :class:`ConfigError` says where it is not of the format."""
        try:
            content = _File.model_validate(parse_toml(read_bounded(path).decode()))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}", hint="check --cards") from error
        except ValidationError as error:
            raise ConfigError(f"{path}: {first_fault(error)}", hint=f"{SHIPPED_FILE} is an example") from error
        except ValueError as error:
            raise ConfigError(f"{path} is not TOML: {error}", hint=f"{SHIPPED_FILE} is an example") from error
        for vendor, known in content.vendors.items():
            self.add(vendor, known)

    def add_plugin(self, info: VendorInfo) -> None:
        """Add the names in the info of an installed plugin."""
        self._infos[info.name] = info
        if info.name == REFERENCE_VENDOR:
            # The reference's name is a common word, which occurs in the texts of all vendors.
            self.vendors.add(info.name)
            return
        cards: dict[str, tuple[str, ...]] = {}
        for device in info.known_devices:
            cards[device.short_name] = (*cards.get(device.short_name, ()), device.name)
        self.add(info.name, VendorNames(titles=in_all_languages(info.title), cards=cards))


def read_card_names(files: Sequence[Path] = ()) -> CardNames:
    """Return the names from the user's files, installed plugins and core's file. The first meaning of a name wins.

    A :class:`ConfigError` says where a file cannot be read, or does not have the format of ``card_names.toml``.
    """
    names = CardNames()
    for file in files:
        names.add_file(file)
    for info in installed_infos():
        names.add_plugin(info)
    names.add_file(SHIPPED_FILE)
    return names

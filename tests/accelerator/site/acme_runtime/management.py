"""SIMULATED management library: which cards are here and what their sensors say; no torch.

Environment variables stand for the machine: ``ACME_DRIVER=1`` has the driver loaded, ``ACME_CARDS`` is the number of
cards (2), ``ACME_MEMORY_BYTES`` the memory of each (1 GiB). ``ACME_VISIBLE_CARDS`` is the user's choice among them.
``ACME_STATE`` is the directory through which processes see each other's use of the cards; without it they see none.
"""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

PRODUCT_NAME = "Acme A1"
VISIBLE_VARIABLE = "ACME_VISIBLE_CARDS"

_DRIVER_VARIABLE = "ACME_DRIVER"
_CARDS_VARIABLE = "ACME_CARDS"
_MEMORY_VARIABLE = "ACME_MEMORY_BYTES"
_STATE_VARIABLE = "ACME_STATE"
_USAGE = struct.Struct("qd")
"""The backend's ``Usage``: bytes in use, and until when the card is busy by the monotonic clock."""
_DRIVER_VERSION = "1.4.2"


class CardNotFound(LookupError):
    """No card of this machine has the UUID."""


@dataclass(frozen=True)
class Card:
    """A card; ``index`` counts the visible cards, the other fields belong to the card itself."""

    index: int
    name: str
    uuid: str
    pci_bus_id: str
    total_bytes: int


@dataclass(frozen=True)
class Telemetry:
    """Fake readings of one card, which differ from card to card, and its use by all processes."""

    power_w: float
    temperature_c: float
    utilization_percent: float
    memory_used_bytes: int
    clock_mhz: float


def driver_version() -> str | None:
    """Return the version of the loaded driver, or ``None`` if none is."""
    return _DRIVER_VERSION if os.environ.get(_DRIVER_VARIABLE) == "1" else None


def cards() -> tuple[Card, ...]:
    """Return the visible cards in the order of ``ACME_VISIBLE_CARDS``; none without a driver.

    The variable lists numbers of cards, separated by commas; the list ends at the first entry that names no card.
    """
    if driver_version() is None:
        return ()
    total_bytes = int(os.environ.get(_MEMORY_VARIABLE, 2**30))
    return tuple(
        Card(
            index=index,
            name=PRODUCT_NAME,
            uuid=f"ACME-0000-{number:04d}",
            pci_bus_id=f"0000:{0x40 + number:02x}:00.0",
            total_bytes=total_bytes,
        )
        for index, number in enumerate(_visible_numbers())
    )


def telemetry(uuid: str) -> Telemetry:
    """Return the readings of a card.

    Raises:
        CardNotFound: There is no such card, or it is not visible.
    """
    if uuid in [card.uuid for card in cards()]:
        number = int(uuid[-4:])
        busy = max((until_s for _, until_s in _usages(uuid)), default=0.0) > time.monotonic()
        return Telemetry(
            power_w=60.0 + number + 40.0 * busy,
            temperature_c=40.0 + number,
            utilization_percent=100.0 * busy,
            memory_used_bytes=used_bytes(uuid),
            clock_mhz=1200.0,
        )
    raise CardNotFound(f"no visible card has the UUID {uuid}")


def used_bytes(uuid: str) -> int:
    """Return the bytes of a card that all processes hold."""
    return sum(held_bytes for held_bytes, _ in _usages(uuid))


def usage_file(uuid: str) -> str:
    """Return the file in which this process shows its use of a card; empty if nobody is to see it."""
    if _STATE_VARIABLE not in os.environ:
        return ""
    directory = Path(os.environ[_STATE_VARIABLE])
    directory.mkdir(exist_ok=True)
    return str(directory / f"{uuid}.{os.getpid()}")


def _usages(uuid: str) -> list[tuple[int, float]]:
    """Return what every process that is alive has written about a card."""
    if _STATE_VARIABLE not in os.environ:
        return []
    files = Path(os.environ[_STATE_VARIABLE]).glob(f"{uuid}.*")
    return [_USAGE.unpack(file.read_bytes()) for file in files if Path("/proc", file.suffix[1:]).exists()]


def _visible_numbers() -> list[int]:
    present = range(int(os.environ.get(_CARDS_VARIABLE, 2)))
    wanted = os.environ.get(VISIBLE_VARIABLE)
    if wanted is None:
        return list(present)
    numbers: list[int] = []
    for entry in wanted.split(","):
        if not entry.strip().isdecimal() or int(entry) not in present:
            break
        numbers.append(int(entry))
    return numbers

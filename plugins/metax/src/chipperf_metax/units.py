"""Quantities as MetaX's tools print them, in the units chipperf keeps."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_QUANTITY = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*([A-Za-z%]*)\s*")

# mx-smi's KB is 1024 bytes: it prints 67108864 KB for 64 GiB.
BYTES: Final[Mapping[str, float]] = {"B": 1, "KB": 2**10, "KiB": 2**10, "MB": 2**20, "MiB": 2**20, "GB": 2**30}
WATTS: Final[Mapping[str, float]] = {"W": 1, "mW": 1e-3}
CELSIUS: Final[Mapping[str, float]] = {"C": 1}
PERCENT: Final[Mapping[str, float]] = {"%": 1}
MEGAHERTZ: Final[Mapping[str, float]] = {"MHz": 1}
UNSTATED: Final[Mapping[str, float]] = {"": 1}
"""For formats whose specification, and not their text, gives the unit."""


def quantity(text: str, units: Mapping[str, float]) -> float | None:
    """Return the number in ``text`` in the unit that ``units`` maps to 1; ``None`` if it is not such a quantity.

    Args:
        text: A number and its unit, alone.
        units: Accepted spellings of the unit, each with its size.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in units:
        return None
    return float(match[1]) * units[match[2]]


def whole(value: float | None) -> int | None:
    """Return ``value`` as an integer, for counts of bytes."""
    return None if value is None else round(value)

"""Parsing the text of a cell: numbers, results, memory, hyperparameters, and marks of missing values."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from chipperf.documents.format import MARKERS, REASON_IN_MARKER
from chipperf.languages import in_all_languages, pattern
from chipperf.records.schema import UNKNOWN, Missing, MissingKind, Setting

if TYPE_CHECKING:
    from chipperf.records.columns import Unit

_GIB: Final = 2**30
_MAX_GIB: Final = 2**20

_MARKS: Final[dict[str, MissingKind]] = {
    "": "unknown",
    "?": "unknown",
    "tbd": "unknown",
    "\\": "not_applicable",
    "-": "not_applicable",
    "--": "not_applicable",
    "—": "not_applicable",
    "——": "not_applicable",
    "n/a": "not_applicable",
    "na": "not_applicable",
    "不适用": "not_applicable",
    "未测试": "not_run",
    **{text.casefold(): kind for kind, marker in MARKERS.items() for text in in_all_languages(marker)},
}
_WITH_REASON: Final = re.compile(
    rf"({'|'.join(pattern(MARKERS[kind]) for kind in REASON_IN_MARKER)})\s*[（(](.*)[）)]", re.IGNORECASE | re.DOTALL
)
_NUMBER: Final = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?(?:[eE][+-]?\d{1,3})?|\.\d+")
_UNIT: Final = re.compile(
    r"\s*(?:s|秒|seconds?|(?:img|imgs|images?|samples?|seqs?|sequences?|tokens?|ips)(?:/(?:s|sec|second))?)?",
    re.IGNORECASE,
)
_NO_UNIT: Final = re.compile("")
_MEMORY_UNIT: Final = re.compile(r"\s*(?:G|GB|GiB)?", re.IGNORECASE)
_INTEGER: Final = re.compile(r"[+-]?\d{1,18}")
_FLOAT: Final = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d{1,3})?")
_SEPARATOR: Final = re.compile(r"\s*[,，;；]\s*")


def marker(text: str) -> Missing | None:
    """Return the missing value that a cell's text marks, or ``None``. A blank cell is an unknown value."""
    if match := _WITH_REASON.fullmatch(text):
        return Missing(missing=_MARKS[match[1].casefold()], reason=match[2].strip())
    kind = _MARKS.get(text.casefold())
    return Missing(missing=kind) if kind else None


def number(text: str) -> float | None:
    """Return a cell's number, with or without thousands separators and unit; ``None`` for other or negative values.

    >>> number("1,237.6"), number("28661 s"), number("80.83.2")
    (1237.6, 28661.0, None)
    """
    decimal = _leading_number(text, _UNIT)
    return None if decimal is None else float(decimal)


def quality(text: str) -> float | None:
    """Return a result as a fraction: ``68.43%``, ``68.43`` and ``0.6843`` are the same.

    >>> quality("68.43%"), quality("73.08"), quality("0.405"), quality("38.4 && 34.6")
    (0.6843, 0.7308, 0.405, None)
    """
    stripped = text.rstrip("%％ ")
    decimal = _leading_number(stripped, _NO_UNIT)
    if decimal is None:
        return None
    is_percent = stripped != text.rstrip() or decimal > 1
    fraction = float(decimal / 100 if is_percent else decimal)
    return fraction if fraction <= 1 else None


@dataclass(frozen=True, slots=True)
class MemoryCell:
    """Used and total memory in bytes. The total may be missing."""

    used_bytes: int
    total_bytes: int | Missing


def memory(text: str) -> MemoryCell | None:
    """Return a memory cell's values. ``24.8/32.0``, ``29.3/64`` and ``30.9/ 32.0`` are used and total GiB."""
    used_text, separator, total_text = text.partition("/")
    used = _gib(used_text)
    total = (marker(total_text.strip()) or _gib(total_text)) if separator else UNKNOWN
    return None if used is None or total is None else MemoryCell(used, total)


def in_unit(text: str, unit: Unit) -> float | None:
    """Return the number in a cell of a reported value, of memory the used bytes; ``None`` if there is none."""
    if unit == "bytes":
        found = memory(text)
        return found.used_bytes if found else None
    return quality(text) if unit == "fraction" else number(text)


def assignments(text: str) -> tuple[dict[str, Setting], list[str]]:
    """Return the hyperparameters of a ``fix_hp`` cell, and its other parts.

    >>> assignments("bs=256,lr=0.36"), assignments("lr=1e-4；warm")
    (({'bs': 256, 'lr': 0.36}, []), ({'lr': 0.0001}, ['warm']))
    """
    values: dict[str, Setting] = {}
    rest = []
    for part in _SEPARATOR.split(text.strip()):
        key, separator, value = part.partition("=")
        key, value = key.strip(), value.strip()
        if not part:
            continue
        if separator and re.fullmatch(r"\w+", key) and value and "=" not in value and key not in values:
            values[key] = setting(value)
        else:
            rest.append(part)
    return values, rest


def setting(text: str) -> Setting:
    """Return a hyperparameter's value: a boolean, a number, an empty string for ``none``, or the text itself."""
    if text == "none":
        return ""
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(value := float(text)):
        return value
    return text


def _leading_number(text: str, unit: re.Pattern[str]) -> Decimal | None:
    match = _NUMBER.match(text)
    if match is None or not unit.fullmatch(text, match.end()):
        return None
    decimal = Decimal(match[0].replace(",", ""))
    return decimal if math.isfinite(float(decimal)) else None


def _gib(text: str) -> int | None:
    decimal = _leading_number(text.strip(), _MEMORY_UNIT)
    return round(decimal * _GIB) if decimal is not None and decimal <= _MAX_GIB else None

"""Parsing the text of a cell: numbers, results, memory, hyperparameters, and marks of missing values."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Final

from chipperf.documents.format import MARKERS, REASON_IN_MARKER
from chipperf.languages import in_all_languages, pattern
from chipperf.records.schema import UNKNOWN, Missing, MissingKind, Setting

if TYPE_CHECKING:
    from chipperf.records.columns import Unit

_MAX_BYTES: Final = 2**50

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
    "oom": "failed",
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
_MEMORY_UNIT: Final = r"[KMGT](?:i?B)?"
_MEMORY: Final = re.compile(rf"({_NUMBER.pattern})\s*({_MEMORY_UNIT})?", re.IGNORECASE)
_UNIT_OF_MEMORY: Final = re.compile(rf"\d\s*({_MEMORY_UNIT})$", re.IGNORECASE)
_UNIT_IN_HEADER: Final = re.compile(rf"[（(,，]\s*({_MEMORY_UNIT})\s*[）)]", re.IGNORECASE)
_POWERS: Final = {"k": 1, "m": 2, "g": 3, "t": 4}
_INTEGER: Final = re.compile(r"[+-]?\d{1,18}")
_FLOAT: Final = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d{1,3})?")
_BRACKETED: Final = re.compile(r"(?<![=\s])\s*[（(]([^（）()]*)[）)]")
_SEPARATOR: Final = re.compile(r"\s*[,，;；]\s*")
_KEYS_BETWEEN_BLANKS: Final = re.compile(r"\w+\s*=\s*[^\s=]+(?:\s+\w+\s*=\s*[^\s=]+)+")
_BLANKS_BEFORE_KEY: Final = re.compile(r"\s+(?=\w+\s*=)")
_PERCENT: Final = re.compile(r"[%％]")
_DEGREES: Final = re.compile(r"(?:[A-Z]{1,3}\d{1,5})+")
_DEGREE: Final = re.compile(r"([A-Z]{1,3})(\d{1,5})")


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


def quality(text: str, *, is_fraction: bool = True) -> float | None:
    """Return a result as a fraction: ``68.43%``, ``68.43`` and ``0.6843`` are the same.

    A result that is none, such as a perplexity, is the number as written.

    >>> quality("68.43%"), quality("73.08"), quality("0.405"), quality("38.4 && 34.6")
    (0.6843, 0.7308, 0.405, None)
    >>> quality("23.7", is_fraction=False)
    23.7
    """
    if not is_fraction:
        return number(text)
    stripped = text.rstrip("%％ ")
    decimal = _leading_number(stripped, _NO_UNIT)
    if decimal is None:
        return None
    is_percent = stripped != text.rstrip() or decimal > 1
    fraction = float(decimal / 100 if is_percent else decimal)
    return fraction if fraction <= 1 else None


def result_and_target(text: str) -> tuple[str, str] | None:
    """Return both parts of a cell such as ``0.641/0.650``, or ``None``."""
    result, separator, target = (part.strip() for part in text.partition("/"))
    is_pair = separator and all(number(_PERCENT.sub("", part)) is not None for part in (result, target))
    return (result, target) if is_pair else None


def degrees(text: str) -> dict[str, int]:
    """Return the degrees of parallelism in a cell, none if it has another form.

    >>> degrees("TP2PP1DP4")
    {'TP': 2, 'PP': 1, 'DP': 4}
    """
    joined = re.sub(r"[\s,，;；_x*-]+", "", text)
    return {name: int(value) for name, value in _DEGREE.findall(joined)} if _DEGREES.fullmatch(joined) else {}


@dataclass(frozen=True, slots=True)
class MemoryCell:
    """Used and total memory in bytes, the total may be missing, and the unit if it is another than the layout's GiB."""

    used_bytes: int
    total_bytes: int | Missing
    other_unit: str = ""


def memory(text: str, header: str = "") -> MemoryCell | None:
    """Return a memory cell's values. ``24.8/32.0``, ``29.3/64`` and ``30.9/ 32.0`` are used and total GiB.

    A unit behind the numbers, or in the brackets of the column's header, is converted.

    >>> memory("32/64") == memory("32768/65536", "mem(MiB)"), memory("1.5GB").other_unit
    (False, 'GB')
    >>> memory("32768/65536", "mem(MiB)").used_bytes == memory("32/64").used_bytes
    True
    """
    used_text, separator, total_text = (part.strip() for part in text.partition("/"))
    written = _UNIT_OF_MEMORY.search(total_text) or _UNIT_OF_MEMORY.search(used_text) or _UNIT_IN_HEADER.search(header)
    unit = written[1] if written else ""
    used = _bytes(used_text, unit)
    total = (marker(total_text) or _bytes(total_text, unit)) if separator else UNKNOWN
    if used is None or total is None:
        return None
    return MemoryCell(used, total, "" if unit.casefold() in ("", "g", "gib") else unit)


def unit_of_memory(text: str) -> str:
    """Return the unit at the end of a text if it is another than GiB; empty if there is none.

    >>> unit_of_memory("66.27 * 8 GB"), unit_of_memory("30 GiB"), unit_of_memory("30")
    ('GB', '', '')
    """
    match = _UNIT_OF_MEMORY.search(text)
    return match[1] if match and match[1].casefold() not in ("g", "gib") else ""


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
    >>> assignments("bs=64 lr=0.3")
    ({'bs': 64, 'lr': 0.3}, [])
    >>> assignments("GAS=16 (GBS=128)")
    ({'GAS': 16, 'GBS': 128}, [])
    """
    values: dict[str, Setting] = {}
    rest = []
    parts = _SEPARATOR.split(_BRACKETED.sub(r",\1,", text.strip()))
    for part in chain.from_iterable(
        _BLANKS_BEFORE_KEY.split(part) if _KEYS_BETWEEN_BLANKS.fullmatch(part) else (part,) for part in parts
    ):
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


def _bytes(text: str, unit: str) -> int | None:
    """Return the bytes of a number with its own unit, or with ``unit``; without any it is in GiB."""
    match = _MEMORY.fullmatch(text)
    if match is None:
        return None
    name = (match[2] or unit or "GiB").casefold()
    base = 1000 if len(name) == len("GB") else 1024
    found = round(Decimal(match[1].replace(",", "")) * base ** _POWERS[name[0]])
    return found if found <= _MAX_BYTES else None

"""How a report writes values: numbers, missing values and text that must not break Markdown.

Numeric functions pass a :class:`~chipperf.records.schema.Missing` through, so that a template's filter works on a value
that is not there; :func:`marker` is its text.
"""

from __future__ import annotations

import math
import re
from decimal import ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, Literal

from chipperf.records.schema import Missing, MissingKind, Setting

if TYPE_CHECKING:
    from collections.abc import Mapping

Language = Literal["zh", "en"]

NOT_APPLICABLE = "/"
"""Marks what does not apply, and in ``fix_hp`` that nothing differs from the case's base."""

_MARKERS: Mapping[Language, Mapping[MissingKind, str]] = {
    "zh": {
        "not_run": "未运行",
        "withheld": "未公开",
        "failed": "失败",
        "not_applicable": NOT_APPLICABLE,
        "unknown": "未知",
    },
    "en": {
        "not_run": "not run",
        "withheld": "withheld",
        "failed": "failed",
        "not_applicable": NOT_APPLICABLE,
        "unknown": "unknown",
    },
}
_REASON: Mapping[Language, str] = {"zh": "{}({})", "en": "{} ({})"}
REASON_IN_MARKER = ("withheld", "failed")
"""Kinds of missing values whose marker carries the reason."""

_SIGNIFICANT_DIGITS = 5
_MOST_ROUNDED = 10**15
_GIB = 2**30
_GIB_DECIMALS = 11

_WHITESPACE = re.compile(r"\s+")
_LINK = re.compile(r"(?<!!)(\[[^\[\]\n]+\]\(https?://[^\s()<>\"'|]+\))")
_UNDERSCORE_AT_WORD_EDGE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
_BLOCK_START = re.compile(r"^(\s*)(?=[#>]|[-+](?![\w.]))|^(\s*\d+)(?=[.)](?:\s|$))")
_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\`*[]|~!"} | {"<": "&lt;", "&": "&amp;"})


def marker(missing: Missing, language: Language) -> str:
    """Return the text that stands for a missing value; failed and withheld values carry their reason."""
    text = _MARKERS[language][missing.missing]
    if missing.reason and missing.missing in REASON_IN_MARKER:
        return _REASON[language].format(text, missing.reason)
    return text


def text_or_marker(value: object, language: Language) -> str:
    """Return the text of a value, or the marker of a missing one."""
    return marker(value, language) if isinstance(value, Missing) else str(value)


def number(value: float | Missing, *, exact: bool = False) -> str | Missing:
    """Return ``value`` with five significant digits and every digit before the point, without exponent.

    ``exact`` leaves out no digit: an imported value is shown as its document has it.

    >>> number(1237.64), number(28661), number(0.5), number(1237.64, exact=True)
    ('1237.6', '28661', '0.5', '1237.64')
    """
    if isinstance(value, Missing):
        return value
    if exact:
        return _trimmed(f"{Decimal(repr(float(value))):f}")
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    text = f"{value:.{max(0, _SIGNIFICANT_DIGITS - 1 - magnitude)}f}"
    return _trimmed(text)


def quality(value: float | Missing, *, as_percent: bool, exact: bool = False) -> str | Missing:
    """Return a fraction as a percentage with up to two decimals, or as a fraction with up to four.

    Rounds down: a result below its target must not read like the target. ``exact`` leaves out no digit.

    >>> quality(0.6843, as_percent=True), quality(0.75499, as_percent=True), quality(0.405, as_percent=False)
    ('68.43%', '75.49%', '0.405')
    """
    if isinstance(value, Missing):
        return value
    # The shortest decimal that is this float: 0.6843 times 100 is 68.43 in decimal, and not in binary, arithmetic.
    shortest = Decimal(repr(float(value))) * (100 if as_percent else 1)
    rounded = shortest
    # No fraction is larger than 1, but a record may hold any number, and rounding takes no more digits than these.
    if abs(shortest) < _MOST_ROUNDED:
        rounded = shortest.quantize(Decimal("0.01" if as_percent else "0.0001"), rounding=ROUND_FLOOR)
    text = f"{shortest if exact else rounded:f}"
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals.rstrip('0') or '0'}{'%' if as_percent else ''}"


def gib(value_bytes: int | Missing, *, trim: bool = False, exact: bool = False) -> str | Missing:
    """Return bytes in GiB (2^30) with one decimal; ``trim`` leaves out a decimal that is 0.

    ``exact`` writes as many decimals as lead back to the same number of bytes.

    >>> gib(32 * 2**30), gib(64 * 2**30, trim=True)
    ('32.0', '64')
    """
    if isinstance(value_bytes, Missing):
        return value_bytes
    texts = (f"{value_bytes / _GIB:.{decimals}f}" for decimals in range(1, _GIB_DECIMALS + 1))
    text = next((text for text in texts if not exact or round(Decimal(text) * _GIB) == value_bytes), None)
    if text is None:
        text = f"{Decimal(value_bytes) / _GIB:f}"
    return text.removesuffix(".0") if trim else text


def setting(value: Setting, *, exact: bool = False) -> str:
    """Return a hyperparameter's value: numbers in their shortest form, truth values in lower case, no text as ``none``.

    Of a float six digits are shown, which hide how it was computed; ``exact`` shows all.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if exact else f"{value:.6g}"
    return str(value) or "none"


def escape_markdown(text: str) -> str:
    """Return ``text`` on one line and without anything Markdown or HTML would interpret, except web links.

    Links with ``http`` or ``https`` addresses stay: vendors link the wheel next to the version they name. The result is
    safe in paragraphs, list items and table cells.
    """
    pieces = _LINK.split(_WHITESPACE.sub(" ", text))
    escaped = "".join(piece if index % 2 else _escape(piece) for index, piece in enumerate(pieces))
    # At the start of a list item these would open a heading, quotation or another list.
    return _BLOCK_START.sub(r"\g<0>\\", escaped)


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _escape(text: str) -> str:
    return _UNDERSCORE_AT_WORD_EDGE.sub(r"\\_", text.translate(_MARKDOWN))

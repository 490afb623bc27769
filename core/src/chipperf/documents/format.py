"""Formatting values for a report: numbers, missing values, and text with Markdown escaped.

Numeric functions return a :class:`~chipperf.records.schema.Missing` unchanged, so that the filters of a template also
work on missing values. :func:`marker` returns the text of a missing value.
"""

from __future__ import annotations

import csv
import io
import math
import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, Final

from chipperf.languages import Language, Phrase, in_language, phrase
from chipperf.records.schema import Missing, MissingKind, Setting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from chipperf.records.columns import Unit

NOT_APPLICABLE = "/"
"""Mark of a value that does not apply. In ``fix_hp`` it means that no hyperparameter differs from the case's base."""

MARKERS: Final[Mapping[MissingKind, Phrase]] = {
    "not_run": phrase("not run"),
    "withheld": phrase("withheld"),
    "failed": phrase("failed"),
    "not_applicable": Phrase(NOT_APPLICABLE),
    "unknown": phrase("unknown"),
}
REASON_IN_MARKER: Final[tuple[MissingKind, ...]] = ("withheld", "failed")
"""Kinds of missing values whose marker contains the reason."""

_SIGNIFICANT_DIGITS, _LEAST_DIGITS, _SPREAD_DIGITS = 5, 3, 2
_MOST_ROUNDED = 10**15
_GIB = 2**30
_GIB_DECIMALS = 11

_FORMULA = ("=", "+", "-", "@")
_WHITESPACE = re.compile(r"\s+")
_LINK = re.compile(r"(?<!!)(\[[^\[\]\n]+\]\(https?://[^\s()<>\"'|]+\))")
_UNDERSCORE_AT_WORD_EDGE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
_BLOCK_START = re.compile(r"^(\s*)(?=[#>]|[-+](?![\w.]))|^(\s*\d+)(?=[.)](?:\s|$))")
_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\`*[]|~!"} | {"<": "&lt;", "&": "&amp;"})


def github_annotation(kind: str, text: str, **properties: object) -> str:
    """Return a command of GitHub's workflows that annotates a file or a run; ``kind`` is ``error``, ``notice``..."""
    values = {name: _escaped(value).replace(":", "%3A").replace(",", "%2C") for name, value in properties.items()}
    described = ",".join(f"{name}={value}" for name, value in values.items())
    return f"::{kind}{' ' if described else ''}{described}::{_escaped(text)}"


def _escaped(value: object) -> str:
    return str(value).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def marker(missing: Missing, *, reason_as: Callable[[str], object] = str) -> Phrase:
    """Return the text for a missing value. For failed and withheld values it contains the reason.

    ``reason_as`` makes a value of a phrase of it: pages translate it, and reports say it as it is stored.
    """
    text = MARKERS[missing.missing]
    if missing.reason and missing.missing in REASON_IN_MARKER:
        return phrase("%(marker)s (%(reason)s)", marker=text, reason=reason_as(missing.reason))
    return text


def text_or_marker(value: object, language: Language) -> str:
    """Return the text of a value in a language, or the marker of a missing one; a list is one text."""
    if isinstance(value, list | tuple):
        return in_language([text_or_marker(item, language) for item in value], language)
    return in_language(marker(value) if isinstance(value, Missing) else value, language)


def decimals_of(value: float, spread: float | None = None) -> int:
    """Return how many decimals a value deserves: five significant digits, and two digits of its ``spread``.

    However large the spread, it deserves three significant digits, or a small one would be written as 0.

    >>> decimals_of(137.64), decimals_of(137.64, spread=11), decimals_of(9.5597, spread=3.6), decimals_of(0.4, spread=9)
    (2, 0, 2, 3)
    """
    deserved = _decimals(value, _SIGNIFICANT_DIGITS)
    if not spread:
        return deserved
    return min(deserved, max(_decimals(spread, _SPREAD_DIGITS), _decimals(value, _LEAST_DIGITS)))


def _decimals(value: float, digits: int) -> int:
    return max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0


def number(value: float | Missing, *, exact: bool = False, spread: float | None = None) -> str | Missing:
    """Return ``value`` with the decimals of :func:`decimals_of`, and every digit before the point, without exponent.

    With ``exact`` it has all digits, because an imported value is shown as in its document.

    >>> number(1237.64), number(28661), number(0.5), number(1237.64, exact=True), number(137.64, spread=11)
    ('1237.6', '28661', '0.5', '1237.64', '138')
    """
    if isinstance(value, Missing):
        return value
    text = f"{Decimal(repr(float(value))):f}" if exact else f"{value:.{decimals_of(value, spread)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def quality(
    value: float | Missing, *, as_percent: bool, round_up: bool = False, exact: bool = False, even: bool = False
) -> str | Missing:
    """Return a fraction as a percentage with up to two decimals, or as a number with up to four.

    Rounds down, and up where lower is better: a result that misses its target must not look equal to it. With
    ``exact`` it has all digits, and with ``even`` the zeros that make a column of results even.

    >>> quality(0.6843, as_percent=True), quality(0.75499, as_percent=True), quality(0.405, as_percent=False)
    ('68.43%', '75.49%', '0.405')
    >>> quality(2.85001, as_percent=False, round_up=True)
    '2.8501'
    """
    if isinstance(value, Missing):
        return value
    # The shortest decimal for this float. 0.6843 times 100 is exactly 68.43 only in decimal arithmetic.
    shortest = Decimal(repr(float(value))) * (100 if as_percent else 1)
    rounded, rounding = shortest, ROUND_CEILING if round_up else ROUND_FLOOR
    # A fraction is at most 1, but a record may contain any number, and rounding is limited to these digits.
    if abs(shortest) < _MOST_ROUNDED:
        rounded = shortest.quantize(Decimal("0.01" if as_percent else "0.0001"), rounding=rounding)
    text = f"{shortest if exact else rounded:f}"
    whole, _, decimals = text.partition(".")
    if not even or exact:
        decimals = decimals.rstrip("0") or "0"
    return f"{whole}.{decimals}{'%' if as_percent else ''}"


def gib(value_bytes: int | Missing, *, trim: bool = False, exact: bool = False) -> str | Missing:
    """Return bytes in GiB (2^30) with one decimal. ``trim`` omits the decimal if it is 0.

    A little memory has as many decimals as are needed to differ from none. ``exact`` writes as many as are needed to
    recover the number of bytes.

    >>> gib(32 * 2**30), gib(64 * 2**30, trim=True), gib(35 * 2**20)
    ('32.0', '64', '0.03')
    """
    if isinstance(value_bytes, Missing):
        return value_bytes

    def is_enough(text: str) -> bool:
        return round(Decimal(text) * _GIB) == value_bytes if exact else bool(float(text)) or value_bytes == 0

    texts = (f"{value_bytes / _GIB:.{decimals}f}" for decimals in range(1, _GIB_DECIMALS + 1))
    text = next(filter(is_enough, texts), f"{Decimal(value_bytes) / _GIB:f}")
    return text.removesuffix(".0") if trim else text


def in_unit(
    value: float | Missing,
    unit: Unit,
    *,
    as_percent: bool,
    round_up: bool = False,
    exact: bool = False,
    even: bool = False,
    spread: float | None = None,
) -> str | Missing:
    """Return a reported value in its unit, see :mod:`chipperf.records.columns`.

    ``as_percent``, ``round_up`` and ``even`` are for :func:`quality`, ``spread`` is for :func:`number`.
    """
    if unit == "share":
        return quality(value, as_percent=True, exact=exact, even=even)
    if unit == "fraction":
        return quality(value, as_percent=as_percent, round_up=round_up, exact=exact, even=even)
    if unit == "bytes":
        return gib(value if isinstance(value, Missing) else round(value), exact=exact)
    return number(value, exact=exact, spread=spread)


def setting(value: Setting, *, exact: bool = False) -> str:
    """Return a hyperparameter's value: the shortest form of a number, ``true`` or ``false``, ``none`` for no text.

    A float has six digits, which hide rounding errors. With ``exact`` it has all digits.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if exact else f"{value:.6g}"
    return str(value) or "none"


def escape_markdown(text: str) -> str:
    """Return ``text`` on one line, with all Markdown and HTML escaped except for web links.

    Links with ``http`` or ``https`` addresses are kept, because vendors link the wheel next to its version. The result
    is safe in paragraphs, list items and table cells.
    """
    pieces = _LINK.split(_WHITESPACE.sub(" ", text))
    pieces[::2] = [_UNDERSCORE_AT_WORD_EDGE.sub(r"\\_", piece.translate(_MARKDOWN)) for piece in pieces[::2]]
    # At the start of a list item these characters would start a heading, a quotation or another list.
    return _BLOCK_START.sub(r"\g<0>\\", "".join(pieces))


def csv_text(value: object) -> object:
    """Return a text on one line that no spreadsheet interprets as a formula, and any other value unchanged."""
    if not isinstance(value, str):
        return value
    # Python 3.10 cannot write a null character to CSV.
    line = " ".join(value.replace("\0", " ").split())
    return f"'{line}" if line.startswith(_FORMULA) else line


def csv_table(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Return rows as CSV with a header line, each value as :func:`csv_text`; a column that a row lacks is empty."""
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows({key: csv_text(value) for key, value in row.items()} for row in rows)
    return text.getvalue()

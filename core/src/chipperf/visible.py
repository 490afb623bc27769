"""Writing texts for a reader: foreign ones so that every character is seen, and numbers with their noun."""

from __future__ import annotations

import json
import re
import unicodedata
from os.path import commonprefix
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_HIDDEN: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Controls but tab and new line, characters without width, those that turn the direction of writing, and surrogates."""

_CONTEXT: Final = 40
_LONGEST: Final = 120


def visible(text: str) -> str:
    """Return a text with the characters that a terminal obeys or hides escaped, as JSON does."""
    return _HIDDEN.sub(lambda match: _escape(match[0]), text)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, for example ``2 records``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def either(names: Iterable[str]) -> str:
    """Return names joined as alternatives, for example ``fp32, amp or bf16``."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def shown_apart(one: str, other: str) -> tuple[str, str]:
    """Return two different texts, shortened, so that they look different: escaped where letters may look alike."""
    begin = len(commonprefix((one, other)))
    end = len(commonprefix((one[begin:][::-1], other[begin:][::-1])))
    return _shown(one, begin, len(one) - end), _shown(other, begin, len(other) - end)


def _shown(text: str, begin: int, end: int) -> str:
    differing = text[begin : min(end, begin + _LONGEST)]
    shown = "".join(each if _is_plain(each) else _escape(each) for each in differing)
    before, after = text[max(0, begin - _CONTEXT) : begin], text[begin + len(differing) :]
    cut = "..." if begin > _CONTEXT else ""
    return visible(f"{cut}{before}{shown}{after if len(after) <= _CONTEXT else f'{after[:_CONTEXT]}...'}")


def _is_plain(character: str) -> bool:
    """Return whether a character is ASCII or a common ideograph, which look like no other of these."""
    # A backslash begins an escape.
    return (character.isascii() and character != "\\") or unicodedata.name(character, "").startswith(
        "CJK UNIFIED IDEOGRAPH"
    )


def _escape(character: str) -> str:
    return json.dumps(character)[1:-1]

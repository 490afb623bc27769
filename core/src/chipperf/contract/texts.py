"""Functions on texts: search for a name, and count words."""

from __future__ import annotations

import re


def mentions(text: str, name: str) -> bool:
    """Return whether ``text`` contains ``name`` as a whole word, in any case."""
    # A Chinese or Japanese character next to a Latin name is not part of it, although \\w matches the character.
    letter = "[A-Za-z0-9_-]" if name.isascii() else r"(?!)"
    return re.search(rf"(?<!{letter}){re.escape(name)}(?!{letter})", text, re.IGNORECASE) is not None


_WORD = re.compile(r"[A-Za-z0-9][\w./*:=-]*")
_IDEOGRAPH = re.compile(r"[\u3400-\u9fff]")
_IDEOGRAPHS_PER_WORD = 2


def count_words(text: str) -> int:
    """Return the number of words in an English or Chinese text; two ideographs count as one."""
    without_ideographs, ideographs = _IDEOGRAPH.subn(" ", text)
    return len(_WORD.findall(without_ideographs)) + ideographs // _IDEOGRAPHS_PER_WORD

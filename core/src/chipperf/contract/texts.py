"""Counting words."""

from __future__ import annotations

import re

_WORD = re.compile(r"[A-Za-z0-9][\w./*:=-]*")
_IDEOGRAPH = re.compile(r"[\u3400-\u9fff]")
_IDEOGRAPHS_PER_WORD = 2


def count_words(text: str) -> int:
    """Return the number of words in an English or Chinese text; two ideographs count as one."""
    without_ideographs, ideographs = _IDEOGRAPH.subn(" ", text)
    return len(_WORD.findall(without_ideographs)) + ideographs // _IDEOGRAPHS_PER_WORD

"""A text in both languages. A page contains both and shows one."""

from __future__ import annotations

from typing import NamedTuple

from markupsafe import Markup, escape


class Bilingual(NamedTuple):
    """A text in Chinese and in English. If both are equal, the page contains it once."""

    zh: str
    en: str

    def __html__(self) -> str:
        """Return the escaped text, or one element per language. The page's style shows one of them."""
        if self.zh == self.en:
            return escape(self.zh)
        return Markup('<span lang="zh">{}</span><span lang="en">{}</span>').format(self.zh, self.en)


def same(text: str) -> Bilingual:
    """Return a text that is the same in both languages, such as a name or a number."""
    return Bilingual(text, text)

"""A text in both languages: a page holds both and shows one."""

from __future__ import annotations

from typing import NamedTuple

from markupsafe import Markup, escape


class Bilingual(NamedTuple):
    """A text in Chinese and in English; equal ones are written once."""

    zh: str
    en: str

    def __html__(self) -> str:
        """Return the escaped text, or an element for each language, of which the page's style shows one."""
        if self.zh == self.en:
            return escape(self.zh)
        return Markup('<span lang="zh">{}</span><span lang="en">{}</span>').format(self.zh, self.en)


def same(text: str) -> Bilingual:
    """Return a text that both languages share: a name, a number, a term."""
    return Bilingual(text, text)

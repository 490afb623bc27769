"""Languages of reports and pages, and the translations of core's texts.

Code holds the English text; ``templates/translations/CODE.toml`` holds its translation into another language. A text
without a translation is shown in English.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeAlias

from chipperf.toml import parse_toml

Language: TypeAlias = str
"""A code of :data:`LANGUAGES`."""

LANGUAGES: Final[dict[Language, str]] = {"zh": "中文", "en": "English"}
"""Native name of each language by code, in the order on pages."""

DEFAULT: Final = "zh"
"""Default language of a report."""

ENGLISH: Final = "en"
"""Language of the texts in code and templates; it needs no translation."""

TRANSLATIONS: Final = Path(__file__).parent / "templates" / "translations"

_PLACEHOLDER: Final = re.compile(r"%\\\((\w+)\\\)s|%%")
"""A value, or a percent sign, in a text that was escaped for a regular expression."""


@dataclass(frozen=True, slots=True)
class Translation:
    """The texts of a language by context (empty if there is none) and English text.

    A text with a plural is a list of its forms, under the English singular; ``form_of`` returns the form's index.
    ``stored`` has the texts that records store in English: what stands around each value, and the translation with
    a ``{}`` for the value. ``stored_since_3`` has those that reports have had since their layout 3.
    ``stored_parts`` has those that are values of others. Any other value stays as it is, because it can be a name,
    such as a host called ``core``.
    """

    texts: Mapping[str, Mapping[str, str | Sequence[str]]]
    form_of: Callable[[int], int]
    stored: Sequence[tuple[Sequence[str], str]] = ()
    stored_since_3: Sequence[tuple[Sequence[str], str]] = ()
    stored_parts: Sequence[tuple[Sequence[str], str]] = ()

    def find(self, english: str, context: str = "") -> str:
        """Return a text in this language, or in English if it has no translation."""
        found = self.texts.get(context, {}).get(english, english)
        return found if isinstance(found, str) else found[0]

    def spellings(self, context: str) -> tuple[str, ...]:
        """Return every translated text of a context; English has none."""
        texts = self.texts.get(context, {}).values()
        return tuple(form for text in texts for form in ((text,) if isinstance(text, str) else text))

    def find_plural(self, one: str, many: str, count: int) -> str:
        """Return the form of a text for ``count``, or the English form if it has no translation."""
        forms = self.texts.get("", {}).get(one)
        if forms is None:
            return one if count == 1 else many
        return forms if isinstance(forms, str) else forms[self.form_of(count)]


@lru_cache(maxsize=16)
def read_translation(language: Language) -> Translation:
    """Return the translation of a language; it is empty for English."""
    if language == ENGLISH:
        return Translation({}, lambda count: int(count != 1))
    # Imported here: every command imports this module, and few read a translation.
    import gettext

    content = parse_toml((TRANSLATIONS / f"{language}.toml").read_text(encoding="utf-8"))
    return Translation(
        {"": content["texts"], **content.get("contexts", {})},
        gettext.c2py(content.get("plural", "n != 1")),
        *(
            [(english.split("{}"), spelling) for english, spelling in content.get(table, {}).items()]
            for table in ("stored", "stored_since_3", "stored_parts")
        ),
    )


class Translated:
    """Base class of objects with one text attribute per language; ``en`` is required."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Stored(Translated):
    """A text that a record stores in English: a reason, a source or a warning, of core's or of a vendor's.

    ``since_3`` is false for a report of layout 2, which is verified as it was written.
    """

    en: str
    since_3: bool = True

    def in_language(self, language: Language) -> str:
        """Return the text in a language, or in English if core has no translation of it."""
        return _stored_text(self.en, language, self.since_3)


@lru_cache(maxsize=4096)
def _stored_text(text: str, language: Language, since_3: bool) -> str:
    translation = read_translation(language)
    newer = translation.stored_since_3 if since_3 else ()
    return _spelled(text, (*translation.stored, *newer), translation.stored_parts)


def _spelled(
    text: str, spellings: Sequence[tuple[Sequence[str], str]], of_values: Sequence[tuple[Sequence[str], str]] = ()
) -> str:
    for around, spelling in spellings:
        if (values := _values(text, around)) is not None:
            return spelling.format(*(_spelled(value, of_values) for value in values))
    return text


def _values(text: str, around: Sequence[str]) -> list[str] | None:
    """Return the values in a text by what stands around each, or ``None`` if it is another text.

    Records come from others. Each part of ``around`` is searched for once, behind the one before, so the time is
    linear in the text, and a regular expression's would be a power of it.
    """
    first, last = around[0], around[-1]
    if len(around) == 1:
        return [] if text == first else None
    start, end = len(first), len(text) - len(last)
    if start > end or not text.startswith(first) or not text.endswith(last):
        return None
    values = []
    for part in around[1:-1]:
        found = text.find(part, start, end)
        if found < 0:
            return None
        values.append(text[start:found])
        start = found + len(part)
    return [*values, text[start:end]]


@dataclass(frozen=True, slots=True)
class Phrase:
    """A translatable text of core, with a ``%(name)s`` for each value; ``str()`` gives it in English.

    A value may be a phrase or a title. The context distinguishes texts that are equal in English.
    """

    english: str
    values: tuple[tuple[str, object], ...] = ()
    context: str = ""

    def __str__(self) -> str:
        """Return the text in English."""
        return in_language(self, ENGLISH)


def phrase(english: str, /, *, context: str = "", **values: object) -> Phrase:
    """Return a translatable text."""
    return Phrase(english, tuple(values.items()), context)


LIST_SEPARATOR: Final = phrase(", ", context="list")
"""Separator between the items of a list on one line."""


def in_language(text: object, language: Language) -> str:
    """Return a phrase, a title or a list of them in a language, and any other object as ``str()``.

    A stored text is translated if core stored it, and a title without a text in the language from its English text.
    """
    if isinstance(text, str):
        return str(text)
    translation = read_translation(language)
    if isinstance(text, Phrase):
        return translation.find(text.english, text.context) % {
            name: in_language(value, language) for name, value in text.values
        }
    if isinstance(text, list | tuple):
        return in_language(LIST_SEPARATOR, language).join(in_language(item, language) for item in text)
    if isinstance(text, Stored):
        return text.in_language(language)
    if isinstance(text, Translated):
        return getattr(text, language, None) or translation.find(getattr(text, ENGLISH))
    return str(text)


def in_all_languages(text: object) -> tuple[str, ...]:
    """Return the distinct spellings of a text in all languages."""
    return tuple(dict.fromkeys(in_language(text, language) for language in LANGUAGES))


def pattern(text: Phrase, **values: str) -> str:
    """Return a regular expression for a one-line text in any language, with expressions for its ``values``."""

    def expression(match: re.Match[str]) -> str:
        return values.get(match[1], ".*?") if match[1] else "%"

    found = (read_translation(language).find(text.english, text.context) for language in LANGUAGES)
    return f"(?:{'|'.join(_PLACEHOLDER.sub(expression, re.escape(spelling)) for spelling in dict.fromkeys(found))})"

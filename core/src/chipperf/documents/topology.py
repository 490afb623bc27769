"""Parsing the first column of the performance table: card, number of machines, and number of cards."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from chipperf.languages import LANGUAGES, Phrase, in_language, phrase

_SHAPE: Final = r"(\d{1,4})\s*[x×X*]\s*(\d{1,4})"
_BRACKETED_SHAPE: Final = re.compile(rf"[（(]\s*{_SHAPE}\s*[）)]")
_CONFIG_NAME: Final = re.compile(rf"(?:config_)?(.*?)[_x×]?{_SHAPE}(?:[_.].*)?", re.DOTALL)
_MAX_NAME: Final = 200
_DIGITS: Final = {text: value for value, text in enumerate("零一二三四五六七八九")} | {"两": 2, "双": 2, "单": 1}
_COUNT: Final = r"(?:\d{1,4}|[单双两一二三四五六七八九])"
_ZH_WORDS: Final = re.compile(rf"({_COUNT})机\s*({_COUNT})卡\s*$")
_EN_COUNT: Final = r"(?:\d{1,4}|one|two|single|dual)"
_EN_WORDS: Final = re.compile(
    rf"(?:^|(?<=\s))({_EN_COUNT})[\s-]+(?:machines?|nodes?)[\s,]+({_EN_COUNT})[\s-]+cards?(\s+each)?\s*$", re.IGNORECASE
)
_EN_DIGITS: Final = {"one": 1, "single": 1, "two": 2, "dual": 2}


def topology_words(nnodes: int, nproc_per_node: int) -> Phrase:
    """Return machines and cards in words, as a report has them after the card."""
    named = {1: phrase("one machine"), 2: phrase("two machines")}
    machines = named.get(nnodes) or phrase("%(count)s machines", count=nnodes)
    cards = phrase("one card") if nproc_per_node == 1 else phrase("%(count)s cards", count=nproc_per_node)
    if nnodes > 1:
        return phrase("%(machines)s, %(cards)s each", machines=machines, cards=cards)
    return phrase("%(machines)s, %(cards)s", machines=machines, cards=cards)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLabel:
    """The content of the first cell of a row.

    Attributes:
        card: The text before the topology; may be empty.
        nnodes: Number of machines.
        nproc_per_node: Number of cards per machine.
        words: Numbers of machines and cards from the words, which may differ; ``None`` without words.
        phrase: The words.
        says_each: True if the words give the cards of each machine.
        has_shape: True if the cell has the topology in the form ``1x8``.
    """

    card: str
    nnodes: int
    nproc_per_node: int
    words: tuple[int, int] | None
    phrase: str
    says_each: bool
    has_shape: bool

    @property
    def shape(self) -> str:
        """Number of machines x cards per machine, for example ``1x8``."""
        return f"{self.nnodes}x{self.nproc_per_node}"

    @property
    def cards(self) -> int:
        """All cards."""
        return self.nnodes * self.nproc_per_node


def parse_row_label(text: str, config_name: str = "") -> RowLabel | None:
    """Return the content of a row's first cell, or ``None`` if neither it nor the configuration's name has a topology.

    As in FlagPerf, words alone give the cards per machine: ``两机8卡`` is 2x8.
    """
    shapes = list(_BRACKETED_SHAPE.finditer(text))
    shape = shapes[-1] if shapes else None
    label = text[: shape.start()] if shape else text
    label = label.rstrip()
    expected = (int(shape[1]), int(shape[2])) if shape else None
    words, spelled, says_each, card = _split_words(label, expected)
    named = parse_config_name(config_name)
    if named is None and shape is None and words is None and (named := parse_config_name(text)):
        card = ""
    if expected is None:
        expected = (named.nnodes, named.nproc_per_node) if named else words
    if expected is None or not all(1 <= count <= 100_000 for count in expected):
        return None
    if not card and named:
        card = named.card
    return RowLabel(
        card=card.strip().rstrip(",，").strip(),
        nnodes=expected[0],
        nproc_per_node=expected[1],
        words=words,
        phrase=spelled,
        says_each=says_each,
        has_shape=shape is not None,
    )


@dataclass(frozen=True, slots=True)
class ConfigName:
    """Name of a FlagPerf configuration: ``config_R300x1x8``."""

    card: str
    nnodes: int
    nproc_per_node: int

    @property
    def shape(self) -> str:
        """Number of machines x cards per machine."""
        return f"{self.nnodes}x{self.nproc_per_node}"


def parse_config_name(name: str) -> ConfigName | None:
    """Return card and topology of a configuration's name, or ``None`` if the name does not contain them."""
    match = _CONFIG_NAME.fullmatch(name.strip()) if len(name) <= _MAX_NAME else None
    if not match or not match[1]:
        return None
    return ConfigName(match[1], int(match[2]), int(match[3]))


def _split_words(label: str, expected: tuple[int, int] | None) -> tuple[tuple[int, int] | None, str, bool, str]:
    """Return the numbers in the words, the words, whether they contain "each", and the text before them."""
    if expected:
        # A card's name may end in a digit, which must not be read as a part of the number of machines.
        words = topology_words(*expected)
        for language in LANGUAGES:
            spelled = in_language(words, language)
            if label.endswith(spelled):
                says_each = spelled != in_language(replace(words, english="%(machines)s, %(cards)s"), language)
                return expected, spelled, says_each, label[: -len(spelled)]
    if match := _ZH_WORDS.search(label):
        return (_count(match[1]), _count(match[2])), match[0].strip(), False, label[: match.start()]
    if match := _EN_WORDS.search(label):
        return (_count(match[1]), _count(match[2])), match[0].strip(), bool(match[3]), label[: match.start()]
    return None, "", False, label


def _count(text: str) -> int:
    return int(text) if text.isdigit() else _DIGITS.get(text) or _EN_DIGITS[text.lower()]

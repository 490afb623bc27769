"""Parsing the first column of the performance table: card, number of machines, and number of cards."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from chipperf.languages import LANGUAGES, Phrase, in_language, phrase
from chipperf.records.schema import Topology

_SHAPE: Final = r"(\d{1,4})\s*[x×X*]\s*(\d{1,4})"
_BRACKETED_SHAPE: Final = re.compile(rf"[（(]\s*{_SHAPE}\s*[）)]")
_CONFIG_NAME: Final = re.compile(rf"(?:config_)?(.*?)[_x×]?{_SHAPE}(?:[_.].*)?", re.DOTALL)
_MAX_NAME: Final = 200
_NUMBERS: Final = {
    **{text: value for value, text in enumerate("零一二三四五六七八九")},
    **{"两": 2, "双": 2, "单": 1, "one": 1, "single": 1, "two": 2, "dual": 2},
}
_COUNT: Final = r"(?:\d{1,4}|[单双两一二三四五六七八九])"
_ZH_WORDS: Final = re.compile(rf"({_COUNT})机\s*({_COUNT})卡$")
_EN_COUNT: Final = r"(?:\d{1,4}|one|two|single|dual)"
_EN_WORDS: Final = re.compile(
    rf"(?:^|(?<=\s))({_EN_COUNT})[\s-]+(?:machines?|nodes?)[\s,]+({_EN_COUNT})[\s-]+cards?(\s+each)?$", re.IGNORECASE
)


def topology_words(nnodes: int, nproc_per_node: int) -> Phrase:
    """Return machines and cards in words, as a report has them after the card."""
    named = {1: phrase("one machine"), 2: phrase("two machines")}
    machines = named.get(nnodes) or phrase("%(count)s machines", count=nnodes)
    cards = phrase("one card") if nproc_per_node == 1 else phrase("%(count)s cards", count=nproc_per_node)
    if nnodes > 1:
        return phrase("%(machines)s, %(cards)s each", machines=machines, cards=cards)
    return phrase("%(machines)s, %(cards)s", machines=machines, cards=cards)


class CardTopology(Topology):
    """A card, which may be empty, and its number of machines and of cards per machine."""

    card: str


class RowLabel(CardTopology):
    """The content of the first cell of a row. The card is the text before the topology.

    ``phrase`` is the topology in words, ``words`` their numbers of machines and cards, which may differ, and
    ``says_each`` whether they give the cards of each machine.
    """

    words: tuple[int, int] | None
    phrase: str
    says_each: bool


def parse_row_label(text: str, config_name: str = "") -> RowLabel | None:
    """Return the content of a row's first cell, or ``None`` if neither it nor the configuration's name has a topology.

    As in FlagPerf, words alone give the cards per machine: ``两机8卡`` is 2x8.
    """
    shapes = list(_BRACKETED_SHAPE.finditer(text))
    shape = shapes[-1] if shapes else None
    label = (text[: shape.start()] if shape else text).rstrip()
    counts = (int(shape[1]), int(shape[2])) if shape else None
    words, spelled, says_each = _words(label, counts)
    card = label.removesuffix(spelled)
    named = parse_config_name(config_name)
    if named is None and counts is None and words is None and (named := parse_config_name(text)):
        card = ""
    if counts is None:
        counts = (named.nnodes, named.nproc_per_node) if named else words
    if counts is None or min(counts) < 1:
        return None
    if not card and named:
        card = named.card
    return RowLabel(
        card=card.strip().rstrip(",，").strip(),
        nnodes=counts[0],
        nproc_per_node=counts[1],
        words=words,
        phrase=spelled,
        says_each=says_each,
    )


def parse_config_name(name: str) -> CardTopology | None:
    """Return what a FlagPerf configuration is called after, as ``config_R300x1x8``, or ``None`` for other names."""
    match = _CONFIG_NAME.fullmatch(name.strip()) if len(name) <= _MAX_NAME else None
    if not match or not match[1] or not int(match[2]) * int(match[3]):
        return None
    return CardTopology(card=match[1], nnodes=int(match[2]), nproc_per_node=int(match[3]))


def _words(label: str, counts: tuple[int, int] | None) -> tuple[tuple[int, int] | None, str, bool]:
    """Return the numbers in the words at the end of a label, the words, and whether they contain "each"."""
    if counts:
        # A card's name may end in a digit, which must not be read as a part of the number of machines.
        words = topology_words(*counts)
        for language in LANGUAGES:
            spelled = in_language(words, language)
            if label.endswith(spelled):
                without_each = in_language(replace(words, english="%(machines)s, %(cards)s"), language)
                return counts, spelled, spelled != without_each
    if match := _ZH_WORDS.search(label):
        return (_count(match[1]), _count(match[2])), match[0], False
    if match := _EN_WORDS.search(label):
        return (_count(match[1]), _count(match[2])), match[0], bool(match[3])
    return None, "", False


def _count(text: str) -> int:
    return int(text) if text.isdigit() else _NUMBERS[text.lower()]

"""Parsing the first column of the performance table: card, number of machines, and number of cards."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from chipperf.languages import LANGUAGES, Phrase, in_language, phrase
from chipperf.records.schema import Topology

_SHAPE: Final = r"(\d{1,4})\s*[x×X*]\s*(\d{1,4})"
_BRACKETED_SHAPE: Final = re.compile(rf"[（(]\s*{_SHAPE}\s*(?:[*x×]\s*(\d+\s*G(?:i?B)?)\s*)?[）)]", re.IGNORECASE)
_BARE_SHAPE: Final = re.compile(rf"(?:(?<=\s)|^){_SHAPE}(?=\s*(?:[（(]|$))")
_NOTE: Final = re.compile(r"\s*[（(]\s*([^（）()]+?)\s*[）)]\s*")
_CONFIG_NAME: Final = re.compile(rf"(?:config_)?(.*?)[_x×]?{_SHAPE}(?:[_.].*)?", re.DOTALL)
_MAX_NAME: Final = 200
_NUMBERS: Final = {
    **{text: value for value, text in enumerate("零一二三四五六七八九十")},
    **{
        text: value
        for value, text in enumerate(
            ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], start=1
        )
    },
    **{"两": 2, "双": 2, "单": 1, "single": 1, "dual": 2, "十六": 16, "三十二": 32},
    **{"twelve": 12, "sixteen": 16, "thirty-two": 32},
}
_COUNT: Final = r"(?:\d{1,4}|[单双两一二三四五六七八九十])"
_ZH_WORDS: Final = re.compile(rf"({_COUNT})机\s*({_COUNT})卡$")
_EN_COUNT: Final = rf"(?:\d{{1,4}}|{'|'.join(sorted(filter(str.isascii, _NUMBERS), key=len, reverse=True))})"
_EN_WORDS: Final = re.compile(
    rf"(?:^|(?<=\s))({_EN_COUNT})[\s-]+(?:machines?|nodes?)[\s,]+({_EN_COUNT})[\s-]+(?:cards?|[GN]PUs?)(\s+each)?$",
    re.IGNORECASE,
)
_CARDS_SAID: Final = re.compile(
    rf"(\d{{1,4}}|{'|'.join(sorted(_NUMBERS, key=len, reverse=True))})[\s-]*(?:(?:cards?|[gnx]pus?)\b|[张块]?卡)",
    re.IGNORECASE,
)
_MOST_CARDS_PER_MACHINE: Final = 8
"""Cards per machine above which words without brackets mean those of all machines, as in ``四机32卡``."""


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
    ``says_each`` whether they give the cards of each machine. ``note`` is the text in brackets besides the topology.
    """

    words: tuple[int, int] | None
    phrase: str
    says_each: bool
    note: str = ""

    @property
    def words_differ(self) -> bool:
        """Whether the words are those of another topology; they may give the cards of one machine or of all."""
        machines, cards = self.words or (self.nnodes, self.nproc_per_node)
        return machines != self.nnodes or cards not in (self.nproc_per_node, self.world_size)


def parse_row_label(text: str, config_name: str = "") -> RowLabel | None:
    """Return the content of a row's first cell, or ``None`` if neither it nor the configuration's name has a topology.

    As in FlagPerf, words alone give the cards per machine, ``两机8卡`` is 2x8, if a machine can have as many.
    """
    shapes = list(_BRACKETED_SHAPE.finditer(text)) or list(_BARE_SHAPE.finditer(text))
    shape = shapes[-1] if shapes else None
    label = (text[: shape.start()] if shape else text).rstrip()
    counts = (int(shape[1]), int(shape[2])) if shape else None
    words, spelled, says_each = _words(label, counts)
    card = label.removesuffix(spelled)
    named = parse_config_name(config_name)
    if named is None and counts is None and words is None and (named := parse_config_name(text)):
        card = ""
    if counts is None:
        counts = (named.nnodes, named.nproc_per_node) if named else _counts_of_words(words)
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
        note=_note(text, shape) if shape else "",
    )


def bracketed_shapes(text: str) -> list[tuple[int, int]]:
    """Return every topology in brackets.

    >>> bracketed_shapes("C500 (1x8) (1x1)")
    [(1, 8), (1, 1)]
    """
    return [(int(match[1]), int(match[2])) for match in _BRACKETED_SHAPE.finditer(text)]


def cards_said(text: str) -> list[int]:
    """Return every number of cards in words.

    >>> cards_said("C500 one machine, eight cards (1x1)"), cards_said("C500十六卡")
    ([8], [16])
    """
    said = (match.lower() for match in _CARDS_SAID.findall(text))
    return [_NUMBERS[count] if count in _NUMBERS else int(count) for count in said]


def several_topologies(text: str) -> bool:
    """Return whether the brackets of a row's first cell have several topologies."""
    return len({(int(match[1]), int(match[2])) for match in _BRACKETED_SHAPE.finditer(text)}) > 1


def has_topology_in_brackets(text: str) -> bool:
    """Return whether a text has a topology as rows of a performance table have it."""
    return _BRACKETED_SHAPE.search(text) is not None


def _note(text: str, shape: re.Match[str]) -> str:
    """Return what stands in and behind the topology's brackets, without its number of cards."""
    memory = shape[3] if shape.re is _BRACKETED_SHAPE else None
    behind = text[shape.end() :]
    match = _NOTE.fullmatch(behind)
    said = match[1] if match else behind.strip()
    if re.fullmatch(rf"(?:共|total\s*)?{int(shape[1]) * int(shape[2])}\s*(?:卡|cards?)", said, re.IGNORECASE):
        said = ""
    return ", ".join(part for part in (memory, said) if part)


def _counts_of_words(words: tuple[int, int] | None) -> tuple[int, int] | None:
    if words is None:
        return None
    machines, cards = words
    if machines > 1 and cards > _MOST_CARDS_PER_MACHINE and cards % machines == 0:
        return machines, cards // machines
    return words


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
        machines = str(counts[0]) if counts else ""
        if machines and match[1] != machines and match[1].isdigit() and match[1].endswith(machines):
            # In H1004机32卡（4x8）, only the last digit is a part of the number of machines.
            start = match.end(1) - len(machines)
            return (int(machines), _count(match[2])), label[start:], False
        if match[1].isdigit() and not counts and re.search(r"[A-Za-z]$", label[: match.start()]):
            return None, "", False
        return (_count(match[1]), _count(match[2])), match[0], False
    if match := _EN_WORDS.search(label):
        return (_count(match[1]), _count(match[2])), match[0], bool(match[3])
    return None, "", False


def _count(text: str) -> int:
    return int(text) if text.isdigit() else _NUMBERS[text.lower()]

"""Characters that a reader takes for others, or does not see, where lint compares names."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final

from chipperf.documents.markdown import Fault, Located, Place
from chipperf.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.documents.case_document import CaseDocument

_LATIN: Final = {
    **dict(zip("АВЕЅІЈКМНОРСТУХаеѕіјорсухԁһԛԝ", "ABESIJKMHOPCTYXaesijopcyxdhqw", strict=True)),
    **dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧονρ", "ABEZHIKMNOPTYXovp", strict=True)),
}
"""Letters of Cyrillic and Greek by the Latin letter that they look like."""


def look_alikes(document: CaseDocument) -> Iterator[Fault]:
    """Yield the characters in headers, labels, precisions and names of cards that look like others or like nothing."""
    for located in _names(document):
        for index, character in enumerate(located.text):
            if looks := _looks(character):
                text = f"U+{ord(character):04X} in {located.text!r} looks like {looks}"
                yield Fault(text, Place(located.place.line, located.place.column + index), "write it on the keyboard")
                break


def _names(document: CaseDocument) -> Iterator[Located]:
    yield from document.header_cells
    for row in document.rows:
        yield row.label
        yield from (row.cells[column] for column in ("precision", "fix_hp", "config_file") if column in row.cells)
    if card := document.facts.get("card_title"):
        yield card
    for general in document.general.values():
        yield general.label
        yield general.value


def _looks(character: str) -> str:
    """Return what an odd character looks like; empty if a reader sees what it is."""
    if character.isascii():
        return ""
    if visible(character) != character:
        return "nothing"
    folded = unicodedata.normalize("NFKC", character)
    is_letter = folded.isascii() and folded.isalnum() and unicodedata.category(character) != "No"
    return _LATIN.get(character) or (folded if is_letter else "")

"""Rules on names: the card's vendor and model, and the vendor of the environment."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final

from chipperf.documents import cells
from chipperf.documents.markdown import Block
from chipperf.lint.linted_document import SPEEDS, number
from chipperf.lint.problem import Problem
from chipperf.lint.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.documents.markdown import Place
    from chipperf.lint.linted_document import LintedDocument

_MODEL_NUMBER: Final = re.compile(r"[A-Za-z][A-Za-z-]*\d[A-Za-z0-9-]*")
_SPELLING_CUTOFF: Final = 0.8
_MIN_SHARED_FACTS: Final = 5
_MIN_SHARED_NUMBERS: Final = 2
_MIN_KERNELS: Final = 3


@rule(
    "L01",
    "foreign-card",
    why="the row is read as a measurement of another vendor's card",
    fix="write the card that ran",
    evidence="the vendor",
)
def cards_are_the_vendors_own(subject: LintedDocument) -> Iterator[Problem]:
    """The short name, the rows' labels and the configurations' names are of the report's vendor."""
    vendor = subject.need_vendor()
    for what, located in subject.card_places():
        for mention in subject.names.find(located.text):
            if mention.vendor != vendor:
                yield Problem(
                    place=located.place,
                    message=f"{what} {located.text!r} names {mention.text!r} of {mention.vendor}; "
                    f"the report is {vendor}'s",
                )
                break


@rule(
    "L03",
    "card-model",
    why="it is not clear which card was measured",
    fix="write one model in every section",
    evidence="the vendor",
)
def card_models_agree(subject: LintedDocument) -> Iterator[Problem]:
    """The accelerator, the short name and the rows' labels name the same card, and no server."""
    vendor = subject.need_vendor()
    named: list[tuple[str, str, set[str]]] = []
    for what, located in subject.card_places():
        mentions = [mention for mention in subject.names.find(located.text) if mention.vendor == vendor]
        cards = {mention.card for mention in mentions if mention.card}
        servers = [mention.text for mention in mentions if mention.machine]
        if not cards and servers and what != "the row's label":
            yield Problem(
                place=located.place, message=f"{what} {located.text!r} is the server {servers[0]}, not a card"
            )
        if not cards:
            yield from _misspelled(subject, vendor, what, located.text, located.place)
            continue
        different = next((other for other in named if not _compatible(cards, other[2])), None)
        if different:
            yield Problem(
                place=located.place,
                message=f"{what} {located.text!r} is {_join(cards)}, {different[0]} {different[1]!r} is "
                f"{_join(different[2])}",
            )
        named.append((what, located.text, cards))


def _compatible(cards: set[str], others: set[str]) -> bool:
    """Return whether a card is in both sets. ``A100`` matches ``A100-80G``."""
    return any(one.startswith(other) or other.startswith(one) for one in cards for other in others)


def _misspelled(subject: LintedDocument, vendor: str, what: str, text: str, place: Place) -> Iterator[Problem]:
    known = {name.casefold(): name for name in subject.names.cards(vendor)}
    for match in _MODEL_NUMBER.finditer(text):
        word = match[0].casefold()
        near = difflib.get_close_matches(word, known, n=1, cutoff=_SPELLING_CUTOFF) if word not in known else []
        if near and len(word) > 3:
            yield Problem(
                place=place,
                message=f"{what} {text!r} is no card of {vendor} that is known; {known[near[0]]} is",
                severity="warning",
            )
            return


def _join(cards: set[str]) -> str:
    return " and ".join(sorted(cards))


@rule(
    "L20",
    "foreign-environment",
    severity="warning",
    why="a copied environment says nothing of the machine that ran",
    fix="let `perf train` read the environment, or write that of the machine",
    evidence="the vendor",
)
def environment_is_the_vendors_own(subject: LintedDocument) -> Iterator[Problem]:
    """The environment is this vendor's and of no other's report, and names the network of several machines."""
    vendor = subject.need_vendor()
    facts = subject.document.facts
    for key, fact in facts.items():
        # Another rule checks the card.
        foreign = [mention for mention in subject.names.find(fact.text) if mention.vendor != vendor]
        if foreign and key != "card_title":
            yield Problem(place=fact.place, message=f"{fact.text!r} names {foreign[0].text!r} of {foreign[0].vendor}")
    for block in subject.document.markdown.blocks:
        if isinstance(block, Block) and block.kind == "heading":
            foreign = [mention for mention in subject.names.find(block.text) if mention.vendor != vendor]
            if foreign:
                yield Problem(
                    place=block.place,
                    message=f"heading {block.text!r} names {foreign[0].text!r} of {foreign[0].vendor}",
                )
    several = next((row for row in subject.rows if row.topology and row.topology.nnodes > 1), None)
    network = facts.get("network")
    if several and several.topology and (network is None or not network.text):
        yield Problem(
            place=network.place if network else several.label.place,
            message=f"there is a {several.topology.shape} row, and the environment names no network",
        )
    yield from _shared_kernel(subject, vendor)
    card = facts.get("card_title")
    if network and card and len(networks := subject.corpus.tables.networks.get((vendor, card.text), set())) > 1:
        yield Problem(
            place=network.place,
            message=f"network {network.text!r} differs from that of other reports on {card.text!r}: "
            f"{len(networks)} spellings or bandwidths",
        )


def _shared_kernel(subject: LintedDocument, vendor: str) -> Iterator[Problem]:
    kernel = subject.document.facts.get("kernel")
    if kernel is None or cells.marker(kernel.text) is not None:
        return
    same = subject.corpus.tables.by_fact.get(("kernel", kernel.text), [])
    others = sorted({other.vendor for other in same if other.vendor and other.vendor != vendor})
    if others and len(same) >= _MIN_KERNELS:
        yield Problem(
            place=kernel.place,
            message=f"kernel {kernel.text!r} stands in {len(same)} reports, of {', '.join(others)} too",
        )


@rule(
    "L26",
    "copied-report",
    severity="warning",
    why="what two vendors share to the last digit was copied, not measured",
    fix="measure, or remove what was copied",
    evidence="reports of other vendors",
)
def nothing_is_copied_from_other_vendors(subject: LintedDocument) -> Iterator[Problem]:
    """No other vendor's report has the same environment or the same numbers."""
    tables = subject.corpus.tables
    shared: dict[int, list[str]] = {}
    others = {id(other): other for other in subject.corpus.subjects}
    for key, fact in subject.document.facts.items():
        for other in tables.by_fact.get((key, fact.text), []):
            if other.vendor != subject.vendor:
                shared.setdefault(id(other), []).append(key)
    for identity, keys in shared.items():
        if len(keys) >= _MIN_SHARED_FACTS:
            yield Problem(
                place=subject.document.facts[keys[0]].place,
                message=f"{len(keys)} facts of the environment are those of {others[identity].name}",
            )
            break
    numbers: dict[int, list[tuple[str, float]]] = {}
    for (case, column, value), subjects in _own_numbers(subject):
        for other in subjects:
            if other.vendor != subject.vendor and case == subject.case_name:
                numbers.setdefault(id(other), []).append((column, value))
    for identity, same in numbers.items():
        if len(same) >= _MIN_SHARED_NUMBERS:
            column, value = same[0]
            yield Problem(
                place=subject.start,
                message=f"{len(same)} numbers are those of {others[identity].name}, for example {column} {value:g}",
            )
            break


def _own_numbers(subject: LintedDocument) -> Iterator[tuple[tuple[str, str, float], list[LintedDocument]]]:
    for row in subject.rows:
        for column in SPEEDS:
            value = number(row, column)
            if value is not None and subject.case_name:
                key = (subject.case_name, column, value)
                yield key, subject.corpus.tables.by_number.get(key, [])

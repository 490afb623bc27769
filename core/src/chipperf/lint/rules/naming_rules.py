"""Rules on names: the card's vendor and model, and the vendor of the environment."""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from chipperf.documents import cells, wording
from chipperf.documents.document_identity import case_of_directory, installed_cases
from chipperf.documents.format import NOT_APPLICABLE
from chipperf.documents.markdown import Located, Place, read_text
from chipperf.documents.topology import parse_config_name
from chipperf.errors import DocumentError
from chipperf.lint.rule import LintedDocument, NotChecked, Problem, majority_against, rule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chipperf.documents.card_names import Mention

_CONFIG_IN_TEXT: Final = re.compile(r"config_[A-Za-z0-9_.+-]{0,100}\dx\d{1,4}")
_MODEL_NUMBER: Final = re.compile(r"[A-Za-z][A-Za-z-]*\d[A-Za-z0-9-]*")
_SPELLING_CUTOFF: Final = 0.8
_MIN_SHARED_FACTS: Final = 5
_MIN_SHARED_NUMBERS: Final = 2
_FRAMEWORK: Final = re.compile("deepspeed|flagscale|megatron|mindspore|paddle|tensorflow|torch")
_BENEATH: Final = {
    "deepspeed": ("torch",),
    "megatron": ("torch", "flagscale"),
    "flagscale": ("torch", "megatron"),
}
"""Other frameworks that a report may name instead of the one that its directory is called after."""

_DATASET: Final = re.compile(
    "alpaca|coco|criteo|enwik8|imagenet|lambada|librispeech|ljspeech|openwebtext|redpajama|wikipedia|wikitext|wudao|zinc"
)
_FIRST_KERNELS: Final = {"18.04": (4, 15), "20.04": (5, 4), "22.04": (5, 15), "24.04": (6, 8)}
"""Kernel with which each release of Ubuntu began: https://ubuntu.com/about/release-cycle, section on kernels."""

_UBUNTU: Final = re.compile(r"ubuntu\D{0,3}(\d\d\.04)", re.IGNORECASE)
_KERNEL: Final = re.compile(r"(\d{1,3})\.(\d{1,3})\.\d{1,3}")
_SIZE: Final = re.compile(r"\d+(?:\.\d+)?b(?![a-z])")
_CASE_OF_COMMAND: Final = re.compile(r"\bcase_name[= ]\"?([A-Za-z0-9][\w.-]{0,99})")
_VENDOR_DIRECTORY: Final = re.compile(r"\btraining/(\w+)/[\w./-]*")


@rule(
    "L01",
    "foreign-card",
    why="the row is read as a measurement of another vendor's card",
    fix="write the card on which the case ran",
    evidence="the vendor",
)
def cards_are_the_vendors_own(subject: LintedDocument) -> Iterator[Problem]:
    """The short name, the rows' labels and the configurations' names are of the report's vendor."""
    vendor = subject.need_vendor()
    for what, located in (*subject.card_places(), *_configs_in_text(subject)):
        if name := _foreign_name(subject, located):
            yield Problem(
                located.place, f"{what} {located.text!r} names {name.text!r} of {name.vendor}; the report is {vendor}'s"
            )


def _configs_in_text(subject: LintedDocument) -> Iterator[tuple[str, Located]]:
    """Yield the card of each configuration that the text refers to, once."""
    seen = set()
    for number, line in enumerate(subject.document.markdown.lines, start=1):
        for match in () if "|" in line else _CONFIG_IN_TEXT.finditer(line):
            name = parse_config_name(match[0])
            if name and name.card not in seen:
                seen.add(name.card)
                yield "the configuration in the text,", Located(name.card, Place(number, match.start() + 1))


def _foreign_name(subject: LintedDocument, located: Located) -> Mention | None:
    return next((name for name in subject.names.find(located.text) if name.vendor != subject.vendor), None)


@rule(
    "L03",
    "card-model",
    why="it is not clear which card was measured",
    fix="write one model in every section",
    evidence="the vendor",
)
def card_models_agree(subject: LintedDocument) -> Iterator[Problem]:
    """The accelerator, the short name and the rows' labels name the same card, not a server."""
    vendor = subject.need_vendor()
    # A report on two environments has an accelerator in each.
    further = [fact.text for key, fact in subject.document.other_facts if key == "card_title"]
    cards_of_others = {mention.card for text in further for mention in subject.names.find(text) if mention.card}
    named: list[tuple[str, set[str]]] = []
    said_before: set[tuple[str, str]] = set()
    for what, located in (*subject.card_places(), *_configs_in_text(subject)):
        if (what, located.text) in said_before:
            continue
        said_before.add((what, located.text))
        mentions = [mention for mention in subject.names.find(located.text) if mention.vendor == vendor]
        cards = {mention.card for mention in mentions if mention.card}
        servers = [mention.text for mention in mentions if mention.machine]
        said = f"{what} {located.text!r}"
        if not cards:
            if servers and what != "the row's label":
                yield Problem(located.place, f"{said} is the server {servers[0]}, not a card")
            if known := _similar_card(subject, vendor, located.text):
                message = f"{said} is no card of {vendor} that is known; {known} is"
                yield Problem(located.place, message, severity="warning")
            continue
        before = cards_of_others.union(*(others for _, others in named))
        if named and not any(_may_be_one_card(one, two) for one in cards for two in before):
            other, its_cards = named[0]
            message = f"{said} is {' and '.join(sorted(cards))}, {other} is {' and '.join(sorted(its_cards))}"
            yield Problem(located.place, message)
        named.append((said, cards))
    yield from _spellings(subject, vendor)


def _spellings(subject: LintedDocument, vendor: str) -> Iterator[Problem]:
    """Yield a card that is written in several ways, once; a name within a longer one is no other way."""
    # A rendered report has the product's name and the short name, as its vendor's plugin knows them.
    if subject.document.generated:
        return
    configs = subject.configs.configs if subject.configs else ()
    places = [located for _, located in subject.card_places()]
    places += [Located(config.topology.card, subject.start) for config in configs if config.topology]
    written: dict[str, dict[str, tuple[str, Place]]] = defaultdict(dict)
    for located in places:
        for mention in subject.names.find(located.text):
            if mention.vendor == vendor and mention.card:
                written[mention.card].setdefault(_spelling(mention.text, vendor), (mention.text, located.place))
    for ways in written.values():
        apart: list[str] = []
        for way in sorted(ways, key=len):
            # Letters before a name are those of its maker: MXC500 is no other spelling of C500.
            if not any(re.search(rf"(?:^|[\W_])[a-z]*{re.escape(short)}(?![^\W_])", way) for short in apart):
                apart.append(way)
        if len(apart) > 1:
            message = f"one card is written {' and '.join(repr(ways[way][0]) for way in apart)}"
            yield Problem(ways[apart[1]][1], message, severity="warning")


def _spelling(card: str, vendor: str) -> str:
    """Return the name of a card without case, blanks and the vendor's name."""
    return re.sub(r"[\s_-]+", "-", card.casefold()).removeprefix(vendor).strip("-")


def _may_be_one_card(one: str, two: str) -> bool:
    """Return whether two names may be of one card: A100 may be A100-80G, and H20 is not H200."""
    short, long = sorted((one, two), key=len)
    return long.startswith(short) and not long[len(short) : len(short) + 1].isalnum()


def _similar_card(subject: LintedDocument, vendor: str, text: str) -> str | None:
    """Return the vendor's card that a text misspells, or ``None``."""
    known = {name.casefold(): name for name in subject.names.cards(vendor)}
    for match in _MODEL_NUMBER.finditer(text):
        word = match[0].casefold()
        near = difflib.get_close_matches(word, known, n=1, cutoff=_SPELLING_CUTOFF) if word not in known else []
        if near and len(word) > 3:
            return known[near[0]]
    return None


@rule(
    "L31",
    "other-case",
    why="results of one model, dataset or framework are taken for those of another",
    fix="write the values of the directory's case, or move the document",
    evidence="a directory that is called as a case",
)
def document_is_of_the_directorys_case(subject: LintedDocument) -> Iterator[Problem]:
    """The document names the model, dataset and framework of the case after which its directory is named."""
    directory = case_of_directory(subject.path)
    if directory is None:
        raise NotChecked("no directory that names the case")
    if subject.benchmark:
        yield from _framework_of(subject, subject.benchmark)
        yield from _dataset_of(subject, subject.benchmark)
    yield from _commands_of(subject, directory)
    sections = {row.section: row for row in reversed(subject.rows) if not subject.is_of_case(row)}
    for section, first in sections.items():
        yield Problem(first.label.place, f"the rows of {section!r} are of another case than {directory!r}")
    row = subject.document.general.get("model")
    if row is None:
        raise NotChecked("no general table that names the case")
    own, stated = wording.normal(directory), wording.normal(row.value.text)
    size = _SIZE.search(directory.casefold())
    if stated != own and wording.normal(re.sub("[*×]", "x", row.value.text)) == own:
        message = f"model {row.value.text!r} is written {directory!r} in the directory"
        yield Problem(row.value.place, message, severity="warning")
    elif size and stated and own.startswith(stated) and not _SIZE.search(stated):
        message = f"model {row.value.text!r} is of no size; the directory is {directory!r}"
        yield Problem(row.value.place, message, severity="warning")
    beside = subject.path.absolute().parents[1]
    cases = {wording.normal(case) for case in (*installed_cases(), *_cases_of_directories(beside))}
    if stated in cases and stated != own and not own.startswith(stated):
        yield Problem(
            row.value.place, f"model {row.value.text!r} is that of another case; the directory is {directory!r}"
        )


def _commands_of(subject: LintedDocument, directory: str) -> Iterator[Problem]:
    """Yield the commands that run another case than the directory's."""
    for number, line in enumerate(subject.document.markdown.lines, start=1):
        match = _CASE_OF_COMMAND.search(line)
        if match and wording.normal(match[1]) != wording.normal(directory):
            place = Place(number, match.start(1) + 1)
            yield Problem(place, f"the command runs {match[1]!r}; the directory is {directory!r}", severity="warning")


def _framework_of(subject: LintedDocument, benchmark: Path) -> Iterator[Problem]:
    directory, framework = subject.case_directory.name, benchmark.name
    stated = case_of_directory(subject.path)
    if stated and stated != benchmark.parent.name and directory != benchmark.parent.name:
        message = f"the directory is called {directory}, the benchmark {benchmark.parent.name}: nothing finds it"
        yield Problem(subject.start, message)
    if directory == benchmark.parent.name:
        message = f"the directory is not called {directory}-{framework}, so that nothing runs the case from it"
        yield Problem(subject.start, message)
    fact = subject.document.facts.get("framework")
    named = set(_FRAMEWORK.findall(fact.text.casefold())) if fact else set()
    own = _FRAMEWORK.findall(framework)
    if fact and named and own and named.isdisjoint({*own, *(each for name in own for each in _BENEATH.get(name, ()))}):
        message = f"framework {fact.text!r}; the case of the directory is for {framework}"
        yield Problem(fact.place, message)


def _dataset_of(subject: LintedDocument, benchmark: Path) -> Iterator[Problem]:
    row = subject.document.general.get("dataset")
    if row is None or not (stated := _datasets(row.value.text)):
        return
    settings = " ".join(each for each in subject.base.values.values() if isinstance(each, str)) if subject.base else ""
    for where, text in (("the base configuration", settings), ("README.md", _text(benchmark.parent / "README.md"))):
        if named := _datasets(text):
            if named.isdisjoint(stated):
                message = f"dataset {row.value.text!r}; {where} of the case names {' and '.join(sorted(named))}"
                yield Problem(row.value.place, message)
            return


def _datasets(text: str) -> set[str]:
    return set(_DATASET.findall(text.casefold()))


@lru_cache(maxsize=256)
def _text(path: Path) -> str:
    try:
        return read_text(path)
    except DocumentError:
        return ""


@lru_cache(maxsize=64)
def _cases_of_directories(vendor: Path) -> frozenset[str]:
    """Return the cases of a vendor's directories and of the benchmarks beside it."""
    own = (case_of_directory(directory / "README.md") for directory in vendor.glob("*-*"))
    benchmarks = (directory.name for directory in (vendor.parent / "benchmarks").glob("*"))
    return frozenset(case for case in (*own, *benchmarks) if case)


@rule(
    "L20",
    "foreign-environment",
    severity="warning",
    why="a copied environment says nothing about the machine on which the case ran",
    fix="let `perf train` read the environment, or write the environment of the machine",
    evidence="the vendor",
)
def environment_is_the_vendors_own(subject: LintedDocument) -> Iterator[Problem]:
    """The environment is only in this vendor's report, and names the network of several machines."""
    subject.need_vendor()
    facts = subject.document.facts
    for key, fact in facts.items():
        # Another rule checks the card.
        if key != "card_title" and (name := _foreign_name(subject, fact)):
            yield Problem(fact.place, f"{fact.text!r} names {name.text!r} of {name.vendor}")
    for heading in subject.document.markdown.headings:
        if name := _foreign_name(subject, heading):
            yield Problem(heading.place, f"heading {heading.text!r} names {name.text!r} of {name.vendor}")
    changes = subject.document.general.get("changes")
    for said in (changes.value, changes.remark) if changes else ():
        if name := _foreign_name(subject, said):
            yield Problem(said.place, f"the additional change {said.text!r} names {name.text!r} of {name.vendor}")
    system, kernel = facts.get("os"), facts.get("kernel")
    if system and kernel and (release := _UBUNTU.search(system.text)) and (used := _KERNEL.search(kernel.text)):
        first = _FIRST_KERNELS.get(release[1])
        if first and (int(used[1]), int(used[2])) < first:
            message = f"kernel {used[0]} is older than the first of Ubuntu {release[1]}, {first[0]}.{first[1]}"
            yield Problem(kernel.place, message)
    several = next((row for row in subject.rows if row.topology and row.topology.nnodes > 1), None)
    network = facts.get("network")
    # What a rendered report marks as missing, it says on purpose.
    nothing = ("",) if subject.document.generated else ("", NOT_APPLICABLE)
    if several and (network is None or network.text in nothing):
        place = network.place if network else several.label.place
        yield Problem(place, f"there is a {several.shape} row, and the environment names no network")
    for key in ("network", "kernel"):
        stated, reports = facts.get(key), subject.corpus.facts[subject.fact_group(key)]
        if stated is None or cells.marker(stated.text):
            continue
        most = majority_against(reports, subject.corpus.spelling(stated.text))
        # Machines may have other kernels, but not by chance that of another vendor's.
        if most and (key == "network" or _vendors_with(subject, key, stated.text)):
            message = f"{key} {stated.text!r}; {reports[most]} other reports on this accelerator have {most!r}"
            yield Problem(stated.place, message)
    yield from _foreign_directories(subject)


def _vendors_with(subject: LintedDocument, key: str, text: str) -> set[str | None]:
    return {other.vendor for other in subject.corpus.by_statement[key, text]} - {subject.vendor, None}


def _foreign_directories(subject: LintedDocument) -> Iterator[Problem]:
    """Yield what names another vendor's directory: a path in the text, and the configurations' key ``vendor``."""
    for number, line in enumerate(subject.document.markdown.lines, start=1):
        for match in _VENDOR_DIRECTORY.finditer(line):
            if match[1] in subject.names.vendors and match[1] != subject.vendor:
                yield Problem(Place(number, match.start() + 1), f"{match[0]!r} is a directory of {match[1]}")
    for config in subject.configs.configs if subject.configs else ():
        named = str(config.value(["vendor"]))
        if named in subject.names.vendors and named != subject.vendor:
            yield Problem(subject.start, f"{config.path.name} sets vendor to {named!r}")


@rule(
    "L26",
    "copied-report",
    severity="warning",
    why="values that two vendors share to the last digit were copied, not measured",
    fix="measure the values, or remove the copied ones",
    evidence="reports of other vendors",
)
def nothing_is_copied_from_other_vendors(subject: LintedDocument) -> Iterator[Problem]:
    """No other vendor's report has the same environment or the same numbers."""
    shared: dict[LintedDocument, list[str]] = defaultdict(list)
    numbers: dict[LintedDocument, list[str]] = defaultdict(list)
    for statement in subject.statements():
        for other in subject.corpus.by_statement[statement]:
            if len(statement) == 2:
                shared[other].append(statement[0])
            else:
                numbers[other].append(f"{statement[1]} {statement[2]:g}")
    same_environment = [other for other, keys in shared.items() if len(keys) >= _MIN_SHARED_FACTS]
    if original := _original(subject, same_environment):
        keys, name = shared[original], original.document.name
        reports = sum(other.vendor == original.vendor for other in same_environment)
        said = f"{len(keys)} facts of the environment are those of {name}"
        also = f" and {reports - 1} more reports of {original.vendor}" if reports > 1 else ""
        yield Problem(subject.document.facts[keys[0]].place, said + also)
    same_numbers = [other for other, found in numbers.items() if len(found) >= _MIN_SHARED_NUMBERS]
    if original := _original(subject, same_numbers):
        found, name = numbers[original], original.document.name
        yield Problem(subject.start, f"{len(found)} numbers are those of {name}, for example {found[0]}")


def _original(subject: LintedDocument, same: list[LintedDocument]) -> LintedDocument | None:
    """Return a report of another vendor of which the report is perhaps a copy; of two reports, only one has one.

    The copy is the report that names a card of the other's vendor, otherwise that of the vendor with fewer such
    reports, otherwise the later one in the lint.
    """
    reports = Counter(other.vendor for other in same)
    order = subject.corpus.subjects.index
    for other in same:
        if other.vendor == subject.vendor:
            continue
        own = (_names_vendor(subject, other.vendor), reports[other.vendor], order(subject))
        its = (_names_vendor(other, subject.vendor), reports[subject.vendor], order(other))
        if own > its:
            return other
    return None


def _names_vendor(subject: LintedDocument, vendor: str | None) -> bool:
    texts = [*subject.document.facts.values(), *(located for _, located in subject.card_places())]
    return any(mention.vendor == vendor for located in texts for mention in subject.names.find(located.text))

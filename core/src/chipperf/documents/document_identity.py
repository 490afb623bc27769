"""Identifying the vendor and the case of a document."""

from __future__ import annotations

import logging
import os
import re
from functools import cache
from typing import TYPE_CHECKING, Final

from chipperf.cases.registry import guarded_cases
from chipperf.documents.cells import marker
from chipperf.documents.wording import normal
from chipperf.errors import PluginError
from chipperf.languages import in_all_languages

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from chipperf.cases.base import Case
    from chipperf.documents.card_names import CardNames
    from chipperf.documents.case_document import CaseDocument

logger = logging.getLogger(__name__)

_BENCHMARK_LINK: Final = re.compile(r"benchmarks/([\w.-]+)")
_CASE_DIRECTORY: Final = re.compile(
    r"(.+?)-(?:pytorch|paddle|tensorflow|mindspore|deepspeed|megatron|flagscale)[\w.-]*"
)


def identify_vendor(document: CaseDocument, names: CardNames, path: Path | None = None) -> str | None:
    """Return the vendor of a document, or ``None`` if it is unknown.

    The sources, in this order, are: the two directories above, the file's name, the title of a plugin's section, the
    title, the cards in rows and environment, and the short name, which is often copied from other documents.
    """
    if path is not None:
        above = [directory.name for directory in path.absolute().parents[:2]]
        for place in (*reversed(above), path.stem.partition("-")[0]):
            if place in names.vendors:
                return place
    title = document.title.text if document.title else ""
    for vendor in sorted(names.vendors):
        info = names.info(vendor)
        if info and title in in_all_languages(info.report_title):
            return vendor
    labels = " ; ".join(row.topology.card for row in document.rows if row.topology)
    card = document.facts.get("card_title")
    short = document.general.get("card_short_name")
    # A short name says nothing beside an accelerator of another name.
    last = card.text if card and marker(card.text) is None else short.value.text if short else ""
    for text in (title, labels, last):
        mentioned = {mention.vendor for mention in names.find(text)}
        if len(mentioned) == 1:
            return mentioned.pop()
    return None


def is_place_of_a_case(path: Path, names: CardNames) -> bool:
    """Return whether a file lies where FlagPerf has the document of a vendor's case."""
    directory = path.absolute().parent
    is_readme = path.stem.casefold() == "readme"
    return is_readme and directory.parent.name in names.vendors and case_of_directory(path) is not None


def identify_case(document: CaseDocument, path: Path | None = None) -> str | None:
    """Return the name of a document's case, or ``None``. If the case is installed, return its installed name.

    The directory or the file's name is more reliable than the text, which may be that of another case.
    """
    stated = [] if path is None else list(_names_of_place(path))
    model = document.general.get("model")
    stated += [model.value.text] if model and marker(model.value.text) is None else []
    stated += [match[1] for link in document.markdown.links if (match := _BENCHMARK_LINK.search(link.target))]
    if not stated:
        return None
    case = find_case_by_model(stated[0])
    return case.name if case else slug(stated[0])


def case_of_directory(path: Path) -> str | None:
    """Return the case that a document's directory is called after, as written, or ``None``.

    A directory without a framework is called after a case if there are benchmarks with its name.
    """
    directory = path.absolute().parent
    if match := _CASE_DIRECTORY.fullmatch(directory.name):
        return match[1]
    # os.path, because standard input may be called anything, for which methods of Path raise an exception.
    is_case = os.path.isdir(directory.parent.parent / "benchmarks" / directory.name)
    return directory.name if is_case else None


def _names_of_place(path: Path) -> Iterator[str]:
    if directory := case_of_directory(path):
        yield directory
    _, _, behind_vendor = path.stem.partition("-")
    if behind_vendor and find_case_by_model(behind_vendor):
        yield behind_vendor


@cache
def installed_cases() -> Mapping[str, Case]:
    """Return the installed cases by name. The result is cached and omits cases that cannot be imported."""
    cases = {}
    for name, case in guarded_cases():
        if isinstance(case, PluginError):
            logger.warning("the names of case %s are unknown: %s", name, case)
        else:
            cases[name] = case
    return cases


def find_case_by_model(model: str) -> Case | None:
    """Return the installed case with this name, model or title. Ignores spelling variants."""
    wanted = normal(model)
    for name, case in installed_cases().items():
        if wanted in (normal(name), normal(case.base.model), normal(case.report.model_title)):
            return case
    return None


def slug(text: str) -> str:
    """Return a name for files and records: letters, digits, underscores and hyphens."""
    return re.sub(r"[^\w-]+", "_", text.casefold()).strip("_") or "unnamed"

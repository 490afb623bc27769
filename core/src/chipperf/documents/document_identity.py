"""Identifying the vendor and the case of a document."""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import TYPE_CHECKING, Final

from chipperf.cases.registry import case_names, find_case
from chipperf.documents.cells import marker
from chipperf.documents.wording import normal
from chipperf.errors import PluginError
from chipperf.languages import in_all_languages

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from chipperf.cases.base import Case
    from chipperf.documents.card_names import CardNames
    from chipperf.documents.case_document import CaseDocument

logger = logging.getLogger(__name__)

_BENCHMARK_LINK: Final = re.compile(r"benchmarks/([\w.-]+)")
_CASE_DIRECTORY: Final = re.compile(r"(.+)-(?:pytorch|paddle|tensorflow2|mindspore|deepspeed|megatron)[\w.-]*")


def identify_vendor(document: CaseDocument, names: CardNames, path: Path | None = None) -> str | None:
    """Return the vendor of a document, or ``None`` if it is unknown.

    The sources, in this order, are: the title of a plugin's section, a parent directory with the name of a vendor, the
    title, the cards in rows and environment, and the short name, which is often copied from other documents.
    """
    title = document.title.text if document.title else ""
    for vendor in sorted(names.vendors):
        info = names.info(vendor)
        if info and title in in_all_languages(info.report_title):
            return vendor
    if path is not None and (above := path.absolute().parent.parent.name) in names.vendors:
        return above
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


def identify_case(document: CaseDocument, path: Path | None = None) -> str | None:
    """Return the name of a document's case, or ``None``. If the case is installed, return its installed name."""
    model = document.general.get("model")
    stated = [model.value.text] if model and marker(model.value.text) is None else []
    stated += [match[1] for link in document.markdown.links if (match := _BENCHMARK_LINK.search(link.target))]
    if path is not None and (match := _CASE_DIRECTORY.fullmatch(path.absolute().parent.name)):
        stated.append(match[1])
    if not stated:
        return None
    # The first statement is the most reliable one.
    case = find_case_by_model(stated[0])
    return case.name if case else slug(stated[0])


@cache
def installed_cases() -> Mapping[str, Case]:
    """Return the installed cases by name. The result is cached and omits cases that cannot be imported."""
    cases = {}
    for name in case_names():
        try:
            cases[name] = find_case(name, guarded=True)
        except PluginError as error:
            logger.warning("the names of case %s are unknown: %s", name, error)
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

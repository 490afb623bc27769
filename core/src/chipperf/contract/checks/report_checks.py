"""R: checks that the vendor's report says what core's says, and mentions no other vendor."""

from __future__ import annotations

import re
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Final

from jinja2 import TemplateNotFound

from chipperf.cases.config import resolve
from chipperf.cases.registry import case_names, find_case
from chipperf.contract.check import NotRun, check, fail, not_run_on, require
from chipperf.contract.plugin_under_test import PluginUnderTest, foreign_names
from chipperf.contract.sample_records import RANKS, data_answers, device_names, empty_record, full_record
from chipperf.documents import cells, markdown
from chipperf.documents.case_document import read_document
from chipperf.errors import ConfigError, PerfError
from chipperf.languages import LANGUAGES, Language
from chipperf.records.columns import BY_NAME
from chipperf.records.schema import Failure, Record, Status
from chipperf.report.render import render_report, template_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from chipperf.cases.base import Case
    from chipperf.documents.case_document import DocumentRow
    from chipperf.plugin.types import Rank

_TOPOLOGIES: Final = "runs on three topologies"
_OTHER_RUNS: Final = "other runs, of which one failed"


@check(
    "R3",
    level=0,
    fault="the template fails, or shows another value, in another unit or column, than the record has, or shows it as "
    "measured when it is missing",
)
def report_renders(subject: PluginUnderTest) -> None:
    """In every language the report on any run of any case has the values, missing values and notes of core's report."""
    templates = template_directory(subject.entry)
    for case in map(find_case, case_names()):
        samples = _samples(subject, case)
        for language in LANGUAGES:
            pages: dict[str, str] = {}
            of_core: dict[str, str] = {}
            for what, records in samples.items():
                place = f"the {language} report on {what} of {case.name}"
                try:
                    pages[what] = _render(subject, records, language)
                except PerfError as error:
                    fail(f"{place}: {error.message}")
                if templates is not None:
                    of_core[what] = render_report(records, language=language)
                    difference = next(_differences(pages[what], of_core[what]), None)
                    require(difference is None, f"{place} {difference}")
            if templates is not None:
                in_all = _cells(pages[_TOPOLOGIES]) & _cells(pages[_OTHER_RUNS])
                typed = [cell for cell in in_all if not _numbers(cell) <= _numbers(of_core[_TOPOLOGIES])]
                require(
                    not typed,
                    f"every {language} report on {case.name} has {', '.join(sorted(typed))} in a table, from no "
                    "record: let the template compute it from view",
                )


@check("R4", level=0, fault="a text was copied from another vendor with the name of its product")
def report_names_no_other_vendor(subject: PluginUnderTest) -> None:
    """Report, overrides, variables and peaks mention no other vendor and no other vendor's product."""
    with not_run_on(PerfError, "a hook does not work, see A10"):
        # In most situations the answer is the same.
        places = {repr(answer): call for call, answer in data_answers(subject.session)}
    for case, language in product(map(find_case, case_names()), LANGUAGES):
        with not_run_on(PerfError, "the report cannot be rendered, see R3"):
            records = _samples(subject, case)[_TOPOLOGIES]
            places[_render(subject, records, language)] = f"the {language} report on {case.name}"
    for text, place in places.items():
        # Stacks share environment variables, whose names hold the name of another vendor and do not mention it.
        for mention in foreign_names(subject, re.sub(r"\w+_\w*", " ", text, flags=re.ASCII)):
            fail(
                f"{place} mentions {mention.text!r} of {mention.vendor}: "
                "correct the template, title, override, variable or source with that text"
            )


def _samples(subject: PluginUnderTest, case: Case) -> dict[str, list[Record]]:
    """Return the records of each sample report, by what it is on."""
    complete = [
        _record(subject, case, rank, partial(full_record, number=number))
        for number, rank in enumerate((*RANKS, *RANKS[:2]))
    ]
    failure = Failure(failure_class="SpecimenError", message="specimen message")
    other, failed = complete[len(RANKS) :]
    failed = failed.model_copy(update={"status": Status(state="failed", failure=failure)})
    return {
        _TOPOLOGIES: complete[: len(RANKS)],
        _OTHER_RUNS: [other, failed],
        "a run without measurements": [_record(subject, case, RANKS[0], empty_record)],
    }


def _record(subject: PluginUnderTest, case: Case, rank: Rank, make: Callable[..., Record]) -> Record:
    device_name = device_names(subject.info)[-1]
    config_faults = not_run_on(ConfigError, "the overrides do not resolve, see C1 and C3")
    with not_run_on(PerfError, "a hook does not work, see A10"), config_faults:
        shipped = subject.session.case_overrides(case.name, rank, device_name)
        resolved = resolve(case, vendor=subject.entry.name, vendor_overrides=shipped)
        return make(subject.session, case, rank, resolved)


def _render(subject: PluginUnderTest, records: Sequence[Record], language: Language) -> str:
    """Return the report, rendered with the vendor's templates; :class:`NotRun` if one that another needs is missing."""
    try:
        return render_report(records, language=language, vendor_templates=template_directory(subject.entry))
    except PerfError as error:
        if isinstance(error.__cause__, TemplateNotFound):
            raise NotRun(f"a template is missing, see A14: {error.message}") from error
        raise


def _differences(page: str, of_core: str) -> Iterator[str]:
    """Yield what a page says otherwise than core's page on the same records. A vendor's labels may have other words."""
    own, core = read_document(page, "report"), read_document(of_core, "report")
    if len(own.rows) != len(core.rows):
        yield f"has {len(own.rows)} rows in its performance table instead of {len(core.rows)}"
    for row, wanted in zip(own.rows, core.rows, strict=False):
        for column, cell in wanted.cells.items():
            said, expected = row.text(column), cell.text
            if column == "configuration":
                said, expected = _configuration(row), _configuration(wanted)
            if said is None:
                yield f"has no column {column} in its performance table"
            elif _content(said) != _content(expected):
                yield f"says {said!r} in the column {column} of {wanted.label.text}, the record has {expected!r}"
    for key, fact in core.facts.items():
        said = own.facts[key].text if key in own.facts else None
        # What is unknown may be left out.
        if said is None and cells.marker(fact.text) is None:
            yield f"lacks the fact {key}, which is {fact.text!r}"
        elif said is not None and _content(said) != _content(fact.text):
            yield f"says {said!r} as the fact {key}, the record has {fact.text!r}"
    for key, general in core.general.items():
        if key not in own.general:
            yield f"has no row {general.label.text!r} in its general table"
        elif key != BY_NAME["mem_peak"].key and _content(own.general[key].value.text) != _content(general.value.text):
            yield f"says {own.general[key].value.text!r} as {general.label.text}, core says {general.value.text!r}"
    # Below the performance table, notes and evidence say what the numbers mean, and which records they are from.
    below = of_core.splitlines()[max((row.label.place.line for row in core.rows), default=0) :]
    there = set(map(str.strip, page.splitlines()))
    for line in map(str.strip, below):
        if line.startswith(("- ", "* ", "| ")) and line not in there:
            yield f"lacks the line {line!r} of core's notes and evidence: extend the block, or call super() in it"


def _configuration(row: DocumentRow) -> str:
    return f"{row.card} {row.shape}"


def _content(text: str) -> str:
    """Return a text without emphasis, and without zeros at the end of decimal numbers."""
    plain = re.sub(r"[*`]", "", text).strip()
    return re.sub(r"(?<![\d.])(\d+)(?:\.0+|(\.\d*?[1-9])0*)(?![\d.])", r"\1\2", plain)


def _numbers(text: str) -> set[str]:
    return set(re.findall(r"\d[\d.]*", text))


def _cells(page: str) -> set[str]:
    tables = (block for block in markdown.parse(page).blocks if isinstance(block, markdown.Table))
    return {cell.text for table in tables for row in table.rows for cell in row}

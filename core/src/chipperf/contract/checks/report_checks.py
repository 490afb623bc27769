"""R: checks that the vendor's report renders also if values are missing, and mentions no other vendor."""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING

from jinja2 import TemplateNotFound

from chipperf.cases.config import resolve
from chipperf.cases.registry import case_names, find_case
from chipperf.contract.check import NotRun, check, fail, not_run_on, require
from chipperf.contract.plugin_under_test import PluginUnderTest, other_vendors
from chipperf.contract.sample_records import RANKS, device_names, empty_record, full_record
from chipperf.documents import markdown
from chipperf.documents.card_names import CardNames
from chipperf.documents.format import marker
from chipperf.errors import ConfigError, PerfError
from chipperf.languages import LANGUAGES, Language, in_language
from chipperf.records.columns import THROUGHPUTS, columns_of
from chipperf.records.schema import Missing, Record
from chipperf.report.render import render_report, template_directory
from chipperf.report.row import column_header

if TYPE_CHECKING:
    from collections.abc import Callable

    from chipperf.cases.base import Case
    from chipperf.plugin.types import Rank


@check("R3", level=0, fault="the template fails or shows nothing if a measurement is missing")
def report_renders(subject: PluginUnderTest) -> None:
    """For every case the report renders in every language, and shows that a missing metric was not measured."""
    for case, language in product(map(find_case, case_names()), LANGUAGES):
        place = f"the {language} report on {case.name}"
        full, empty = (_record(subject, case, RANKS[0], make) for make in (full_record, empty_record))
        try:
            _render(subject, full, language)
            row = _performance_row(_render(subject, empty, language))
        except PerfError as error:
            fail(f"{place}: {error.message}")
        expected = in_language(marker(Missing(missing="not_run")), language)
        columns = [column_header(column, case.report) for column in columns_of("report")]
        if row is None:
            fail(f"{place} has no performance table with the columns {', '.join(columns)}")
        for column in columns:
            require(column in row, f"{place}: the performance table has no column {column}")
            require(
                row[column] == expected,
                f"{place}: {column} was not measured, and its cell says {row[column]!r} instead of {expected!r}",
            )


@check("R4", level=0, fault="a text was copied from another vendor with the name of its product")
def report_names_no_other_vendor(subject: PluginUnderTest) -> None:
    """The report mentions no other vendor and no other vendor's product."""
    names = CardNames()
    # The first meaning of a name counts, so a name that two vendors use is this vendor's own.
    for info in (subject.info, *other_vendors(subject)):
        names.add_plugin(info)
    for case, rank, language in product(map(find_case, case_names()), RANKS, LANGUAGES):
        with not_run_on(PerfError, "the report cannot be rendered, see R3"):
            text = _render(subject, _record(subject, case, rank, full_record), language)
        # Stacks share environment variables, whose names hold the name of another vendor and do not mention it.
        for mention in names.find(re.sub(r"\w+_\w*", " ", text, flags=re.ASCII)):
            require(
                mention.vendor == subject.info.name,
                f"the {language} report on {case.name} mentions {mention.text!r} of {mention.vendor}: "
                "correct the template, title, override or variable with that text",
            )


def _record(subject: PluginUnderTest, case: Case, rank: Rank, make: Callable[..., Record]) -> Record:
    device_name = device_names(subject.info)[-1]
    config_faults = not_run_on(ConfigError, "the overrides do not resolve, see C1 and C3")
    with not_run_on(PerfError, "a hook does not work, see A10"), config_faults:
        shipped = subject.session.case_overrides(case.name, rank, device_name)
        resolved = resolve(case, vendor=subject.entry.name, vendor_overrides=shipped)
        return make(subject.session, case, rank, resolved)


def _render(subject: PluginUnderTest, record: Record, language: Language) -> str:
    """Return the report, rendered with the vendor's templates; :class:`NotRun` if one that another needs is missing."""
    try:
        return render_report([record], language=language, vendor_templates=template_directory(subject.entry))
    except PerfError as error:
        if isinstance(error.__cause__, TemplateNotFound):
            raise NotRun(f"a template is missing, see A14: {error.message}") from error
        raise


def _performance_row(text: str) -> dict[str, str] | None:
    """Return the first row of the performance table as cells by column; ``None`` if there is no such row."""
    for table in markdown.parse(text).blocks:
        if isinstance(table, markdown.Table) and table.rows:
            header = [cell.text for cell in table.header]
            if set(THROUGHPUTS) & set(header):
                return dict(zip(header, (cell.text for cell in table.rows[0]), strict=False))
    return None

"""Verifying a report: find its records, render the page again, and compare."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from chipperf.documents.case_document import layout_of, read_document
from chipperf.documents.markdown import Table, parse, read_text
from chipperf.errors import PerfError, RecordError
from chipperf.languages import ENGLISH
from chipperf.records.files import read_bounded
from chipperf.records.schema import METRICS_VERSION
from chipperf.records.store import read_record
from chipperf.report.beside import runs_beside
from chipperf.report.curve_files import CurveFiles, is_plain_link, is_plain_name, points_csv
from chipperf.report.provenance import describe_page, provenance_file, read_provenance
from chipperf.report.render import render_page
from chipperf.report.tracing import read_traced
from chipperf.report.view import LAYOUT, build_view
from chipperf.verify.differences import ReportDifference, compare_pages, compare_provenances
from chipperf.verify.evidence import examine
from chipperf.verify.named_records import beside_on_page, named_by_page, named_by_provenance
from chipperf.visible import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from chipperf.documents.markdown import Located, Markdown, Place
    from chipperf.languages import Language
    from chipperf.records.schema import Record
    from chipperf.report.provenance import Provenance
    from chipperf.report.render import Page
    from chipperf.report.view import ReportView
    from chipperf.verify.differences import Kind
    from chipperf.verify.named_records import NamedRecord, RecordFinder

_WEB_PAGE: Final = ("<!doctype html", "<html")
_OLD_TEMPLATE: Final = re.compile(r"\.[a-z]{2}\.md\.j2$")
"""Template of one language, as chipperf had them before reports named templates that are not core's."""
_PICTURES: Final = (".png", ".svg")


@dataclass(frozen=True, slots=True)
class Templates:
    """Directories of the templates of a report, the user's and the vendor's.

    ``of_vendor`` returns the directory of the vendor of the given records.
    """

    user: Path | None
    of_vendor: Callable[[Sequence[Record]], Path | None]


@dataclass(slots=True, kw_only=True)
class ReportResult:
    """The result of verifying one report.

    Attributes:
        file: The page.
        with_provenance: True if the records are from its provenance file, False if from the short hashes on the page.
        records: Files of the records by run.
        cells: Number of cells and facts on the page that come from a record.
        contradictions: What is wrong with the records, on their own or with their evidence.
        remarks: Evidence of the records that is missing, and disturbed measurements.
        notes: Notes for the reader.
    """

    file: Path
    with_provenance: bool = False
    records: dict[str, Path] = field(default_factory=dict)
    cells: int = 0
    differences: list[ReportDifference] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, kind: Kind, message: str, *, file: Path | None = None, place: Place | None = None) -> None:
        """Add a difference of the page or of another file."""
        line, column = (place.line, place.column) if place else (0, 0)
        self.differences.append(
            ReportDifference(kind=kind, file=str(file or self.file), message=message, line=line, column=column)
        )


def verify_report(
    path: Path, finder: RecordFinder, templates: Templates, *, baseline: Sequence[Path] = ()
) -> ReportResult:
    """Render a report again from its records, and compare.

    Args:
        path: The page. Its provenance file must be in the same directory.
        finder: Finds the records.
        templates: Directories of templates.
        baseline: Runs whose curves the page shows. Used if the page has no provenance.

    Raises:
        DocumentError: The page cannot be read.
        UsageError: A template directory does not exist.
        RecordError: A record of ``baseline`` cannot be read.
        PerfError: A template is broken.
    """
    text = read_text(path).replace("\r\n", "\n")
    result = ReportResult(file=path)
    if text.lstrip().casefold().startswith(_WEB_PAGE):
        message = "a web page cannot be verified: give a Markdown report, as 'perf report --out README.md' writes it"
        result.add("page", message)
        return result
    if not text.endswith("\n"):
        text += "\n"
    page = parse(text, str(path))
    provenance = _provenance(result)
    named = named_by_provenance(provenance) if provenance else named_by_page(page)
    if not named:
        missing = "it is not a report of chipperf, or its evidence was removed"
        # How its records were found is of no use.
        result.notes.clear()
        result.add("page", f"the page names no record by its hash: {missing}")
        return result
    found = [(each, record) for each in named if (record := _find(each, finder, result))]
    if len(found) < len(named):
        result.notes.append("not compared with the records: some cannot be used")
        return result
    reported = [record for each, record in found if not each.is_baseline]
    baselines = [record for each, record in found if each.is_baseline]
    if provenance is None:
        baselines += [read_traced(run) for run in baseline]
    try:
        view = build_view(reported, baseline=baselines, layout=min(layout_of(page) or LAYOUT, LAYOUT))
        view = replace(view, beside=tuple(provenance.beside if provenance else beside_on_page(page)))
    except PerfError as error:
        result.add("page", error.message)
        return result
    named_beside = {run.run_id for run in view.beside}
    for run in runs_beside(result.records.values(), reported, baselines):
        if run.run_id not in named_beside:
            named_run = f"run {run.run_id} ({run.state})"
            result.notes.append(f"{named_run} of the same row lies beside, and the page does not say so")
    _compare(text, page, view, reported, baselines, provenance, templates, result)
    return result


def _provenance(result: ReportResult) -> Provenance | None:
    file = provenance_file(result.file)
    try:
        provenance = read_provenance(file)
    except FileNotFoundError:
        result.notes.append(f"there is no {file.name}: the records were found by the short hashes on the page")
        return None
    except RecordError as error:
        result.add("provenance", error.message.removeprefix(f"{file}: "), file=file)
        return None
    result.with_provenance = True
    return provenance


def _find(named: NamedRecord, finder: RecordFinder, result: ReportResult) -> Record | None:
    """Return the record that a report names or, if it was edited, the record of the same run."""
    named_in = result.file if named.place else provenance_file(result.file)
    of_digest = finder.by_digest(named.digest) if named.digest else None
    file = of_digest or finder.by_run(named.run_id)
    if file is None:
        result.add("record", f"there is no record of {named}", file=named_in, place=named.place)
        return None
    if named.digest and not of_digest:
        message = f"the record was edited: {file} differs from the record of {named}"
        result.add("record", message, file=named_in, place=named.place)
    try:
        record = read_traced(file)
    except RecordError as error:
        result.add("record", error.message, file=file)
        return None
    if (version := record.metrics_version) != METRICS_VERSION:
        message = f"metrics version {version} of {named}; this chipperf reports version {METRICS_VERSION}"
        result.add("record", message, file=file)
        return None
    result.records[record.run_id] = file
    examined = examine(read_record(file), file.parent)
    result.contradictions += (f"run {named.run_id}: {text}" for text in examined.contradictions)
    result.remarks += (f"run {named.run_id}: {text}" for text in examined.notes)
    return record


def _compare(
    text: str,
    page: Markdown,
    view: ReportView,
    reported: Sequence[Record],
    baselines: Sequence[Record],
    provenance: Provenance | None,
    templates: Templates,
    result: ReportResult,
) -> None:
    name = str(result.file)
    language = provenance.language if provenance else read_document(text, name).language
    vendor_templates = templates.of_vendor(reported)
    # Only the points depend on the records alone; pictures also depend on matplotlib and fonts.
    points = points_csv(view.convergence.curves).encode() if view.convergence else None

    def describe(rendered: Page, curve: CurveFiles | None) -> Provenance:
        files = {unquote(curve.csv): points or b""} if curve else {}
        return describe_page(
            rendered, language=language, records=reported, baseline=baselines, curve=curve, files=files
        )

    def compare(curve: CurveFiles | None) -> tuple[list[ReportDifference], Provenance, Page]:
        convergence = replace(view.convergence, files=curve) if view.convergence else None
        rendered = render_page(
            replace(view, convergence=convergence),
            language=language,
            user_templates=templates.user,
            vendor_templates=vendor_templates,
            names_templates=not (provenance and _OLD_TEMPLATE.search(provenance.template)),
        )
        described = describe(rendered, curve)
        return compare_pages(text, rendered.text, described, name), described, rendered

    compared = map(compare, _possible_curves(page, view, language, provenance))
    differences, expected, rendered = min(compared, key=lambda each: len(each[0]))
    result.cells = len(expected.cells)
    result.differences += differences
    if rendered.foreign:
        names = ", ".join(rendered.foreign)
        result.notes.append(f"these templates are not core's: {names}; read them, because they decide what is said")
        of_core = render_page(view, language=language)
        known = {cell.text for cell in _unsourced_numbers(of_core, describe(of_core, None))}
        for cell in _unsourced_numbers(rendered, expected):
            if cell.text not in known:
                result.add("cell", f"{visible(cell.text)} is from no record: it stands in {names}", place=cell.place)
    if provenance:
        of_provenance = list(compare_provenances(provenance, expected, str(provenance_file(result.file))))
        if differences and len(of_provenance) > 1:
            # The others repeat the differences of the page.
            first = of_provenance[0]
            of_provenance = [replace(first, message=f"{first.message}, and {len(of_provenance) - 1} more")]
        result.differences += of_provenance
        if differences and provenance.template != expected.template:
            result.notes.append(
                f"the page was rendered with the template {provenance.template}, but compared with "
                f"{expected.template}: name the directory with --templates, or install the vendor's plugin"
            )
    _check_linked_files(points, page, provenance, result)
    if provenance is None and any(name.endswith(_PICTURES) for name in _linked_names(page)):
        result.notes.append("the pictures were not checked: only the provenance has their checksums")


def _unsourced_numbers(page: Page, provenance: Provenance) -> Iterator[Located]:
    """Yield the cells of a page's tables that have a digit and no source."""
    sourced = {(cell.line, cell.cell) for cell in provenance.cells}
    for table in parse(page.text).blocks:
        for row in table.rows if isinstance(table, Table) else ():
            for number, cell in enumerate(row, start=1):
                if (cell.place.line, number) not in sourced and any(map(str.isdigit, cell.text)):
                    yield cell


def _possible_curves(
    page: Markdown, view: ReportView, language: Language, provenance: Provenance | None
) -> Iterator[CurveFiles | None]:
    """Yield the possible files of the page's curves. Records do not contain these names, a provenance does."""
    links = {PurePath(link.target).suffix: link.target for link in page.links if is_plain_link(link.target)}
    if view.convergence and provenance and provenance.curve:
        curve = provenance.curve
        yield CurveFiles(**(curve.model_dump() | {"unwritten": tuple(curve.unwritten)}))
    elif view.convergence is None or provenance or ".csv" not in links:
        yield None
    else:
        languages = dict.fromkeys((language, ENGLISH)) if ".png" in links else (None,)
        for written in languages:
            yield CurveFiles(csv=links[".csv"], png=links.get(".png"), svg=links.get(".svg"), language=written)


def _check_linked_files(
    points: bytes | None, page: Markdown, provenance: Provenance | None, result: ReportResult
) -> None:
    """Add linked files that were changed. Files of points are made again, pictures are compared by their digest."""
    digests: dict[str, str | None] = dict.fromkeys(_linked_names(page))
    if provenance:
        digests |= {file.name: file.sha256 for file in provenance.files}
    if points is not None:
        made = hashlib.sha256(points).hexdigest()
        digests |= {name: made for name in digests if name.endswith(".csv")}
    for name, digest in sorted(digests.items()):
        file = result.file.with_name(name)
        try:
            content = read_bounded(file)
        except (OSError, ValueError) as error:
            result.add("file", f"the page links this file, which cannot be read: {error}", file=file)
            continue
        if digest and hashlib.sha256(content).hexdigest() != digest:
            result.add("file", "the file differs from the records", file=file)


def _linked_names(page: Markdown) -> list[str]:
    """Return the names of the pictures and files of points in the page's directory that the page links."""
    names = (unquote(link.target) for link in page.links)
    return [name for name in names if name.endswith((".csv", *_PICTURES)) and is_plain_name(name)]

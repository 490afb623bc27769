"""Verifying a report: which records it names, whether they are those, and whether they give this page."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from chipperf.documents.case_document import read_document
from chipperf.documents.markdown import parse, read_text
from chipperf.errors import PerfError, RecordError
from chipperf.records.schema import METRICS_VERSION
from chipperf.report.build import build_view
from chipperf.report.convergence import CurveFiles
from chipperf.report.curve_files import points_csv
from chipperf.report.provenance import describe_page, is_plain_link, is_plain_name, provenance_file, read_provenance
from chipperf.report.render import render_page
from chipperf.report.tracing import read_traced
from chipperf.verify.differences import Difference, compare_pages, compare_provenances
from chipperf.verify.named_records import named_by_page, named_by_provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from chipperf.documents.format import Language
    from chipperf.documents.markdown import Markdown
    from chipperf.records.schema import Record
    from chipperf.report.provenance import Provenance
    from chipperf.report.view import ReportView
    from chipperf.verify.named_records import NamedRecord
    from chipperf.verify.records import RecordFinder

_WEB_PAGE: Final = ("<!doctype html", "<html")
_PICTURES: Final = (".png", ".svg")


@dataclass(frozen=True, slots=True)
class Templates:
    """Where the templates of a report are looked for.

    Attributes:
        user: The user's directory.
        of_vendor: Returns the directory of the vendor whose records these are.
    """

    user: Path | None
    of_vendor: Callable[[Sequence[Record]], Path | None]


@dataclass(slots=True, kw_only=True)
class ReportResult:
    """What came of verifying one report.

    Attributes:
        file: The page.
        with_provenance: True if a provenance beside it was used; otherwise its own short hashes were.
        records: The records that were found, by run.
        cells: Cells and facts of the page that come from a record.
        differences: What is not as the records say.
        notes: What else a reader must know.
    """

    file: Path
    with_provenance: bool = False
    records: dict[str, Path] = field(default_factory=dict)
    cells: int = 0
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Expected:
    """The page that records give, and its provenance."""

    text: str
    provenance: Provenance


def verify_report(
    path: Path, finder: RecordFinder, templates: Templates, *, baseline: Sequence[Path] = ()
) -> ReportResult:
    """Make a report again from its records and compare.

    Args:
        path: The page; its provenance is looked for beside it.
        finder: Finds the records.
        templates: Where to look for templates.
        baseline: Runs whose curves the page shows, for a page without provenance.

    Raises:
        DocumentError: The page cannot be read.
        UsageError: A template directory does not exist.
        RecordError: A record of ``baseline`` cannot be read.
        PerfError: A template is broken.
    """
    text = read_text(path).replace("\r\n", "\n")
    result = ReportResult(file=path)
    if text.lstrip().casefold().startswith(_WEB_PAGE):
        message = "a web page: only Markdown reports are verified, as 'perf report --out README.md' writes them"
        result.differences.append(Difference(kind="page", file=str(path), message=message))
        return result
    if not text.endswith("\n"):
        text += "\n"
    page = parse(text, str(path))
    provenance = _provenance(path, result)
    named = named_by_provenance(provenance) if provenance else named_by_page(page)
    if not named:
        message = "the page names no record by its hash: chipperf did not render it, or its evidence was removed"
        result.differences.append(Difference(kind="page", file=str(path), message=message))
        return result
    found = [_find(each, path, finder, result) for each in named]
    records = [record for record in found if record]
    if len(records) < len(named):
        result.notes.append("not compared with the records: some cannot be used")
        return result
    is_baseline = {id(record): each.is_baseline for each, record in zip(named, records, strict=True)}
    reported = [record for record in records if not is_baseline[id(record)]]
    baselines = [record for record in records if is_baseline[id(record)]]
    if provenance is None:
        baselines += [read_traced(run) for run in baseline]
    try:
        view = build_view(reported, baseline=baselines)
    except PerfError as error:
        result.differences.append(Difference(kind="page", file=str(path), message=error.message))
        return result
    _compare(text, page, view, (reported, baselines), provenance, templates, result)
    return result


def _provenance(path: Path, result: ReportResult) -> Provenance | None:
    file = provenance_file(path)
    try:
        provenance = read_provenance(file)
    except FileNotFoundError:
        result.notes.append(f"there is no {file.name}: the records are those whose short hashes the page has")
        return None
    except RecordError as error:
        message = error.message.removeprefix(f"{file}: ")
        result.differences.append(Difference(kind="provenance", file=str(file), message=message))
        return None
    result.with_provenance = True
    return provenance


def _find(named: NamedRecord, path: Path, finder: RecordFinder, result: ReportResult) -> Record | None:
    """Return the record that a report names, or that of the same run if it was edited."""
    file = finder.by_digest(named.digest) if named.digest else None
    if file is None:
        file = finder.by_run(named.run_id)
        if file is None:
            _add_record_difference(result, named, path, f"there is no record of {named}")
            return None
        if named.digest:
            message = f"the record was edited: {file} is not that of {named}"
            _add_record_difference(result, named, path, message)
    try:
        record = read_traced(file)
    except RecordError as error:
        result.differences.append(Difference(kind="record", file=str(file), message=error.message))
        return None
    version = record.metrics_version
    if version != METRICS_VERSION:
        message = f"metrics version {version} of {named}; this chipperf reports version {METRICS_VERSION}"
        result.differences.append(Difference(kind="record", file=str(file), message=message))
        return None
    result.records[record.run_id] = file
    return record


def _add_record_difference(result: ReportResult, named: NamedRecord, path: Path, message: str) -> None:
    line, column = (named.place.line, named.place.column) if named.place else (0, 0)
    file = path if named.place else provenance_file(path)
    result.differences.append(Difference(kind="record", file=str(file), message=message, line=line, column=column))


def _compare(
    text: str,
    page: Markdown,
    view: ReportView,
    records: tuple[Sequence[Record], Sequence[Record]],
    provenance: Provenance | None,
    templates: Templates,
    result: ReportResult,
) -> None:
    name = str(result.file)
    language = provenance.language if provenance else read_document(text, name).language
    vendor_templates = templates.of_vendor(records[0])

    def expected(curve: CurveFiles | None) -> _Expected:
        shown = view
        if view.convergence:
            shown = replace(view, convergence=replace(view.convergence, files=curve))
        rendered = render_page(
            shown, language=language, user_templates=templates.user, vendor_templates=vendor_templates
        )
        # Pictures depend on matplotlib and fonts; the points are the records'.
        points = points_csv(view.convergence.curves).encode() if view.convergence else b""
        described = describe_page(
            rendered,
            language=language,
            records=records[0],
            baseline=records[1],
            curve=curve,
            files={unquote(curve.csv): points} if curve else {},
        )
        return _Expected(rendered.text, described)

    best: tuple[list[Difference], _Expected] | None = None
    for curve in _possible_curves(page, view, language, provenance):
        candidate = expected(curve)
        differences = compare_pages(text, candidate.text, candidate.provenance, name)
        if best is None or len(differences) < len(best[0]):
            best = differences, candidate
    if best is None:
        return
    differences, chosen = best
    result.cells = len(chosen.provenance.cells)
    result.differences += differences
    if provenance:
        file = str(provenance_file(result.file))
        of_provenance = list(compare_provenances(provenance, chosen.provenance, file))
        result.differences += _first_of(of_provenance) if differences else of_provenance
        if differences and provenance.template != chosen.provenance.template:
            result.notes.append(
                f"the page was rendered with the template {provenance.template}, this one with "
                f"{chosen.provenance.template}: name the directory with --templates, or install the vendor's plugin"
            )
    result.differences += _linked_files(view, page, provenance, result.file)
    if provenance is None and any(name.endswith(_PICTURES) for name in _linked_names(page)):
        result.notes.append("the pictures were not checked: only the provenance has their checksums")


def _first_of(differences: list[Difference]) -> list[Difference]:
    """Return the first, with how many more there are: of a page that differs they repeat what is said of it."""
    first, more = differences[:1], len(differences) - 1
    return [replace(each, message=f"{each.message}, and {more} more") for each in first] if more > 0 else first


def _possible_curves(
    page: Markdown, view: ReportView, language: Language, provenance: Provenance | None
) -> Iterator[CurveFiles | None]:
    """Yield how the page may link its curves, which no record says; a provenance does."""
    if view.convergence is None:
        yield None
    elif provenance:
        curve = provenance.curve
        yield (
            None
            if curve is None
            else CurveFiles(
                csv=curve.csv,
                png=curve.png,
                svg=curve.svg,
                language=curve.language,
                unwritten=tuple(curve.unwritten),
            )
        )
    else:
        links = {PurePath(link.target).suffix: link.target for link in page.links if is_plain_link(link.target)}
        if ".csv" not in links:
            yield None
            return
        drawn = ".png" in links
        languages: tuple[Language | None, ...] = (language, "en") if drawn and language != "en" else (language,)
        for written in languages if drawn else (None,):
            yield CurveFiles(csv=links[".csv"], png=links.get(".png"), svg=links.get(".svg"), language=written)


def _linked_files(view: ReportView, page: Markdown, provenance: Provenance | None, path: Path) -> Iterator[Difference]:
    """Yield which files beside the report are not as written: points are made again, pictures have a digest."""
    digests: dict[str, str | None] = dict.fromkeys(_linked_names(page))
    if provenance:
        digests |= {file.name: file.sha256 for file in provenance.files}
    points = [name for name in digests if name.endswith(".csv")]
    if view.convergence:
        digests |= dict.fromkeys(points, hashlib.sha256(points_csv(view.convergence.curves).encode()).hexdigest())
    for name, digest in sorted(digests.items()):
        file = path.with_name(name)
        try:
            content = file.read_bytes()
        except (OSError, ValueError) as error:
            yield Difference(kind="file", file=str(file), message=f"cannot be read, and the page links it: {error}")
            continue
        if digest and hashlib.sha256(content).hexdigest() != digest:
            yield Difference(kind="file", file=str(file), message="not the file that the records give")


def _linked_names(page: Markdown) -> list[str]:
    """Return the names of the pictures and points that a page links and that lie beside it."""
    names = (unquote(link.target) for link in page.links)
    return [name for name in names if name.endswith((".csv", *_PICTURES)) and is_plain_name(name)]

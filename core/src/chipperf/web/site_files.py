"""A site of all records in a directory: a leaderboard, and a page for each run."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf.documents.format import csv_table
from chipperf.errors import PerfError, RecordError, UsageError
from chipperf.plugin import installed
from chipperf.records.files import write_atomically
from chipperf.records.rows import as_row
from chipperf.records.store import RECORD_NAME, find_records, parse_stored, read_content
from chipperf.report.render import template_directory
from chipperf.web.board import RunRow, doubts_of, make_boards, mark_doubles, summarize_stored
from chipperf.web.pages import MOST_ROWS, UnshownRecord, render_leaderboard, render_runs

if TYPE_CHECKING:
    from chipperf.cases.base import Progress
    from chipperf.languages import Language
    from chipperf.records.rows import Value

MOST_CHARTED_PAGES = 200
"""Largest number of runs whose pages have charts, because drawing them takes longer than everything else."""

_INDEX = "index.html"
_RUNS, _RECORDS, _TABLE = "runs", "records", "runs.csv"
_GENERATOR = '<meta name="generator" content="chipperf'
_HEAD_CHARACTERS = 2000
_LONGEST_NAME = 80
_PAGE_NAME = re.compile(r".*-[0-9a-f]{12}")
_TABLE_HEAD_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A written site: its leaderboard, the number of runs with a page, and the records that could not be read.

    ``copies`` are records that are equal to another one. If a site has too many runs, some pages are without charts.
    """

    index: Path
    runs: int
    problems: tuple[UnshownRecord, ...]
    copies: int
    uncharted: int


def build_site(
    directory: Path,
    out: Path,
    *,
    language: Language,
    user_templates: Path | None = None,
    tell: Progress = lambda done, total: None,
) -> Site:
    """Write the site of all records in a directory. The leaderboard lists records that cannot be read.

    Only one record is in memory at a time.

    Args:
        directory: Directory to search for ``record.json``, at any depth. Links to directories are not followed.
        out: Directory to write to. It must be new or empty, or contain an earlier site, whose pages are replaced.
        language: Language that the pages show first.
        tell: Called with the number of finished records and the number of all records.
    """
    if not directory.is_dir():
        raise UsageError(f"{directory} is not a directory", hint="name a directory with runs in it")
    _require_own(out)
    vendor_templates = {entry.name: template_directory(entry) for entry in installed.vendors()}
    rows: dict[str, RunRow] = {}
    values: list[dict[str, Value]] = []
    problems: list[UnshownRecord] = []

    def note(error: OSError) -> None:
        problems.append(_unshown(Path(error.filename), error.strerror or type(error).__name__, directory))

    copies = 0
    paths = list(find_records(directory, onerror=note))
    for done, path in enumerate(paths):
        tell(done, len(paths))
        try:
            # The copy has the bytes that the page shows: a run that goes on writes its record again.
            content = read_content(path)[1]
            stored = parse_stored(path, content)
        except PerfError as error:
            problems.append(_unshown(path, error.message, directory))
            continue
        record = stored.record
        row = summarize_stored(stored)
        if row.digest in rows:
            copies += 1
            continue
        name = _page_name(row)
        page, copy = f"{_RUNS}/{name}.html", f"{_RECORDS}/{name}.json"
        rows[row.digest] = replace(row, page=page)
        values.append(as_row(stored) | {"file": copy})
        text = render_runs(
            [record],
            [row],
            language=language,
            user_templates=user_templates,
            vendor_templates=vendor_templates.get(record.vendor.name),
            index=f"../{_INDEX}",
            record_file=f"../{copy}",
            with_charts=len(rows) <= MOST_CHARTED_PAGES,
        )
        _write(out / page, text)
        _write(out / copy, content)
    if not paths and not problems:
        raise UsageError(f"there is no {RECORD_NAME} in {directory}", hint="name a directory with runs in it")
    marked = mark_doubles(rows.values())
    for value, row in zip(values, marked, strict=True):
        value |= doubts_of(row)
    boards = make_boards(marked, most_rows=MOST_ROWS)
    text = render_leaderboard(
        boards, language=language, problems=problems, copies=copies, csv_file=_TABLE, user_templates=user_templates
    )
    _write(out / _INDEX, text)
    _write(out / _TABLE, csv_table(list(values[0]), values) if values else "")
    # Pages of an earlier site whose runs are not in this one, and the copies of records that they name.
    names = {row.page and Path(row.page).stem for row in rows.values()}
    for former in (out / _RUNS).glob("*.html"):
        if _PAGE_NAME.fullmatch(former.stem) and former.stem not in names:
            (out / _RECORDS / f"{former.stem}.json").unlink(missing_ok=True)
            former.unlink(missing_ok=True)
    return Site(
        index=out / _INDEX,
        runs=len(rows),
        problems=tuple(problems),
        copies=copies,
        uncharted=max(0, len(rows) - MOST_CHARTED_PAGES),
    )


def _unshown(path: Path, message: str, directory: Path) -> UnshownRecord:
    """Return a record that cannot be shown, without paths of this machine, which pages must not contain."""
    message = message.replace(f"{path}: ", "").replace(str(path), path.name)
    return UnshownRecord(place=path.relative_to(directory).as_posix(), message=message)


def _page_name(row: RunRow) -> str:
    """Return a file name, without ending, that is unique to the record."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", row.run_id).strip("-")[:_LONGEST_NAME]
    return f"{name}-{row.digest[:12]}"


def _require_own(out: Path) -> None:
    try:
        if not out.exists() or not any(out.iterdir()):
            return
        index = out / _INDEX
        own = index.is_file() and _GENERATOR in index.read_text(encoding="utf-8", errors="replace")[:_HEAD_CHARACTERS]
        table = out / _TABLE
        own_table = not table.exists() or _is_own_table(table)
    except OSError as error:
        raise UsageError(f"cannot use {out}: {error.strerror}", hint="choose another --out") from error
    if not own:
        raise UsageError(
            f"{out} contains files that are not a site of chipperf", hint="choose a new or empty directory with --out"
        )
    if not own_table:
        raise UsageError(
            f"{table} is not a table of perf site, which would replace it",
            hint="move it elsewhere, or choose another directory with --out",
        )


def _is_own_table(table: Path) -> bool:
    """Return whether a site wrote this table: its first row names the copy of a record, or it is empty."""
    with table.open(encoding="utf-8", errors="replace", newline="") as file:
        head = file.read(_TABLE_HEAD_CHARACTERS)
    try:
        row = next(csv.DictReader(io.StringIO(head, newline="")), {})
    except csv.Error:
        return False
    folder, _, name = (row.get("file") or "").rpartition("/")
    return not head or (folder == _RECORDS and _PAGE_NAME.fullmatch(name.removesuffix(".json")) is not None)


def _write(path: Path, text: str | bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror}", hint="choose another --out") from error
    # To wait for the disk for each of a thousand pages can take longer than to make them.
    write_atomically(path, text, durable=False)

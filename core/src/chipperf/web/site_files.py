"""A site of all records in a directory: a leaderboard, and a page for each run."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf.errors import PerfError, RecordError, UsageError
from chipperf.plugin import installed
from chipperf.records.files import write_atomically
from chipperf.records.store import RECORD_NAME, find_records, read_stored
from chipperf.report.render import template_directory
from chipperf.web.board import BoardKey, RunRow, board_key, make_boards, summarize
from chipperf.web.pages import MOST_ROWS, UnshownRecord, render_leaderboard, render_runs

if TYPE_CHECKING:
    from chipperf.cases.base import Progress
    from chipperf.languages import Language
    from chipperf.records.schema import Record

MOST_CHARTED_PAGES = 200
"""Largest number of runs whose pages have charts, because drawing them takes longer than everything else."""

_INDEX = "index.html"
_RUNS = "runs"
_GENERATOR = '<meta name="generator" content="chipperf'
_HEAD_CHARACTERS = 2000
_LONGEST_NAME = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A written site.

    Attributes:
        index: Path of the leaderboard.
        runs: Number of runs with a page.
        problems: Records that could not be read.
        copies: Number of records that are equal to another one.
        uncharted: Number of run pages without charts, because the site has too many runs.
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
    """Write the site of all records in a directory.

    Only one record is in memory at a time. The leaderboard lists records that cannot be read.

    Args:
        directory: Directory to search for ``record.json``, at any depth. Links to directories are not followed.
        out: Directory to write to. It must be new or empty, or contain an earlier site, whose pages are replaced.
        language: Language that the pages show first.
        user_templates: Directory whose templates take precedence.
        tell: Called with the number of finished records and the number of all records.

    Raises:
        UsageError: The directory does not exist or contains no record, or ``out`` contains other files.
        RecordError: A page cannot be written.
        PerfError: A template is broken.
    """
    if not directory.is_dir():
        raise UsageError(f"{directory} is not a directory", hint="name a directory with runs in it")
    _require_own(out)
    templates = _VendorTemplates()
    rows: dict[str, tuple[BoardKey, RunRow]] = {}
    problems: list[UnshownRecord] = []
    copies = 0
    paths = list(find_records(directory, onerror=lambda error: problems.append(_unreadable(error, directory))))
    for done, path in enumerate(paths):
        tell(done, len(paths))
        try:
            stored = read_stored(path)
        except PerfError as error:
            problems.append(UnshownRecord(place=_below(path, directory), message=_without_path(error.message, path)))
            continue
        record = stored.record
        row = summarize(record, digest=stored.sha256)
        if row.digest in rows:
            copies += 1
            continue
        page = f"{_RUNS}/{_page_name(row)}"
        rows[row.digest] = board_key(record), replace(row, page=page)
        text = render_runs(
            [record],
            [row],
            language=language,
            user_templates=user_templates,
            vendor_templates=templates.of(record),
            index=f"../{_INDEX}",
            with_charts=len(rows) <= MOST_CHARTED_PAGES,
        )
        _write(out / page, text)
    if not paths and not problems:
        raise UsageError(f"there is no {RECORD_NAME} in {directory}", hint="name a directory with runs in it")
    boards = make_boards(rows.values(), most_rows=MOST_ROWS)
    text = render_leaderboard(
        boards, language=language, problems=problems, copies=copies, user_templates=user_templates
    )
    _write(out / _INDEX, text)
    _remove_former(out, {Path(row.page).name for _, row in rows.values() if row.page})
    return Site(
        index=out / _INDEX,
        runs=len(rows),
        problems=tuple(problems),
        copies=copies,
        uncharted=max(0, len(rows) - MOST_CHARTED_PAGES),
    )


class _VendorTemplates:
    """The template directories of vendors' plugins. Each is looked up once, without importing the plugin."""

    def __init__(self) -> None:
        self._entries = {entry.name: entry for entry in installed.vendors()}
        self._found: dict[str, Path | None] = {}

    def of(self, record: Record) -> Path | None:
        name = record.vendor.name
        if name not in self._found:
            entry = self._entries.get(name)
            self._found[name] = template_directory(entry) if entry else None
        return self._found[name]


def _unreadable(error: OSError, directory: Path) -> UnshownRecord:
    return UnshownRecord(place=_below(Path(error.filename), directory), message=error.strerror or type(error).__name__)


def _below(path: Path, directory: Path) -> str:
    """Return a path relative to the site's source, because pages must not contain paths of this machine."""
    return path.relative_to(directory).as_posix()


def _without_path(message: str, path: Path) -> str:
    """Return an error's message without the path of its file, which the page shows separately."""
    return message.replace(f"{path}: ", "").replace(str(path), path.name)


def _page_name(row: RunRow) -> str:
    """Return a file name that is unique to the record."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", row.run_id).strip("-")[:_LONGEST_NAME]
    return f"{name}-{row.digest[:12]}.html"


def _require_own(out: Path) -> None:
    """Check that a directory is empty or contains an earlier site.

    Raises:
        UsageError: The directory contains other files, or cannot be read.
    """
    try:
        if not out.exists() or not any(out.iterdir()):
            return
        index = out / _INDEX
        own = index.is_file() and _GENERATOR in index.read_text(encoding="utf-8", errors="replace")[:_HEAD_CHARACTERS]
    except OSError as error:
        raise UsageError(f"cannot use {out}: {error.strerror}", hint="choose another --out") from error
    if not own:
        raise UsageError(
            f"{out} contains files that are not a site of chipperf", hint="choose a new or empty directory with --out"
        )


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror}", hint="choose another --out") from error
    write_atomically(path, text)


def _remove_former(out: Path, written: set[str]) -> None:
    """Remove pages of an earlier site whose runs are not in this one."""
    for page in (out / _RUNS).glob("*.html"):
        if page.name not in written:
            page.unlink(missing_ok=True)

"""The records that a report was made from, as its provenance or the page names them, and their files."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel

from chipperf.documents.markdown import Table
from chipperf.errors import UsageError
from chipperf.languages import in_all_languages, pattern, phrase
from chipperf.records.files import read_bounded
from chipperf.records.store import find_records
from chipperf.report.beside import RunBeside

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from chipperf.documents.markdown import Markdown, Place
    from chipperf.report.provenance import Provenance

_HASH_HEADER: Final = re.compile(r"SHA-?256", re.IGNORECASE)
_RUN_HEADERS: Final = in_all_languages(phrase("Run"))
_SHORT_HASH: Final = re.compile(r"[0-9a-f]{8,64}")
_NOT_IN_TABLE: Final = re.compile(
    pattern(
        phrase(
            "Run not in the table: %(run)s (%(topology)s %(precision)s, %(state)s); "
            "the same row has a more complete or newer one."
        ),
        run="(.+?)",
    )
)

_BESIDE: Final = re.compile(
    pattern(
        phrase("Run of the same row that lies beside these and is not in the report: %(run)s (%(state)s, %(digest)s)"),
        run="(.+?)",
        state="(.+?)",
        digest="([0-9a-f]{12})",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedRecord:
    """A record that a report names.

    Attributes:
        digest: SHA-256 of the record, or its first digits; ``None`` if the report only names the run.
        place: Place on the page; ``None`` if the provenance names the record.
        is_baseline: True if the report shows only the curve of the run.
    """

    run_id: str
    digest: str | None
    place: Place | None = None
    is_baseline: bool = False

    def __str__(self) -> str:
        return f"run {self.run_id}" + (f" with SHA-256 {self.digest[:12]}" if self.digest else "")


def named_by_provenance(provenance: Provenance) -> list[NamedRecord]:
    """Return the records of a provenance, in the order of the report."""
    return [
        NamedRecord(run_id=record.run_id, digest=record.sha256, is_baseline=record.role == "baseline")
        for record in provenance.records
    ]


def named_by_page(page: Markdown) -> list[NamedRecord]:
    """Return the records of a page without a provenance: first the records in its evidence, then those in its notes.

    The result does not contain the runs of a baseline, because a page names only their curves.
    """
    in_evidence: list[NamedRecord] = []
    in_notes: list[NamedRecord] = []
    for block in page.blocks:
        if isinstance(block, Table):
            in_evidence += _in_table(block)
        elif block.kind == "item" and (match := _NOT_IN_TABLE.match(block.text)):
            in_notes.append(NamedRecord(run_id=match[match.lastindex or 0], digest=None, place=block.place))
    return [*in_evidence, *in_notes]


def beside_on_page(page: Markdown) -> Iterator[RunBeside]:
    """Yield the runs that the page names as lying beside its own."""
    for block in page.blocks:
        if not isinstance(block, Table) and block.kind == "item" and (match := _BESIDE.fullmatch(block.text)):
            run_id, state, sha256 = filter(None, match.groups())
            yield RunBeside(run_id=run_id, state=state, sha256=sha256)


def _in_table(table: Table) -> Iterator[NamedRecord]:
    headers = [cell.text for cell in table.header]
    hashes = next((index for index, text in enumerate(headers) if _HASH_HEADER.search(text)), None)
    runs = next((index for index, text in enumerate(headers) if text in _RUN_HEADERS), None)
    if hashes is None or runs is None:
        return
    for row in table.rows:
        if len(row) > max(hashes, runs) and _SHORT_HASH.fullmatch(row[hashes].text):
            yield NamedRecord(run_id=row[runs].text, digest=row[hashes].text, place=row[hashes].place)


class _Named(BaseModel):
    run_id: str


class RecordFinder:
    """Finds files called ``record.json`` in directories, and single files with any name."""

    def __init__(self, places: Sequence[Path]) -> None:
        """Set the places to search. The files are read at the first search.

        Raises:
            UsageError: A place does not exist.
        """
        for place in places:
            if not place.exists():
                raise UsageError(f"{place} does not exist", hint="give --runs directories that contain runs")
        self._places = tuple(places)

    @cached_property
    def _by_digest(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for place in self._places:
            for file in [place] if place.is_file() else find_records(place):
                with suppress(OSError):
                    found.setdefault(hashlib.sha256(read_bounded(file)).hexdigest(), file)
        return found

    @cached_property
    def _by_run(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for file in self._by_digest.values():
            with suppress(OSError, ValueError):
                found.setdefault(_Named.model_validate_json(read_bounded(file)).run_id, file)
        return found

    def by_digest(self, digest: str) -> Path | None:
        """Return the file whose SHA-256 begins with ``digest``, or ``None``."""
        return next((file for full, file in self._by_digest.items() if full.startswith(digest)), None)

    def by_run(self, run_id: str) -> Path | None:
        """Return the file of a record with this run id, or ``None``."""
        return self._by_run.get(run_id)

"""The records that a report was made from, as its provenance or the page names them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chipperf.documents.markdown import Table
from chipperf.languages import in_all_languages, pattern, phrase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chipperf.documents.markdown import Located, Markdown, Place
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


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedRecord:
    """A record that a report names.

    Attributes:
        run_id: Id of the run.
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
    return [*_in_evidence(page), *_in_notes(page)]


def _in_evidence(page: Markdown) -> Iterator[NamedRecord]:
    for block in page.blocks:
        if not isinstance(block, Table):
            continue
        hashes = _column(block.header, lambda text: bool(_HASH_HEADER.search(text)))
        runs = _column(block.header, lambda text: text in _RUN_HEADERS)
        if hashes is None or runs is None:
            continue
        for row in block.rows:
            if len(row) > max(hashes, runs) and _SHORT_HASH.fullmatch(row[hashes].text):
                yield NamedRecord(run_id=row[runs].text, digest=row[hashes].text, place=row[hashes].place)


def _in_notes(page: Markdown) -> Iterator[NamedRecord]:
    for block in page.blocks:
        if not isinstance(block, Table) and block.kind == "item" and (match := _NOT_IN_TABLE.match(block.text)):
            yield NamedRecord(run_id=match[match.lastindex or 0], digest=None, place=block.place)


def _column(header: tuple[Located, ...], is_wanted: Callable[[str], bool]) -> int | None:
    return next((index for index, cell in enumerate(header) if is_wanted(cell.text)), None)

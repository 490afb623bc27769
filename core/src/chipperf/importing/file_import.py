"""Importing files: case documents, and logs of FlagPerf or of MLPerf training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from chipperf.documents.markdown import read_text
from chipperf.errors import DocumentError
from chipperf.importing import flagperf_log, mlperf_log
from chipperf.importing.document_import import import_document
from chipperf.importing.imported import Import
from chipperf.importing.log_lines import Stated, read_log
from chipperf.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from chipperf.documents.card_names import CardNames

LOG_SUFFIXES: Final = (".log", ".txt")
MAIN_LOG: Final = "rank0.out.log"

NOTHING: Final = Import(files=(), records=(), not_understood=())

Outcome = Literal["fully", "partly", "refused"]

_FIRST_BYTES: Final = 64 * 2**10
"""What is read of a file to learn whether it is a log of MLPerf training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileImport:
    """The import of a file; ``imported`` is empty and there is an ``error`` if the file was refused."""

    path: Path
    imported: Import = NOTHING
    error: DocumentError | None = None

    @property
    def outcome(self) -> Outcome:
        """How much of the file was understood."""
        return "refused" if self.error else "partly" if self.imported.not_understood else "fully"

    @property
    def reason(self) -> str:
        """Why the file was not imported fully, otherwise an empty text."""
        texts = self.imported.not_understood
        if self.error or not texts:
            return self.error.message if self.error else ""
        more = f", and {len(texts) - 1} more" if len(texts) > 1 else ""
        return f"{texts[0].line}:{texts[0].column}: {texts[0].reason}{more}"


def find_logs(directory: Path) -> list[Path]:
    """Return the logs below a directory: FlagPerf's main logs, and the files that begin with events of MLPerf's."""
    files = (path for path in directory.rglob("*") if path.suffix in LOG_SUFFIXES and path.is_file())
    return [path for path in files if path.name == MAIN_LOG or _begins_as_mlperf(path)]


def _begins_as_mlperf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            begin = file.read(_FIRST_BYTES)
    except OSError:
        return False
    return mlperf_log.MARK.encode() in begin and flagperf_log.MARK.encode() not in begin


def import_files(paths: Iterable[Path], stated: Stated, names: CardNames) -> list[FileImport]:
    """Import each file. One that cannot be imported does not stop the others."""
    results = []
    for path in paths:
        try:
            _require_name_in_utf_8(path)
            results.append(FileImport(path=path, imported=import_file(path, stated, names)))
        except DocumentError as error:
            results.append(FileImport(path=path, error=error))
    return results


def _require_name_in_utf_8(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        hint = "rename it: records have the names of the files that they are from"
        raise DocumentError(f"the name of {visible(str(path))} is not valid UTF-8", hint=hint) from None


def import_file(path: Path, stated: Stated, names: CardNames) -> Import:
    """Return the records of a file. A :class:`DocumentError` says why there are none.

    A log with FlagPerf's events is FlagPerf's, also where a library wrote MLPerf's lines into it.
    """
    if path.suffix not in LOG_SUFFIXES:
        return import_document(
            read_text(path), str(path), names=names, vendor=stated.vendor, case=stated.case, path=path
        )
    log = read_log(path)
    is_mlperf = mlperf_log.MARK in log.text and flagperf_log.MARK not in log.text
    import_log = mlperf_log.import_mlperf_log if is_mlperf else flagperf_log.import_flagperf_log
    return import_log(log, stated, names)

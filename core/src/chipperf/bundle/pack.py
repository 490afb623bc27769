"""Packing runs and reports into an archive. The same files give the same archive."""

from __future__ import annotations

import gzip
import io
import os
import re
import tarfile
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote

from chipperf.bundle.manifest import (
    CHECKSUMS,
    MANIFEST,
    REPORTS,
    RUNS,
    BundledFile,
    BundledRun,
    BundleManifest,
    checksums_bytes,
    is_page,
    manifest_bytes,
)
from chipperf.documents.markdown import parse, read_text
from chipperf.errors import RecordError, UsageError
from chipperf.records.checkpoints import digest_of
from chipperf.records.store import RECORD_NAME, read_stored
from chipperf.report.curve_files import is_plain_name
from chipperf.report.provenance import provenance_file
from chipperf.run.directory import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_FILES_OF_A_RUN = ("events.jsonl", "telemetry-node*.jsonl", "logs/*.log", "logs/*.failure.json", "sources.json")
"""Files that are packed with a record, if they exist. Plans, progress and checkpoints only serve to resume a run."""


@dataclass(frozen=True, slots=True)
class _Contents:
    """The content of a bundle: files on disk by their name in the archive, runs, and reports."""

    files: Mapping[str, Path]
    runs: Sequence[BundledRun]
    reports: Sequence[str]


def pack(runs: Sequence[Path], reports: Sequence[Path], out: Path) -> BundleManifest:
    """Write an archive of runs and reports, and return its manifest.

    Args:
        runs: Directories of runs, or their records.
        reports: Reports. Their provenance and the files that they link are packed too.
        out: The archive. An existing one is replaced.

    Raises:
        UsageError: A run is still running or is named twice, or ``out`` cannot be written.
        RecordError: A record or file cannot be read.
        DocumentError: A report cannot be read.
    """
    contents = _collect(runs, reports)
    files = [_described(name, path) for name, path in sorted(contents.files.items())]
    manifest = BundleManifest(runs=list(contents.runs), reports=list(contents.reports), files=files)
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        try:
            _write(temporary, manifest, contents.files)
            os.replace(temporary, out)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot write {out}: {error.strerror or error}", hint="choose another --out, on a disk with free space"
        ) from error
    return manifest


def _collect(runs: Sequence[Path], reports: Sequence[Path]) -> _Contents:
    files: dict[str, Path] = {}
    bundled_runs = []
    for run in runs:
        stored = read_stored(run)
        directory = f"{RUNS}/{_safe(stored.record.run_id)}"
        name = f"{directory}/{RECORD_NAME}"
        if name in files:
            raise UsageError(f"run {stored.record.run_id} is named twice", hint="name every run once")
        if run.is_dir():
            RunDirectory(run).require_ended()
            files |= {f"{directory}/{path.relative_to(run).as_posix()}": path for path in _files_of(run)}
        files[name] = stored.file
        bundled_runs.append(BundledRun(run_id=stored.record.run_id, record=name))
    bundled_reports = []
    for number, report in enumerate(reports, start=1):
        beside = {path.name: path for path in _files_beside(report)}
        files |= {f"{REPORTS}/{number}/{name}": path for name, path in beside.items()}
        bundled_reports.append(f"{REPORTS}/{number}/{report.name}")
    return _Contents(files, bundled_runs, bundled_reports)


def _files_of(run: Path) -> Iterator[Path]:
    for pattern in _FILES_OF_A_RUN:
        yield from (path for path in run.glob(pattern) if path.is_file() and not path.is_symlink())


def _files_beside(report: Path) -> Iterator[Path]:
    """Yield a report, its provenance, and the files in its directory that it links.

    Linked pages are not packed, because a bundle contains only pages that are verified as reports.
    """
    yield report
    links = (unquote(link.target) for link in parse(read_text(report), str(report)).links)
    linked = [report.with_name(name) for name in links if is_plain_name(name) and not is_page(name)]
    yield from (path for path in (provenance_file(report), *linked) if path.is_file())


def _safe(run_id: str) -> str:
    return re.sub(r"[^\w.-]|^\.+", "_", run_id) or "_"


def _described(name: str, path: Path) -> BundledFile:
    try:
        digest = digest_of(path)
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    return BundledFile(name=name, size_bytes=digest.size_bytes, sha256=digest.sha256)


def _write(path: Path, manifest: BundleManifest, files: Mapping[str, Path]) -> None:
    with ExitStack() as stack:
        raw = stack.enter_context(path.open("wb"))
        # Without the file's name and time, which would differ every time.
        compressed = stack.enter_context(gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0))
        archive = stack.enter_context(tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT))
        for name, content in ((MANIFEST, manifest_bytes(manifest)), (CHECKSUMS, checksums_bytes(manifest))):
            _add(archive, name, len(content), io.BytesIO(content))
        for described in manifest.files:
            with files[described.name].open("rb") as file:
                _add(archive, described.name, described.size_bytes, file)


def _add(archive: tarfile.TarFile, name: str, size_bytes: int, file: IO[bytes]) -> None:
    # Owner and time keep the default of a new entry, 0, and the permissions 0644.
    entry = tarfile.TarInfo(name)
    entry.size = size_bytes
    archive.addfile(entry, file)

"""Packing runs and reports into an archive. The same files give the same archive."""

from __future__ import annotations

import gzip
import io
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO
from urllib.parse import unquote

from chipperf.bundle.manifest import (
    CHECKSUMS,
    DOCUMENTS,
    FILES_OF_A_RUN,
    LINKED_FILES,
    MANIFEST,
    REPORTS,
    RUNS,
    BundledFile,
    BundledRun,
    BundleManifest,
    checksums_bytes,
    manifest_bytes,
    problems,
)
from chipperf.bundle.signature import SIGNATURE, sign
from chipperf.documents.markdown import parse, read_text
from chipperf.errors import UnusableRecord, UsageError
from chipperf.records.checkpoints import digest_of
from chipperf.records.store import RECORD_NAME, read_stored
from chipperf.report.curve_files import is_plain_name
from chipperf.report.provenance import provenance_file
from chipperf.run.directory import RunDirectory


def pack(
    runs: Sequence[Path],
    reports: Sequence[Path],
    out: Path,
    key: Path | None = None,
    documents: Sequence[Path] = (),
) -> BundleManifest:
    """Write an archive, signed with the ssh key ``key`` if there is one, and return its manifest.

    ``runs`` are directories of runs, or their records; ``documents`` are packed as they are. Each report is packed with
    its provenance and the files that it links. An existing archive is replaced.

    Raises:
        UsageError: A run is still running or is named twice, ``out`` cannot be written, or ``key`` cannot sign.
        RecordError: A record or file cannot be read.
        DocumentError: A report cannot be read.
    """
    files: dict[str, Path] = {}
    bundled_runs = [_add_run(run, files) for run in runs]
    bundled_reports = [_add_report(number, report, files) for number, report in enumerate(reports, start=1)]
    named = {f"{DOCUMENTS}/{number}/{path.name}": path for number, path in enumerate(documents, start=1)}
    files |= named
    if link := next((path for path in files.values() if path.is_symlink()), None):
        raise UsageError(f"{link} is a link, and a bundle contains only files", hint="replace it by a copy of its file")
    described = [_described(name, path) for name, path in sorted(files.items())]
    manifest = BundleManifest(runs=bundled_runs, reports=bundled_reports, documents=list(named), files=described)
    if problem := next(problems(manifest), None):
        raise UsageError(f"cannot pack these files: {problem}", hint="rename the file or the run's directory")
    head = {MANIFEST: manifest_bytes(manifest), CHECKSUMS: checksums_bytes(manifest)}
    if key:
        head[SIGNATURE] = sign(head[MANIFEST], key)
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        try:
            _write(temporary, head, manifest, files)
            os.replace(temporary, out)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot write {out}: {error.strerror or error}", hint="choose another --out, on a disk with free space"
        ) from error
    return manifest


def _add_run(run: Path, files: dict[str, Path]) -> BundledRun:
    """Add the files of a run to ``files``, by their names in the archive."""
    stored = read_stored(run)
    safe_name = re.sub(r"[^\w.-]|^\.+", "_", stored.record.run_id) or "_"
    directory = f"{RUNS}/{safe_name}"
    name = f"{directory}/{RECORD_NAME}"
    if name in files:
        raise UsageError(f"run {stored.record.run_id} is named twice", hint="name every run once")
    if run.is_dir():
        RunDirectory(run).require_ended()
        for path in (path for pattern in FILES_OF_A_RUN for path in run.glob(pattern)):
            # A link in the run's directory may lead anywhere.
            if path.is_file() and path.resolve() == run.resolve() / path.relative_to(run):
                files[f"{directory}/{path.relative_to(run).as_posix()}"] = path
    files[name] = stored.file
    return BundledRun(run_id=stored.record.run_id, record=name)


def _add_report(number: int, report: Path, files: dict[str, Path]) -> str:
    """Add a report with the files that belong to it. Return its name in the archive."""
    directory = f"{REPORTS}/{number}"
    files |= {f"{directory}/{path.name}": path for path in files_of_report(report)}
    return f"{directory}/{report.name}"


def files_of_report(report: Path) -> list[Path]:
    """Return a report, its provenance, and the files in its directory that it links.

    These are only points and pictures, because a bundle contains only what is verified.
    """
    links = (unquote(link.target) for link in parse(read_text(report), str(report)).links)
    linked = [report.with_name(name) for name in links if is_plain_name(name) and name.endswith(LINKED_FILES)]
    return [report, *(path for path in (provenance_file(report), *linked) if path.is_file())]


def _described(name: str, path: Path) -> BundledFile:
    try:
        return BundledFile(name=name, **digest_of(path).model_dump())
    except OSError as error:
        raise UnusableRecord(f"cannot read {path}: {error.strerror}") from error


def _write(path: Path, head: Mapping[str, bytes], manifest: BundleManifest, files: Mapping[str, Path]) -> None:
    with ExitStack() as stack:
        raw = stack.enter_context(path.open("wb"))
        # Without the file's name and time, which would differ every time.
        compressed = stack.enter_context(gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0))
        archive = stack.enter_context(tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT))
        for name, content in head.items():
            _add(archive, name, len(content), io.BytesIO(content))
        for described in manifest.files:
            with files[described.name].open("rb") as file:
                _add(archive, described.name, described.size_bytes, file)


def _add(archive: tarfile.TarFile, name: str, size_bytes: int, file: IO[bytes]) -> None:
    # Owner and time keep the default of a new entry, 0, and the permissions 0644.
    entry = tarfile.TarInfo(name)
    entry.size = size_bytes
    archive.addfile(entry, file)

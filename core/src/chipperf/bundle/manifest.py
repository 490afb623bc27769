"""The manifest of a bundle, and the layout of its files."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

import chipperf
from chipperf.errors import CheckFailed, first_fault
from chipperf.records.files import parse_model
from chipperf.records.schema import EVIDENCE, METRICS_VERSION, SCHEMA_VERSION, Sha256, StrictModel
from chipperf.records.store import RECORD_NAME
from chipperf.report.provenance import SUFFIX
from chipperf.visible import visible

MANIFEST: Final = "manifest.json"
CHECKSUMS: Final = "SHA256SUMS"
"""The same checksums for ``sha256sum --check``."""
RUNS: Final = "runs"
REPORTS: Final = "reports"
DOCUMENTS: Final = "documents"

FILES_OF_A_RUN: Final = (*EVIDENCE, "logs/*.failure.json", "sources.json")
"""Files that are packed with a record, if they exist. Plans, progress and checkpoints only serve to resume a run."""
LINKED_FILES: Final = (".csv", ".png", ".svg")
"""Files that are packed with a report that links them: points and pictures, which ``perf verify`` checks."""
DOCUMENT_FILES: Final = (".json", ".png")
"""Documents: limits, statements and certificates with their pictures."""

_LONGEST_NAME: Final = 400


class BundledFile(StrictModel):
    """A file in the bundle. ``name`` is its name in the archive."""

    name: str
    size_bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


class BundledRun(StrictModel):
    """A run. ``record`` is the name of its record in the archive."""

    run_id: str
    record: str


class BundleManifest(StrictModel):
    """Content of the bundle's first file.

    ``runs``, ``reports`` and ``documents`` name their files in the archive. Documents are packed as they are: limits,
    certificates, statements. ``files`` are all but the manifest and the checksums,
    ordered by name.
    """

    bundle_version: Literal[1] = 1
    chipperf_version: str = chipperf.__version__
    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    metrics_version: Annotated[int, Field(ge=1, le=METRICS_VERSION)] = METRICS_VERSION
    runs: Annotated[list[BundledRun], Field(min_length=1)]
    reports: list[str]
    documents: list[str] = []
    files: list[BundledFile]


def manifest_bytes(manifest: BundleManifest) -> bytes:
    """Return the content of the manifest file."""
    return (manifest.model_dump_json(indent=1) + "\n").encode()


def checksums_bytes(manifest: BundleManifest) -> bytes:
    """Return the content of the file that ``sha256sum --check`` reads."""
    return "".join(f"{file.sha256}  {file.name}\n" for file in manifest.files).encode()


def parse_manifest(content: bytes, bundle: str) -> BundleManifest:
    """Return the manifest of a bundle.

    Raises:
        CheckFailed: The content is not a manifest, or contradicts itself. The message says where.
    """
    try:
        manifest = parse_model(BundleManifest, content)
    except ValidationError as error:
        raise CheckFailed(f"{bundle}: {MANIFEST}: {first_fault(error)}", hint="pack the runs again") from error
    if problem := next(problems(manifest), None):
        raise CheckFailed(f"{bundle}: {MANIFEST}: {problem}", hint="pack the runs again")
    return manifest


def problems(manifest: BundleManifest) -> Iterator[str]:
    """Yield contradictions, and files that belong to no run and no report, because they would not be checked."""
    names = {file.name for file in manifest.files}
    records = [run.record for run in manifest.runs]
    lists = {
        "files": [name_key(file.name) for file in manifest.files],
        "runs": [run.run_id for run in manifest.runs],
        "records": records,
        "reports": manifest.reports,
        "documents": manifest.documents,
    }
    for what, listed in lists.items():
        if len(set(listed)) < len(listed):
            yield f"{what}: a name occurs twice"
    for name in sorted(names):
        if problem := name_problem(name):
            yield f"{name!r}: {problem}"
    for name in (*records, *manifest.reports, *manifest.documents):
        if name not in names:
            yield f"{name!r} is not among the files"
    run_directories = {PurePosixPath(record).parent for record in records}
    report_directories = {PurePosixPath(report).parent for report in manifest.reports}
    for record in records:
        if not _is_below(record, RUNS) or not record.endswith(f"/{RECORD_NAME}"):
            yield f"{record!r} is not the record of a directory of {RUNS}"
    for report in manifest.reports:
        if not _is_below(report, REPORTS):
            yield f"{report!r} is not below {REPORTS}, in a directory"
    for document in manifest.documents:
        if not _is_below(document, DOCUMENTS) or not document.endswith(DOCUMENT_FILES):
            yield f"{document!r} is not below {DOCUMENTS}, in a directory, with a name of {', '.join(DOCUMENT_FILES)}"
    for name in sorted(names - set(manifest.documents)):
        path = PurePosixPath(name)
        if path.parent not in report_directories and run_directories.isdisjoint(path.parents):
            yield f"{name!r} belongs to no run and no report"
        elif name not in (*records, *manifest.reports) and not _is_held(path, manifest):
            yield f"{name!r} is not a file that a bundle contains"


def _is_below(name: str, top: str) -> bool:
    """Return whether a file is in a subdirectory of ``top``."""
    parts = name.split("/")
    return len(parts) == 3 and parts[0] == top


def _is_held(path: PurePosixPath, manifest: BundleManifest) -> bool:
    """Return whether ``perf bundle`` packs files of this name with a run or a report."""
    if path.parts[0] == RUNS:
        inside = path.relative_to(*path.parts[:2])
        patterns = (PurePosixPath(pattern) for pattern in FILES_OF_A_RUN)
        return any(len(inside.parts) == len(each.parts) and inside.match(str(each)) for each in patterns)
    return path.suffix in LINKED_FILES or str(path).removesuffix(SUFFIX) in manifest.reports


def name_key(name: str) -> str:
    """Return what is equal for names that some file systems do not distinguish: by case, or by composed letters."""
    return unicodedata.normalize("NFKC", name).casefold()


def name_problem(name: str) -> str | None:
    """Return why a name is not safe in an archive, or ``None`` if it is safe."""
    if name.startswith("/"):
        return "an absolute name"
    parts = name.split("/")
    if ".." in parts:
        return "a name that leads out of the archive"
    if not all(parts) or "." in parts or ":" in parts[0] or "\\" in name or len(name) > _LONGEST_NAME:
        return "not a plain name"
    if "\n" in name or visible(name) != name:
        return "a name with characters that cannot be seen"
    return None

"""What a bundle holds, and where in it everything lies."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import chipperf
from chipperf.errors import CheckFailed
from chipperf.records.schema import METRICS_VERSION, SCHEMA_VERSION

MANIFEST: Final = "manifest.json"
CHECKSUMS: Final = "SHA256SUMS"
"""The same checksums for ``sha256sum --check``."""
RUNS: Final = "runs"
REPORTS: Final = "reports"

_FORBIDDEN: Final = set("\\\0\r\n")
_LONGEST_NAME: Final = 400


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BundledFile(_Model):
    """A file of the bundle, by its name in the archive."""

    name: str
    size_bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BundledRun(_Model):
    """A run, and its record's name in the archive."""

    run_id: str
    record: str


class Manifest(_Model):
    """Content of the bundle's first file.

    Attributes:
        bundle_version: Version of this form.
        chipperf_version: Which chipperf packed it.
        schema_version: Version of the records' schema.
        metrics_version: Version of the metrics' definitions.
        runs: The runs.
        reports: Names of the reports in the archive.
        files: All files but the manifest and the checksums, by name.
    """

    bundle_version: Literal[1] = 1
    chipperf_version: str = chipperf.__version__
    schema_version: int = SCHEMA_VERSION
    metrics_version: int = METRICS_VERSION
    runs: list[BundledRun]
    reports: list[str]
    files: list[BundledFile]


def manifest_bytes(manifest: Manifest) -> bytes:
    """Return the content of the manifest's file."""
    return (manifest.model_dump_json(indent=1) + "\n").encode()


def checksums_bytes(manifest: Manifest) -> bytes:
    """Return the content of the file that ``sha256sum --check`` reads."""
    return "".join(f"{file.sha256}  {file.name}\n" for file in manifest.files).encode()


def parse_manifest(content: bytes, bundle: str) -> Manifest:
    """Return the manifest of a bundle.

    Raises:
        CheckFailed: It is none, or contradicts itself; says where.
    """
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "top level"
        raise CheckFailed(f"{bundle}: {MANIFEST}: {place}: {first['msg']}", hint="pack the runs again") from error
    names = [file.name for file in manifest.files]
    if len({name.casefold() for name in names}) < len(names):
        raise CheckFailed(f"{bundle}: {MANIFEST}: files: a name occurs twice", hint="pack the runs again")
    for report in manifest.reports:
        if not report.startswith(f"{REPORTS}/"):
            raise CheckFailed(f"{bundle}: {MANIFEST}: {report!r} is not below {REPORTS}", hint="pack the runs again")
    for name in (*(run.record for run in manifest.runs), *manifest.reports):
        if name not in names or name_problem(name):
            raise CheckFailed(f"{bundle}: {MANIFEST}: {name!r} is not among the files", hint="pack the runs again")
    return manifest


def name_problem(name: str) -> str | None:
    """Return why a name is not safe in an archive, or ``None`` if it is."""
    if name.startswith("/"):
        return "an absolute name"
    parts = name.split("/")
    if ".." in parts:
        return "a name that leads out of the archive"
    if not all(parts) or "." in parts or ":" in parts[0] or set(name) & _FORBIDDEN or len(name) > _LONGEST_NAME:
        return "not a plain name"
    return None

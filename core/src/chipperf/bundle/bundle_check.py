"""Checking a bundle from an untrusted source. Files are written only to a new directory."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from chipperf.bundle.manifest import CHECKSUMS, MANIFEST, checksums_bytes, name_key, name_problem, parse_manifest
from chipperf.bundle.signature import SIGNATURE, require_signers, verify
from chipperf.errors import CheckFailed, UsageError
from chipperf.records.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chipperf.bundle.manifest import BundledFile, BundleManifest

MAX_FILES: Final = 100_000
MAX_FILE_BYTES: Final = 2 * 2**30
MAX_TOTAL_BYTES: Final = 16 * 2**30
"""Limits of a bundle. The logs of a run of several days have a few hundred MiB."""

_MAX_MANIFEST_BYTES: Final = 64 * 2**20
_MAX_HEADER_BYTES: Final = 2**20
_BLOCK_BYTES: Final = 2**20
_HINT: Final = "ask its sender for the bundle again; 'perf bundle' does not write such a bundle"


def unpack_checked(bundle: Path, directory: Path, signers: Path | None = None) -> tuple[BundleManifest, str | None]:
    """Check every file of a bundle, and unpack it into an empty directory.

    Return the manifest, and who of ``signers``, a file of allowed signers, signed it.

    Raises:
        UsageError: The bundle or ``signers`` cannot be opened.
        CheckFailed: The file is not a bundle, none of ``signers`` signed it, a file in it differs from its manifest, or
            an entry is unsafe: a link, a device, a name that leads outside or occurs twice, or a size above the limits.
    """
    if signers:
        require_signers(signers)
    with _opened(bundle) as (archive, reader):
        entries = _entries(archive, bundle)
        signed = _content(archive, next(entries, None), MANIFEST, bundle)
        manifest = parse_manifest(signed, str(bundle))
        if _content(archive, next(entries, None), CHECKSUMS, bundle) != checksums_bytes(manifest):
            raise CheckFailed(f"{bundle}: {CHECKSUMS} does not have the checksums of {MANIFEST}", hint=_HINT)
        missing = {file.name: file for file in manifest.files}
        signature = None
        for entry in entries:
            if entry.name == SIGNATURE:
                signature = _content(archive, entry, SIGNATURE, bundle)
                continue
            described = missing.pop(entry.name, None)
            if described is None:
                raise _refused(bundle, entry.name, f"not in {MANIFEST}")
            _check_file(archive, entry, described, bundle, directory / entry.name)
        if missing:
            raise _refused(bundle, min(missing), "missing")
        reader.require_end()
    if signers and signature is None:
        raise CheckFailed(f"{bundle} is not signed", hint="ask its sender to pack it with --sign KEY")
    return manifest, verify(signed, signature, signers, bundle) if signers and signature is not None else None


def read_manifest(bundle: Path) -> tuple[BundleManifest, bool]:
    """Return the manifest of a bundle, and whether a signature is there. Its files and the signature are not checked.

    Raises:
        UsageError: The bundle cannot be opened.
        CheckFailed: The file is not a bundle.
    """
    with _opened(bundle) as (archive, _):
        entries = _entries(archive, bundle)
        manifest = parse_manifest(_content(archive, next(entries, None), MANIFEST, bundle), str(bundle))
        return manifest, any(entry.name == SIGNATURE for entry in entries)


class _Reader:
    """Reads a compressed archive. Raises an error if a header or the whole archive is too large."""

    def __init__(self, file: gzip.GzipFile, bundle: Path) -> None:
        self._file = file
        self._bundle = bundle

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > max(_MAX_HEADER_BYTES, _BLOCK_BYTES):
            raise CheckFailed(f"{self._bundle}: an entry's header is larger than 1 MiB", hint=_HINT)
        content = self._file.read(size)
        self._require_bounded()
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        position = self._file.seek(offset, whence)
        self._require_bounded()
        return position

    def tell(self) -> int:
        return self._file.tell()

    def require_end(self) -> None:
        """Check that no data follows the end of the archive."""
        while content := self.read(_BLOCK_BYTES):
            if content.strip(b"\0"):
                raise CheckFailed(f"{self._bundle}: data follows the end of the archive", hint=_HINT)

    def _require_bounded(self) -> None:
        if self._file.tell() > MAX_TOTAL_BYTES:
            raise CheckFailed(f"{self._bundle} unpacks to more than {MAX_TOTAL_BYTES // 2**30} GiB", hint=_HINT)


@contextmanager
def _opened(bundle: Path) -> Iterator[tuple[tarfile.TarFile, _Reader]]:
    try:
        raw = open_regular(bundle)
    except OSError as error:
        raise UsageError(f"cannot read {bundle}: {error.strerror}", hint="name an archive of 'perf bundle'") from error
    try:
        with raw, gzip.GzipFile(fileobj=raw, mode="rb") as decompressed:
            reader = _Reader(decompressed, bundle)
            stream: Any = reader
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                yield archive, reader
    except gzip.BadGzipFile as error:
        what = f"{bundle} is not a bundle: it is no .tar.gz"
        raise CheckFailed(what, hint="name an archive of 'perf bundle'") from error
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, OverflowError) as error:
        raise CheckFailed(f"{bundle} is not a bundle, or is damaged: {error}", hint=_HINT) from error


def _entries(archive: tarfile.TarFile, bundle: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the entries, after checking that each is a file with a safe and unique name."""
    names: set[str] = set()
    total_bytes = 0
    while entry := archive.next():
        if problem := name_problem(entry.name):
            raise _refused(bundle, entry.name, problem)
        if not entry.isreg() or entry.issparse():
            raise _refused(bundle, entry.name, f"a {_kind(entry)}; a bundle contains only files")
        if name_key(entry.name) in names:
            raise _refused(bundle, entry.name, "it occurs twice")
        total_bytes += entry.size
        if entry.size > MAX_FILE_BYTES or total_bytes > MAX_TOTAL_BYTES:
            raise _refused(bundle, entry.name, f"its {entry.size} bytes exceed the limits of a bundle")
        names.add(name_key(entry.name))
        if len(names) > MAX_FILES:
            raise CheckFailed(f"{bundle} has more than {MAX_FILES} files", hint=_HINT)
        yield entry


def _kind(entry: tarfile.TarInfo) -> str:
    if entry.issym() or entry.islnk():
        return f"link to {entry.linkname!r}"
    if entry.isdir():
        return "directory"
    return "device" if entry.isdev() else "special entry"


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo | None, name: str, bundle: Path) -> bytes:
    if entry is None or entry.name != name:
        raise CheckFailed(f"{bundle} is not a bundle: it does not begin with {MANIFEST} and {CHECKSUMS}", hint=_HINT)
    if entry.size > _MAX_MANIFEST_BYTES:
        raise _refused(bundle, name, f"larger than {_MAX_MANIFEST_BYTES // 2**20} MiB")
    return b"".join(_blocks(archive, entry))


def _check_file(
    archive: tarfile.TarFile, entry: tarfile.TarInfo, described: BundledFile, bundle: Path, to: Path
) -> None:
    if entry.size != described.size_bytes:
        raise _refused(bundle, entry.name, f"{entry.size} bytes instead of {described.size_bytes}")
    digest = hashlib.sha256()
    to.parent.mkdir(parents=True, exist_ok=True)
    with to.open("xb") as file:
        for block in _blocks(archive, entry):
            digest.update(block)
            file.write(block)
    if digest.hexdigest() != described.sha256:
        raise _refused(bundle, entry.name, f"its SHA-256 differs from {MANIFEST}")


def _blocks(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Iterator[bytes]:
    file = archive.extractfile(entry)
    if file is None:
        raise tarfile.ReadError(f"{entry.name} has no content")
    while block := file.read(_BLOCK_BYTES):
        yield block


def _refused(bundle: Path, name: str, why: str) -> CheckFailed:
    return CheckFailed(f"{bundle}: {name!r}: {why}", hint=_HINT)

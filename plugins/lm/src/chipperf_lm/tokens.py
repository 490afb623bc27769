"""Token files: ``train.bin`` and ``val.bin`` with the tokens of one text each, as little-endian uint16 without header.

nanoGPT's ``data/openwebtext/prepare.py`` writes the reference dataset in this format. Every token but the first of a
file is predicted once, so a file of ``n`` tokens has ``n - 1`` samples, whatever the length of a sequence.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from chipperf import DataError
from chipperf.data.dataset_check import CheckReport, DatasetFinding, check_counts, check_manifest, error, warning
from chipperf.data.dataset_identity import identify_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chipperf.cases.base import Progress
    from chipperf.data.dataset_identity import DatasetIdentity, ReferenceDataset
    from numpy.typing import NDArray

TRAIN_FILE: Final = "train.bin"
EVAL_FILE: Final = "val.bin"
FILES: Final = (TRAIN_FILE, EVAL_FILE)

TARGET_KEY: Final = "target_loss"
"""Key of the target in the manifest of a sample."""

DTYPE: Final = np.dtype("<u2")
GPT2_TOKENS: Final = 50257

_LLM_C_MAGIC: Final = 20240520
"""First int32 of the files of llm.c, which have a header of 256 int32."""

_PART: Final = 1 << 24
"""Tokens that are read at a time."""


def open_tokens(path: Path) -> NDArray[np.uint16]:
    """Return the tokens of a file, mapped into memory; what is no such file is a :class:`DataError`."""
    hint = "it holds little-endian uint16 tokens without a header; 'python -m chipperf_lm' makes it of text"
    try:
        size_bytes = path.stat().st_size
        if size_bytes % DTYPE.itemsize or size_bytes < 2 * DTYPE.itemsize:
            raise DataError(f"{path} has {size_bytes} bytes, which are not two tokens or more of two bytes", hint=hint)
        return np.memmap(path, dtype=DTYPE, mode="r")
    except OSError as problem:
        raise DataError(f"cannot read {path}: {problem.strerror}", hint=hint) from problem


def identify_tokens(root: Path, train: int, evaluation: int, reference: ReferenceDataset) -> DatasetIdentity:
    """Return the identity of a directory whose files have so many tokens."""
    identity = identify_directory(
        root,
        FILES,
        train_samples=train - 1,
        eval_samples=evaluation - 1,
        classes=None,
        reference=reference,
        target_key=TARGET_KEY,
    )
    if identity.is_sample:
        return identity
    method = "sha256 of names, sizes and contents, of a file of more than 1 GiB of chunks at equal distances"
    return replace(identity, fingerprint_method=method)


def check_tokens(root: Path, expected: ReferenceDataset | None, *, full: bool, progress: Progress) -> CheckReport:
    """Check a directory of token files; see :class:`~chipperf.cases.base.DataCheck`."""
    findings: list[DatasetFinding] = []
    files: dict[str, NDArray[np.uint16]] = {}
    for name in FILES:
        try:
            files[name] = open_tokens(root / name)
        except DataError as problem:
            findings.append(error("layout", problem.message))
    counts = {name: len(tokens) - 1 for name, tokens in files.items()}
    train, evaluation = counts.get(TRAIN_FILE, 0), counts.get(EVAL_FILE, 0)
    total, done = train + evaluation, 0
    for name, tokens in files.items():
        for part in _parts(tokens, full=full):
            findings += _check_part(root / name, part, expected)
            done += len(part)
            progress(min(done, total), total)
            if findings:
                break
    if len(files) == len(FILES):
        findings += check_manifest(root, lambda _: FILES)
        findings += _check_apart(files[TRAIN_FILE], files[EVAL_FILE])
        if expected is not None:
            findings += check_counts(train, evaluation, None, expected, noun="tokens")
    progress(total, total)
    return CheckReport(
        root=str(root), train_samples=train, eval_samples=evaluation, fully_decoded=full, findings=tuple(findings)
    )


def _parts(tokens: NDArray[np.uint16], *, full: bool) -> Iterator[NDArray[np.uint16]]:
    """Yield the tokens; without ``full``, only the first and the last part."""
    starts = list(range(0, len(tokens), _PART))
    for start in starts if full else dict.fromkeys((starts[0], starts[-1])):
        yield tokens[start : start + _PART]


def _check_part(path: Path, part: NDArray[Any], expected: ReferenceDataset | None) -> Iterator[DatasetFinding]:
    if part[:2].tolist() == [_LLM_C_MAGIC & 0xFFFF, _LLM_C_MAGIC >> 16]:
        yield error("header", f"{path} begins with the header of llm.c: remove its first 1024 bytes")
    elif part.min() == part.max():
        yield error("one-token", f"{path} repeats the token {part[0]} {len(part)} times: it holds no text")
    elif expected is not None and part.max() >= GPT2_TOKENS:
        yield error("vocabulary", f"{path} has the token {part.max()}; GPT-2's vocabulary has {GPT2_TOKENS}")


def _check_apart(train: NDArray[Any], evaluation: NDArray[Any]) -> Iterator[DatasetFinding]:
    count = min(len(train), len(evaluation))
    if np.array_equal(train[:count], evaluation[:count]):
        yield error("repeated", f"{EVAL_FILE} is the beginning of {TRAIN_FILE}: the result would be of known text")
    elif len(evaluation) > len(train):
        yield warning("swapped", f"{EVAL_FILE} is longer than {TRAIN_FILE}")


def write_tokens(directory: Path, tokens: NDArray[Any], eval_tokens: int) -> None:
    """Write both files: the last ``eval_tokens`` tokens are for evaluation."""
    split = len(tokens) - eval_tokens
    if split < 2 or eval_tokens < 2:
        raise DataError(
            f"of {len(tokens)} tokens, {eval_tokens} are for evaluation: each file needs two or more",
            hint="give more text, or another share",
        )
    tokens[:split].astype(DTYPE).tofile(directory / TRAIN_FILE)
    tokens[split:].astype(DTYPE).tofile(directory / EVAL_FILE)

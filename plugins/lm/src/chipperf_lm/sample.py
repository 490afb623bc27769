"""The sample: the topics of Python's own help as bytes, a text that every Python ships with."""

from __future__ import annotations

import hashlib
import sys
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from chipperf import DataError
from chipperf.data.generated_dataset import GeneratedDataset

from chipperf_lm.hyperparameters import PRESETS
from chipperf_lm.tokens import DTYPE, FILES, TARGET_KEY, write_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from chipperf.cases.base import Progress
    from numpy.typing import NDArray

_VERSION: Final = 1
"""Increased whenever the tokens of one Python change."""

_EVAL_TOPIC: Final = 10
"""Every tenth topic is for evaluation."""

_TARGET: Final = 2.0
"""Loss in nats per byte, which first runs of the preset ``demo`` reached. The entropy of single bytes is 3.26."""

_TINY_SEQUENCES: Final = (64, 8)
"""Sequences of the preset ``tiny`` for training and evaluation."""


def topics() -> tuple[bytes, bytes]:
    """Return the help topics of this Python for training and for evaluation, as UTF-8."""
    try:
        texts: dict[str, str] = import_module("pydoc_data.topics").topics
    except ImportError as problem:
        raise DataError(
            f"Python {sys.version.split()[0]} lacks its help topics, of which the sample is made: {problem}",
            hint="install the whole standard library, or give a directory of token files with --data",
        ) from problem
    parts: tuple[list[str], list[str]] = ([], [])
    for number, name in enumerate(sorted(texts), start=1):
        parts[number % _EVAL_TOPIC == 0].append(texts[name])
    train, evaluation = ("\n\n".join(part).encode() for part in parts)
    return train, evaluation


def ensure_text_sample(progress: Progress, root: Path | None = None, options: Mapping[str, Any] | None = None) -> Path:
    """Return the directory of the sample, which has the size ``demo`` or ``tiny``; write it if it does not exist."""
    size = (options or {}).get("size", "demo")
    if size not in ("demo", "tiny"):
        raise DataError(f"unknown size {size!r}", hint="sizes: demo, tiny")
    train, evaluation = topics()
    if size == "tiny":
        length = int(PRESETS["tiny"]["sequence_length"])
        train, evaluation = (
            part[: count * length + 1] for part, count in zip((train, evaluation), _TINY_SEQUENCES, strict=True)
        )
    directory = _ensure(train, evaluation, root, _TARGET if size == "demo" else None)
    progress(1, 1)
    return directory


def ensure_few_tokens(sequences: int, length: int, root: Path | None = None) -> Path:
    """Return a directory with so many sequences for training, and two and a half for evaluation."""
    train, evaluation = topics()
    return _ensure(train[: sequences * length + 1], evaluation[: 5 * length // 2 + 1], root, None)


def _ensure(train: bytes, evaluation: bytes, root: Path | None, target: float | None) -> Path:
    content = hashlib.sha256(train + evaluation).hexdigest()
    return GeneratedDataset(
        directory_name=f"text-v{_VERSION}-{len(train)}-{len(evaluation)}-{content[:8]}",
        name="chipperf-text-sample",
        generator_version=_VERSION,
        options={"python": f"{sys.version_info.major}.{sys.version_info.minor}", "tokenizer": "bytes"},
        train_samples=len(train) - 1,
        eval_samples=len(evaluation) - 1,
        target={TARGET_KEY: target},
        needed_bytes=DTYPE.itemsize * len(train + evaluation),
        generate=partial(_write, train, evaluation, content),
        files=lambda _: FILES,
    ).ensure(root)


def _write(train: bytes, evaluation: bytes, content: str, directory: Path) -> str:
    write_tokens(directory, as_tokens(train + evaluation), len(evaluation))
    return content


def as_tokens(text: bytes) -> NDArray[np.uint8]:
    """Return a token for each byte."""
    return np.frombuffer(text, np.uint8)

"""Fixtures of the language model's tests: tiny token files, and one real run that several tests read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chipperf_lm.case import GPT2
from shared_fixtures import fp32_is_left_exact as fp32_is_left_exact
from shared_fixtures import perf as perf
from support import run_perf

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty-four sequences of 32 bytes for training, and two and a half for evaluation; not to be written to."""
    ensure = GPT2.data.ensure_few_samples
    assert ensure is not None
    return ensure(64, "tiny", tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="session")
def run(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run of one rank over twelve steps of two batches; not to be written to."""
    out = tmp_path_factory.mktemp("run") / "gpt2"
    ended = run_perf(
        *("train", "gpt2", "--vendor", "cpu", "--preset", "tiny", "--data", tokens, "--out", out),
        *("--max-steps", 12, "--set", "accumulate_steps=2", "--no-device-check"),
    )
    assert ended.returncode == 0, ended.stderr
    return out

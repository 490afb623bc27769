"""Fixtures that the plugins' own tests share with those of core; a ``conftest.py`` imports what its tests need."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest
from fake_machine import ETHERNET, FakeMachine
from support import run_perf

# Tests run side by side: threads that spin while they wait would take each other's cores. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support import Perf


@pytest.fixture(autouse=True)
def fp32_is_left_exact() -> Iterator[None]:
    """No test leaves a switch on that rounds fp32 on the CPU: a later one would fail, on some processors only."""
    yield
    backends = getattr(sys.modules.get("torch"), "backends", None)
    if hasattr(backends, "fp32_precision"):
        products = (backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn)
        assert {product.fp32_precision for product in products} <= {"none", "ieee"}


@pytest.fixture(scope="session")
def perf() -> Perf:
    return run_perf


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample dataset of 24 training and 9 evaluation images; not to be written to."""
    from chipperf.data.sample import SampleOptions, ensure_sample_dataset

    options = SampleOptions(classes=3, train_per_class=8, val_per_class=3, width=96, height=72)
    return ensure_sample_dataset(options, tmp_path_factory.mktemp("dataset"))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """A machine with a network card and no tools."""
    fake = FakeMachine(root=tmp_path / "root", bin=tmp_path / "bin")
    fake.bin.mkdir()
    fake.add_pci("0000:02:00.0", 0x8086, 0x1572, ETHERNET)
    monkeypatch.setenv("PATH", str(fake.bin))
    return fake

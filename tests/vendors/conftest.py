"""Fixtures of the vendor tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fake_machine import ETHERNET, FakeMachine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """A machine with a network card and no tools."""
    fake = FakeMachine(root=tmp_path / "root", bin=tmp_path / "bin")
    fake.bin.mkdir()
    fake.add_pci("0000:02:00.0", 0x8086, 0x1572, ETHERNET)
    monkeypatch.setenv("PATH", str(fake.bin))
    return fake

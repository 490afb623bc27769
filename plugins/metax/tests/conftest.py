"""Fixtures of the MetaX tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from chipperf_metax.telemetry import open_library
from shared_fixtures import fp32_is_left_exact as fp32_is_left_exact
from shared_fixtures import machine as machine
from shared_fixtures import perf as perf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECORDINGS = Path(__file__).with_name("fixtures")


@pytest.fixture(scope="session")
def recorded() -> Callable[[str], str]:
    """Return a recorded output of mx-smi by its name."""
    return lambda name: (RECORDINGS / f"{name}.txt").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def unopened_library() -> Iterator[None]:
    """The library is opened once per process; every test is one."""
    open_library.cache_clear()
    yield
    open_library.cache_clear()

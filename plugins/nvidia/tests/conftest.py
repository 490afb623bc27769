"""Fixtures of the NVIDIA plugin's tests."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

import pytest
from chipperf.torchtools import restore_switches
from chipperf_nvidia import nvml
from fake_nvml import FakeGpu, FakeNvml
from shared_fixtures import fp32_is_left_exact as fp32_is_left_exact
from shared_fixtures import machine as machine
from shared_fixtures import perf as perf

if TYPE_CHECKING:
    from collections.abc import Iterator


class InstallNvml(Protocol):
    """Puts a fake NVML in place of ``pynvml``."""

    def __call__(self, *gpus: FakeGpu, encode: bool = False) -> FakeNvml: ...


@pytest.fixture(autouse=True)
def nothing_visible_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def install_nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[InstallNvml]:
    def install(*gpus: FakeGpu, encode: bool = False) -> FakeNvml:
        fake = FakeNvml(*gpus, encode=encode)
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        return fake

    yield install
    nvml.open_for_good.cache_clear()
    nvml._asked.clear()


@pytest.fixture
def switches_put_back() -> Iterator[None]:
    yield
    restore_switches()

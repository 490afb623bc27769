"""Fixtures that several parts share: a tiny dataset, one real run on it, plans, and fake distributions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Protocol

import psutil
import pytest
from chipperf import catalogue
from chipperf.cases import mobilenetv2
from chipperf.launch.plan import RunPlan
from chipperf.records.assemble import planned_record
from chipperf.records.schema import Hyperparameters, Limits, Topology
from chipperf.session import bind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from chipperf.records.schema import Record

TIMEOUT_S = 150


class Perf(Protocol):
    """Runs ``perf`` in a process of its own."""

    def __call__(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]: ...


class MakePlan(Protocol):
    """Makes a plan of a small run on the CPU reference, with changes."""

    def __call__(self, **changes: Any) -> RunPlan: ...


@dataclass(frozen=True)
class FinishedRun:
    """A run of ``perf train`` that completed."""

    directory: Path
    process: subprocess.CompletedProcess[str]


class FakeDistributions:
    """Distributions in a directory that is on ``sys.path``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, name: str, entry_points: str, *, version: str = "1.2") -> None:
        folder = self.root / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (folder / "entry_points.txt").write_text(entry_points)


def perf_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "chipperf", *(str(argument) for argument in arguments)]


def perf_environment(**changes: str) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PERF_")}
    return environment | changes


@pytest.fixture(scope="session")
def perf() -> Perf:
    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            perf_command(*arguments),
            env=perf_environment(**environment),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )

    return run


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample dataset of 24 training and 9 evaluation images; not to be written to."""
    from chipperf.data.sample import SampleOptions, ensure_sample_dataset

    options = SampleOptions(classes=3, train_per_class=8, val_per_class=3, width=96, height=72)
    return ensure_sample_dataset(options, tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="session")
def trained_run(perf: Perf, image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """Two ranks, two epochs of three steps, with a loader process each; not to be written to."""
    directory = tmp_path_factory.mktemp("runs") / "finished"
    process = perf(
        *("train", "mobilenetv2", "--vendor", "cpu", "--preset", "tiny", "--nproc", 2, "--seed", 5),
        *("--set", "workers=1", "--data", image_folder, "--out", directory),
        MALLOC_ARENA_MAX="2",
        GLIBC_TUNABLES="glibc.malloc.top_pad=1",
    )
    assert process.returncode == 0, process.stderr
    return FinishedRun(directory, process)


@pytest.fixture
def make_plan(tmp_path: Path) -> MakePlan:
    def make(**changes: Any) -> RunPlan:
        values = mobilenetv2.CASE.base.model_dump()
        decided: Mapping[str, Any] = {
            "run_id": "run-1",
            "created_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
            "started_s": 100.0,
            "vendor": "cpu",
            "case": "mobilenetv2",
            "case_version": "1.0",
            "preset": "full",
            "precision": "fp32",
            "hyperparameters": Hyperparameters(values=values, changes=[], global_batch_size=16),
            "limits": Limits(),
            "topology": Topology(nnodes=1, nproc_per_node=2),
            "data_root": tmp_path / "images",
            "stated_environment": {},
        }
        return RunPlan(**{**decided, **changes})

    return make


@pytest.fixture
def planned(make_plan: MakePlan) -> Record:
    """The record of a run that has not begun."""
    return planned_record(make_plan(), bind(catalogue.find_vendor("cpu")), metric="top1")


@pytest.fixture
def distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDistributions:
    root = tmp_path / "site"
    root.mkdir()
    monkeypatch.syspath_prepend(root)
    return FakeDistributions(root)


def processes_naming(text: str) -> list[psutil.Process]:
    """Return the running processes whose command line contains ``text``."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or [])
        if text in command and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    root = tmp_path / "disk"
    root.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system needs root's rights")
    yield root
    subprocess.run(["umount", str(root)], check=True)


def fill(root: Path) -> None:
    """Leave not a byte free."""
    for size in (64 * 1024, 1):
        with (root / f"ballast-{size}").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * size)

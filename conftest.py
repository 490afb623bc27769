"""Fixtures that several parts share: a tiny dataset, one real run on it, plans, and fake distributions."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.cases.classification import mobilenetv2
from chipperf.plugin import installed
from chipperf.plugin.session import bind
from chipperf.records.schema import HyperparametersRecord, Limits, Topology
from chipperf.run.plan import RunPlan
from chipperf.run.planned_record import planned_record
from fake_machine import ETHERNET, FakeMachine
from filelock import FileLock
from support import FakeDistributions, FinishedRun, execute_perf, forget_modules, run_perf

# Tests run side by side: threads that spin while they wait would take each other's cores. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from chipperf.records.schema import Record
    from support import MakePlan, Perf


@pytest.fixture(scope="session")
def perf() -> Perf:
    return run_perf


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample dataset of 24 training and 9 evaluation images; not to be written to."""
    from chipperf.data.sample import SampleOptions, ensure_sample_dataset

    options = SampleOptions(classes=3, train_per_class=8, val_per_class=3, width=96, height=72)
    return ensure_sample_dataset(options, tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="session")
def trained_run(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """Two ranks, two epochs of three steps, with a loader process each; not to be written to.

    All processes of the test run share it: the first that needs it makes it.
    """
    base = tmp_path_factory.getbasetemp()
    # Under pytest-xdist, every process has a directory of its own below the common one.
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    directory, finished = common / "trained-run", common / "trained-run.pickle"
    with FileLock(common / "trained-run.lock"):
        if not finished.exists():
            process = execute_perf(
                *("train", "mobilenetv2", "--vendor", "cpu", "--preset", "tiny", "--nproc", 2, "--seed", 5),
                *("--set", "workers=1", "--data", image_folder, "--out", directory),
                MALLOC_ARENA_MAX="2",
                GLIBC_TUNABLES="glibc.malloc.top_pad=1",
            )
            assert process.returncode == 0, process.stderr
            finished.write_bytes(pickle.dumps(process))
        return FinishedRun(directory, pickle.loads(finished.read_bytes()))


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
            "hyperparameters": HyperparametersRecord(values=values, changes=[], global_batch_size=16),
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
    return planned_record(make_plan(), bind(installed.find_vendor("cpu")), metric="top1")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """A machine with a network card and no tools."""
    fake = FakeMachine(root=tmp_path / "root", bin=tmp_path / "bin")
    fake.bin.mkdir()
    fake.add_pci("0000:02:00.0", 0x8086, 0x1572, ETHERNET)
    monkeypatch.setenv("PATH", str(fake.bin))
    return fake


@pytest.fixture
def distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDistributions]:
    root = tmp_path / "site"
    root.mkdir()
    monkeypatch.syspath_prepend(root)
    yield FakeDistributions(root)
    forget_modules(root)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of eight mebibytes."""
    root = tmp_path / "disk"
    root.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(root)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system needs root's rights")
    yield root
    subprocess.run(["umount", str(root)], check=True)

"""Fixtures that several parts of core share: one real run on a tiny dataset, plans, and fake distributions."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
from collections import Counter
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.cases.classification.case import MOBILENETV2
from chipperf.documents.document_identity import installed_cases
from chipperf.plugin import installed
from chipperf.plugin.session import bind
from chipperf.records.schema import HyperparametersRecord, Limits, Topology
from chipperf.run.plan import RunPlan
from chipperf.run.planned_record import planned_record
from filelock import FileLock
from shared_fixtures import fp32_is_left_exact as fp32_is_left_exact
from shared_fixtures import image_folder as image_folder
from shared_fixtures import machine as machine
from shared_fixtures import perf as perf
from support import FakeDistributions, FinishedRun, execute_perf, forget_modules

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from chipperf.records.schema import Record
    from support import MakePlan


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: one that came last would keep a single process busy at the end."""
    tests = Counter(item.path for item in items)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (item.path.name != "test_mutants.py", -slow[item.path], -tests[item.path]))


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
        values = MOBILENETV2.base.model_dump()
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
def distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDistributions]:
    root = tmp_path / "site"
    root.mkdir()
    monkeypatch.syspath_prepend(root)
    # Another test in this process may have asked which cases are installed.
    installed_cases.cache_clear()
    yield FakeDistributions(root)
    installed_cases.cache_clear()
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

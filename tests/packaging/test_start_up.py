"""What does not train must not wait for torch: its import takes seconds, and a reader of reports does not have it."""

import os
import runpy
from contextlib import closing

import pytest
from forked_perf import ForkedPerf
from projects import ROOT

HEAVY = {"torch", "torchvision", "numpy"}


@pytest.fixture(scope="module")
def perf():
    """Forks of a process that has imported the program and nothing else."""
    with closing(ForkedPerf(os.environ, ROOT)) as perf:
        yield perf


def imported_by(perf, *arguments):
    ended = perf.call(*arguments)
    assert ended["code"] == 0, ended["stderr"]
    return set(ended["modules"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["cases"],
        ["cases", "resnet50"],
        ["plugins"],
        ["plugins", "new", "--help"],
        ["contract", "list"],
        ["lint", "--list"],
        ["lint", "README.md", "--select", "L04"],
        ["report", "import", "--help"],
        ["site", "--help"],
        ["data", "--help"],
    ],
)
def test_command_imports_nothing_heavy(perf, arguments):
    imported = imported_by(perf, *arguments)

    assert "chipperf.cli.main" in imported
    assert not HEAVY & imported


def test_report_imports_nothing_heavy(perf, tmp_path):
    make_record = runpy.run_path(str(ROOT / "tests" / "report" / "factory.py"))["make_record"]
    (tmp_path / "record.json").write_text(make_record(vendor__name="cpu").model_dump_json(), encoding="utf-8")

    imported = imported_by(perf, "report", str(tmp_path), "--out", str(tmp_path / "report.md"))

    assert (tmp_path / "report.md").stat().st_size > 0
    assert "jinja2" in imported
    assert not HEAVY & imported

"""How a launcher judges the end of its ranks, which are programs of one line."""

from __future__ import annotations

import errno
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.launch import local
from chipperf.launch.launcher_group import PEER_STOPPED
from chipperf.launch.local import run_workers
from chipperf.launch.rank_processes import StopSignals
from chipperf.launch.watch import Watch
from chipperf.records.schema import Failure, Topology
from chipperf.records.store import read_record
from chipperf.run.directory import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chipperf.records.schema import Record
    from chipperf.run.plan import RunPlan
    from support import MakePlan


@pytest.fixture
def run(tmp_path: Path, make_plan: MakePlan, planned: Record) -> Callable[..., tuple[Any, int]]:
    """Runs ranks that execute some Python, whose arguments are their run's directory."""
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    directory.write_record(planned)

    def run_worker(program: str, ranks: int = 1) -> tuple[Any, int]:
        plan: RunPlan = make_plan(topology=Topology(nnodes=1, nproc_per_node=ranks))
        directory.write_plan(plan)
        with StopSignals() as signals:
            _, code = run_workers(plan, directory, signals, worker=[sys.executable, "-c", program])
        return read_record(directory.path), code

    return run_worker


def test_rank_that_ends_early_with_code_0_has_not_completed(run: Callable[[str], tuple[Any, int]]) -> None:
    record, code = run("")

    assert (record.status.state, record.status.failure.failure_class, code) == ("failed", "rank_died", 1)
    assert "exited with code 0 without saying why" in record.status.failure.message
    assert record.metrics.e2e_time_s.missing == "failed"


def test_main_rank_that_has_finished_completes_the_run(run: Callable[[str], tuple[Any, int]]) -> None:
    record, code = run(
        "import pathlib, sys; pathlib.Path(sys.argv[1], 'progress.json').write_text('{\"phase\": \"finished\"}')"
    )

    assert (record.status.state, code) == ("completed", 0)


def test_crash_after_the_results_costs_a_warning_only(run: Callable[[str], tuple[Any, int]]) -> None:
    record, code = run(
        "import os, pathlib, sys; pathlib.Path(sys.argv[1], 'progress.json').write_text('{\"phase\": \"finished\"}');"
        "os.kill(os.getpid(), 11)"
    )

    assert (record.status.state, code) == ("completed", 0)
    [warning] = record.warnings
    assert warning.startswith("the process of rank 0 was killed by SIGSEGV after training: ")


@pytest.mark.parametrize(("number", "is_deleted"), [(errno.ENOENT, True), (errno.ESTALE, False), (errno.EIO, False)])
def test_file_system_that_does_not_answer_for_a_moment_has_not_lost_the_run(
    number: int, is_deleted: bool, tmp_path: Path, make_plan: MakePlan
) -> None:
    class Plan:
        def stat(self) -> None:
            raise OSError(number, "cannot be reached")

    directory = RunDirectory(tmp_path)
    directory.plan = Plan()  # type: ignore[assignment]
    watch = Watch(make_plan(hang_timeout_s=None), directory, None, None)  # type: ignore[arg-type]

    assert (watch._fault() is not None) == is_deleted


TOLD_S = 1e12
"""Later than the launcher has told the rank to stop."""


@pytest.mark.parametrize(
    ("own", "at_s", "kept"),
    [
        ("DataError", 1.0, True),
        ("RuntimeError", 1.0, False),
        ("interrupted", TOLD_S, False),
        ("interrupted", 1.0, True),
    ],
)
def test_cause_is_kept_if_the_ranks_of_another_machine_end_first(
    own: str, at_s: float, kept: bool, run: Callable[[str], tuple[Any, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rank that failed takes time to end, and those that lost it are gone before."""

    class WatchOfTwo(local.Watch):
        def __exit__(self, *exception: object) -> None:
            super().__exit__(*exception)
            self.verdict = Failure(failure_class=PEER_STOPPED, message="machine 1 has ended")

    monkeypatch.setattr(local, "Watch", WatchOfTwo)
    report = {"failure_class": own, "message": own, "rank": 0, "monotonic_s": at_s, "exit_code": 4, "would_recur": True}

    record, _ = run(
        f"import pathlib, sys; pathlib.Path(sys.argv[1], 'logs/rank0.failure.json').write_text({json.dumps(report)!r});"
        "sys.exit(4)"
    )

    assert record.status.failure.failure_class == (own if kept else PEER_STOPPED)


RANK_1_AND_THEN_RANK_0 = """
import os, pathlib, signal, sys, time
from chipperf.run.directory import RunDirectory
from chipperf.run.failure import report_failure

directory, rank = RunDirectory(pathlib.Path(sys.argv[1])), int(os.environ["RANK"])
with report_failure(directory, rank):
    if rank == 1:
        {end}
    while not directory.failure(1).exists():
        time.sleep(0.01)
    {later_end}
"""
SIGNAL = "signal.raise_signal(signal.SIGTERM)"
LOSS = "raise RuntimeError('connection closed by peer')"


@pytest.mark.parametrize(
    ("end", "later_end", "state"),
    [
        (SIGNAL, LOSS, "interrupted"),
        (SIGNAL, "time.sleep(60)", "interrupted"),
        (f"signal.signal(signal.SIGTERM, signal.SIG_DFL); {SIGNAL}", "", "interrupted"),
        (LOSS, "time.sleep(60)", "failed"),
    ],
    ids=["peer fails", "peer waits", "rank says nothing", "rank fails"],
)
def test_rank_that_a_signal_stops_is_an_interruption_unless_the_launcher_sent_it(
    run: Callable[..., tuple[Any, int]], end: str, later_end: str, state: str
) -> None:
    record, code = run(RANK_1_AND_THEN_RANK_0.format(end=end, later_end=later_end), 2)

    assert (record.status.state, code) == (state, 1)

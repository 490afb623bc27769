"""How a rank says why it stopped, and which rank the run's failure is."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest
from chipperf.errors import ConfigError, DataError, PluginLoadError, TrainingError, TrainingStopped
from chipperf.launch.local import _outcome
from chipperf.run import directory as run_directory
from chipperf.run.directory import RunDirectory
from chipperf.run.failure import INTERRUPTED, describe, first_failure, report_failure
from chipperf.run.progress import FINISHED, ProgressFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class OutOfMemoryError(RuntimeError):
    """Called like torch's."""


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path)
    (tmp_path / "logs").mkdir()
    return directory


@pytest.fixture(autouse=True)
def own_signal_handlers() -> Iterator[None]:
    """report_failure takes signals over; a test process wants its own handlers back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def report(directory: RunDirectory, rank: int, error: BaseException, at_s: float) -> None:
    content = describe(error, rank).model_dump() | {
        "monotonic_s": at_s,
        "exit_code": getattr(error, "exit_code", 1),
    }
    directory.failure(rank).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("module", "hint"),
    [
        ("torch", "the vendor's own build"),
        ("torchvision", "pip install --no-deps torchvision"),
        ("scipy", "chipperf[train-notorch]"),
        ("PIL", "chipperf[train-notorch]"),
    ],
)
def test_hint_about_a_missing_package_does_not_replace_torch(module: str, hint: str) -> None:
    failure = describe(ModuleNotFoundError(f"No module named {module!r}", name=module), 1)
    assert failure.message == f"{module} is not installed"
    assert failure.hint is not None
    assert hint in failure.hint
    assert module == "torch" or "chipperf[train]" not in failure.hint


def test_other_missing_module_is_a_fault_with_its_traceback() -> None:
    failure = describe(ModuleNotFoundError("No module named 'acme'", name="acme"), 1)
    assert (failure.message, failure.hint) == (
        "ModuleNotFoundError: No module named 'acme'",
        "the traceback is at the end of logs/rank1.log",
    )


@pytest.mark.parametrize(
    ("error", "failure_class", "message"),
    [
        (TrainingStopped(), "interrupted", "interrupted"),
        (KeyboardInterrupt(), "interrupted", "interrupted"),
        (TrainingError("loss is nan", failure_class="non_finite_loss"), "non_finite_loss", "loss is nan"),
        (DataError("x.jpg is broken"), "DataError", "x.jpg is broken"),
        (DataError("\udcff.jpg is broken"), "DataError", r"\udcff.jpg is broken"),
        (OutOfMemoryError("tried to allocate\n 2 GiB"), "out_of_memory", "OutOfMemoryError: tried to allocate 2 GiB"),
        (MemoryError(), "MemoryError", "MemoryError"),
        (ValueError("bad\n\nvalue"), "ValueError", "ValueError: bad value"),
    ],
)
def test_classification(error: BaseException, failure_class: str, message: str) -> None:
    failure = describe(error, 3)

    assert (failure.failure_class, failure.message, failure.rank) == (failure_class, message, 3)


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (DataError("x", hint="remove it"), "remove it"),
        (OutOfMemoryError("x"), "lower batch_size"),
        (ValueError("x"), "logs/rank3.log"),
    ],
)
def test_failure_has_a_remedy_or_a_place_to_look(error: BaseException, hint: str) -> None:
    assert hint in str(describe(error, 3).hint)


@pytest.mark.parametrize(("error", "code"), [(ConfigError("x"), 2), (PluginLoadError("x"), 3), (ValueError("x"), 1)])
def test_rank_ends_with_the_exit_code_of_its_error(
    run: RunDirectory, capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    with pytest.raises(SystemExit) as caught, report_failure(run, 0):
        raise error

    assert caught.value.code == code
    reported = first_failure(run, range(1))
    assert reported is not None
    assert (reported[0], reported[1]) == (describe(error, 0), code)
    assert f"{type(error).__name__}: x" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_is_an_interruption(
    run: RunDirectory, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    with pytest.raises(SystemExit), report_failure(run, 0):
        signal.raise_signal(number)

    reported = first_failure(run, range(1))
    assert reported is not None
    assert reported[0].failure_class == INTERRUPTED
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("error", [DataError("broken"), TrainingStopped()])
def test_signals_do_not_disturb_saving(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """A rank is stopped while it reports why it failed, and its loader processes end."""

    def complain(number: int, frame: object) -> None:
        raise RuntimeError("DataLoader worker is killed by signal")

    def disturbed_write(path: Path, text: str) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.raise_signal(number)
        path.write_text(text)

    monkeypatch.setattr(run_directory, "write_atomically", disturbed_write)
    signal.signal(signal.SIGCHLD, complain)

    with pytest.raises(SystemExit), report_failure(run, 0):
        raise error

    reported = first_failure(run, range(1))
    assert reported is not None
    assert reported[0] == describe(error, 0)


def test_block_that_ends_well_reports_nothing(run: RunDirectory) -> None:
    with report_failure(run, 0):
        pass
    with pytest.raises(SystemExit) as caught, report_failure(run, 0):
        raise SystemExit(0)

    assert caught.value.code == 0
    assert first_failure(run, range(1)) is None


def test_rank_that_failed_first_is_the_cause(run: RunDirectory) -> None:
    report(run, 0, RuntimeError("connection closed by peer"), at_s=12.0)
    report(run, 1, DataError("x.jpg is broken"), at_s=11.0)
    report(run, 2, TrainingStopped(), at_s=10.0)
    run.failure(3).write_text("{")

    reported = first_failure(run, range(5))

    assert reported is not None
    assert (reported[0].rank, reported[0].message) == (1, "x.jpg is broken")


@pytest.mark.parametrize(
    ("reports", "died", "interrupted", "expected"),
    [
        ({}, {}, False, ("completed", None, None)),
        ({1: DataError("broken")}, {1: 1}, False, ("failed", "DataError", 1)),
        ({}, {}, True, ("interrupted", "interrupted", None)),
        ({0: TrainingStopped(), 1: TrainingStopped()}, {0: 1}, False, ("interrupted", "interrupted", None)),
        ({0: RuntimeError("gloo")}, {}, True, ("interrupted", "interrupted", None)),
        ({}, {1: -9}, False, ("failed", "rank_died", 1)),
        ({}, {1: 7}, False, ("failed", "rank_died", 1)),
        ({0: TrainingStopped()}, {1: -9}, False, ("failed", "rank_died", 1)),
        ({0: TrainingStopped()}, {1: 7}, False, ("failed", "rank_died", 1)),
        ({0: RuntimeError("connection closed")}, {0: 1, 1: -9}, False, ("failed", "rank_died", 1)),
        ({0: RuntimeError("connection closed")}, {0: 1, 1: -11}, False, ("failed", "rank_died", 1)),
        ({0: DataError("broken")}, {0: 1, 1: -6}, False, ("failed", "DataError", 0)),
    ],
)
def test_outcome_of_a_run(
    run: RunDirectory,
    reports: dict[int, BaseException],
    died: dict[int, int],
    interrupted: bool,
    expected: tuple[str, str | None, int | None],
) -> None:
    for rank, error in reports.items():
        report(run, rank, error, at_s=float(rank))
    ProgressFile(run.progress, 3).phase(FINISHED)

    status, code = _outcome(run, range(3), died, interrupted)

    failure = status.failure
    assert (status.state, failure and failure.failure_class, failure and failure.rank) == expected
    assert (code == 0) == (status.state == "completed")


def test_exit_code_of_a_run_is_that_of_its_failure(run: RunDirectory) -> None:
    report(run, 0, ConfigError("x"), at_s=1.0)

    assert _outcome(run, range(2), {0: 2}, False)[1] == 2


@pytest.mark.parametrize(("exit_code", "how"), [(-9, "was killed by SIGKILL"), (7, "exited with code 7")])
def test_silent_death_is_described(run: RunDirectory, exit_code: int, how: str) -> None:
    status, _ = _outcome(run, range(2), {1: exit_code}, False)

    assert status.failure is not None
    assert status.failure.message == f"the process {how} without saying why"
    assert "logs/rank1.log" in str(status.failure.hint)

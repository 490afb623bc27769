"""A suite's directory and the state of its runs, from which an interrupted suite continues."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Literal

from pydantic import ValidationError, model_validator

from chipperf.errors import RecordError, UnusableRecord, UsageError
from chipperf.records.checkpoints import newest_complete_step
from chipperf.records.files import parse_model, read_bounded, write_atomically
from chipperf.records.repeats import ATTEMPT, REPEATS_FILE, RepeatedRun, Repeats, summarize_repeats
from chipperf.records.schema import StrictModel
from chipperf.records.store import read_record
from chipperf.run.directory import RunDirectory, writing_to
from chipperf.suites.suite_plan import PlannedRun, SuitePlan

RunState = Literal["waiting", "running", "completed", "failed", "interrupted"]

_ERROR_PREFIX = "perf: error: "
_OUTPUT_TAIL_BYTES = 8192


class Attempt(StrictModel):
    """One attempt at a run, a start or a resumption, in a directory relative to the suite's.

    ``port`` is where the machines meet, if there are several; ``error`` is why the attempt did not complete.
    """

    directory: str
    started_at: datetime
    port: int | None = None
    seconds: float | None = None
    exit_code: int | None = None
    error: str | None = None


class NextAttempt(StrictModel):
    """The next attempt at a run, in a directory relative to the suite's, whose run it resumes or not.

    ``number`` counts the earlier attempts in the suite.
    """

    run: str
    number: int
    directory: str
    resumes: bool


class SuiteRun(StrictModel, frozen=False):
    """A run and all its attempts, which are in its own directory and in numbered ones beside it."""

    planned: PlannedRun
    state: RunState = "waiting"
    attempts: list[Attempt] = []

    @model_validator(mode="after")
    def _require_own_directories(self) -> SuiteRun:
        name = self.planned.name
        for each in self.attempts:
            if each.directory != name and not each.directory.removeprefix(f"{name}{ATTEMPT}").isdecimal():
                raise ValueError(f"an attempt at {name} is in {each.directory!r}, which is not its own directory")
        return self


class SuiteState(StrictModel, frozen=False):
    """Content of ``suite.json``.

    ``session`` counts its starts and continuations. ``going_on`` is true while it runs, and stays true if it is killed.
    """

    version: Literal[1] = 1
    file: str
    session: int = 0
    going_on: bool = False
    runs: list[SuiteRun]

    def count(self, state: RunState) -> int:
        """Count the runs in a state."""
        return sum(run.state == state for run in self.runs)

    def select(self, *, retry_failed: bool) -> list[SuiteRun]:
        """Return the runs to execute: unfinished runs, and failed runs if they are to be repeated."""
        return [run for run in self.runs if run.state != "completed" and (retry_failed or run.state != "failed")]


@dataclass(frozen=True, slots=True)
class SuiteDirectory:
    """A suite's directory: its paths, its lock and the state of the runs."""

    path: Path

    @property
    def state(self) -> Path:
        """File that contains the state of the runs."""
        return self.path / "suite.json"

    def log(self, attempt: NextAttempt, node_rank: int = 0) -> Path:
        """Return the file for the output on a machine. A run that fails early has no directory for it."""
        return self.path / f"{attempt.directory}{f'.node{node_rank}' if node_rank else ''}.log"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create the directory and lock it while the block runs. The lock ends with the process.

        A :class:`UsageError` says that another suite runs in the directory, or that it cannot be written.
        """
        with writing_to(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("a+", encoding="utf-8")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                raise UsageError(
                    f"another suite runs in {self.path}: process {file.read().strip() or 'unknown'}",
                    hint="wait for its end, or choose another --out",
                ) from error
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    @contextmanager
    def at_work(self, state: SuiteState) -> Iterator[None]:
        """Mark the suite as running in its state, on disk too, while the block runs."""
        state.session += 1
        state.going_on = True
        self.write(state)
        try:
            yield
        finally:
            state.going_on = False
            self.write(state)

    def next_attempt(self, run: SuiteRun, *, number: int = 0) -> NextAttempt:
        """Return the next attempt at a run. An interrupted run is resumed if it has a checkpoint.

        Otherwise the attempt gets a directory of its own: one that contains a run is never reused.
        """
        name = directory = run.planned.name
        if run.attempts:
            last = run.attempts[-1].directory
            checkpoints = RunDirectory(self.path / last).checkpoints
            if run.state == "interrupted" and newest_complete_step(checkpoints) is not None:
                return NextAttempt(run=name, number=number, directory=last, resumes=True)
            directory = f"{name}{ATTEMPT}{len(run.attempts) + 1}"
        return NextAttempt(run=name, number=number, directory=directory, resumes=False)

    def arguments(self, planned: PlannedRun, attempt: NextAttempt, place: Sequence[str]) -> list[str]:
        """Return the arguments of ``perf train`` for an attempt, with the options of one of several machines last."""
        where = self.path / attempt.directory
        if not attempt.resumes:
            return [*planned.arguments, f"--out={where}", *place]
        nnodes, nproc = planned.topology.split("x")
        topology = [] if planned.nnodes == 1 else [f"--nproc={nproc}", f"--nnodes={nnodes}"]
        return [f"--resume={where}", *topology, *place]

    def require_no_suite(self) -> None:
        """Raise a UsageError if a suite was started in this directory before."""
        if self.state.exists():
            raise UsageError(
                f"{self.path} already holds a suite", hint="continue it with --resume, or choose another --out"
            )

    def begin(self, plan: SuitePlan, file: Path) -> SuiteState:
        """Return the state of a new suite, unless the directory contains a suite or one of its runs."""
        self.require_no_suite()
        for run in plan.runs:
            RunDirectory(self.path / run.name).require_no_run()
        return SuiteState(file=str(file), runs=[SuiteRun(planned=run) for run in plan.runs])

    def read(self, plan: SuitePlan) -> SuiteState:
        """Return the state of a suite with the same plan. Their records decide which runs have completed."""
        state = self.load()
        if state is None:
            raise UsageError(f"{self.path} holds no suite", hint="leave out --resume to begin one")
        plan.require_same(run.planned for run in state.runs)
        for run in state.runs:
            if not run.attempts:
                run.state = "waiting"
                continue
            directory = self.path / run.attempts[-1].directory
            if run.state == "running":
                RunDirectory(directory).require_ended()
            # The run may have continued after its suite was killed, and its directory may have been removed since.
            if _has_completed(directory, run.planned):
                run.state = "completed"
            elif run.state in ("running", "completed"):
                run.state = "interrupted"
        return state

    def load(self) -> SuiteState | None:
        """Return the state as last written, ``None`` if there is no suite; an UnusableRecord says what is wrong."""
        try:
            return parse_model(SuiteState, read_bounded(self.state))
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            cause = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
            raise UnusableRecord(
                f"cannot read {self.state}: {cause}", hint="it was edited or is incomplete; choose another --out"
            ) from error

    def write(self, state: SuiteState) -> None:
        """Replace the state atomically, or raise a RecordError."""
        write_atomically(self.state, state.model_dump_json(indent=2) + "\n")

    def summarize(self, state: SuiteState) -> dict[str, Repeats]:
        """Aggregate the runs of each configuration, write the aggregates, and return them by name."""
        summaries = {}
        for name, repeats in groupby(state.runs, key=lambda run: run.planned.configuration):
            runs, root = list(repeats), self.path / name
            begun = [
                RepeatedRun(
                    directory=run.attempts[-1].directory.removeprefix(f"{name}/"),
                    seed=run.planned.seed,
                    state=run.state if run.state == "completed" or run.state == "failed" else "interrupted",
                )
                for run in runs
                if run.attempts
            ]
            to = root / REPEATS_FILE if root.is_dir() else None
            summaries[name] = summarize_repeats(runs[0].planned.case, len(runs), begun, root, to=to)
        return summaries


def printed_cause(code: int, log: Path) -> str:
    """Return the cause of a failure from the last lines of output, or else from the exit code."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _OUTPUT_TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in reversed(lines):
        if line.startswith(_ERROR_PREFIX):
            return line.removeprefix(_ERROR_PREFIX)
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}" + (f": {lines[-1]}" if lines else "")


def _has_completed(directory: Path, planned: PlannedRun) -> bool:
    """Return whether a run has a record of its completion; the record of another run is a RecordError."""
    try:
        record = read_record(directory)
    except RecordError:
        return False
    wanted = (planned.case, planned.precision, planned.topology, f"seed {planned.seed}")
    found = (record.case.name, record.precision.requested, record.topology.label, f"seed {record.seed}")
    if found != wanted:
        raise RecordError(
            f"the run in {directory} is {' '.join(found)}, and the suite planned {' '.join(wanted)}",
            hint="the directory of another run was put there: move it away, and the planned run begins again",
        )
    return record.status.state == "completed"

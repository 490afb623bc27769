"""A qualification: its state on disk, and its stages, each of which is commands of ``perf`` in their own processes."""

from __future__ import annotations

import shlex
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AwareDatetime, Field, model_validator

import chipperf
from chipperf.errors import RecordError, UsageError
from chipperf.qualify.qualify_plan import STAGES, Candidate, fitting, suite_text
from chipperf.records.checkpoints import digest_of
from chipperf.records.files import read_model, write_atomically
from chipperf.records.process_files import hold_process_file
from chipperf.records.schema import Sha256, StrictModel
from chipperf.records.store import read_record
from chipperf.run.directory import RunDirectory, writing_to
from chipperf.run.programs import program
from chipperf.suites.state import SuiteDirectory, printed_cause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chipperf.launch.sequence import ProcessSequence
    from chipperf.plugin.installed import PluginEntry
    from chipperf.records.schema import Record

StageState = Literal["waiting", "running", "completed", "failed", "out_of_time", "interrupted"]

Seconds = Annotated[float, Field(ge=0, le=1e9)]

LANGUAGES_OF_REPORTS: Final = ("zh", "en")


class QualifyStage(StrictModel, frozen=False):
    """A stage: what it may take, and what came of it. ``seconds`` adds up all its attempts."""

    name: str
    allotted_s: Seconds
    state: StageState = "waiting"
    attempts: int = 0
    seconds: Seconds = 0.0
    error: str | None = None


class Qualification(StrictModel, frozen=False):
    """Content of ``qualification.json``.

    ``software`` is what :func:`software_of` gave, ``start_s`` the measured start of the vendor's stack, and
    ``bundle_sha256`` the digest of the bundle that was checked.
    """

    version: Literal[1] = 1
    vendor: str
    software: str
    created_at: AwareDatetime
    command: str
    budget_s: Seconds
    start_s: Seconds
    preset: str
    cases: list[str]
    candidates: list[Candidate]
    data: dict[str, Path] = {}
    key: Path | None = None
    sessions: int = 0
    runs: int | None = None
    bundle_sha256: Sha256 | None = None
    stages: list[QualifyStage]

    @model_validator(mode="after")
    def _require_stages(self) -> Qualification:
        if [stage.name for stage in self.stages] != list(STAGES):
            raise ValueError(f"its stages are not {', '.join(STAGES)}")
        if strange := [stage.name for stage in self.stages if stage.state == "completed" and stage.error]:
            raise ValueError(f"stages that failed are called completed: {', '.join(strange)}")
        return self

    def stage(self, name: str) -> QualifyStage:
        """Return a stage by name."""
        return next(stage for stage in self.stages if stage.name == name)


def software_of(entry: PluginEntry) -> str:
    """Return plugin and chipperf with their versions. What one version shows says nothing of another."""
    return describe_software(entry.source, chipperf.__version__)


def describe_software(plugin: str, chipperf_version: str) -> str:
    """Return a plugin's distribution, given with its version, and chipperf's version, as a qualification keeps them."""
    return f"{plugin}, chipperf {chipperf_version}"


@dataclass(frozen=True, slots=True)
class QualificationDirectory:
    """The directory of a qualification, and the files of its stages."""

    path: Path

    @property
    def state(self) -> Path:
        """The state of the stages."""
        return self.path / "qualification.json"

    @property
    def statement(self) -> Path:
        """The contract's statement."""
        return self.path / "statement.json"

    def certificate(self, case: str) -> Path:
        """Return the certificate of a case."""
        return self.path / "certificate" / case / "equivalence.json"

    @property
    def suite(self) -> Path:
        """Directory of the suite."""
        return self.path / "suite"

    @property
    def bundle(self) -> Path:
        """The bundle."""
        return self.path / "bundle.tar.gz"

    def log(self, stage: str) -> Path:
        """Return the output of a stage."""
        return self.path / "logs" / f"{stage}.log"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create the directory, and hold it while the block runs."""
        with writing_to(self.path):
            (self.path / "logs").mkdir(parents=True, exist_ok=True)
            run = RunDirectory(self.path)
            run.held.append(hold_process_file(run.process))
        try:
            yield
        finally:
            run.release_reserve()

    def read(self) -> Qualification:
        """Return the state; a stage that was killed is interrupted."""
        if not self.state.exists():
            raise UsageError(f"{self.path} holds no qualification", hint="leave out --resume to begin one")
        found = read_model(Qualification, self.state, hint="choose another --out")
        for stage in found.stages:
            if stage.state == "running":
                stage.state = "interrupted"
        return found

    def require_none(self) -> None:
        """Raise a UsageError if a qualification was started here."""
        if self.state.exists():
            raise UsageError(
                f"{self.path} already holds a qualification", hint="continue it with --resume, or choose another --out"
            )

    def write(self, state: Qualification) -> None:
        """Replace the state."""
        write_atomically(self.state, state.model_dump_json(indent=2) + "\n")

    def records(self) -> list[tuple[Path, Record]]:
        """Return the runs of the suite that left a record, in the suite's order."""
        suite = SuiteDirectory(self.suite).load()
        found = []
        for run in suite.runs if suite else ():
            for attempt in run.attempts[-1:]:
                with suppress(RecordError):
                    found.append((self.suite / attempt.directory, read_record(self.suite / attempt.directory)))
        return found

    def reports(self) -> list[tuple[str, str, Path, list[Path]]]:
        """Return case, language, file and runs of each report."""
        runs: dict[str, list[Path]] = {}
        for path, record in self.records():
            runs.setdefault(record.case.name, []).append(path)
        return [
            (case, lang, self.path / "reports" / f"{case}.{lang}.md", paths)
            for case, paths in runs.items()
            for lang in LANGUAGES_OF_REPORTS
        ]


@dataclass(frozen=True, slots=True)
class StageRunner:
    """Executes the stages that are left. ``show`` is called when a stage changes."""

    state: Qualification
    directory: QualificationDirectory
    sequence: ProcessSequence
    show: Callable[[QualifyStage], None]

    def carry_out(self) -> None:
        """Execute the stages in order, until a signal comes. After a stage that fails, the others still run."""
        self.state.sessions += 1
        for stage in self.state.stages:
            if stage.state in ("waiting", "interrupted") and not self.sequence.interrupted:
                self._carry_out(stage)

    def _carry_out(self, stage: QualifyStage) -> None:
        stage.state, stage.attempts, stage.error = "running", stage.attempts + 1, None
        self._changed(stage)
        started_s, left_s = time.monotonic(), self._left_s(stage)
        deadline_s = started_s + left_s
        spent_s = stage.seconds
        code, log = self._run(stage, deadline_s)
        stage.seconds = spent_s + time.monotonic() - started_s
        if code != 0 and self.sequence.interrupted:
            stage.state = "interrupted"
        elif code == 0:
            stage.state = "completed"
            if stage.name == "bundle" and self.directory.bundle.exists():
                self.state.bundle_sha256 = digest_of(self.directory.bundle).sha256
        else:
            stage.state = "out_of_time" if time.monotonic() > deadline_s else "failed"
            stage.error = printed_cause(code, log) if code is not None else None
        self._changed(stage)

    def _run(self, stage: QualifyStage, deadline_s: float) -> tuple[int | None, Path]:
        """Run the commands of a stage. Return the first code that is not 0, and the log.

        The code is ``None`` if no command failed, but not all had their turn: time ran out, or a signal came.
        """
        log, worst = self.directory.log(stage.name), 0
        for arguments in self._commands(stage):
            if self.sequence.interrupted or time.monotonic() > deadline_s:
                return worst or None, log
            with log.open("a", encoding="utf-8") as file:
                file.write(f"$ {shlex.join(['perf', *arguments])}\n")
            command = [*program("chipperf"), *arguments]
            code = self.sequence.run(command, output=log, is_overdue=lambda: time.monotonic() > deadline_s)
            if code is None:
                return worst or None, log
            worst = worst or code
        return worst, log

    def _changed(self, stage: QualifyStage) -> None:
        self.directory.write(self.state)
        self.show(stage)

    def _left_s(self, stage: QualifyStage) -> float:
        """Return the time of a stage: its own, and what earlier ones left; never less than its own."""
        place = self.state.stages.index(stage)
        saved_s = sum(each.allotted_s - each.seconds for each in self.state.stages[:place])
        return stage.allotted_s - stage.seconds + max(0.0, saved_s)

    def _commands(self, stage: QualifyStage) -> Iterator[list[str]]:
        """Yield the commands of a stage, each when its turn comes."""
        place, vendor = self.directory, f"--vendor={self.state.vendor}"
        if stage.name == "doctor":
            yield ["doctor", "--compute"]
        elif stage.name == "contract":
            yield ["contract", "run", vendor, f"--statement={place.statement}", "--resume"]
        elif stage.name == "limits":
            # Limits are never overwritten; an attempt that was stopped left a part.
            yield ["limits", vendor, f"--out={place.path / f'limits-{stage.attempts}'}"]
        elif stage.name == "certificate":
            # One after another, so that what is certified stays.
            for case in self.state.cases:
                if not place.certificate(case).exists():
                    yield ["contract", "certify", vendor, f"--case={case}", f"--out={place.certificate(case).parent}"]
        elif stage.name == "suite":
            yield self._suite(stage)
        elif stage.name == "report":
            yield from self._report()
        else:
            yield from self._bundle()

    def _suite(self, stage: QualifyStage) -> list[str]:
        file, suite = self.directory.path / "suite.toml", SuiteDirectory(self.directory.suite)
        if self.state.runs is None:
            chosen, training_s = fitting(self.state.candidates, self._left_s(stage), self.state.start_s)
            self.state.runs = len(chosen)
            text = suite_text(chosen, training_s, self.state.vendor, self.state.preset, self.state.data)
            write_atomically(file, text)
            self.directory.write(self.state)
        again = ["--resume"] if suite.state.exists() else []
        return ["suite", str(file), f"--out={suite.path}", *again]

    def _report(self) -> Iterator[list[str]]:
        reports = self.directory.reports()
        (self.directory.path / "reports").mkdir(exist_ok=True)
        for _, lang, file, runs in reports:
            yield ["report", *map(str, runs), f"--lang={lang}", f"--out={file}"]
        everything = [str(path) for path, _ in self.directory.records()]
        yield ["report", *everything, "--format=html", f"--out={self.directory.path / 'runs.html'}"]

    def _bundle(self) -> Iterator[list[str]]:
        place = self.directory
        runs = [str(path) for path, _ in place.records()]
        reports = [f"--report={file}" for _, _, file, _ in place.reports() if file.exists()]
        documents = [
            place.statement,
            *place.path.glob("limits-*/limits.json"),
            *place.path.glob("certificate/*/equivalence.*"),
        ]
        attached = [f"--document={file}" for file in documents if file.exists()]
        sign = [f"--sign={self.state.key}"] if self.state.key else []
        yield ["bundle", "pack", *runs, *reports, *attached, f"--out={place.bundle}", *sign]
        yield ["bundle", "check", str(place.bundle)]

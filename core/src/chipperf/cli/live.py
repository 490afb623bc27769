"""Progress of long jobs: a bar or a table that is redrawn on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from chipperf.durations import format_duration
from chipperf.run.directory import RunDirectory
from chipperf.run.progress import Progress as RunProgress
from chipperf.run.progress import read_progress
from chipperf.visible import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from rich.console import RenderableType

    from chipperf.qualify.qualification import QualifyStage
    from chipperf.suites.state import SuiteDirectory, SuiteRun, SuiteState

_POLL_S = 0.5
_PLAIN_INTERVAL_S = 15.0
_REFRESHES_PER_S = 2
_BEFORE, _AFTER = 5, 3
"""Numbers of runs shown before and after the current run: a matrix can have more lines than a terminal."""

_LONGEST_DETAIL = 60

_STYLES = {"completed": "green", "failed": "red", "interrupted": "yellow", "running": "bold", "waiting": "dim"}


@contextmanager
def counting_progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many items are done. The block calls the yielded function with the numbers of done and of all items."""
    if not sys.stderr.isatty():
        typer.echo(f"{title} ...", err=True)
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def run_progress(path: Path, title: str) -> Iterator[None]:
    """Show a run's progress file, which the run's main rank overwrites, while the block runs."""
    stop = threading.Event()
    watch = _draw if sys.stderr.isatty() else _print_lines
    thread = threading.Thread(target=watch, args=(path, title, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def suite_progress(state: SuiteState, directory: SuiteDirectory) -> Iterator[Callable[[SuiteRun], None]]:
    """Show the progress of a suite while the block runs. The block calls the yielded function when a run changes."""
    if not sys.stderr.isatty():
        yield lambda run: _print_change(run, state)
        return
    picture = _SuitePicture(state, directory)
    console = Console(stderr=True)
    with Live(get_renderable=picture.draw, console=console, refresh_per_second=_REFRESHES_PER_S, transient=True):
        yield picture.show


@contextmanager
def stages_progress(
    stages: Sequence[QualifyStage], log: Callable[[str], Path]
) -> Iterator[Callable[[QualifyStage], None]]:
    """Show the stages of a qualification while the block runs. The block calls the yielded function at each change."""
    if not sys.stderr.isatty():
        yield lambda stage: _print_stage(stage, stages)
        return
    since_s: dict[str, float] = {}

    def draw() -> RenderableType:
        table = Table(box=None, pad_edge=False, show_header=False)
        for stage in stages:
            is_running = stage.state == "running"
            spent_s = stage.seconds + (
                time.monotonic() - since_s.get(stage.name, time.monotonic()) if is_running else 0
            )
            detail = (_last_line(log(stage.name)) if is_running else stage.error) or ""
            took = f"{format_duration(round(spent_s))} of {format_duration(round(stage.allotted_s))}" if spent_s else ""
            table.add_row(Text(stage.state, style=_STYLES.get(stage.state, "red")), stage.name, took, visible(detail))
        return table

    with Live(get_renderable=draw, console=Console(stderr=True), refresh_per_second=_REFRESHES_PER_S):
        yield lambda stage: since_s.update({stage.name: time.monotonic()})


def _print_stage(stage: QualifyStage, stages: Sequence[QualifyStage]) -> None:
    place = f"[{list(stages).index(stage) + 1}/{len(stages)}] {stage.name}"
    if stage.state == "running":
        typer.echo(f"{place}: begins, {format_duration(round(stage.allotted_s))} are planned", err=True)
    else:
        why = f": {visible(stage.error)}" if stage.error else ""
        typer.echo(f"{place}: {stage.state} after {format_duration(round(stage.seconds))}{why}", err=True)


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return lines[-1][:_LONGEST_DETAIL] if lines else ""


def describe_end(run: SuiteRun) -> str:
    """Return how the last attempt at a run of a suite ended: its duration and, if it failed, the cause."""
    if not run.attempts:
        return ""
    last = run.attempts[-1]
    duration = "" if last.seconds is None else f"after {format_duration(last.seconds)}"
    return f"{duration}: {last.error}" if last.error else duration


def _readings(path: Path, stop: threading.Event, show: Callable[[str], object]) -> Iterator[RunProgress]:
    """Yield what the file says from time to time, and show each evaluation once."""
    shown = ""
    while not stop.wait(_POLL_S):
        progress = read_progress(path)
        if progress is None:
            continue
        if progress.evaluation != shown:
            shown = progress.evaluation
            show(shown)
        yield progress


def _draw(path: Path, title: str, stop: threading.Event) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, figures="")
        for progress in _readings(path, stop, partial(bar.console.print, highlight=False)):
            bar.update(
                task,
                description=f"{title}: {progress.phase}",
                completed=progress.step,
                total=progress.steps or None,
                figures=f"{_rate(progress)}  {_loss(progress)}",
            )


def _print_lines(path: Path, title: str, stop: threading.Event) -> None:
    shown_phase, shown_s = "", float("-inf")
    for progress in _readings(path, stop, lambda text: typer.echo(f"{title}: {text}", err=True)):
        due = time.monotonic() - shown_s >= _PLAIN_INTERVAL_S and progress.step > 0
        if due or progress.phase != shown_phase:
            shown_phase, shown_s = progress.phase, time.monotonic()
            parts = (f"{title}: {progress.phase}", _steps(progress), _rate(progress), _loss(progress))
            typer.echo("  ".join(filter(None, parts)), err=True)


def _steps(progress: RunProgress) -> str:
    return f"step {progress.step}/{progress.steps}" if progress.steps else ""


def _rate(progress: RunProgress) -> str:
    return "" if progress.samples_per_s is None else f"{progress.samples_per_s:.1f} samples/s"


def _loss(progress: RunProgress) -> str:
    return "" if progress.loss is None else f"loss {progress.loss:.3f}"


def _print_change(run: SuiteRun, state: SuiteState) -> None:
    place = f"[{state.runs.index(run) + 1}/{len(state.runs)}] {run.planned.name}"
    if run.state == "running":
        typer.echo(f"{place} seed {run.planned.seed}: begins", err=True)
    else:
        typer.echo(f"{place} {run.state} {describe_end(run)}".rstrip(), err=True)


class _SuitePicture:
    """A table of the runs around the current run, with its progress."""

    def __init__(self, state: SuiteState, directory: SuiteDirectory) -> None:
        self._state = state
        self._directory = directory
        self._current = 0
        self._start_s = self._run_start_s = time.monotonic()

    def show(self, run: SuiteRun) -> None:
        if run.state == "running":
            self._current, self._run_start_s = self._state.runs.index(run), time.monotonic()

    def draw(self) -> RenderableType:
        runs, state = self._state.runs, self._state
        first, end = max(0, self._current - _BEFORE), self._current + 1 + _AFTER
        table = Table(box=None, pad_edge=False, show_header=False)
        if first:
            table.add_row("", Text(f"{first} before", style="dim"), "")
        for run in runs[first:end]:
            detail = self._progress(run) if run.state == "running" else describe_end(run)
            table.add_row(Text(run.state, style=_STYLES[run.state]), run.planned.name, Text(visible(detail)))
        if len(runs) > end:
            table.add_row("", Text(f"{len(runs) - end} more", style="dim"), "")
        counts = f"{state.count('completed')} of {len(runs)} completed, {state.count('failed')} failed"
        return Group(table, Text(f"{counts}, {format_duration(time.monotonic() - self._start_s)}"))

    def _progress(self, run: SuiteRun) -> str:
        elapsed = format_duration(round(time.monotonic() - self._run_start_s))
        progress = read_progress(RunDirectory(self._directory.path / run.attempts[-1].directory).progress)
        if progress is None:
            return elapsed
        return "  ".join(filter(None, (elapsed, progress.phase, _steps(progress), _rate(progress))))

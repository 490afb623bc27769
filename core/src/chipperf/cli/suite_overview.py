"""Progress of a suite: a table that is redrawn on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from chipperf.durations import format_duration
from chipperf.run.directory import RunDirectory
from chipperf.run.progress import read_progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from chipperf.suites.execution import Overview
    from chipperf.suites.state import SuiteDirectory, SuiteRun, SuiteState

_REFRESHES_PER_S = 2
_BEFORE, _AFTER = 5, 3
"""Numbers of runs shown before and after the current run: a matrix can have more lines than a terminal."""

_STYLES = {"completed": "green", "failed": "red", "interrupted": "yellow", "running": "bold", "waiting": "dim"}


@contextmanager
def suite_overview(state: SuiteState, directory: SuiteDirectory) -> Iterator[Overview]:
    """Show the progress of a suite on standard error while the block runs."""
    if not sys.stderr.isatty():
        yield _Lines(state)
        return
    picture = _Picture(state, directory)
    console = Console(stderr=True)
    with Live(get_renderable=picture.draw, console=console, refresh_per_second=_REFRESHES_PER_S, transient=True):
        yield picture


def describe(run: SuiteRun) -> str:
    """Return a text on the end of a run: its duration and, if it failed, the cause."""
    if not run.attempts:
        return ""
    last = run.attempts[-1]
    duration = "" if last.seconds is None else f"after {format_duration(last.seconds)}"
    return f"{duration}: {last.error}" if last.error else duration


class _Lines:
    """One line for each start and end."""

    def __init__(self, state: SuiteState) -> None:
        self._state = state

    def began(self, run: SuiteRun) -> None:
        typer.echo(f"{self._place(run)} seed {run.planned.seed}: begins", err=True)

    def ended(self, run: SuiteRun) -> None:
        typer.echo(f"{self._place(run)} {run.state} {describe(run)}".rstrip(), err=True)

    def _place(self, run: SuiteRun) -> str:
        return f"[{self._state.runs.index(run) + 1}/{len(self._state.runs)}] {run.planned.name}"


class _Picture:
    """A table of the runs around the current run, with its progress."""

    def __init__(self, state: SuiteState, directory: SuiteDirectory) -> None:
        self._state = state
        self._directory = directory
        self._current = 0
        self._start_s = self._run_start_s = time.monotonic()

    def began(self, run: SuiteRun) -> None:
        self._current, self._run_start_s = self._state.runs.index(run), time.monotonic()

    def ended(self, run: SuiteRun) -> None:
        return

    def draw(self) -> RenderableType:
        runs, state = self._state.runs, self._state
        first, end = max(0, self._current - _BEFORE), self._current + 1 + _AFTER
        table = Table(box=None, pad_edge=False, show_header=False)
        if first:
            table.add_row("", Text(f"{first} before", style="dim"), "")
        for run in runs[first:end]:
            detail = self._progress(run) if run.state == "running" else describe(run)
            table.add_row(Text(run.state, style=_STYLES[run.state]), run.planned.name, Text(detail))
        if len(runs) > end:
            table.add_row("", Text(f"{len(runs) - end} more", style="dim"), "")
        counts = f"{state.count('completed')} of {len(runs)} completed, {state.count('failed')} failed"
        return Group(table, Text(f"{counts}, {format_duration(time.monotonic() - self._start_s)}"))

    def _progress(self, run: SuiteRun) -> str:
        elapsed = format_duration(round(time.monotonic() - self._run_start_s))
        progress = read_progress(RunDirectory(self._directory.path / run.attempts[-1].directory).progress)
        if progress is None:
            return elapsed
        steps = f"step {progress.step}/{progress.steps}" if progress.steps else ""
        rate = "" if progress.samples_per_s is None else f"{progress.samples_per_s:.1f} samples/s"
        return "  ".join(part for part in (elapsed, progress.phase, steps, rate) if part)

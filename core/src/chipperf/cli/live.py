"""Progress of long jobs: a bar or a table that is redrawn on a terminal, plain lines otherwise."""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, cast

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from chipperf.cli.output import is_quiet, tell
from chipperf.cli.streams import Output
from chipperf.durations import format_duration
from chipperf.run.directory import RunDirectory
from chipperf.run.progress import FINISHED, read_progress
from chipperf.run.progress import Progress as RunProgress
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
_TELEMETRY_TAIL_BYTES = 16384
"""More than the latest readings of all devices of a machine need."""
_BEFORE, _AFTER = 5, 3
"""Numbers of runs shown before and after the current run: a matrix can have more lines than a terminal."""

_LONGEST_DETAIL = 60

_STYLES = {"completed": "green", "failed": "red", "interrupted": "yellow", "running": "bold", "waiting": "dim"}


@contextmanager
def counting_progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many items are done. The block calls the yielded function with the numbers of done and of all items."""
    if is_quiet() or not sys.stderr.isatty():
        tell(f"{title} ...")
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(20), _Counted())
    with Progress(*columns, console=terminal(), transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Counted(ProgressColumn):
    """How many items are done and how long the others take, as far as this is known."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text()
        left = "" if task.time_remaining is None else f", about {format_duration(round(task.time_remaining))} left"
        return Text(f"{task.completed:.0f} of {task.total:.0f}{left}")


@contextmanager
def run_progress(path: Path, title: str) -> Iterator[None]:
    """Show a run's progress file, which the run's main rank overwrites, while the block runs."""
    if is_quiet():
        yield
        return
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
    if is_quiet() or not sys.stderr.isatty():
        yield lambda run: _print_change(run, state)
        return
    picture = _SuitePicture(state, directory)
    with _redrawn(picture.draw):
        yield picture.show


def terminal() -> Console:
    """Return a console on standard error that redraws: its sequences are not escaped, see :class:`.Output`."""
    return Console(file=getattr(sys.stderr, "rich_proxied_file", sys.stderr))


@contextmanager
def _redrawn(draw: Callable[[], RenderableType], *, stays: bool = False) -> Iterator[Console]:
    """Redraw what ``draw`` returns while the block runs. What else is printed meanwhile appears above it.

    Args:
        draw: Called twice a second.
        stays: The last picture stays on the terminal.
    """
    console, rate = terminal(), _REFRESHES_PER_S
    with Live(
        get_renderable=draw, console=console, refresh_per_second=rate, transient=not stays, redirect_stdout=False
    ):
        # rich took the place of the stream that escapes what others print; it puts that stream back.
        sys.stderr = cast("TextIO", Output(sys.stderr))
        yield console


@contextmanager
def stages_progress(
    stages: Sequence[QualifyStage], log: Callable[[str], Path]
) -> Iterator[Callable[[QualifyStage], None]]:
    """Show the stages of a qualification while the block runs. The block calls the yielded function at each change."""
    if is_quiet() or not sys.stderr.isatty():
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

    with _redrawn(draw, stays=True):
        yield lambda stage: since_s.update({stage.name: time.monotonic()})


def _print_stage(stage: QualifyStage, stages: Sequence[QualifyStage]) -> None:
    place = f"[{list(stages).index(stage) + 1}/{len(stages)}] {stage.name}"
    if stage.state == "running":
        tell(f"{place}: begins, {format_duration(round(stage.allotted_s))} are planned")
    else:
        why = f": {visible(stage.error)}" if stage.error else ""
        tell(f"{place}: {stage.state} after {format_duration(round(stage.seconds))}{why}")


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
    """Yield what the file says from time to time and when the run is over, and show each evaluation once."""
    shown, is_over = "", False
    while not is_over:
        is_over = stop.wait(_POLL_S)
        progress = read_progress(path)
        if progress is None:
            continue
        if progress.evaluation != shown:
            shown = progress.evaluation
            show(", ".join([shown, *_goal(progress)]))
        yield progress


def _draw(path: Path, title: str, stop: threading.Event) -> None:
    picture = RunPicture(title, RunDirectory(path.parent).telemetry(0))
    with _redrawn(picture.draw) as console:
        for progress in _readings(path, stop, lambda text: console.print(f"{title}: {text}", highlight=False)):
            picture.take(progress)


def _print_lines(path: Path, title: str, stop: threading.Event) -> None:
    picture = RunPicture(title, RunDirectory(path.parent).telemetry(0))
    shown_phase, shown_step, shown_s = "", 0, float("-inf")
    for progress in _readings(path, stop, lambda text: tell(f"{title}: {text}")):
        picture.take(progress)
        if progress.phase != shown_phase and progress.phase != FINISHED:
            shown_phase, shown_step, shown_s = progress.phase, progress.step, time.monotonic()
            tell(f"{title}: {progress.phase}")
        elif progress.step > shown_step and time.monotonic() - shown_s >= _PLAIN_INTERVAL_S:
            shown_step, shown_s = progress.step, time.monotonic()
            tell(f"{title}: {', '.join(picture.texts())}")


class RunPicture:
    """What is known of a run while it runs, as lines that are read without a legend, each at most 60 columns wide.

    Args:
        title: Name of the run's case.
        telemetry: File with the readings of this machine's devices, which may not exist yet.
    """

    def __init__(self, title: str, telemetry: Path) -> None:
        self._title, self._telemetry = title, telemetry
        self._start_s = time.monotonic()
        self._progress = RunProgress()
        self._first: tuple[int, float] | None = None

    def take(self, progress: RunProgress) -> None:
        """Take over the latest state of the run."""
        if progress.phase == "training" and progress.steps and self._first is None:
            self._first = (progress.step, time.monotonic())
        self._progress = progress

    def draw(self) -> RenderableType:
        """Return the lines for a terminal, with a bar."""
        progress = self._progress
        # Training that met its target ends before all planned steps: a bar would stay half full.
        is_over = progress.phase == FINISHED
        where = ", ".join(filter(None, (progress.phase, "" if is_over else _epoch(progress))))
        lines: list[RenderableType] = [Text(f"{self._title}: {where}")]
        if progress.steps and not is_over:
            bar = Table.grid(padding=(0, 1))
            bar.add_row(ProgressBar(progress.steps, progress.step, width=24), _steps(progress))
            lines.append(bar)
        lines += [Text(visible(", ".join(part))) for part in (self._times(), self._figures(), _goal(progress)) if part]
        return Group(*lines)

    def texts(self) -> list[str]:
        """Return the same without a bar and without the results of evaluations, for one line."""
        progress = self._progress
        return list(filter(None, (_epoch(progress), _steps(progress), *self._figures(), *self._times())))

    def _times(self) -> list[str]:
        now_s = time.monotonic()
        times = [f"{format_duration(round(now_s - self._start_s))} elapsed"]
        progress = self._progress
        if self._first and progress.phase == "training" and self._first[0] < progress.step < progress.steps:
            step, first_s = self._first
            left_s = (progress.steps - progress.step) * (now_s - first_s) / (progress.step - step)
            times.append(f"at most about {format_duration(round(left_s))} left")
        return times

    def _figures(self) -> list[str]:
        return list(filter(None, (_rate(self._progress), _loss(self._progress), *_device_figures(self._telemetry))))


def _device_figures(telemetry: Path) -> Iterator[str]:
    """Yield the most memory in use on one device of this machine, and the power of all, by their latest readings."""
    try:
        with telemetry.open("rb") as file:
            file.seek(max(0, telemetry.stat().st_size - _TELEMETRY_TAIL_BYTES))
            # The first line of the tail may be half a line, and the last one half written.
            lines = file.read().split(b"\n")[1:-1]
        readings = [reading for line in lines if isinstance(reading := json.loads(line), dict)]
    except (OSError, ValueError):
        return
    latest = {reading["device"]: reading for reading in readings if "device" in reading}.values()
    memory = [reading["memory_used_bytes"] for reading in latest if reading.get("memory_used_bytes") is not None]
    power = [reading["power_w"] for reading in latest if reading.get("power_w") is not None]
    if memory:
        yield f"memory {max(memory) / 2**30:.1f} GiB"
    if power and len(power) == len(latest):
        yield f"power {sum(power):.0f} W"


def _epoch(progress: RunProgress) -> str:
    if not progress.steps_per_epoch or not progress.steps:
        return ""
    epoch, epochs = (math.ceil(steps / progress.steps_per_epoch) for steps in (progress.step, progress.steps))
    return f"epoch {max(epoch, 1)} of {epochs}"


def _steps(progress: RunProgress) -> str:
    return f"step {progress.step} of {progress.steps}" if progress.steps else ""


def _rate(progress: RunProgress) -> str:
    return "" if progress.samples_per_s is None else f"{progress.samples_per_s:.1f} {progress.samples}/s"


def _loss(progress: RunProgress) -> str:
    return "" if progress.loss is None else f"loss {progress.loss:.3f}"


def _goal(progress: RunProgress) -> list[str]:
    """Return the best quality so far and the target, as far as there are."""
    parts = (("best", progress.best), ("target", progress.target))
    return [f"{name} {progress.shown(value)}" for name, value in parts if value is not None]


def _print_change(run: SuiteRun, state: SuiteState) -> None:
    place = f"[{state.runs.index(run) + 1}/{len(state.runs)}] {run.planned.name}"
    if run.state == "running":
        tell(f"{place} seed {run.planned.seed}: begins")
    else:
        tell(f"{place} {run.state} {describe_end(run)}".rstrip())


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
        return "  ".join(filter(None, (elapsed, progress.phase, _epoch(progress), _steps(progress), _rate(progress))))

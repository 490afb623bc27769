"""Progress of long jobs: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from chipperf.run.progress import Progress as RunProgress
from chipperf.run.progress import read_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_POLL_S = 0.5
_PLAIN_INTERVAL_S = 15.0


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
    """Show a run's progress file while the block runs.

    Args:
        path: Progress file, which the run's main rank overwrites.
        title: Title of the run.
    """
    stop = threading.Event()
    watch = _draw if sys.stderr.isatty() else _print_lines
    thread = threading.Thread(target=watch, args=(path, title, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _draw(path: Path, title: str, stop: threading.Event) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}  {task.fields[loss]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, rate="", loss="")
        shown = ""
        while not stop.wait(_POLL_S):
            progress = read_progress(path)
            if progress is None:
                continue
            if progress.evaluation != shown:
                shown = progress.evaluation
                bar.console.print(shown, highlight=False)
            _update(bar, task, title, progress)


def _update(bar: Progress, task: TaskID, title: str, progress: RunProgress) -> None:
    bar.update(
        task,
        description=f"{title}: {progress.phase}",
        completed=progress.step,
        total=progress.steps or None,
        rate=_rate(progress),
        loss=_loss(progress),
    )


def _print_lines(path: Path, title: str, stop: threading.Event) -> None:
    shown_phase, shown_evaluation, shown_s = "", "", float("-inf")
    while not stop.wait(_POLL_S):
        progress = read_progress(path)
        if progress is None:
            continue
        if progress.evaluation != shown_evaluation:
            shown_evaluation = progress.evaluation
            typer.echo(f"{title}: {shown_evaluation}", err=True)
        due = time.monotonic() - shown_s >= _PLAIN_INTERVAL_S and progress.step > 0
        if due or progress.phase != shown_phase:
            shown_phase, shown_s = progress.phase, time.monotonic()
            parts = [f"{title}: {progress.phase}", f"step {progress.step}/{progress.steps}" if progress.steps else ""]
            typer.echo("  ".join(part for part in (*parts, _rate(progress), _loss(progress)) if part), err=True)


def _rate(progress: RunProgress) -> str:
    return "" if progress.samples_per_s is None else f"{progress.samples_per_s:.1f} samples/s"


def _loss(progress: RunProgress) -> str:
    return "" if progress.loss is None else f"loss {progress.loss:.3f}"

"""The ``perf`` program: its commands and its handling of errors."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from typing import NoReturn

import typer

import chipperf
from chipperf.cli.command_groups import lazy_group
from chipperf.errors import PerfError, PluginError
from chipperf.visible import terminal_text

COMMANDS = {
    "train": "chipperf.cli.train:train",
    "suite": "chipperf.cli.suite:suite",
    "compare": "chipperf.cli.compare:compare",
    "site": "chipperf.cli.site:site",
    "cases": "chipperf.cli.cases:cases",
    "doctor": "chipperf.cli.doctor:doctor",
    "lint": "chipperf.cli.lint:lint",
    "verify": "chipperf.cli.verify:verify",
    "withhold": "chipperf.cli.withhold:withhold",
    "reveal": "chipperf.cli.withhold:reveal",
    "record-tools": "chipperf.cli.record_tools:record_tools",
    "report": "chipperf.cli.report:app",
    "bundle": "chipperf.cli.bundle:app",
    "launch": "chipperf.cli.launch:app",
    "plugins": "chipperf.cli.plugins:app",
    "data": "chipperf.cli.data:app",
    "contract": "chipperf.cli.contract:app",
}

app = typer.Typer(
    name="perf",
    cls=lazy_group(COMMANDS),
    epilog="Example: perf train mobilenetv2 --vendor cpu --preset demo && perf report runs/* --lang en",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    # Without color, click removes a terminal's sequences from foreign texts, which are to be seen.
    context_settings={"color": True},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"chipperf {chipperf.__version__}")
        raise typer.Exit


@app.callback()
def perf(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """Prove that an AI accelerator trains standard models, correctly and fast, and report it from measured records."""


def main() -> NoReturn:
    """Run the program and exit.

    Exit codes: 0 success, 1 the run failed, 2 usage, 3 plugin or environment, 4 a check found faults. An error is one
    line and a hint; ``PERF_DEBUG=1`` adds the traceback.
    """
    with redirect_stdout(terminal_text(sys.stdout)), redirect_stderr(terminal_text(sys.stderr)):
        _run()


def _run() -> NoReturn:
    try:
        app()
    except PerfError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        if error.name not in _TRAIN_MODULES:
            raise
        hint = "pip install 'chipperf[train]', or the vendor's own build of it"
        _fail(PluginError(f"{error.name} is not installed", hint=hint))
    sys.exit(0)


_TRAIN_MODULES = ("PIL", "numpy", "pycocotools", "scipy", "simplejpeg", "torch", "torchvision")


def _fail(error: PerfError) -> NoReturn:
    if os.environ.get("PERF_DEBUG"):
        traceback.print_exc()
    typer.echo(f"perf: error: {error.message}", err=True, color=True)
    if error.hint:
        typer.echo(f"  hint: {error.hint}", err=True, color=True)
    sys.exit(error.exit_code)

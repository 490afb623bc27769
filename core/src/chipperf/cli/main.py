"""The ``perf`` program: its commands, and how errors end it."""

from __future__ import annotations

import os
import sys
import traceback
from typing import NoReturn

import typer

import chipperf
from chipperf.cli import (
    bundle,
    cases,
    compare,
    contract,
    data,
    doctor,
    launch,
    lint,
    plugins,
    record_tools,
    report,
    site,
    suite,
    train,
    verify,
    withhold,
)
from chipperf.errors import PerfError, PluginError

DEBUG_VARIABLE = "PERF_DEBUG"

app = typer.Typer(
    name="perf",
    epilog="Example: perf train mobilenetv2 --vendor cpu --preset demo && perf report runs/* --lang en",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("train")(train.train)
app.command("suite")(suite.suite)
app.command("compare")(compare.compare)
app.command("site")(site.site)
app.command("cases")(cases.cases)
app.command("doctor")(doctor.doctor)
app.command("lint")(lint.lint)
app.command("verify")(verify.verify)
app.command("withhold")(withhold.withhold)
app.command("reveal")(withhold.reveal)
app.command("record-tools")(record_tools.record_tools)
app.add_typer(report.app, name="report")
app.add_typer(bundle.app, name="bundle")
app.add_typer(launch.app, name="launch")
app.add_typer(plugins.app, name="plugins")
app.add_typer(data.app, name="data")
app.add_typer(contract.app, name="contract")


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
    try:
        app()
    except PerfError as error:
        _fail(error, error.exit_code)
    except ModuleNotFoundError as error:
        if error.name not in _TRAIN_MODULES:
            raise
        missing = PluginError(
            f"{error.name} is not installed", hint="pip install 'chipperf[train]', or the vendor's own build of it"
        )
        _fail(missing, missing.exit_code)
    sys.exit(0)


_TRAIN_MODULES = ("PIL", "numpy", "pycocotools", "scipy", "simplejpeg", "torch", "torchvision")


def _fail(error: PerfError, code: int) -> NoReturn:
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exc()
    typer.echo(f"perf: error: {error.message}", err=True)
    if error.hint:
        typer.echo(f"  hint: {error.hint}", err=True)
    sys.exit(code)

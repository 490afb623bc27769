"""The ``perf`` program: its commands and its handling of errors."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import NoReturn, TextIO, cast

import typer

import chipperf
from chipperf.cli.command_groups import lazy_group
from chipperf.cli.output import print_error
from chipperf.cli.streams import Output
from chipperf.errors import PerfError, UsageError, missing_package

# Modules of this package with the commands. The summaries stand here too, so that a list of commands imports none.
COMMANDS = {
    "train": ("train:train", "Train a case and write its record, or continue a run that stopped."),
    "limits": ("limits:limits", "Measure the most that the cards can do: products, memory, host links, all-reduce."),
    "suite": ("suite:suite", "Run a matrix of case, precision, topology and repeats."),
    "qualify": (
        "qualify:qualify",
        "Prove what a vendor's cards can do, within a budget: checks, limits, runs, reports.",
    ),
    "compare": ("compare:compare", "Compare runs of one case on one dataset: vendors, precisions, topologies."),
    "runs": (
        "runs:runs",
        "List the runs below directories, newest first: date, state, case, row of a report, verdict.",
    ),
    "show": (
        "runs:show",
        "Show one run: its values, failures, environment, precision, dataset and settings.",
    ),
    "site": (
        "site:site",
        "Make static web pages of all records below a directory: a leaderboard, and a page for each run.",
    ),
    "cases": ("cases:app", "List the cases, or one case's hyperparameters, or make a package with a new case."),
    "doctor": (
        "doctor:doctor",
        "Say for every vendor whether its devices are here, and what prevents training.",
    ),
    "lint": (
        "lint:app",
        "Check hand-written and rendered case documents for mistakes that were found in real reports.",
    ),
    "verify": (
        "verify:verify",
        "Render reports again from their records, and show every cell and line that differs.",
    ),
    "withhold": (
        "withhold:withhold",
        "Make a record that withholds values and commits to them, and a private file that proves them later.",
    ),
    "reveal": (
        "withhold:reveal",
        "Check withheld values against the commitments of a published record, and show them.",
    ),
    "record-tools": (
        "record_tools:record_tools",
        "Record the output of a vendor's query tools, with UUIDs, serial numbers and the host's name replaced.",
    ),
    "report": ("report:app", "Render a vendor's report from records, or import reports as records."),
    "bundle": ("bundle:app", "Pack runs and reports for submission, or check a bundle."),
    "launch": ("launch:app", "Submit runs to a scheduler."),
    "plugins": ("plugins:app", "List the installed plugins, without loading any of them, or make a new one."),
    "data": ("data:app", "Generate sample datasets and check real ones."),
    "contract": ("contract:app", "Check a vendor plugin, or a case, against the contract."),
}

PURPOSES = {
    "Train": ("train", "suite", "launch", "data", "cases"),
    "Report and compare": ("report", "compare", "runs", "show", "site"),
    "Check and prove": ("qualify", "lint", "verify", "bundle", "withhold", "reveal"),
    "Plugins and this machine": ("doctor", "limits", "plugins", "contract", "record-tools"),
}
"""Titles under which the help lists the commands."""

EXIT_CODES = {
    0: "success",
    1: "a run failed or was stopped",
    2: "an option, path, file or setting cannot be used",
    3: "a plugin, device or the environment is at fault",
    4: "a check found faults",
    5: "a check is undecided",
}
"""What the exit code of every command means."""

app = typer.Typer(
    name="perf",
    cls=lazy_group(COMMANDS, PURPOSES),
    epilog="Example: perf train mobilenetv2 --vendor cpu --preset demo && perf report runs --lang en\n\n"
    f"Exit codes: {'; '.join(f'{code} {meaning}' for code, meaning in EXIT_CODES.items())}.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    # Without color, click removes a terminal's sequences from foreign texts, which are to be seen.
    context_settings={"color": True, "help_option_names": ["-h", "--help"], "max_content_width": 120},
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
    """Run the program and exit with one of :data:`EXIT_CODES`.

    An error is one line and a hint; ``PERF_DEBUG=1`` adds the traceback.
    """
    _prepare_process()
    sys.stdout, sys.stderr = cast("TextIO", Output(sys.stdout)), cast("TextIO", Output(sys.stderr, may_lose=True))
    try:
        app()
    except PerfError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        missing = missing_package(error)
        if missing is None:
            raise
        _fail(missing)
    except SystemExit as end:
        if end.code == 130:  # So typer ends, without a word, after Ctrl-C.
            _fail(PerfError("interrupted"))
        raise
    except ValueError as error:
        if "surrogates not allowed" not in str(error):
            raise
        hint = "rename the file or directory; the text of records and plans is UTF-8"
        _fail(UsageError("a path or an argument is not valid UTF-8", hint=hint))
    except OSError as error:
        place = error.filename or "a file, process or connection"
        _fail(UsageError(f"cannot use {place}: {error.strerror or error}", hint="PERF_DEBUG=1 shows what needs it"))
    sys.exit(0)


def _prepare_process() -> None:
    """Make this process and the programs that it starts independent of what a shell, cron or a user's profile left."""
    # They are looked for among all distributions, one of which may be broken.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # A file or socket must not take the place of a closed standard stream, which programs get as their own.
    for number in range(3):
        with suppress(OSError):
            os.fstat(number)
            continue
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def _fail(error: PerfError) -> NoReturn:
    if os.environ.get("PERF_DEBUG"):
        traceback.print_exc()
    print_error(error.message, error.hint)
    sys.exit(error.exit_code)

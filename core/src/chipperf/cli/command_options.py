"""Options that several commands share, what a shell completes for them, and the parameters that the user typed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import typer

from chipperf.cli.output import note
from chipperf.languages import DEFAULT, LANGUAGES
from chipperf.precisions import DEFAULT_PRECISION, PRECISIONS
from chipperf.visible import either

JSON_OPTION = typer.Option(False, "--json", help="Print JSON.")


def complete_cases() -> list[str]:
    """Return the names of the installed cases."""
    # Imported here and below, because only a shell that completes a word needs them.
    from chipperf.cases.registry import case_names

    return list(case_names())


def complete_vendors() -> list[str]:
    """Return the names of the installed vendor plugins."""
    from chipperf.plugin import installed

    return [entry.name for entry in installed.vendors()]


def complete_runs(incomplete: str) -> list[str]:
    """Return the runs, and the directories in which there may be some, whose path begins with ``incomplete``."""
    parent = Path(incomplete if incomplete.endswith("/") else os.path.dirname(incomplete))
    try:
        directories = sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []
    is_run = {path: any((path / name).exists() for name in ("record.json", "plan.json")) for path in directories}
    return [str(path) if is_run[path] else f"{path}/" for path in directories]


def runs_among(paths: Sequence[Path]) -> list[Path]:
    """Return what may be runs among the paths of a command, and note what a shell's ``runs/*`` matched besides.

    That are files that are no JSON, and directories in which there are no runs. If there is nothing else, all are
    returned, and the command says why it cannot use them.
    """
    others = [path for path in paths if _is_no_run(path)]
    if len(others) == len(paths):
        return list(paths)
    for path in others:
        note(f"left out: {path} is not a run")
    return [path for path in paths if path not in others]


def _is_no_run(path: Path) -> bool:
    from chipperf.records.store import find_records

    if path.is_dir():
        # A run that has only a plan must not pass for none.
        return not (path / "plan.json").exists() and next(find_records(path), None) is None
    return path.is_file() and path.suffix.casefold() != ".json"


def _setting(variable: str) -> Callable[[bool], None]:
    def turn_on(wanted: bool) -> None:
        # In the environment, so that the processes that this one starts know it too.
        if wanted:
            os.environ[variable] = "1"

    return turn_on


def _common(
    quiet: bool = typer.Option(
        False,
        "-q",
        "--quiet",
        help="Print results, warnings and errors only, as with PERF_QUIET=1.",
        callback=_setting("PERF_QUIET"),
        is_eager=True,
        expose_value=False,
    ),
    verbose: bool = typer.Option(
        False,
        "-v",
        "--verbose",
        help="Print the traceback behind an error too, as with PERF_DEBUG=1.",
        callback=_setting("PERF_DEBUG"),
        is_eager=True,
        expose_value=False,
    ),
) -> None:
    """Carry the options of every command."""


@cache
def common_options() -> list[Any]:
    """Return the options of every command, ``-q`` and ``-v``. No command gets their values."""
    app = typer.Typer(add_completion=False)
    app.command()(_common)
    return list(typer.main.get_command(app).params)


def vendor_option(**settings: Any) -> Any:
    """Return the option ``--vendor`` of what uses devices, with further settings of :func:`typer.Option`."""
    return typer.Option(
        None,
        "--vendor",
        autocompletion=complete_vendors,
        help="Vendor, or 'auto'; else the variable PERF_VENDOR.",
        **settings,
    )


def precision_option(**settings: Any) -> Any:
    """Return the option ``--precision``, with further settings of :func:`typer.Option`."""
    known = either(PRECISIONS)
    return typer.Option(
        DEFAULT_PRECISION, "--precision", help=f"{known}.", autocompletion=lambda: list(PRECISIONS), **settings
    )


def language_option(purpose: str) -> Any:
    """Return the option ``--lang`` with a help text."""
    return typer.Option(
        DEFAULT,
        "--lang",
        help=purpose,
        metavar=f"[{'|'.join(LANGUAGES)}]",
        callback=_known_language,
        autocompletion=lambda: list(LANGUAGES),
    )


def _known_language(language: str) -> str:
    if language not in LANGUAGES:
        raise typer.BadParameter(f"{language!r} is not one of {', '.join(map(repr, LANGUAGES))}.")
    return language


# Any: some versions of typer have their own copy of click's classes.
def typed_parameters(context: Any) -> Iterator[Any]:
    """Yield the parameters of a command that are on its command line, in the command's order, but not common ones."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.expose_value and source is not None and source.name == "COMMANDLINE":
            yield parameter

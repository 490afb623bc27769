"""Options that several commands share, and the parameters that the user typed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from chipperf.languages import DEFAULT, LANGUAGES
from chipperf.precisions import DEFAULT_PRECISION, PRECISIONS, either

JSON_OPTION = typer.Option(False, "--json", help="Print JSON.")
PRECISION_OPTION = typer.Option(DEFAULT_PRECISION, "--precision", help=f"{either(PRECISIONS)}.")


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
    """Yield the parameters of a command that are on its command line, in the command's order."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            yield parameter

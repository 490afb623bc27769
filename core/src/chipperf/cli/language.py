"""The option ``--lang``: the language of reports and pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from chipperf.languages import DEFAULT, LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chipperf.languages import Language


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


def note_fonts(drawn: Language, wanted: Language, unwritten: Sequence[int]) -> None:
    """Report on standard error the texts that a picture omits because no font has their characters.

    Args:
        drawn: Language of the picture.
        wanted: Requested language.
        unwritten: Numbers of the curves whose names are not in the picture.
    """
    if drawn != wanted:
        typer.echo(
            f"note: the picture is labeled in English, no font for the language {wanted!r} was found: install one, "
            "such as Noto Sans CJK for Chinese",
            err=True,
        )
    if unwritten:
        numbers = ", ".join(str(number) for number in unwritten)
        typer.echo(f"note: the picture has no names for these curves, no font was found for them: {numbers}", err=True)

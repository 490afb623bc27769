"""The option ``--lang``: the language of reports and pictures."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence


class Language(str, Enum):
    """Language of a report or picture."""

    ZH = "zh"
    EN = "en"


def note_fonts(drawn: str, wanted: Language, unwritten: Sequence[int]) -> None:
    """Say on standard error what a picture does not write because no font can.

    Args:
        drawn: Language of the picture.
        wanted: Language that was asked for.
        unwritten: Numbers of the curves whose names are not in the picture.
    """
    if drawn != wanted.value:
        typer.echo(
            "note: the picture is labelled in English, no Chinese font was found: install one, such as Noto Sans CJK",
            err=True,
        )
    if unwritten:
        numbers = ", ".join(str(number) for number in unwritten)
        typer.echo(f"note: the picture has no names for these curves, no font was found for them: {numbers}", err=True)

"""Output of commands: tables for people, JSON for programs, notes, and files."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import typer

from chipperf.cli.streams import is_colored
from chipperf.errors import UsageError
from chipperf.languages import Language
from chipperf.records.files import write_atomically
from chipperf.visible import either, visible

_UNLIMITED: Final = 10**6
"""Width in which no table wraps."""


HTML_ENDINGS: Final = (".html", ".htm")
TEXT_ENDINGS: Final = (".md", ".markdown", ".txt")


def print_json(value: object) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table. On a terminal long texts wrap, elsewhere a row is a line; they are never cut."""
    # Imported here: they take as long to import as a small command takes.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(str(cell))) for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = _UNLIMITED
    console.print(table)


def print_wrapped(text: str, indent: str = "") -> None:
    """Print a text, on a terminal with line breaks between words and with the lines after the first indented."""
    if sys.stdout.isatty():
        columns = shutil.get_terminal_size().columns
        options = {"break_long_words": False, "break_on_hyphens": False, "subsequent_indent": indent}
        text = "\n".join(textwrap.fill(line, columns, **options) for line in text.split("\n"))  # type: ignore[arg-type]
    typer.echo(text)


def tell(text: str) -> None:
    """Print on standard error what is neither result nor error, unless the user wants it quiet."""
    if not is_quiet():
        typer.echo(text, err=True)


def is_quiet() -> bool:
    """Return whether the user wants results, warnings and errors only."""
    return bool(os.environ.get("PERF_QUIET"))


def note(text: str) -> None:
    """Print a note on standard error."""
    tell(f"note: {text}")


def print_error(message: str, hint: str | None = None) -> None:
    """Print an error and its hint on standard error, with a colored label where there are colors."""
    label = "perf: error:"
    if is_colored(sys.stderr):
        # Colors pass unescaped where rich writes; the message is escaped.
        file = getattr(sys.stderr, "rich_proxied_file", sys.stderr)
        typer.echo(typer.style(label, fg="red", bold=True), file=file, nl=False, color=True)
        typer.echo(f" {message}", err=True, color=True)
    else:
        typer.echo(f"{label} {message}", err=True, color=True)
    if hint:
        typer.echo(f"  hint: {hint}", err=True, color=True)


def note_unused_templates(templates: Path | None, names: Sequence[str], suffix: str) -> None:
    """Print a note if the user's directory has none of the templates that are looked for there: a name may be wrong."""
    if templates and templates.is_dir() and not any((templates / f"{name}{suffix}").is_file() for name in names):
        wanted = " or ".join(f"{name}{suffix}" for name in dict.fromkeys(names))
        note(f"no template in {templates} is used: it has no {wanted}")


def note_fonts(drawn: Language, wanted: Language, unwritten: Sequence[int]) -> None:
    """Print notes if no font has the wanted language of a picture, or the names of its curves with these numbers."""
    if drawn != wanted:
        note(
            f"the picture is labeled in English, no font for the language {wanted!r} was found: install one, "
            "such as Noto Sans CJK for Chinese"
        )
    if unwritten:
        note(f"the picture has no names for these curves, no font was found for them: {', '.join(map(str, unwritten))}")


def require_file(out: Path | None, endings: Sequence[str] = ()) -> None:
    """Check, before any work is done, that an output file, if any, can be written there, or raise a UsageError.

    Its name has one of ``endings`` or none: no program opens a text that is called .pdf. Without ``endings`` it may
    have any.
    """
    if out is None:
        return
    if out.is_dir():
        raise UsageError(f"{out} is a directory", hint="name a file in it")
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent} is not a directory", hint="create it, or write elsewhere")
    if endings and out.suffix and not out.name.casefold().endswith(tuple(endings)):
        raise UsageError(
            f"{out} ends in {out.suffix}, which is not the format that would be written",
            hint=f"let the name end in {either(endings)}",
        )


def write_file(out: Path, content: str | bytes) -> None:
    """Replace a file atomically, and name it on standard error."""
    write_atomically(out, content)
    tell(f"wrote {out}")

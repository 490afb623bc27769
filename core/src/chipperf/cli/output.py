"""Output of listings: tables for people, JSON for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chipperf.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


JSON_OPTION = typer.Option(False, "--json", help="Print JSON.")


def print_json(value: object) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table. Long texts wrap and are never cut."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    Console().print(table)


def require_directory(out: Path) -> None:
    """Check, before any work is done, that the directory of an output file exists.

    Raises:
        UsageError: The directory does not exist.
    """
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent} is not a directory", hint="create it, or choose another --out")

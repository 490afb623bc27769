"""``perf plugins``: which vendor and observer plugins are installed."""

from __future__ import annotations

from dataclasses import asdict

import typer

from chipperf import catalogue
from chipperf.cli.listing import JSON_OPTION, print_json, print_table


def plugins(as_json: bool = JSON_OPTION) -> None:
    """List the installed plugins, without loading any of them.

    Example: perf plugins --json
    """
    entries = [*catalogue.vendors(), *catalogue.observers()]
    if as_json:
        print_json([asdict(entry) for entry in entries])
        return
    rows = [(entry.name, entry.group.rpartition(".")[2], entry.source, entry.value) for entry in entries]
    print_table(("plugin", "group", "distribution", "module"), rows)
    typer.echo("'perf doctor' asks every vendor whether its devices are here.")

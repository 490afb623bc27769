"""``perf plugins``: list the installed vendor and observer plugins, and make a new plugin."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path

import typer

from chipperf.cli.command_options import JSON_OPTION
from chipperf.cli.output import print_json, print_table
from chipperf.plugin import installed
from chipperf.plugin.scaffold import NewPlugin, create_plugin

app = typer.Typer(invoke_without_command=True)


@app.callback()
def plugins(context: typer.Context, as_json: bool = JSON_OPTION) -> None:
    """List the installed plugins, without loading any of them, or make a new one.

    Example: perf plugins --json
    """
    if context.invoked_subcommand is not None:
        return
    entries = [*installed.vendors(), *installed.observers()]
    if as_json:
        print_json([asdict(entry) for entry in entries])
        return
    rows = [(entry.name, entry.group.rpartition(".")[2], entry.source, entry.value) for entry in entries]
    print_table(("plugin", "group", "distribution", "module"), rows)
    typer.echo("'perf doctor' asks every vendor whether its devices are here.")


@app.command("new")
def new(
    name: str = typer.Argument(..., help="The vendor's name for --vendor: a-z, 0-9 and _."),
    directory: Path = typer.Option(Path(), "--directory", help="Where to make the project, chipperf-NAME."),
    title: str | None = typer.Option(None, "--title", help="The vendor's name in reports. [NAME]"),
    device_type: str | None = typer.Option(
        None, "--device-type", help="Type of the vendor's torch.device; cuda for stacks that imitate CUDA. [NAME]"
    ),
) -> None:
    """Make a plugin that you can install, and that passes level 0 of the contract before you write its hooks.

    Example: perf plugins new acme --title "ACME"
    """
    title = name if title is None else title
    plugin = NewPlugin(name=name, title=title, device_type=name if device_type is None else device_type)
    project = directory / plugin.distribution
    for file in create_plugin(plugin, project):
        typer.echo(project / file)
    install = shlex.join(["pip", "install", "-e", f"{project.absolute()}[test]"])
    typer.echo(f"next: {install} && perf contract run --vendor {name} --level 0")

"""``perf cases``: list the cases and their hyperparameters, and make a package with a new one."""

from __future__ import annotations

from pathlib import Path

import typer

from chipperf.cases.base import Case
from chipperf.cases.registry import find_case, guarded_cases
from chipperf.cli.command_groups import group_with_default
from chipperf.cli.command_options import JSON_OPTION, complete_cases
from chipperf.cli.output import print_json, print_table
from chipperf.errors import PluginError

app = typer.Typer(
    cls=group_with_default("show"),
    help="List the cases, or one case's hyperparameters, or make a package with a new case.",
)


@app.command("show")
def show(
    name: str = typer.Argument(
        "", help="A case, to list its hyperparameters.", metavar="[CASE]", autocompletion=complete_cases
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """List the cases, or one case's hyperparameters with their roles and base values.

    Example: perf cases resnet50
    """
    if name:
        _print_case(find_case(name, guarded=True), as_json)
        return
    rows = []
    for known, case in guarded_cases():
        # A broken case must not hide the others.
        said = ("broken", case.message) if isinstance(case, PluginError) else (case.version, case.summary)
        rows.append(dict(zip(("name", "version", "summary"), (known, *said), strict=True)))
    if as_json:
        print_json(rows)
    else:
        print_table(("case", "version", "summary"), [tuple(row.values()) for row in rows])


@app.command("new")
def new(
    name: str = typer.Argument(..., help="The case's name for 'perf train': a-z, 0-9 and _."),
    directory: Path = typer.Option(Path(), "--directory", help="Where to make the project, chipperf-NAME."),
    title: str | None = typer.Option(None, "--title", help="The model's name in reports. [NAME]"),
) -> None:
    """Make a package with a new case, which you can install, which trains, and which passes its contract as it is.

    Example: perf cases new tabular
    """
    # A list of cases needs no templates.
    from chipperf.cases.new_case import create_case

    files = create_case(name, name if title is None else title, directory)
    for file in files:
        typer.echo(file)
    project = next(file.parent for file in files if file.name == "pyproject.toml")
    typer.echo(f"next: pip install -e '{project.absolute()}[test]' && perf contract case {name}")


def _print_case(case: Case, as_json: bool) -> None:
    base = case.base.model_dump()
    if as_json:
        hyperparameters = {key: {"role": str(case.base.role(key)), "base": base[key]} for key in base}
        presets = {preset: dict(values) for preset, values in case.presets.items()}
        print_json({"name": case.name, "version": case.version, "hyperparameters": hyperparameters, "presets": presets})
        return
    print_table(("hyperparameter", "role", "base"), [(key, case.base.role(key), base[key]) for key in base])
    for preset, values in case.presets.items():
        settings = ", ".join(f"{key}={value}" for key, value in values.items()) or "the base values"
        typer.echo(f"preset {preset}: {settings}")

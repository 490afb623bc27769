"""``perf lint``: find mistakes in case documents."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import typer

from chipperf.cli.output import counted, print_table
from chipperf.errors import CheckFailed, UsageError


def lint(
    paths: list[Path] = typer.Argument(None, help="Case documents, or directories that hold some.", metavar="PATH..."),
    vendor: str | None = typer.Option(None, "--vendor", help="Whose reports they are, if they do not tell."),
    case: str | None = typer.Option(None, "--case", help="Which case they are on, if they do not tell."),
    config: Path | None = typer.Option(None, "--config", help="Configurations of the runs. [config beside each file]"),
    against: list[Path] = typer.Option([], "--against", help="Run behind the reports; may be repeated."),
    output: Literal["text", "json", "sarif", "github"] = typer.Option(
        "text", "--format", help="How findings are written."
    ),
    select: list[str] = typer.Option([], "--select", help="Check only these rules, for example L04,L12."),
    ignore: list[str] = typer.Option([], "--ignore", help="Do not check these rules."),
    cards: list[Path] = typer.Option([], "--cards", help="File with further names of vendors and cards, as TOML."),
    list_rules: bool = typer.Option(False, "--list", help="List the rules."),
) -> None:
    """Check hand-written and rendered case documents against rules that each name a mistake of real reports.

    A rule that lacks evidence, such as a configuration, is listed as not checked. A comment accepts a finding:
    <!-- perf lint: ignore L04: reason -->. Exit code 4 if there is an error.

    Example: perf lint training --format github
    """
    # Imported here because the rules have many modules and other commands need none of them.
    from chipperf.documents.card_names import read_card_names
    from chipperf.lint.lint_run import lint as run_lint
    from chipperf.lint.result_formats import FORMATS
    from chipperf.lint.rule import choose_rules
    from chipperf.records.store import read_record

    rules = choose_rules(_split(select), _split(ignore))
    if list_rules:
        rows = [(rule.id, rule.name, rule.severity, rule.evidence or "-", rule.summary) for rule in rules]
        print_table(("rule", "name", "severity", "needs", "in a good document"), rows)
        return
    if not paths:
        raise UsageError("there is nothing to check", hint="name files or directories: perf lint README.md")
    result = run_lint(
        paths,
        rules,
        names=read_card_names(cards),
        vendor=vendor,
        case=case,
        config=config,
        records=[read_record(path) for path in against],
    )
    typer.echo(FORMATS[output](result, rules), nl=False)
    errors = result.count("error")
    if errors:
        raise CheckFailed(
            f"{counted(errors, 'error')} in {counted(len(result.files), 'document')}",
            hint="docs/lint.md explains every rule, and how to accept a finding",
        )
    if not result.files:
        raise UsageError(
            f"no case document is in {', '.join(map(str, paths))}", hint="name documents, or directories that hold some"
        )


def _split(ids: list[str]) -> list[str]:
    return [id.strip().upper() for text in ids for id in text.split(",") if id.strip()]

"""``perf withhold`` and ``perf reveal``: publish a record without some values, and prove them later."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from chipperf.cli.listing import JSON_OPTION, print_json, print_table
from chipperf.errors import CheckFailed, UsageError


def withhold(
    run: Path = typer.Argument(..., help="Directory of a run, or its record.json.", metavar="RUN"),
    fields: list[str] = typer.Option(..., "--field", help="Value to withhold, for example metrics.p_core; repeatable."),
    reason: str = typer.Option(..., "--reason", help="Why; reports show it."),
    out: Path = typer.Option(..., "--out", help="New directory for the record that may be published."),
    secrets: Path | None = typer.Option(
        None, "--secrets", help="New private file for values and salts. [OUT.secrets.json]"
    ),
) -> None:
    """Make a record that withholds values and commits to them, and a private file that proves them later.

    The run stays as it is. Keep the private file, and publish neither it nor the run's own directory.

    Example: perf withhold runs/demo --field metrics.p_core --reason "under embargo" --out public/demo
    """
    from chipperf.records.store import read_record
    from chipperf.records.withholding import withhold as take_out
    from chipperf.records.withholding import write_public, write_secrets

    private = secrets or out.with_name(f"{out.name}.secrets.json")
    if out.exists():
        raise UsageError(f"{out} exists", hint="choose another --out; nothing is overwritten")
    if private.resolve().is_relative_to(out.resolve()):
        raise UsageError(f"{private} would lie in what is published", hint="choose another --secrets")
    result = take_out(read_record(run), fields, reason)
    private.parent.mkdir(parents=True, exist_ok=True)
    # The private file comes first: a commitment whose salt was lost cannot be proved.
    write_secrets(private, result.secrets)
    write_public(out, result.record)
    for path in (private, out / "record.json"):
        typer.echo(f"wrote {path}")
    for field, told in result.still_told:
        typer.echo(f"note: the record still has {field}, which tells of {told}", err=True)


def reveal(
    run: Path = typer.Argument(..., help="Directory of the published record, or the record.", metavar="RUN"),
    secrets: Path = typer.Option(..., "--secrets", help="Private file of 'perf withhold', or a part of it."),
    fields: list[str] = typer.Option([], "--field", help="Only this value; repeatable."),
    out: Path | None = typer.Option(None, "--out", help="New file for these values and salts, to pass on."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Check withheld values against the commitments of a published record, and show them.

    Exit code 4 if a value is not the one that the record committed to.

    Example: perf reveal public/demo --secrets public/demo.secrets.json --field metrics.p_core
    """
    from chipperf.records.store import read_record
    from chipperf.records.withholding import json_path, read_secrets, write_secrets
    from chipperf.records.withholding import reveal as check

    content = read_secrets(secrets)
    if fields:
        wanted = {json_path(field) for field in fields}
        chosen = [value for value in content.values if value.field in wanted]
        absent = wanted - {value.field for value in chosen}
        if absent:
            raise UsageError(f"{secrets} has no {min(absent)}", hint="leave out --field to see what it has")
        content = content.model_copy(update={"values": chosen})
    revealed = check(read_record(run), content)
    if as_json:
        print_json([{"field": each.field, "value": each.value, "problem": each.problem} for each in revealed])
    else:
        rows = [(each.field, json.dumps(each.value), each.problem or "as committed") for each in revealed]
        print_table(("field", "value", "check"), rows)
    wrong = [each.field for each in revealed if each.problem]
    if wrong:
        raise CheckFailed(
            f"not as committed: {', '.join(wrong)}", hint="ask for the values and salts of this very record"
        )
    if out is not None:
        write_secrets(out, content)
        typer.echo(f"wrote {out}", err=True)

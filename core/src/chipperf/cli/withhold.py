"""``perf withhold`` and ``perf reveal``: publish a record without some values, and prove them later."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from chipperf.cli.command_options import JSON_OPTION, complete_runs
from chipperf.cli.output import note, print_json, print_table, require_file, tell
from chipperf.errors import CheckFailed, UsageError
from chipperf.records import withholding
from chipperf.records.schema import Record
from chipperf.records.store import read_record
from chipperf.report.comparability import require_comparable
from chipperf.run.directory import RunDirectory

_LONGEST_VALUE = 60


def withhold(
    run: Path = typer.Argument(
        ..., help="Directory of a run, or its record.json.", metavar="RUN", autocompletion=complete_runs
    ),
    fields: list[str] = typer.Option(
        ..., "--field", metavar="FIELD", help="Value to withhold, for example metrics.p_core; repeatable."
    ),
    reason: str = typer.Option(..., "--reason", help="Why; reports show it."),
    out: Path = typer.Option(..., "--out", help="New directory for the record to publish."),
    ratio_to: Path | None = typer.Option(
        None,
        "--ratio-to",
        help="Comparable run; publish the ratios to its values.",
        metavar="RUN",
        autocompletion=complete_runs,
    ),
    secrets: Path | None = typer.Option(
        None, "--secrets", help="New private file for values and salts. [RUN/NAME_OF_OUT.secrets.json]"
    ),
    keep: list[str] = typer.Option(
        [], "--keep", metavar="FIELD", help="Publish this value although it reveals another; repeatable."
    ),
) -> None:
    """Make a record that withholds values and commits to them, and a private file that proves them later.

    Fields from which the values can be computed are withheld with them. The run does not change. The private file is in
    the run's directory: keep both, and publish neither.

    Example: perf withhold runs/demo --field metrics.p_core --reason "under embargo" --out public/demo
    """
    private = secrets or (run if run.is_dir() else run.parent) / f"{out.name}.secrets.json"
    if out.exists():
        raise UsageError(f"{out} exists", hint="choose another --out; nothing is overwritten")
    if out.resolve() in private.resolve().parents or private.resolve().parent == out.resolve().parent:
        raise UsageError(f"{private} would be in or beside the published directory", hint="choose another --secrets")
    # Its directory is made.
    if private.is_dir():
        raise UsageError(f"{private} is a directory", hint="name a file in it")
    record = read_record(run)
    base = _comparable(ratio_to, record)
    result = withholding.withhold(record, fields, reason, keep=keep, ratio_to=base)
    private.parent.mkdir(parents=True, exist_ok=True)
    # The private file is written first: without its salt, a commitment cannot be proved.
    withholding.write_secrets(private, result.secrets)
    withholding.write_public(out, result.record)
    for path in (private, RunDirectory(out).record):
        typer.echo(f"wrote {path}")
    for field, told in result.also:
        typer.echo(f"also withheld {field}, which reveals {told}")
    for field, told in result.still_told:
        note(f"the record still has {field}, which reveals {told}")
    if base:
        note(f"with a ratio, anybody who knows the value of run {base.run_id} also knows this one")


def reveal(
    run: Path = typer.Argument(
        ..., help="Directory of the published record, or the record.", metavar="RUN", autocompletion=complete_runs
    ),
    secrets: Path = typer.Option(..., "--secrets", help="Private file of 'perf withhold', or a part of it."),
    fields: list[str] = typer.Option([], "--field", metavar="FIELD", help="Only this value; repeatable."),
    ratio_to: Path | None = typer.Option(
        None,
        "--ratio-to",
        help="Run to which ratios were published; checks the ratios.",
        metavar="RUN",
        autocompletion=complete_runs,
    ),
    ratio_secrets: Path | None = typer.Option(
        None, "--ratio-secrets", help="Private file of that run, if its record withholds the values, too."
    ),
    out: Path | None = typer.Option(None, "--out", help="New file for these values and salts, to pass on."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Check withheld values against the commitments of a published record, and show them.

    Exit code 4 if a value does not match its commitment.

    Example: perf reveal public/demo --secrets runs/demo/demo.secrets.json --field metrics.p_core
    """
    require_file(out, (".json",))
    content = withholding.read_secrets(secrets)
    if fields:
        wanted = {withholding.json_path(field) for field in fields}
        chosen = [value for value in content.values if value.field in wanted]
        absent = wanted - {value.field for value in chosen}
        if absent:
            raise UsageError(f"{secrets} has no {min(absent)}", hint="leave out --field to see what it has")
        content = content.model_copy(update={"values": chosen})
    record = read_record(run)
    base = _comparable(ratio_to, record)
    if base and ratio_secrets:
        base = withholding.fill_in(base, withholding.read_secrets(ratio_secrets))
    revealed = withholding.reveal(record, content, ratio_to=base)
    if as_json:
        print_json([{"field": each.field, "value": each.value, "problem": each.problem} for each in revealed])
    else:
        rows = [
            (name, _shown(value), each.problem or "as committed")
            for each in revealed
            for name, value in _parts(each.field, each.value)
        ]
        print_table(("field", "value", "check"), rows)
    shown = {each.field for each in revealed}
    for committed in record.withheld:
        if committed.field not in shown:
            note(f"{committed.field} remains withheld")
    wrong = [f"{each.field}: {each.problem}" for each in revealed if each.problem]
    if wrong:
        raise CheckFailed("; ".join(wrong), hint="ask for the values of this record")
    if out is not None:
        withholding.write_secrets(out, content)
        tell(f"wrote {out}")


def _parts(field: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the values in a value by field; a throughput and a spread are one value, their median."""
    if not isinstance(value, dict) or "missing" in value:
        yield field, value
    elif "median" in value:
        yield field, value["median"]
    else:
        for name, part in value.items():
            yield from _parts(f"{field}.{name}", part)


def _shown(value: Any) -> str:
    """Return a value as one text. On a terminal long texts are cut."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE or not sys.stdout.isatty() else f"{text[: _LONGEST_VALUE - 3]}..."


def _comparable(run: Path | None, record: Record) -> Record | None:
    """Return the base run of a ratio. Refuse a run that is not comparable with the record."""
    if run is None:
        return None
    base = read_record(run)
    if base.run_id == record.run_id:
        raise UsageError(f"run {base.run_id} has no ratio to itself", hint="name another run with --ratio-to")
    require_comparable([base, record])
    return base

"""``perf lint``: find mistakes in case documents, correct the simple ones, and explain the rules."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from chipperf.cli.command_groups import group_with_default
from chipperf.cli.command_options import JSON_OPTION, complete_cases, complete_runs, complete_vendors
from chipperf.cli.output import note, print_json, require_file, write_file
from chipperf.cli.streams import is_colored
from chipperf.errors import CheckFailed, UsageError
from chipperf.visible import counted

if TYPE_CHECKING:
    from chipperf.lint.lint_run import Result
    from chipperf.lint.rule import Rule

# "perf lint PATH..." is short for "perf lint check PATH...". The rules have many modules and other commands need none
# of them, so they are imported in the commands.
app = typer.Typer(
    cls=group_with_default("check"),
    help="Check hand-written and rendered case documents for mistakes that were found in real reports.",
)

Format = Literal["text", "full", "concise", "json", "sarif", "github"]

_STANDARD_INPUT = Path("-")
_WIDTH = 120
"""Width of lines of the source where there is no terminal."""


@app.command("check")
def check(
    paths: list[Path] = typer.Argument(
        None, help="Case documents, directories with case documents, or - for standard input.", metavar="PATH..."
    ),
    vendor: str | None = typer.Option(
        None, "--vendor", autocompletion=complete_vendors, help="Their vendor, if they do not name it."
    ),
    case: str | None = typer.Option(
        None, "--case", autocompletion=complete_cases, help="Their case, if they do not name it."
    ),
    config: Path | None = typer.Option(None, "--config", help="Configurations of the runs. [config beside each file]"),
    against: list[Path] = typer.Option(
        [],
        "--against",
        metavar="RUN",
        autocompletion=complete_runs,
        help="Run on which the reports are based; repeatable.",
    ),
    cards: list[Path] = typer.Option(
        [], "--cards", metavar="FILE", help="TOML file with further names of vendors and cards."
    ),
    stdin_filename: Path | None = typer.Option(None, "--stdin-filename", help="Path to assume for standard input."),
    select: list[str] = typer.Option(
        [], "--select", metavar="RULES", help="Check only these rules, for example L04,L12."
    ),
    extend_select: list[str] = typer.Option([], "--extend-select", metavar="RULES", help="Check these rules too."),
    ignore: list[str] = typer.Option([], "--ignore", metavar="RULES", help="Do not check these rules."),
    isolated: bool = typer.Option(False, "--isolated", help="Ignore chipperf.toml and pyproject.toml."),
    fix: bool = typer.Option(False, "--fix", help="Correct everything that is safe to correct, and check the rest."),
    diff: bool = typer.Option(False, "--diff", help="Only show what --fix would change."),
    baseline: Path | None = typer.Option(None, "--baseline", help="Accept the findings in this file."),
    write_baseline: Path | None = typer.Option(
        None, "--write-baseline", help="Write all findings into a baseline file."
    ),
    output: Format | None = typer.Option(None, "--format", help="Format of the findings. [text]"),
    as_json: bool = JSON_OPTION,
    statistics: bool = typer.Option(False, "--statistics", help="Print the number of findings of each rule instead."),
    output_file: Path | None = typer.Option(None, "--output-file", help="Write to this file."),
    exit_zero: bool = typer.Option(False, "--exit-zero", help="Exit with 0 even if there are errors."),
    list_rules: bool = typer.Option(False, "--list", help="List the rules."),
) -> None:
    """Check hand-written and rendered case documents for mistakes that were found in real reports.

    If evidence for a rule is missing, such as a configuration, the rule is listed as not checked. A comment accepts a
    finding: <!-- perf lint: ignore L04: reason -->. Exit code 4 if there is an error.

    Example: perf lint training --format github
    """
    from chipperf.documents.card_names import read_card_names
    from chipperf.lint.baseline import accept_known, baseline_of
    from chipperf.lint.lint_run import lint as run_lint
    from chipperf.lint.result_formats import describe
    from chipperf.lint.rule import all_rules, choose_rules
    from chipperf.lint.settings import Settings, settings_of, turned_off
    from chipperf.records.store import read_record

    form = _format(output, as_json, statistics)
    chosen = (_ids(select), _ids(ignore), _ids(extend_select))
    if list_rules:
        rules = choose_rules(chosen[0] or [rule.id for rule in all_rules()], chosen[1])
        listed = "".join(map(_listed, rules))
        _write(_json([describe(rule) for rule in rules]) if form.startswith("json") else listed, output_file)
        return
    if not choose_rules(*chosen):
        raise UsageError("no rule is left to check", hint="every selected rule is ignored: leave one of the two out")
    if not paths:
        raise UsageError("there is nothing to check", hint="name files or directories: perf lint README.md")
    if diff and write_baseline:
        raise UsageError("--diff writes nothing, so no baseline either", hint="leave one of them out")
    require_file(output_file, (".txt", ".md", ".json", ".sarif"))
    require_file(write_baseline, (".json",))
    paths, contents = _with_standard_input(paths, stdin_filename)
    if contents and fix and not diff:
        raise UsageError("--fix cannot write standard input", hint="--diff shows what it would change, as a patch")

    settings = (lambda path: Settings(Path.cwd())) if isolated else settings_of

    def ignored(path: Path) -> set[str]:
        return {rule.id for rule in all_rules()} - {rule.id for rule in settings(path).rules_of(path, *chosen)}

    names, records = read_card_names(cards), [read_record(path) for path in against]

    def find(contents: Mapping[Path, bytes]) -> Result:
        result = run_lint(
            paths,
            all_rules(),
            names=names,
            vendor=vendor,
            case=case,
            config=config,
            records=records,
            ignored=ignored,
            contents=contents,
        )
        documents = [Path(file) for file in result.files]
        result.settings = turned_off(documents, settings, *chosen)
        if write_baseline is None:
            accept_known(result, lambda file: baseline or settings(Path(file)).baseline)
        return result

    if fix or diff:
        from chipperf.lint.fixes import fix as make_fixes

        result, changes = make_fixes(find, contents)
    else:
        result, changes = find(contents), []
    if diff:
        patches = {str(change.path): "".join(f"{line}\n" for line in change.patch()) for change in changes}
        _write(_json(patches) if form == "json" else "".join(patches.values()), output_file)
        if changes and not exit_zero:
            raise CheckFailed(f"--fix would correct {counted(len(changes), 'document')}", hint="run it without --diff")
        return
    for change in changes:
        change.write()
    if write_baseline:
        write_file(write_baseline, baseline_of(result, write_baseline))
        note(f"it accepts {counted(len(result.open), 'finding')} in {counted(len(result.files), 'document')}")
        return
    _show(result, form, output_file)
    errors = result.count("error")
    if errors and not exit_zero:
        first = next(finding for finding in result.open if finding.severity == "error")
        raise CheckFailed(
            f"{counted(errors, 'error')} in {counted(len(result.files), 'document')}",
            hint=f"'perf lint explain {first.rule}' shows what is right, docs/lint.md how to accept a finding",
        )
    if not result.files:
        raise UsageError(
            f"no case document is in {', '.join(map(str, paths))}", hint="name documents, or directories that hold some"
        )


@app.command("explain")
def explain(
    rules: list[str] = typer.Argument(..., help="Rules, for example L12.", metavar="RULE..."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Say what a rule checks, why it matters and what to do, with a wrong and a right example.

    Example: perf lint explain L12
    """
    from chipperf.lint.result_formats import describe
    from chipperf.lint.rule import find_rule
    from chipperf.lint.rule_pages import page, read_examples

    found = [find_rule(id) for id in _ids(rules)]
    if as_json:
        print_json([{**describe(rule), "examples": read_examples()[rule.id]._asdict()} for rule in found])
    else:
        typer.echo("\n".join(page(rule) for rule in found), nl=False)


def _json(content: object) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _ids(texts: list[str]) -> list[str]:
    return [id.strip() for text in texts for id in text.split(",") if id.strip()]


def _format(named: Format | None, as_json: bool, statistics: bool) -> str:
    output = named or ("json" if as_json else "text")
    if as_json and output != "json":
        raise UsageError(f"--json and --format {output} contradict each other", hint="leave one of them out")
    if statistics and output not in ("text", "json"):
        raise UsageError(f"--statistics has no format {output}", hint="leave --format out, or use --json")
    return {"text": "statistics", "json": "json-statistics"}[output] if statistics else output


def _with_standard_input(paths: list[Path], filename: Path | None) -> tuple[list[Path], dict[Path, bytes]]:
    """Return the paths with the name of standard input in its place, and its content."""
    if _STANDARD_INPUT not in paths:
        return paths, {}
    from chipperf.documents.markdown import MAX_BYTES

    place = filename or _STANDARD_INPUT
    # A closed standard input is none for Python.
    content = sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin else b""
    if len(content) > MAX_BYTES:
        raise UsageError("standard input is larger than a document may be", hint="name a document of a page or two")
    return [place if path == _STANDARD_INPUT else path for path in paths], {place: content}


def _listed(rule: Rule) -> str:
    off = ", off by default" if rule.off_because else ""
    needs = f" Needs {rule.evidence}." if rule.evidence else ""
    return f"{rule.id} {rule.name}, {rule.severity}{off}: {rule.summary}{needs}\n"


def _show(result: Result, form: str, output_file: Path | None) -> None:
    from chipperf.lint.result_formats import FORMATS
    from chipperf.lint.text_formats import Screen, written

    on_terminal = output_file is None and sys.stdout.isatty()
    color = output_file is None and is_colored(sys.stdout)
    width = shutil.get_terminal_size().columns if on_terminal else _WIDTH if form == "full" else None
    if form in FORMATS:
        _write(FORMATS[form](result), output_file)
    else:
        text = written(result, form, Screen(color=color, width=width))
        _write(text, output_file, painted=color)


def _write(text: str, file: Path | None, *, painted: bool = False) -> None:
    # A file's name may have bytes that are no text. JSON has the same escape for them.
    text = text.encode("utf-8", "backslashreplace").decode()
    if file is not None:
        write_file(file, text)
    else:
        # Colors pass unescaped where rich writes; other texts are escaped.
        typer.echo(text, file=getattr(sys.stdout, "rich_proxied_file", None) if painted else None, nl=False)

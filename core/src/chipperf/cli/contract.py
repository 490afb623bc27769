"""``perf contract``: check a vendor plugin against the contract and the CPU reference."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import chipperf
from chipperf.cases.base import SampleSize
from chipperf.cases.registry import case_names, find_case
from chipperf.cli.command_options import JSON_OPTION, complete_cases, complete_vendors, precision_option
from chipperf.cli.live import run_progress, terminal
from chipperf.cli.output import is_quiet, print_json, print_table, require_file, tell
from chipperf.contract.certificate import Certificate, write_plot
from chipperf.contract.check import CONTRACT_VERSION, LEVELS, Check, all_checks, case_checks, find_check
from chipperf.contract.check_runner import CheckResult, Runner, Status
from chipperf.contract.isolation import ForkServer
from chipperf.contract.statement import Statement, Verdict, judge, make_statement
from chipperf.contract.waivers import Waiver, read_waivers
from chipperf.errors import CheckFailed, PluginError, UsageError
from chipperf.plugin import installed, selection
from chipperf.plugin.installed import PluginEntry
from chipperf.plugin.session import bind, require_recent_torch
from chipperf.plugin.types import EnvironmentSettings, Rank
from chipperf.precisions import precision_of
from chipperf.records.files import read_model, write_atomically
from chipperf.report.figures import require_matplotlib
from chipperf.visible import counted

app = typer.Typer(no_args_is_help=True, help="Check a vendor plugin, or a case, against the contract.")

_CERTIFY_TIMEOUT_S: Final = 24 * 3600.0
"""Only a device that hangs needs longer. The user can interrupt earlier."""

_ENDED: Final = "the program was stopped first"

_STATUSES: Final[Mapping[Verdict, Status]] = {
    "passed": "passed",
    "unexpected_pass": "passed",
    "failed": "failed",
    "waived": "failed",
    "advisory": "failed",
    "not_applicable": "not_applicable",
    "not_run": "not_run",
}
"""What a check came to, of how it was judged."""

_MARKS = {
    "passed": "ok",
    "failed": "FAILED",
    "waived": "waived",
    "unexpected_pass": "FAILED",
    "advisory": "advice",
    "not_applicable": "n/a",
    "not_run": "not run",
}


@app.command("certify")
def certify(
    vendor: str = typer.Option(..., "--vendor", autocompletion=complete_vendors, help="Vendor plugin to certify."),
    case: list[str] = typer.Option(
        [], "--case", metavar="CASE", autocompletion=complete_cases, help="Only this case; repeatable. [all]"
    ),
    size: SampleSize = typer.Option(
        "tiny", "--size", help="Size of the samples: tiny, or real, which is that of the benchmark."
    ),
    steps: int = typer.Option(20, "--steps", min=1, help="Optimizer steps to compare."),
    precision: str = precision_option(),
    data: Path = typer.Option(
        None,
        "--data",
        help="Dataset directory of the case. [a generated sample]",
    ),
    out: Path = typer.Option(..., "--out", help="Directory for equivalence.json and equivalence.png."),
) -> None:
    """Certify that the first steps of training follow the CPU reference in fp32.

    Both sides start from the same weights and train on the same batches; loss and gradients are compared after every
    step. Exit code 4 if a difference is larger than the precision allows.

    Example: perf contract certify --vendor cpu --case mobilenetv2 --out certificate
    """
    names = [find_case(name).name for name in case] or list(case_names())
    if data is not None:
        if len(names) != 1:
            raise UsageError("--data names the directory of one case's dataset", hint="give one --case")
        find_case(names[0]).data.require(data, "'perf data check' explains")
    require_matplotlib("contract")
    entry = selection.select_vendor(vendor).entry
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror}", hint="choose another --out") from error
    request = {
        "entry": asdict(entry),
        "cases": names,
        "size": size,
        "steps": steps,
        "precision": precision_of(precision),
        "data": str(data.resolve()) if data else None,
    }
    settings = EnvironmentSettings(case=names[0], precision=precision_of(precision))
    certificate = Certificate.model_validate(_compare(entry, settings, request))
    write_atomically(out / "equivalence.json", certificate.model_dump_json(indent=2) + "\n")
    write_plot(certificate, out / "equivalence.png")
    for comparison in certificate.comparisons:
        typer.echo(comparison.summary)
    tell(f"wrote {out / 'equivalence.json'} and {out / 'equivalence.png'}")
    if not certificate.within:
        raise CheckFailed(
            f"{entry} does not follow the CPU reference in {precision}",
            hint="'perf contract run' checks operators and precision one by one",
        )


def _compare(entry: PluginEntry, settings: EnvironmentSettings, request: dict[str, object]) -> Any:
    """Compare in a process with the plugin's environment, and show the progress. Return the certificate as JSON."""
    wanted = {variable.name: variable.value for variable in bind(entry).environment(Rank(), settings)}
    with tempfile.TemporaryDirectory(prefix="chipperf-certify-") as scratch:
        progress = Path(scratch) / "progress.json"
        # The user's settings take precedence, as in a run.
        server = ForkServer({**wanted, **os.environ})
        with closing(server), run_progress(progress, "certify"):
            arguments = {**request, "progress": str(progress)}
            outcome = server.call("chipperf.contract.equivalence:certify", arguments, timeout_s=_CERTIFY_TIMEOUT_S)
    if outcome.fault:
        last_words = f"; its last output: {outcome.output.splitlines()[-1]}" if outcome.output else ""
        raise PluginError(
            f"{entry}: the comparison ended early: {outcome.fault}{last_words}",
            hint="'perf contract run' finds the part of the plugin that is at fault",
        )
    return outcome.value


@app.command("list")
def list_checks(
    cases: bool = typer.Option(False, "--cases", help="List the checks of a case instead of those of a plugin."),
    as_json: bool = JSON_OPTION,
) -> None:
    """List every check: its id, level, the capability it needs, and what a conforming plugin or case does.

    Example: perf contract list --json
    """
    checks = case_checks() if cases else all_checks()
    if as_json:
        fields = ("id", "level", "since", "capability", "ranks", "summary", "fault", "advisory")
        print_json([{field: getattr(check, field) for field in fields} for check in checks])
        return
    rows = [(check.id, f"L{check.level}", check.since, check.capability or "-", check.summary) for check in checks]
    print_table(("check", "level", "since", "capability", f"a conforming {'case' if cases else 'plugin'}"), rows)
    levels = [check.level for check in checks]
    counts = ", ".join(f"L{level} {name} {levels.count(level)}" for level, name in LEVELS.items())
    typer.echo(f"{len(checks)} checks: {counts}")


@app.command("case")
def case(
    name: str = typer.Argument(..., help="Case to check, of core or of an installed package.", metavar="CASE"),
    only: list[str] = typer.Option([], "--check", help="Run only this check, for example K10; repeatable."),
    timeout_factor: float = typer.Option(1.0, "--timeout-factor", min=0.1, help="Multiply every check's time limit."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Check whether a case keeps what every case promises, on the CPU reference with generated data.

    The checks cover locked values, exact evaluation over 1 to 3 ranks, bit-for-bit resumption, sample counts, operation
    counts, batches that stay on the device, and reports in every language, among others. Exit code 4 if a check fails.

    Example: perf contract case mobilenetv2 --check K2 --check K4
    """
    found = find_case(name, guarded=True)
    wanted = {find_check(id.upper()).id for id in only}
    checks = [check for check in case_checks() if not only or check.id in wanted]
    if strangers := wanted - {check.id for check in checks}:
        raise UsageError(f"{', '.join(sorted(strangers))} checks a plugin", hint="'perf contract list --cases'")
    require_recent_torch()
    with Runner(installed.find_vendor("cpu"), timeout_factor=timeout_factor, case=found.name) as runner:
        results, end = _carry_out(runner, checks, {}, {}, quiet=as_json)
    failed = [result for result in results if result.status in ("failed", "not_run")]
    if as_json:
        rows = [{"check": each.check.id, "status": each.status, "message": each.message} for each in results]
        print_json({"case": found.name, "version": found.version, "results": rows, "passed": not failed})
    else:
        _print_results(results)
        said = f"{found.name} {found.version}: {len(results) - len(failed)} of {len(checks)} checks"
        typer.echo(f"{said} passed or do not apply")
    if end:
        raise end
    if failed:
        raise CheckFailed(f"case {found.name} does not conform", hint="each message above says what to correct")


def _print_results(results: Sequence[CheckResult]) -> None:
    # One reason keeps many checks from running: without a device, all but the static ones.
    causes = Counter(each.message for each in results if each.status == "not_run")
    shared = {message for message, count in causes.items() if message and count > 1}
    rows = [
        (
            each.check.id,
            _MARKS[each.status],
            f"{each.seconds:.1f} s",
            f"{each.check.summary}\n{each.message}" if each.message else each.check.summary,
        )
        for each in results
        if each.message not in shared
    ]
    print_table(("check", "result", "time", ""), rows)
    for message in sorted(shared):
        ids = [each.check.id for each in results if each.status == "not_run" and each.message == message]
        typer.echo(f"{counted(len(ids), 'check')} not run: {message}: {', '.join(ids)}")
    for each in results:
        if each.detail:
            typer.echo(f"\n{each.check.id}:\n{each.detail}")


@app.command("run")
def run(
    vendor: str = typer.Option(..., "--vendor", autocompletion=complete_vendors, help="Vendor plugin to check."),
    level: int = typer.Option(
        None, "--level", min=0, max=3, help="Highest level: 0 static, 1 device, 2 training, 3 distributed. [all]"
    ),
    only: list[str] = typer.Option(
        [], "--check", metavar="CHECK", help="Run only this check, for example M4; repeatable."
    ),
    waivers: Path = typer.Option(None, "--waivers", help="TOML file of the checks that are known to fail."),
    statement: Path = typer.Option(None, "--statement", help="Write the conformance statement to this file, as JSON."),
    resume: bool = typer.Option(
        False,
        "--resume",
        help="Keep the results in --statement, from a run that was stopped, and run the remaining checks.",
    ),
    timeout_factor: float = typer.Option(1.0, "--timeout-factor", min=0.1, help="Multiply every check's time limit."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Check a plugin and say which levels of the contract it may claim.

    Level 0 needs neither torch nor a device. Without --level, every check is tried, and levels that cannot run here are
    not claimed. If you ask for a level or check that has no device, there is an error. Exit code 4 if a check fails
    that is not waived.

    Example: perf contract run --vendor cpu --level 0
    """
    entry = installed.find_vendor(vendor)
    known_failures = read_waivers(waivers) if waivers else {}
    checks = _chosen(only, level)
    highest = max(check.level for check in checks)
    if highest:
        require_recent_torch()
    # Before the checks take minutes.
    require_file(statement, (".json",))
    if statement and not os.access(statement.absolute().parent, os.W_OK):
        raise UsageError(f"cannot write {statement}", hint="name a file in a directory that is yours")
    kept = _kept(statement, entry) if resume else {}
    # When a scheduler ends the job, the checks' files must be removed, and what was found must stay.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    # The signal waits while the runner makes a directory, which nobody would remove yet.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    with Runner(entry, timeout_factor=timeout_factor) as runner:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        results, end = _carry_out(runner, checks, known_failures, kept, quiet=as_json)
        reached = max(result.check.level for result in results)
        readiness = runner.readiness if reached else runner.static_readiness
    results += [CheckResult(check=check, status="not_run", message=_ENDED) for check in checks[len(results) :]]
    report = make_statement(entry, readiness, results, known_failures, level=None if only else highest)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        _print(report, results)
    # Written last, so that the results are shown even if the disk is full.
    if statement:
        write_atomically(statement, report.model_dump_json(indent=2) + "\n")
    if end:
        raise end
    if not report.succeeded:
        raise CheckFailed(f"{entry} does not conform", hint="each message above says what to correct")
    asked = (only or level is not None) and highest > 0
    if asked and (readiness.no_device or readiness.device_fault):
        reason = readiness.device_fault or f"no device: {readiness.no_device}"
        raise PluginError(f"level {highest} was asked for and did not run: {reason}")


def _kept(statement: Path | None, entry: PluginEntry) -> dict[str, CheckResult]:
    """Return the results of a run that was ended, by check; none if it left no statement."""
    if statement is None:
        raise UsageError("--resume belongs to --statement", hint="name the statement of the stopped run")
    if not statement.exists():
        return {}
    found = read_model(Statement, statement, hint="start again without --resume")
    here = (entry.name, entry.distribution, entry.version, CONTRACT_VERSION, chipperf.__version__)
    there = (found.vendor, found.distribution, found.distribution_version, found.contract_version)
    if here != (*there, found.chipperf_version):
        raise UsageError(f"{statement} is of another plugin or version", hint="start again without --resume")
    return {
        each.check: CheckResult(
            check=find_check(each.check), status=_STATUSES[each.verdict], message=each.message, seconds=each.seconds
        )
        for each in found.results
        if each.message != _ENDED
    }


def _chosen(only: list[str], level: int | None) -> list[Check]:
    if only and level is not None:
        raise UsageError("--check and --level exclude each other", hint="give one of the two")
    if only:
        wanted = {find_check(id.upper()).id for id in only}
        return [check for check in all_checks() if check.id in wanted]
    highest = max(LEVELS) if level is None else level
    # In order of level, because lower levels are faster and explain failures of higher levels.
    return sorted((check for check in all_checks() if check.level <= highest), key=lambda check: check.level)


def _carry_out(
    runner: Runner,
    checks: Sequence[Check],
    waivers: Mapping[str, Waiver],
    kept: Mapping[str, CheckResult],
    *,
    quiet: bool,
) -> tuple[list[CheckResult], SystemExit | None]:
    """Run checks, and return the results up to a signal that ends the program, with what it ends with.

    ``kept`` are the results of an earlier run, by check.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    results: list[CheckResult] = []
    console = terminal()
    is_hidden = quiet or is_quiet() or not console.is_terminal
    # Checks run in processes of their own, so nothing else is printed meanwhile.
    with Progress(
        *columns, console=console, transient=True, disable=is_hidden, redirect_stdout=False, redirect_stderr=False
    ) as progress:
        task = progress.add_task("checking", total=len(checks))
        for number, check in enumerate(checks, 1):
            progress.update(task, description=f"{check.id} {check.summary}"[:60])
            try:
                result = kept.get(check.id) or runner.run(check)
            except SystemExit as end:
                if not results:
                    raise
                return results, end
            results.append(result)
            progress.advance(task)
            # In a log the bar would only be noise, and silence of minutes looks like a hang.
            if not (quiet or console.is_terminal):
                mark = _MARKS[judge(result, waivers.get(check.id)).verdict]
                tell(f"{number}/{len(checks)} {check.id} {mark} {result.seconds:.1f} s")
    return results, None


def _print(report: Statement, results: Sequence[CheckResult]) -> None:
    rows = []
    for judged, result in zip(report.results, results, strict=True):
        note = result.check.summary
        if judged.verdict != "passed" and judged.message:
            note = f"{note}\n{judged.message}"
            if judged.waiver and judged.verdict == "waived":
                note = f"{note} [{judged.waiver.kind}: {judged.waiver.reason}]"
        rows.append((judged.check, f"L{judged.level}", _MARKS[judged.verdict], f"{judged.seconds:.1f} s", note))
    print_table(("check", "level", "result", "time", ""), rows)
    for result, judged in zip(results, report.results, strict=True):
        if result.detail and judged.verdict == "failed":
            typer.echo(f"\n{result.check.id}:\n{result.detail}")
    if report.simulated:
        typer.echo("simulated: fake modules stand in for the vendor's stack; nothing above level 0 is claimed")
    typer.echo(report.line)

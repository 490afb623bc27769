"""``perf qualify``: from a plugin to a proof in one command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

import typer

from chipperf.cli.command_options import vendor_option
from chipperf.cli.live import stages_progress
from chipperf.cli.output import print_table
from chipperf.durations import format_duration, parse_duration
from chipperf.errors import CheckFailed, TrainingError, UsageError
from chipperf.languages import LANGUAGES
from chipperf.launch.sequence import ProcessSequence, require_torch
from chipperf.limits.limits_job import plan_limits
from chipperf.plugin.installed import REFERENCE_VENDOR, find_vendor
from chipperf.plugin.selection import select_vendor
from chipperf.qualify.qualification import (
    Qualification,
    QualificationDirectory,
    QualifyStage,
    StageRunner,
    software_of,
)
from chipperf.qualify.qualify_plan import allotments, candidates, choose_cases, fitting, measure_start
from chipperf.qualify.verdict import MAY, MAY_NOT, NOTHING, REPEAT, judge_qualification, verdict_markdown
from chipperf.records.files import write_atomically


def qualify(
    vendor: str | None = vendor_option(),
    budget: str = typer.Option("30m", "--budget", help="Time for everything, for example 30m or 2h."),
    cases: str = typer.Option("", "--cases", help="Cases, separated by commas. [all]", metavar="CASE,..."),
    data: list[str] = typer.Option(
        [], "--data", metavar="CASE=DIR", help="Dataset of a case, CASE=DIR; repeatable. [samples]"
    ),
    preset: str | None = typer.Option(None, "--preset", help="Preset of the runs. [full; tiny on the CPU reference]"),
    sign: Path | None = typer.Option(None, "--sign", help="Sign the bundle with this ssh key.", metavar="KEY"),
    out: Path | None = typer.Option(None, "--out", help="Directory of everything. [qualify-VENDOR]"),
    resume: bool = typer.Option(
        False, "--resume", help="Continue the qualification in --out without repeating finished work."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the plan with its times, and start nothing."),
) -> None:
    """Prove what a vendor's cards can do, within a budget: checks, limits, runs, reports.

    The budget is divided among the stages first; time that a stage does not use goes to the next one. Ctrl-C stops the
    qualification, and --resume continues it. At the end, verdict.md says what may be claimed, what may not and why.
    Exit code 4 if a check failed.

    The shortest budget is a multiple of the time in which this machine starts the vendor's stack; a shorter one is
    refused with the shortest that would do.

    Example: perf qualify --vendor cpu --budget 20m --dry-run

    Example: perf qualify --vendor cpu --budget 20m --out proof

    Example: perf qualify --out proof --resume
    """
    require_torch()
    if resume:
        if out is None:
            raise UsageError("--resume needs --out", hint="name the directory of the qualification")
        directory = QualificationDirectory(out)
        state = directory.read()
        if (software := software_of(find_vendor(state.vendor))) != state.software:
            raise UsageError(
                f"the qualification in {out} was begun with {state.software}; now there is {software}",
                hint="results of one version say nothing about another: qualify again, with another --out",
            )
    else:
        state = _plan(vendor, budget, cases, data, preset, sign)
        directory = QualificationDirectory(out or Path(f"qualify-{state.vendor}"))
        directory.require_none()
    if dry_run:
        _print_plan(state)
        return
    sequence = ProcessSequence()
    with directory.locked():
        with sequence.stopping_at_signals(), stages_progress(state.stages, directory.log) as show:
            StageRunner(state, directory, sequence, show).carry_out()
        _write_verdict(state, directory)
    _end(state, directory, interrupted=sequence.interrupted)


def _plan(
    vendor: str | None, budget: str, cases: str, data: list[str], preset: str | None, sign: Path | None
) -> Qualification:
    budget_s = parse_duration(budget, "--budget")
    datasets = dict(_named(text) for text in data)
    chosen = choose_cases([name.strip() for name in cases.split(",") if name.strip()], datasets)
    if sign is not None and not sign.is_file():
        raise UsageError(f"{sign} is not a file", hint="--sign names a private ssh key")
    selection = select_vendor(vendor)
    # A busy card is refused before anything begins.
    plan_limits(selection, ranks=None, device_check=True)
    start_s = measure_start(selection)
    allotted = allotments(budget_s, start_s)
    name = selection.entry.name
    preset = preset or ("tiny" if name == REFERENCE_VENDOR else "full")
    given: Mapping[str, object] = {"vendor": name, "budget": budget, "cases": cases, "preset": preset, "sign": sign}
    words = [f"--{option}={value}" for option, value in given.items() if value]
    return Qualification(
        vendor=name,
        software=software_of(selection.entry),
        created_at=datetime.now(timezone.utc),
        command=shlex.join(["perf", "qualify", *words, *(f"--data={text}" for text in data)]),
        budget_s=budget_s,
        start_s=start_s,
        preset=preset,
        cases=chosen,
        candidates=candidates(selection, chosen),
        data=datasets,
        key=sign,
        stages=[QualifyStage(name=stage, allotted_s=seconds) for stage, seconds in allotted.items()],
    )


def _named(text: str) -> tuple[str, Path]:
    case, separator, directory = text.partition("=")
    if not separator:
        raise UsageError(f"--data {text!r} names no case", hint="write CASE=DIR")
    return case, Path(directory)


def _print_plan(state: Qualification) -> None:
    rows = [(stage.name, stage.state, format_duration(round(stage.allotted_s))) for stage in state.stages]
    print_table(("stage", "state", "at most, plus the time that earlier stages leave"), rows)
    suite = state.stage("suite")
    chosen, training_s = fitting(state.candidates, suite.allotted_s, state.start_s)
    count = state.runs or len(chosen)
    typer.echo(f"a start of the vendor's stack takes {state.start_s:.1f} s")
    typer.echo(f"runs, each with {format_duration(int(training_s))} of training, if no stage leaves time:")
    for place, candidate in enumerate(state.candidates):
        typer.echo(f"  {candidate.name}{'' if place < count else ': only if earlier stages leave time'}")


def _write_verdict(state: Qualification, directory: QualificationDirectory) -> None:
    from chipperf.web.pages import render_texts

    verdict = judge_qualification(state, directory)
    for language in LANGUAGES:
        suffix = "" if language == "en" else f".{language}"
        write_atomically(directory.path / f"verdict{suffix}.md", verdict_markdown(verdict, language))
    page = render_texts(
        "verdict",
        verdict.title,
        [(MAY, verdict.may or [NOTHING]), (MAY_NOT, verdict.may_not or [NOTHING])],
        language="en",
        repeat=REPEAT,
        command=verdict.command,
        time=verdict.time,
    )
    write_atomically(directory.path / "verdict.html", page)


def _end(state: Qualification, directory: QualificationDirectory, *, interrupted: bool) -> None:
    typer.echo(f"verdict: {directory.path / 'verdict.md'}")
    if interrupted:
        again = shlex.join(["perf", "qualify", f"--out={directory.path}", "--resume"])
        raise TrainingError("stopped by a signal: the qualification is not complete", hint=again)
    typer.echo(f"bundle: {directory.bundle}")
    failed = [stage for stage in state.stages if stage.state == "failed"]
    if failed:
        raise CheckFailed(
            "; ".join(f"{stage.name} failed: {stage.error}" for stage in failed),
            hint=f"what each stage printed is in {directory.path / 'logs'}",
        )

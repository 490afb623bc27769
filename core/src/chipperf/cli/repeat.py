"""``perf train --repeat``: the same training with several seeds, one after another."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import typer

from chipperf.cli.command_options import typed_parameters
from chipperf.cli.output import print_table, tell
from chipperf.cli.values import shown, shown_unit
from chipperf.errors import TrainingError, UsageError
from chipperf.launch.options import TrainOptions, check_options
from chipperf.launch.sequence import TRAIN_COMMAND, ProcessSequence, require_torch
from chipperf.records.repeats import ENOUGH_REPEATS, REPEATS_FILE, RepeatedRun, Repeats, repeat_seeds, summarize_repeats
from chipperf.run.directory import RunDirectory
from chipperf.suites.execution import state_after
from chipperf.suites.suite_plan import option_arguments
from chipperf.visible import counted

_OWN_PARAMETERS = ("case", "repeat", "seed", "out")
"""Parameters of ``perf train`` that are given to each run in another way."""


def repeat_training(context: typer.Context, options: TrainOptions, *, count: int) -> None:
    """Run ``perf train`` with the options on its command line once for each seed, and aggregate the runs' results."""
    case = options.case
    first_seed = check_options(options).hyperparameters().values.seed
    if options.launcher is not None:
        raise UsageError(
            "--repeat is for runs on one machine", hint="start each repeat by itself, with --seed and --out of its own"
        )
    root = options.out or Path("runs") / f"{case}-x{count}-{datetime.now():%Y%m%d-%H%M%S}"
    seeds = {f"repeat-{place}": seed for place, seed in enumerate(repeat_seeds(first_seed, count), start=1)}
    if (root / REPEATS_FILE).exists() or RunDirectory(root).plan.exists():
        raise UsageError(f"{root} already holds runs", hint="choose another --out; runs are never overwritten")
    for name in seeds:
        RunDirectory(root / name).require_no_run()
    require_torch()
    typed = [parameter for parameter in typed_parameters(context) if parameter.name not in _OWN_PARAMETERS]
    given = {each.opts[0].removeprefix("--"): context.params[each.name] for each in typed}
    # Each run has a seed of its own.
    given["set"] = [text for text in given.get("set", ()) if text.partition("=")[0].strip() != "seed"]
    same = option_arguments(given)
    sequence = ProcessSequence()
    runs: list[RepeatedRun] = []
    repeats = Repeats(case=case, planned=count, runs=[], metrics={})
    with sequence.stopping_at_signals():
        for name, seed in seeds.items():
            if sequence.interrupted:
                break
            tell(f"{name} of {count}: seed {seed}")
            code = sequence.run([*TRAIN_COMMAND, case, *same, f"--seed={seed}", f"--out={root / name}"])
            if code is None:
                break
            runs.append(RepeatedRun(directory=name, seed=seed, state=state_after(code, sequence)))
            root.mkdir(parents=True, exist_ok=True)
            repeats = summarize_repeats(case, count, runs, root, to=root / REPEATS_FILE)
    _print_repeats(repeats)
    typer.echo(f"repeats: {root / REPEATS_FILE}")
    if repeats.completed < count:
        how = "stopped by a signal: " if sequence.interrupted else ""
        states = ", ".join(f"{run.directory} {run.state}" for run in repeats.runs if run.state != "completed")
        raise TrainingError(
            f"{how}{repeats.completed} of {counted(count, 'run')} completed{f'; {states}' if states else ''}",
            hint="the errors are above, and in the record of each run",
        )


def _print_repeats(repeats: Repeats) -> None:
    print_table(
        ["metric", "unit", "result", "lowest", "highest", "runs"],
        [
            [
                name,
                shown_unit(one.unit, repeats.case),
                *(shown(each, one.unit, repeats.case) for each in (one.value, one.lowest, one.highest)),
                len(one.values),
            ]
            for name, one in repeats.metrics.items()
        ],
    )
    statistics = {one.statistic.replace("_", " ") for one in repeats.metrics.values()}
    few = f"; fewer than {ENOUGH_REPEATS} say nothing about the spread" if repeats.completed < ENOUGH_REPEATS else ""
    typer.echo(f"result: {', '.join(statistics) or 'none'} of {repeats.completed} completed runs{few}")

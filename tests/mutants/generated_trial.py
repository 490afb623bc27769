"""Holding the generated mutants to the contract, and the share that it finds of each hook's.

The good plugin shows which checks call which hook and how long they take. Only they can find a mutant of the hook: it
is held to the quick and particular ones first, and only until one fails. ``make mutants`` prints the table and fails if
fewer than 90 % are found, or if an argument in ``equivalent.py`` does not hold.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf.contract.check import all_checks, find_check

from mutants.generated import equivalents, generate, good_plugin_with_trace, hook_of
from mutants.trial import Workbench

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutants.mutant import Mutant

LEAST_SHARE = 0.9
"""What the contract has to find of the mutants that are no equivalents."""

RUNS = {
    "N5": ("perf_precision", "perf_prepare_model", "perf_seed"),
    "P8": ("perf_distributed_setup",),
    "R2": ("perf_telemetry",),
}
"""Checks of minutes, with the hooks that they are about: only mutants of these are held to them, and last."""

WITHOUT_CARDS = ({"ACME_DRIVER": "0"}, {"ACME_VISIBLE_CARDS": ""})
"""Machines on which a probe that is right on a machine with cards can be wrong, beside one without the software."""

SAME_RUN = {"R6": "R5"}
"""Checks that look at what another one's run has left, and so concern every hook of that run."""

Plan = dict[str, list[tuple[str, float]]]
"""For each hook, the checks that a mutant of it is held to, in this order, with their seconds with the good plugin."""


@dataclass(frozen=True)
class Outcome:
    """The first check that found a mutant, if one did, with its message, and how long the search took."""

    check: str = ""
    message: str = ""
    seconds: float = 0.0


def make_plan(root: Path) -> Plan:
    """Hold the good plugin to every check but the longest, and return which ones call which hook."""
    trace = root / "calls"
    called: dict[str, set[str]] = {}
    seconds = dict.fromkeys(RUNS, math.inf)
    with closing(_workbench(root)) as bench, bench.runner(_at(root, good_plugin_with_trace(str(trace)))) as runner:
        for check in all_checks():
            if check.id in RUNS:
                called[check.id] = set(RUNS[check.id])
                continue
            trace.write_text("", encoding="utf-8")
            result = runner.run(check)
            called[check.id] = set(trace.read_text(encoding="utf-8").split())
            seconds[check.id] = result.seconds
            print(f"{check.id:4} {result.status:15} {result.seconds:6.1f} s  {result.message}", flush=True)
    for id, origin in SAME_RUN.items():
        called[id] |= called[origin]
    # One that calls few hooks is about them, the others call most hooks only on their way.
    order = sorted(called, key=lambda id: seconds[id] * len(called[id]))
    hooks = sorted(set().union(*called.values()))
    return {hook: [(id, seconds[id]) for id in order if hook in called[id]] for hook in hooks}


def find(root: Path, plan: Plan, longest_s: float, mutant: Mutant) -> Outcome:
    """Return the first check that a mutant fails."""
    started_s = time.monotonic()
    ids = [id for id, seconds in plan.get(hook_of(mutant), ()) if seconds <= longest_s]
    found = _first_failure(root, mutant, ids)
    if hook_of(mutant) == "perf_probe":
        static = [id for id in ids if find_check(id).level == 0]
        for machine in WITHOUT_CARDS:
            found = found or _first_failure(root, replace(mutant, environment=machine), static)
        found = found or _first_failure(root, mutant, static, software=False)
    if hook_of(mutant) == "perf_environment":
        # Each environment has servers of its own.
        _workbench(root).close()
    return replace(found or Outcome(), seconds=time.monotonic() - started_s)


def _first_failure(root: Path, mutant: Mutant, ids: Sequence[str], *, software: bool = True) -> Outcome | None:
    with _workbench(root).runner(_at(root, mutant), software=software) as runner:
        for id in ids:
            # Files that the last check's calls have left would not be new.
            for left in _home(root).iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            result = runner.run(find_check(id))
            if result.status == "failed":
                return Outcome(check=id, message=result.message)
    return None


def _at(root: Path, mutant: Mutant) -> Mutant:
    """Let a mutant leave its files where they are removed."""
    return replace(mutant, environment={**mutant.environment, "HOME": str(_home(root))})


@cache
def _home(root: Path) -> Path:
    """Return the home, and from now on the working directory, of what this process starts."""
    home = Path(tempfile.mkdtemp(dir=root))
    os.chdir(home)
    return home


@cache
def _workbench(root: Path) -> Workbench:
    """Return the only workbench of this process; what it has started ends when the process does."""
    return Workbench(Path(tempfile.mkdtemp(dir=root)))


def main() -> None:
    """Print what finds each generated mutant, the share that is found of each hook's, and those that survive."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--only", default="", help="part of the names of the mutants to try, such as a hook's")
    parser.add_argument("--sample", type=int, help="how many of them to try; default all")
    parser.add_argument("--seed", type=int, default=0, help="chooses the sample")
    parser.add_argument("--longest", type=float, default=math.inf, help="leave out checks of more seconds than this")
    parser.add_argument("--plan", type=Path, help="file to keep what the good plugin shows in, for the next calls")
    arguments = parser.parse_args()
    mutants = generate()
    reasons = equivalents(mutants)
    chosen = [mutant for mutant in mutants if arguments.only in mutant.name]
    if arguments.sample is not None and arguments.sample < len(chosen):
        chosen = random.Random(arguments.seed).sample(chosen, arguments.sample)
    outcomes: dict[str, Outcome] = {}
    with (
        tempfile.TemporaryDirectory() as directory,
        ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool,
    ):
        root = Path(directory)
        if arguments.plan and arguments.plan.exists():
            plan = json.loads(arguments.plan.read_text(encoding="utf-8"))
        else:
            plan = pool.submit(make_plan, root).result()
        if arguments.plan:
            arguments.plan.write_text(json.dumps(plan), encoding="utf-8")
        trials = pool.map(partial(find, root, plan, arguments.longest), chosen)
        for mutant, outcome in zip(chosen, trials, strict=True):
            outcomes[mutant.name] = outcome
            print(f"{mutant.name:60} {outcome.check or '-':4} {outcome.seconds:6.1f} s  {outcome.message}", flush=True)
    sys.exit(report(outcomes, reasons))


def report(outcomes: dict[str, Outcome], reasons: dict[str, str]) -> bool:
    """Print the table of the hooks and the survivors; return whether too few were found or an argument is wrong."""
    columns = ("generated", "found", "equivalent", "survived")
    counts: dict[str, Counter[str]] = {}
    survivors = []
    wrong = [name for name in outcomes if outcomes[name].check and name in reasons]
    for name, outcome in outcomes.items():
        count = counts.setdefault(name.partition(":")[0], Counter())
        column = "found" if outcome.check else "equivalent" if name in reasons else "survived"
        count.update(("generated", column))
        if column == "survived":
            survivors.append(name)
    counts["all"] = sum(counts.values(), Counter())
    print(f"{'hook':26}" + "".join(f"{column:>12}" for column in columns) + f"{'share':>8}")
    for hook, count in counts.items():
        share = count["found"] / max(1, count["found"] + count["survived"])
        print(f"{hook:26}" + "".join(f"{count[column]:12}" for column in columns) + f"{share:8.0%}")
    print("survivors:", *(survivors or ["none"]), sep="\n  ")
    if wrong:
        print("found, though equivalent.py argues that they are equivalent:", *wrong, sep="\n  ")
    return bool(wrong) or share < LEAST_SHARE


if __name__ == "__main__":
    main()

"""Carrying out the contract on mutants, and the table *check x mutant*.

``make mutants`` prints the table. It holds every mutant to all checks up to the highest level at which it must fail.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from acme_stack import environment
from chipperf.contract.registry import all_checks
from chipperf.contract.statement import Statement
from support import perf_command

import mutants
from mutants.mutant import install_mutant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutants.mutant import Mutant

TIMEOUT_S = 900


def all_mutants() -> list[Mutant]:
    """Return the mutants of every area, ordered by the checks they are made for."""
    names = (module.name for module in pkgutil.iter_modules(mutants.__path__) if not module.name.startswith("test_"))
    areas = [importlib.import_module(f"mutants.{name}") for name in names if name != "trial"]
    found = [mutant for area in areas for mutant in getattr(area, "MUTANTS", ())]
    positions = {check.id: position for position, check in enumerate(all_checks())}
    return sorted(found, key=lambda mutant: [positions[id] for id in mutant.kills])


def carry_out(mutant: Mutant, site: Path, checks: Sequence[str]) -> Statement:
    """Install a mutant in ``site`` and hold it to some checks."""
    install_mutant(mutant, site)
    chosen = [argument for id in checks for argument in ("--check", id)]
    completed = subprocess.run(
        perf_command("contract", "run", "--vendor", "acme", "--json", *chosen),
        env=environment(site, **mutant.environment),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    try:
        return Statement.model_validate_json(completed.stdout)
    except ValueError as error:
        raise AssertionError(f"{mutant.name}: no statement: {completed.stdout}{completed.stderr}") from error


def failed(statement: Statement) -> set[str]:
    """Return the ids of the checks that failed."""
    return {result.check for result in statement.results if result.verdict == "failed"}


def main() -> None:
    """Print which checks find which mutant, and fail unless each mutant is found by its checks alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--only", default="", help="part of the names of the mutants to try")
    arguments = parser.parse_args()
    chosen = [mutant for mutant in all_mutants() if arguments.only in mutant.name]

    def killers(mutant: Mutant) -> set[str]:
        highest = max(check.level for check in all_checks() if check.id in mutant.kills)
        checks = [check.id for check in all_checks() if check.level <= highest]
        with tempfile.TemporaryDirectory() as site:
            return failed(carry_out(mutant, Path(site), checks))

    wrong = 0
    killed: set[str] = set()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for mutant, found in zip(chosen, pool.map(killers, chosen), strict=True):
            expected = set(mutant.kills)
            killed |= found & expected
            remark = "" if found == expected else f"   EXPECTED {' '.join(sorted(expected))}"
            wrong += found != expected
            print(f"{mutant.name:50} {' '.join(sorted(found)) or '-'}{remark}", flush=True)
    never = [check.id for check in all_checks() if check.id not in killed]
    print(f"{len(chosen)} mutants, {wrong} not found by their checks alone; {len(killed)} checks killed one")
    if never and not arguments.only:
        print(f"never killed: {' '.join(never)}")
    sys.exit(bool(wrong or (never and not arguments.only)))


if __name__ == "__main__":
    main()

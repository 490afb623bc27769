"""Carrying out the contract on mutants, and the table *check x mutant*.

``make mutants`` prints the table. It holds good plugins of every shape to all checks, and every mutant to those up to
the highest level at which it must fail. Long checks it holds only the mutants made for them to, unless ``--long`` is
given.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from acme_stack import RUNTIME_SITE, environment
from chipperf.contract.check import all_checks
from chipperf.contract.check_runner import Runner
from chipperf.contract.isolation import ForkServers
from chipperf.contract.statement import Statement, make_statement
from chipperf.plugin.installed import find_vendor

import mutants
from mutants.mutant import Mutant, install_mutant

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


GOOD = Mutant(name="good", kills=(), changes=())
"""The plugin that all mutants are made of."""

LONG_CHECKS = {"D6", "D10", "M7", "N5", "N8", "P8", "R2", "R5", "R6"}
"""Checks that take seconds to minutes, and one that finds every mutant that patches torch instead of the backend."""


def all_mutants() -> list[Mutant]:
    """Return the mutants of every area, ordered by the checks they are made for."""
    names = (module.name for module in pkgutil.iter_modules(mutants.__path__) if not module.name.startswith("test_"))
    areas = [importlib.import_module(f"mutants.{name}") for name in names if not name.endswith("trial")]
    found = [mutant for area in areas for mutant in getattr(area, "MUTANTS", ())]
    positions = {check.id: position for position, check in enumerate(all_checks())}
    return sorted(found, key=lambda mutant: [positions[id] for id in mutant.kills])


class Workbench:
    """Where one mutant after the other is held to the contract, in processes that all of them are forked from.

    Only the plugin differs between mutants, and none of these processes imports it: torch is imported once for all.

    Args:
        site: Directory to install each mutant in.
    """

    def __init__(self, site: Path) -> None:
        self._site = site
        self._servers = ForkServers()

    @contextmanager
    def runner(self, mutant: Mutant, *, software: bool = True) -> Iterator[Runner]:
        """Install a mutant instead of the last one, with or without the vendor's software, to hold it to checks."""
        # Compiled modules of the last one as well: within a second, Python takes them for this one's.
        shutil.rmtree(self._site)
        self._site.mkdir()
        install_mutant(mutant, self._site)
        sites = [str(self._site), *([str(RUNTIME_SITE)] if software else [])]
        changes = {} if software else {"PYTHONPATH": str(self._site)}
        variables = environment(self._site, **changes, **mutant.environment)
        with (
            patch.object(sys, "path", [*sites, *sys.path]),
            patch.dict(os.environ, variables, clear=True),
            Runner(find_vendor("acme"), servers=self._servers) as runner,
        ):
            yield runner

    def carry_out(self, mutant: Mutant, checks: Collection[str]) -> Statement:
        """Install a mutant instead of the last one, and hold it to some checks."""
        chosen = [check for check in all_checks() if check.id in checks]
        with self.runner(mutant) as runner:
            results = [runner.run(check) for check in chosen]
            readiness = runner.readiness if any(check.level for check in chosen) else runner.static_readiness
            return make_statement(runner.entry, readiness, results, {}, level=None)

    def close(self) -> None:
        """End the processes."""
        self._servers.close()


def failed(statement: Statement) -> set[str]:
    """Return the ids of the checks that failed."""
    return {result.check for result in statement.results if result.verdict == "failed"}


@cache
def _workbench(root: Path) -> Workbench:
    """Return the only workbench of this process; what it has started ends when the process does."""
    return Workbench(Path(tempfile.mkdtemp(dir=root)))


def killers(root: Path, left_out: Collection[str], mutant: Mutant) -> set[str]:
    """Return which checks a mutant fails, up to the highest level at which it must fail one.

    A good plugin meets all, and those count too that do not run for another reason than its machine.

    Args:
        root: Directory to install mutants below.
        left_out: Checks that only mutants made for them are held to.
        mutant: What to hold to the contract.
    """
    checks = all_checks()
    if mutant.kills:
        highest = max(check.level for check in checks if check.id in mutant.kills)
        unmet = set(left_out).difference(mutant.kills)
        checks = [check for check in checks if check.level <= highest and check.id not in unmet]
    chosen = [check.id for check in checks]
    statement = _workbench(root).carry_out(mutant, chosen)
    silent = {result.check for result in statement.results if result.verdict == "not_run" and not mutant.kills}
    return failed(statement) | silent.difference(mutant.not_run)


def main() -> None:
    """Print which checks find which mutant, and fail unless each mutant is found by its checks alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--long", action="store_true", help="hold every mutant to the long checks too; takes hours")
    parser.add_argument("--only", default="", help="part of the names of the mutants to try")
    arguments = parser.parse_args()
    chosen = [mutant for mutant in (GOOD, *all_mutants()) if arguments.only in mutant.name]
    left_out = () if arguments.long else LONG_CHECKS
    wrong = 0
    killed: set[str] = set()
    with (
        tempfile.TemporaryDirectory() as root,
        ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool,
    ):
        for mutant, found in zip(chosen, pool.map(partial(killers, Path(root), left_out), chosen), strict=True):
            expected = set(mutant.kills)
            killed |= found & expected
            remark = "" if found == expected else f"   EXPECTED {' '.join(sorted(expected))}"
            wrong += found != expected
            print(f"{mutant.name:50} {' '.join(sorted(found)) or '-'}{remark}", flush=True)
    never = [check.id for check in all_checks() if check.id not in killed]
    print(f"{len(chosen)} plugins, {wrong} not found by their checks alone; {len(killed)} checks killed one")
    if never and not arguments.only:
        print(f"never killed: {' '.join(never)}")
    sys.exit(bool(wrong or (never and not arguments.only)))


if __name__ == "__main__":
    main()

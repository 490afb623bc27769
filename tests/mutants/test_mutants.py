"""The checks find the mutants that are made for them, and nothing in the good plugin.

That no other check finds them says ``make mutants``, which the hosted workflow runs every week.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from acme_build import CompilerMissing, library
from chipperf.contract.check import all_checks

from mutants.mutant import install_mutant
from mutants.trial import GOOD, Workbench, all_mutants, failed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mutants.mutant import Mutant


RATIO_OF_TIMES = {"R2"}
"""Checks whose verdict other work on the machine can change: their mutants are tried by ``make mutants`` alone."""


@pytest.fixture(scope="session")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    try:
        library()
    except CompilerMissing as error:
        pytest.skip(f"the simulated accelerator cannot be built: {error}")
    with closing(Workbench(tmp_path_factory.mktemp("site"))) as bench:
        yield bench


def representatives() -> list[Mutant]:
    """Return the first mutant of each check.

    One that fails several checks makes all of them work to the end, so those that fail a single one come first.
    """
    chosen: list[Mutant] = []
    for mutant in sorted(all_mutants(), key=lambda mutant: len(mutant.kills)):
        known = RATIO_OF_TIMES.union(*(earlier.kills for earlier in chosen))
        if not known.issuperset(mutant.kills):
            chosen.append(mutant)
    return chosen


@pytest.mark.parametrize("mutant", representatives(), ids=lambda mutant: mutant.name)
def test_mutant_fails_its_checks(mutant: Mutant, workbench: Workbench) -> None:
    statement = workbench.carry_out(mutant, mutant.kills)
    messages = {result.check: result.message for result in statement.results if result.verdict == "failed"}
    assert failed(statement) == set(mutant.kills), messages


@pytest.mark.slow  # Starts two training runs, and trains the first steps of every case.
def test_good_plugin_fails_no_check(workbench: Workbench) -> None:
    checks = [check.id for check in all_checks() if check.id not in RATIO_OF_TIMES]
    statement = workbench.carry_out(GOOD, checks)
    assert {r.check: r.message for r in statement.results if r.verdict in ("failed", "not_run")} == {}


def test_every_mutant_can_be_made_of_the_good_plugin(tmp_path: Path) -> None:
    for number, mutant in enumerate(all_mutants()):
        (tmp_path / str(number)).mkdir()
        install_mutant(mutant, tmp_path / str(number))


def test_every_check_is_killed_by_a_mutant() -> None:
    assert {check.id for check in all_checks()} == {id for mutant in all_mutants() for id in mutant.kills}

"""Every benchmark runs at its smallest size and prints the common table; its figures are not judged.

Each is a fork of a process that has imported torch and chipperf: to start them would cost more than what they measure.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import run_all
import side_by_side
from support import run

HERE = Path(run_all.__file__).parent


def rows(printed: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if line[:1] == "|"]


@pytest.mark.parametrize("script", run_all.benchmarks(), ids=lambda path: path.stem)
def test_a_benchmark_ends_and_prints_a_table_of_finite_numbers(script: Path) -> None:
    done = run([sys.executable, str(script), "--smallest"], dict(os.environ))

    assert done.returncode == 0, done.stderr
    header, rule, *lines = rows(done.stdout)
    assert header == list(side_by_side.COLUMNS)
    assert len(rule) == len(header)
    assert lines
    for what, ours, beside, there, ratio, spread, rounds in lines:
        assert what
        assert beside
        low, high = re.fullmatch(r"\[(.+), (.+)\]", spread).groups()
        figures = [ours.partition(" ")[0], there.partition(" ")[0], ratio, low, high]
        assert all(math.isfinite(float(figure)) for figure in figures), done.stdout
        assert float(low) <= float(ratio) <= float(high)
        assert int(rounds) >= 1
    assert re.search(r"^Other programs kept \d+\.\d\d of \d+ cores busy meanwhile", done.stdout, re.MULTILINE)


def test_the_page_has_what_went_well_and_names_what_failed(tmp_path: Path) -> None:
    texts = {"a": "print('half'); raise SystemExit(3)", "b": '"""Speed of b.\n\nMore."""\nprint("| 1 |")'}
    scripts = [tmp_path / f"{name}.py" for name in texts]
    for script in scripts:
        script.write_text(texts[script.stem])

    failed = run_all.write_page(scripts, tmp_path / "build" / "page.md")

    assert failed == ["a"]
    page = (tmp_path / "build" / "page.md").read_text()
    assert re.search(r"## a\n\n\n\nhalf\n\n\*\*Failed\*\* with exit code 3 after", page)
    assert re.search(r"## b\n\nSpeed of b\.\n\n\| 1 \|\n\nDone after \d+ s", page)
    assert "| Cores | " in page


def test_an_unknown_benchmark_is_named() -> None:
    done = subprocess.run([sys.executable, run_all.__file__, "nothing"], capture_output=True, text=True)

    assert done.returncode == 2
    assert "no benchmark nothing; there are ddp_overhead" in done.stderr


def test_medians_and_quartiles_are_those_of_the_ratios_of_each_round() -> None:
    line = side_by_side.compared("a", [1.0, 4.0, 3.0], "b", [1.0, 2.0, 2.0])

    assert (line.ours, line.there, line.rounds) == (3, 2, 3)
    assert (line.low, line.ratio, line.high) == (1.25, 1.5, 1.75)


def test_a_share_has_the_interval_of_wilson() -> None:
    # Agresti and Coull, Approximate is better than "exact" for interval estimation, The American Statistician 52, 1998.
    line = side_by_side.share("a", 0, 10, "b", 0.5)

    assert (line.low, line.ratio) == (0, 0)
    assert line.high * 0.5 == pytest.approx(1.96**2 / (10 + 1.96**2))


def test_ways_run_in_alternating_order_and_as_often_as_asked() -> None:
    order: list[str] = []
    ways = {name: lambda name=name: order.append(name) for name in "ab"}

    found = side_by_side.in_turn(ways, 2)

    assert order == ["b", "a", "a", "b"]
    assert {name: len(results) for name, results in found.items()} == {"a": 2, "b": 2}

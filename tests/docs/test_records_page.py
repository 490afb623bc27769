"""The page on records: its program runs, and its table is that of the code."""

from __future__ import annotations

import re
import runpy
from typing import TYPE_CHECKING

from chipperf import records
from documents import ROOT, blocks

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PAGE = ROOT / "docs" / "records.md"
make_record = runpy.run_path(str(ROOT / "tests" / "report" / "factory.py"))["make_record"]


def write(directory: Path, **changes: object) -> None:
    directory.mkdir(parents=True)
    (directory / "record.json").write_text(make_record(**changes).model_dump_json(), encoding="utf-8")


def test_program_prints_every_run_and_the_fastest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "runs" / "a", run_id="a", metrics__p_core=5000.0, environment__row_label="A2")
    write(tmp_path / "runs" / "b", run_id="b", metrics__p_core=4000.0)
    write(tmp_path / "runs" / "c", run_id="c", metrics__p_core=9000.0, status={"state": "killed"})
    monkeypatch.chdir(tmp_path)
    (program,) = blocks(PAGE, "python")

    exec(compile(program, str(PAGE), "exec"), {})

    assert capsys.readouterr().out.splitlines() == [
        *("a completed 1.2.3", "b completed 1.2.3", "c killed 1.2.3"),
        f"A2 5000.0 {21 * 2**30} None",
    ]


def test_keys_and_units_are_those_of_a_row(tmp_path: Path) -> None:
    write(tmp_path / "run")
    (row,) = records.table([tmp_path])
    described = re.findall(r"^\| `(\w+)` \| (\S*) \| ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    keys = [key for key in row if not key.endswith("_missing")]

    assert [key for key, _ in described] == keys
    assert {key: unit for key, unit in described if key in records.UNITS} == records.UNITS


def test_public_names_are_described() -> None:
    names = re.findall(r"^\| `(\w+)(?:\(\w+\))?` \| (?!\S* \|)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)

    assert set(names) >= set(records._PLACES)

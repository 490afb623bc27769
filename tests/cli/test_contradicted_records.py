"""A record that the files of its run contradict is marked or refused by every command that shows or packs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from invocation import Invoke
    from support import FinishedRun

FINDING = "metrics.curve is 0.25, events.jsonl at step "


@pytest.fixture
def runs(trained_run: FinishedRun, tmp_path: Path) -> Path:
    """A run as it was measured, and one with another result than its events say; both have the same id."""
    honest = shutil.copytree(trained_run.directory, tmp_path / "runs" / "honest")
    edited = shutil.copytree(honest, tmp_path / "runs" / "edited")
    record = json.loads((edited / "record.json").read_text(encoding="utf-8"))
    record["metrics"]["curve"][-1]["value"] = record["metrics"]["quality"] = record["metrics"]["best_quality"] = 0.25
    (edited / "record.json").write_text(json.dumps(record), encoding="utf-8")
    return tmp_path / "runs"


def bare(runs: Path) -> Path:
    """Return a directory with nothing but the record."""
    (runs.parent / "bare").mkdir()
    return Path(shutil.copy(runs / "honest" / "record.json", runs.parent / "bare" / "record.json")).parent


def test_lists_say_which_record_is_not_what_was_measured(invoke: Invoke, runs: Path) -> None:
    verdicts = {line.split()[-1].rpartition("/")[2]: line for line in invoke("runs", runs).out.splitlines()}
    assert ", implausible" in verdicts["edited"]
    assert ", " not in verdicts["honest"]
    assert ", no evidence" in invoke("runs", bare(runs)).out

    found = {row["file"].split("/")[-2]: row for row in json.loads(invoke("runs", runs, "--json").out)["runs"]}
    assert FINDING in found["edited"]["implausible"]
    assert (found["honest"]["implausible"], found["honest"]["lacks_evidence"]) == (None, False)


def test_show_says_what_contradicts_a_record_and_if_nothing_confirms_it(invoke: Invoke, runs: Path) -> None:
    assert f"evidence: {FINDING}" in invoke("show", runs / "edited").out
    assert FINDING in json.loads(invoke("show", runs / "edited", "--json").out)["implausible"]
    honest = invoke("show", runs / "honest").out
    assert "implausible" not in honest
    assert "no evidence" not in honest

    shown = bare(runs)
    assert "no evidence: no events of the run are beside its record" in invoke("show", shown).out
    assert json.loads(invoke("show", shown, "--json").out)["lacks_evidence"]


def test_compare_has_a_footnote(invoke: Invoke, runs: Path) -> None:
    assert f"implausible: {FINDING}" in invoke("compare", runs / "edited").out
    assert f"implausible: {FINDING}" in invoke("compare", runs / "edited", "--curve", "accuracy").err
    assert "[1] no evidence: " in invoke("compare", bare(runs)).out
    honest = invoke("compare", runs / "honest").out
    assert "implausible" not in honest
    assert "no evidence" not in honest


def test_compare_refuses_records_of_one_run_that_differ(invoke: Invoke, runs: Path) -> None:
    ended = invoke("compare", runs / "honest", runs / "edited")

    assert ended.code == 2
    assert f"{runs / 'honest'} and {runs / 'edited'} are records of one run, " in ended.err
    assert invoke("compare", runs / "honest", shutil.copytree(runs / "honest", runs / "copy")).code == 0


@pytest.mark.parametrize(
    "command", [("report", "--out", "README.md"), ("report",), ("bundle", "--out", "b.tar.gz")], ids=" ".join
)
def test_a_report_and_a_bundle_are_refused(invoke: Invoke, runs: Path, command: tuple[str, ...]) -> None:
    name, *options = command
    ended = invoke(name, runs / "edited", *options)

    assert (ended.code, ended.out) == (4, "")
    assert f"{runs / 'edited' / 'record.json'}: {FINDING}" in ended.err
    assert not any(runs.parent.glob("*.*"))
    assert invoke(name, runs / "honest", *options).code == 0


def test_a_baseline_that_its_events_contradict_is_refused(invoke: Invoke, runs: Path) -> None:
    ended = invoke("report", runs / "honest", "--baseline", runs / "edited")

    assert (ended.code, ended.out) == (4, "")


def test_a_web_page_marks_the_record(invoke: Invoke, runs: Path) -> None:
    ended = invoke("report", runs / "edited", "--format", "html")

    assert ended.code == 0
    assert f"evidence: {FINDING}" in ended.out

"""Pages compare each record with the files of its run beside it, and say if there are none."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from chipperf.languages import in_language
from chipperf.web.board import make_boards, mark_doubles, summarize
from chipperf.web.site_files import build_site
from web_records import EXAMPLES, failed, make_run

if TYPE_CHECKING:
    from chipperf.web.board import RunRow
    from support import FinishedRun

HONEST = replace(summarize(EXAMPLES[0]), digest="a" * 64)
MARKS = {"no evidence": "无运行依据", "implausible": "不可信"}


@pytest.fixture(autouse=True)
def every_record_is_plausible() -> None:
    """Nothing here: these tests are about the checks that the other tests of pages leave out."""


def edit(file: Path) -> None:
    record = json.loads(file.read_text(encoding="utf-8"))
    record["metrics"]["curve"][-1]["value"] = record["metrics"]["quality"] = record["metrics"]["best_quality"] = 1.0
    file.write_text(json.dumps(record), encoding="utf-8")


def marks(text: str) -> set[str]:
    return {en for en, zh in MARKS.items() if f'<span lang="zh">{zh}</span><span lang="en">{en}</span></span>' in text}


@pytest.mark.parametrize(
    ("is_bare", "is_edited", "expected"),
    [(False, False, set()), (True, False, {"no evidence"}), (False, True, {"implausible"})],
    ids=["as measured", "without evidence", "edited"],
)
def test_pages_say_what_the_files_of_a_run_say(
    trained_run: FinishedRun, tmp_path: Path, is_bare: bool, is_edited: bool, expected: set[str]
) -> None:
    run = shutil.copytree(trained_run.directory, tmp_path / "runs" / "run")
    if is_bare:
        (run / "events.jsonl").unlink()
    if is_edited:
        edit(run / "record.json")
    site = build_site(tmp_path / "runs", tmp_path / "site", language="en").index.parent
    (row,) = csv.DictReader((site / "runs.csv").read_text(encoding="utf-8").splitlines())
    pages = [path.read_text(encoding="utf-8") for path in site.rglob("*.html")]

    assert len(pages) == 2
    for text in pages:
        assert marks(text) == expected
        assert ("evidence: metrics.curve is 1.0, events.jsonl at step" in text) is is_edited
    assert (row["lacks_evidence"] in ("True", "true")) is is_bare
    assert ("evidence: metrics.curve is 1.0" in row["implausible"]) is is_edited


@pytest.mark.parametrize("changes", [{"kind": "simulated"}, {"kind": "imported"}, {}])
def test_only_a_measured_run_lacks_evidence(changes: dict[str, str]) -> None:
    assert summarize(make_run(**changes)).lacks_evidence is not bool(changes)
    assert not summarize(failed()).lacks_evidence


def test_a_run_without_evidence_has_no_rank_and_is_below_those_with_it() -> None:
    faster = replace(HONEST, digest="b" * 64, run_id="b", lacks_evidence=True, throughputs=(1e9, 1e9, 1e9))
    (board,) = make_boards([faster, HONEST], most_rows=10)

    assert [(row.digest[0], rank) for row, rank in zip(board.rows, board.ranks, strict=True)] == [
        ("a", (1, 1)),
        ("b", None),
    ]


COPY = replace(HONEST, digest="b" * 64)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([HONEST, COPY], "ab"),
        ([HONEST, HONEST], ""),
        ([HONEST, replace(COPY, run_id="b")], ""),
        ([HONEST, replace(COPY, verdict="not_completed")], ""),
        ([HONEST, replace(COPY, withheld=("seed",))], ""),
        ([replace(row, key=replace(row.key, kind="imported")) for row in (HONEST, COPY)], ""),
        ([HONEST, replace(COPY, lacks_evidence=True)], "b"),
        ([HONEST, replace(COPY, implausible=("seed is 1",))], "b"),
        ([replace(HONEST, lacks_evidence=True), replace(COPY, lacks_evidence=True)], "ab"),
    ],
    ids=[
        "differ",
        "same record",
        "other run",
        "not completed",
        "withheld",
        "imported twice",
        "no evidence",
        "implausible",
        "none has evidence",
    ],
)
def test_records_of_one_run_that_differ_have_no_rank_but_for_one_with_evidence(
    rows: list[RunRow], expected: str
) -> None:
    marked = [row for row in mark_doubles(rows) if row.implausible and "has other content" in str(row.implausible[-1])]

    assert "".join(row.digest[0] for row in marked) == expected
    for row in marked:
        assert (row.throughputs, row.curve, row.measured) == ((None, None, None), (), None)
        assert in_language(row.implausible[-1], "zh") == f"运行 {row.run_id} 另有一条内容不同的记录"


def test_the_board_and_the_table_of_values_mark_records_of_one_run_that_differ(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / "runs" / str(number)).mkdir(parents=True)
        record = EXAMPLES[0].model_copy(update={"warnings": [str(number)]})
        (tmp_path / "runs" / str(number) / "record.json").write_text(record.model_dump_json(), encoding="utf-8")
    site = build_site(tmp_path / "runs", tmp_path / "site", language="en").index.parent
    finding = f"another record of run {EXAMPLES[0].run_id} has other content"

    assert (site / "index.html").read_text(encoding="utf-8").count(finding) >= 2
    rows = list(csv.DictReader((site / "runs.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["implausible"] for row in rows] == [finding, finding]

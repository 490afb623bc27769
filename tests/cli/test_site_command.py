"""``perf site`` and ``perf report --format html``: what they write, and what they say."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from example_records import MEASURED

if TYPE_CHECKING:
    from pathlib import Path

    from invocation import Invoke


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    (tmp_path / "runs" / "detr").mkdir(parents=True)
    shutil.copy(MEASURED, tmp_path / "runs" / "detr")
    return tmp_path / "runs"


def test_site_is_written(invoke: Invoke, runs: Path, tmp_path: Path) -> None:
    ended = invoke("site", "runs", "--out", "site", "--lang", "en")

    assert (ended.code, ended.out) == (0, "")
    assert ended.err.splitlines()[-1] == "wrote site/index.html, pages of runs: 1"
    assert '<html lang="en">' in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")


def test_unreadable_records_are_noted_and_stop_nothing(invoke: Invoke, runs: Path) -> None:
    for number in range(12):
        (runs / f"bad{number:02}").mkdir()
        (runs / f"bad{number:02}" / "record.json").write_text("[")
    ended = invoke("site", "runs", "--out", "site")

    assert ended.code == 0
    assert ended.err.count("note: not readable: bad") == 10
    assert "note: not readable: bad00/record.json: record.json:1:2: not JSON: Expecting value" in ended.err
    assert "note: 2 more are listed on the page" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("site", "none", "--out", "site"), "none is not a directory"),
        (("site", "runs/detr/record.json", "--out", "site"), "record.json is not a directory"),
        (("site", "empty", "--out", "site"), "there is no record.json in empty"),
        (("site", "runs", "--out", "runs"), "runs contains files that are not a site of chipperf"),
        (("site", "runs", "--out", "site", "--templates", "none"), "template directory none does not exist"),
        (("report", "runs/detr", "--format", "html", "--out", "none/report.html"), "none is not a directory"),
        (("report", "runs/detr", "--format", "html", "--baseline", "runs/detr"), "a page shows all runs alike"),
    ],
)
def test_bad_input_is_one_line_and_a_hint(
    invoke: Invoke, runs: Path, tmp_path: Path, arguments: tuple[str, ...], error: str
) -> None:
    (tmp_path / "empty").mkdir()
    ended = invoke(*arguments)

    lines = ended.err.strip().splitlines()
    assert ended.code == 2
    assert lines[-2].startswith("perf: error: ")
    assert error in lines[-2]
    assert lines[-1].startswith("  hint: ")
    assert not (tmp_path / "site").exists()


def test_report_is_one_page_of_all_runs(invoke: Invoke, runs: Path, tmp_path: Path) -> None:
    ended = invoke("report", "runs/detr", "--format", "html", "--lang", "en", "--out", "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")

    assert (ended.code, ended.out, ended.err) == (0, "", "wrote report.html\n")
    assert text.startswith("<!doctype html>")
    assert "Sample dataset" in text
    assert 'href="../index.html"' not in text


def test_report_goes_to_standard_output(invoke: Invoke, runs: Path) -> None:
    ended = invoke("report", "runs/detr", "--format", "html")

    assert ended.code == 0
    assert ended.out.startswith('<!doctype html>\n<html lang="zh">')
    assert ended.out.endswith("</html>\n")

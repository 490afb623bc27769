"""``perf lint``."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from chipperf.languages import LANGUAGES
from chipperf.lint.rule import all_rules
from chipperf.records.store import read_record

SEED = Path(__file__).parents[1] / "report" / "seeds" / "metax-resnet50.md"


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "a,b: c.md"
    path.write_text(SEED.read_text(encoding="utf-8"), encoding="utf-8")
    return path


def test_text_names_place_rule_reason_and_remedy(invoke, report):
    ended = invoke("lint", report)

    assert ended.code == 4
    assert f"{report}:29:14: error L01 foreign-card: the short name 'nvidia A100' names 'nvidia'" in ended.out
    assert (
        "L01 foreign-card: the row is read as a measurement of another vendor's card. To do: write the card"
        in ended.out
    )
    assert "not checked: L07, L08, L09, L10, L29: no configurations beside it: --config DIR" in ended.out
    assert "1 documents: 18 errors, 2 warnings, 0 accepted" in ended.out
    assert "perf: error: 18 errors in 1 document" in ended.err


def test_json_has_everything(invoke, report):
    content = json.loads(invoke("lint", report, "--format", "json").out)

    assert content["errors"] == 18
    first = content["findings"][0]
    assert (first["rule"], first["line"], first["column"], first["accepted"]) == ("L01", 29, 14, None)
    assert {each["rule"] for each in content["not_checked"]} >= {"L07", "L19"}
    assert [each["id"] for each in content["rules"]] == [rule.id for rule in all_rules()]


def test_sarif_names_rules_and_regions(invoke, report):
    report.write_text(
        report.read_text(encoding="utf-8") + "\n<!-- perf lint: ignore-file L01: kept -->\n", encoding="utf-8"
    )

    content = json.loads(invoke("lint", report, "--format", "sarif").out)

    (run,) = content["runs"]
    assert content["version"] == "2.1.0"
    results = {each["ruleId"]: each for each in run["results"]}
    assert set(results) <= {each["id"] for each in run["tool"]["driver"]["rules"]}
    location = results["L01"]["locations"][0]["physicalLocation"]
    assert location["region"] == {"startLine": 29, "startColumn": 14}
    assert location["artifactLocation"]["uri"].endswith("/a%2Cb%3A%20c.md")
    assert results["L01"]["suppressions"] == [{"kind": "inSource", "justification": "kept"}]
    assert results["L04"]["suppressions"] == []
    notes = run["invocations"][0]["toolExecutionNotifications"]
    assert any("L07 not checked" in note["message"]["text"] for note in notes)


def test_github_annotations_are_escaped(invoke, report):
    lines = invoke("lint", report, "--format", "github").out.splitlines()

    assert lines[0].startswith("::error file=")
    assert "a%2Cb%3A c.md,line=29,col=14,title=L01 foreign-card::the short name" in lines[0]
    assert any(line.startswith("::debug::") and "L07 not checked" in line for line in lines)


def test_warnings_alone_are_no_failure(invoke, report):
    ended = invoke("lint", report, "--select", "L06,L16")

    assert (ended.code, ended.err) == (0, "")
    assert "0 errors, 2 warnings" in ended.out


def test_rules_are_selected_and_ignored(invoke, report):
    assert "L01" not in invoke("lint", report, "--ignore", "l01", "--ignore", "L06").out.replace("--", "")
    assert invoke("lint", report, "--select", "L99").code == 2


def test_vendor_and_case_may_be_said(invoke, report):
    text = invoke("lint", report, "--vendor", "nvidia", "--select", "L01").out

    assert "'MXC500' names 'MXC500' of metax; the report is nvidia's" in text


def test_against_a_run(invoke, report, tmp_path):
    invoke("report", "import", SEED, "--out", "imported")
    runs = sorted((tmp_path / "imported").iterdir())

    ended = invoke("lint", report, "--select", "L07", *(item for run in runs for item in ("--against", run)))

    assert (ended.code, ended.out) == (0, "1 documents: 0 errors, 0 warnings, 0 accepted\n")


def test_rendered_report_with_curves_has_no_findings_and_imports(invoke, tmp_path):
    make_record = runpy.run_path(str(SEED.parents[1] / "factory.py"))["make_record"]
    curve = [
        {
            "epoch": epoch,
            "step": 5004 * epoch,
            "value": 0.007561 * epoch,
            "elapsed_s": 1.0 * epoch,
            "samples": 50_000,
        }
        for epoch in range(1, 101)
    ]
    record = make_record(
        metrics__curve=curve,
        metrics__time_to_target={"seconds": 100.0, "epoch": 100},
        metrics__p_whole=4470.0,
        hyperparameters__values={"batch_size": 32, "epochs": 100},
    )
    (tmp_path / "record.json").write_text(record.model_dump_json())
    for language in LANGUAGES:
        assert invoke("report", "record.json", "--lang", language, "--out", f"{language}.md").code == 0

        ended = invoke("lint", f"{language}.md", "--vendor", "acme", "--against", "record.json")

        assert ended.out.splitlines()[-1] == "1 documents: 0 errors, 0 warnings, 0 accepted"
        imported = invoke("report", "import", f"{language}.md", "--vendor", "acme", "--out", language)
        assert "1 records; 0 texts not understood" in imported.out
        (directory,) = (tmp_path / language).iterdir()
        assert read_record(directory).remarks == []


def test_list_of_rules(invoke):
    ended = invoke("lint", "--list")

    assert ended.code == 0
    assert all(rule.id in ended.out for rule in all_rules())


@pytest.mark.parametrize("arguments", [(), ("missing.md",), ("--config", "missing", ".")])
def test_nothing_to_check_is_an_error(invoke, arguments, report):
    (report.parent / "README.md").write_text("x")

    ended = (
        invoke("lint", *arguments)
        if arguments != ("--config", "missing", ".")
        else invoke("lint", report, "--config", "x")
    )

    assert ended.code == 2
    assert "hint:" in ended.err


def test_directory_without_case_documents_is_an_error(invoke, tmp_path):
    (tmp_path / "notes.md").write_text("# Notes\n")

    ended = invoke("lint", tmp_path)

    assert ended.code == 2
    assert f"no case document is in {tmp_path}" in ended.err

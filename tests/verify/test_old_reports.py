"""Reports, bundles and comparisons of earlier versions, and what this version makes of the records behind them."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from chipperf.cli.main import app
from chipperf.documents.format import number
from chipperf.records.store import find_records
from chipperf.report.view import LAYOUT
from kept_files import LAYOUT_2, V010, written_in
from typer.testing import CliRunner, Result

REPORTS = tuple(sorted((V010 / "reports").iterdir()))
RENDERED = tuple(
    file.parent
    for file in find_records(V010)
    if file.parent.name != "own-case" and file.parent.parent.name != "imported"
)
"""Runs of an installed case; the imported rows are one document, which is among the reports."""
COMPARED = ("runs/mobilenetv2", "runs/two-ranks", "runs/two-machines")


def perf(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None, result.output
    return result


def place_of(path: Path) -> str:
    return path.relative_to(V010).as_posix()


@pytest.mark.parametrize("report", REPORTS, ids=place_of)
def test_old_report_equals_its_records(report: Path) -> None:
    page = report / "README.md"
    provenance = written_in(report / "README.md.provenance.json")

    [verified] = json.loads(perf("verify", page, "--runs", V010, "--json").stdout)

    # Pages of the first version do not name the runs that were left out.
    notes = [note for note in verified["notes"] if not note.endswith("the page does not say so")]
    assert (verified["equal"], verified["differences"]) == (True, [])
    of_vendor = ["these templates are not core's: vendor/report.md.j2; read them, because they decide what is said"]
    assert notes == (of_vendor if provenance["template"].startswith("vendor/") else [])
    assert verified["with_provenance"] is True
    assert verified["cells"] == len(provenance["cells"]) > 40
    digests = {record["run_id"]: record["sha256"] for record in provenance["records"]}
    found = {run: hashlib.sha256(Path(file).read_bytes()).hexdigest() for run, file in verified["records"].items()}
    assert found == digests


def test_report_of_an_earlier_layout_equals_its_record() -> None:
    page = LAYOUT_2 / "report.en.md"

    [verified] = json.loads(perf("verify", page, "--runs", LAYOUT_2, "--json").stdout)

    assert "<!-- chipperf report template 2 -->" in page.read_text(encoding="utf-8")
    assert "time, initialisation included" in page.read_text(encoding="utf-8")
    assert (verified["equal"], verified["differences"]) == (True, [])


def test_old_report_with_a_changed_digit_differs(tmp_path: Path) -> None:
    text = (V010 / "reports" / "resnet50" / "README.md").read_text(encoding="utf-8")
    [line] = [line for line in text.splitlines() if line.startswith("| AMD EPYC")]
    p_core = line.split(" | ")[6]
    (tmp_path / "README.md").write_text(text.replace(line, line.replace(p_core, "99.9")), encoding="utf-8")

    result = CliRunner().invoke(app, ["verify", str(tmp_path / "README.md"), "--runs", str(V010)])

    assert result.exception is not None
    assert "99.9" in result.stdout
    assert "$.metrics.p_core" in result.stdout


def test_old_reports_have_no_errors() -> None:
    linted = json.loads(perf("lint", *(report / "README.md" for report in REPORTS), "--format", "json").stdout)

    assert len(linted["files"]) == len(REPORTS) == 7
    assert (linted["errors"], linted["skipped"]) == (0, [])


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("run", RENDERED, ids=place_of)
def test_old_record_is_reported(run: Path, language: str) -> None:
    file = run / "record.json"
    written = written_in(file)

    page = perf("report", run, "--lang", language).stdout

    assert written["run_id"] in page
    assert hashlib.sha256(file.read_bytes()).hexdigest()[:12] in page
    assert f"<!-- chipperf report template {LAYOUT} -->" in page
    p_core = written["metrics"]["p_core"]
    if "median" in p_core:
        assert f"| {number(p_core['median'], spread=p_core['iqr'])} |" in page
    memory = written["metrics"]["memory"]
    if "missing" not in memory:
        peak = memory["device_peak_bytes"]
        peak = memory["allocated_peak_bytes"] if isinstance(peak, dict) else peak
        assert f"| {peak / 2**30:.1f}/{memory['total_bytes'] / 2**30:.1f} |" in page


def test_old_runs_compare_as_they_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(V010)
    before = written_in(V010 / "compare.json")

    now = json.loads(perf("compare", *COMPARED, "--json").stdout)

    assert measures_of(now) == measures_of(before)
    assert measures_of(now)["p_core"][1][1] == pytest.approx(225.23 / 116.32, rel=1e-4)
    for name in ("runs", "seeds", "vendor", "kind", "topology", "outcomes", "scaling"):
        assert [column[name] for column in now["columns"]] == [column[name] for column in before["columns"]]


def measures_of(comparison: dict[str, Any]) -> dict[str, list[tuple[Any, ...]]]:
    """Return value and ratio of every column and whether it has an interval, by measure.

    The ends of intervals are those of the first version no more: it took windows that follow each other for
    independent.
    """
    return {
        measure["name"]: [(cell["value"], cell["ratio"], cell["interval"] is not None) for cell in measure["cells"]]
        for measure in comparison["measures"]
    }


def test_old_repeats_are_one_column() -> None:
    compared = json.loads(perf("compare", V010 / "runs/repeats", V010 / "runs/stated", "--json").stdout)

    written = written_in(V010 / "runs/repeats/repeats.json")
    assert compared["columns"][0]["runs"] == [run["run_id"] for run in written["runs"]]
    assert measures_of(compared)["p_core"][0][0] == written["metrics"]["p_core"]["value"]


def test_old_bundle_is_whole() -> None:
    checked = json.loads(perf("bundle", "check", V010 / "bundle.tar.gz", "--json").stdout)

    assert checked["runs"] == [written_in(V010 / run / "record.json")["run_id"] for run in COMPARED]
    assert checked["files"] == 20
    assert checked["reports"] == [{"file": "reports/1/README.md", "equal": True, "differences": []}]


def test_old_run_is_bundled_with_its_old_report(tmp_path: Path) -> None:
    runs = [V010 / run for run in COMPARED]

    packed = perf("bundle", *runs, "--report", V010 / "reports/en/README.md", "--out", tmp_path / "new.tar.gz")

    assert "3 runs, 1 report," in packed.stdout
    checked = json.loads(perf("bundle", "check", tmp_path / "new.tar.gz", "--json").stdout)
    assert checked["runs"] == [written_in(run / "record.json")["run_id"] for run in runs]


def test_site_has_a_page_of_every_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Charts take longer than everything else here.
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    made = perf("site", V010, "--out", tmp_path / "site", "--lang", "en")

    records = list(find_records(V010))
    assert "not readable" not in made.stderr
    assert f"pages of runs: {len(records)}" in made.stderr
    pages = [page.read_text(encoding="utf-8") for page in (tmp_path / "site").rglob("*.html")]
    for file in records:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert any(digest in page for page in pages), file


@pytest.mark.parametrize(
    ("public", "original", "arguments"),
    [
        ("ratio", "repeat-1", ("--ratio-to", V010 / "runs/repeats/repeat-2")),
        ("breakdown", "repeat-2", ()),
    ],
)
def test_withheld_values_are_revealed(public: str, original: str, arguments: tuple[object, ...]) -> None:
    secrets = V010 / "withheld" / f"{public}.secrets.json"

    revealed = json.loads(perf("reveal", V010 / "withheld" / public, "--secrets", secrets, *arguments, "--json").stdout)

    metrics = written_in(V010 / "runs/repeats" / original / "record.json")["metrics"]
    fields = [value["field"] for value in written_in(secrets)["values"]]
    assert [(each["field"], each["problem"]) for each in revealed] == [(field, None) for field in fields]
    assert [each["value"] for each in revealed] == [metrics[field.removeprefix("$.metrics.")] for field in fields]


def test_another_value_is_not_the_withheld_one(tmp_path: Path) -> None:
    secrets = (V010 / "withheld" / "breakdown.secrets.json").read_text(encoding="utf-8")
    (tmp_path / "secrets.json").write_text(secrets.replace('"steps": ', '"steps": 1'), encoding="utf-8")

    result = CliRunner().invoke(
        app, ["reveal", str(V010 / "withheld/breakdown"), "--secrets", str(tmp_path / "secrets.json")]
    )

    assert result.exception is not None
    assert "$.metrics.step_breakdown: " in str(result.exception)

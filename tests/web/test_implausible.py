"""A run whose record contradicts itself or its case has no rank and no ratio, and every page says why."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.cases.recorded_settings import check_with_case
from chipperf.documents.document_identity import installed_cases
from chipperf.languages import in_language
from chipperf.records.schema import Record
from chipperf.web.board import make_boards, summarize
from chipperf.web.site_files import build_site
from web_records import EXAMPLES, write_runs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headless import Page

    Edit = Callable[[dict[str, Any]], object]

HONEST = EXAMPLES[0]
WITHHELD = {"missing": "withheld", "reason": "nda"}


@pytest.fixture(autouse=True)
def every_record_is_plausible() -> None:
    """Nothing here: these tests are about the checks that the other tests of pages leave out."""


def edited(edit: Edit) -> Record:
    data = HONEST.model_dump(mode="json")
    edit(data)
    return Record.model_validate(data)


def too_fast(data: dict[str, Any]) -> None:
    data["metrics"]["p_core"]["median"] *= 10


def without_windows(data: dict[str, Any]) -> None:
    data["metrics"]["p_core"] = 1e6


def withhold(*fields: str) -> Edit:
    def edit(data: dict[str, Any]) -> None:
        data["withheld"] = [{"field": f"$.{field}", "reason": "nda", "sha256": "0" * 64} for field in fields]

    return edit


def windows_withheld(data: dict[str, Any]) -> None:
    withhold("metrics.p_core.windows", "metrics.data_stall")(data)
    data["metrics"]["p_core"] |= {"windows": [], "median": 1e6, "iqr": 0.0, "mean_of_totals": 1e6}
    data["metrics"]["data_stall"] = WITHHELD


EDITS: dict[str, Edit] = {
    "a kind": lambda data: data.update(kind="measured"),
    "a throughput": too_fast,
    "a throughput without windows": without_windows,
    "a smaller model": lambda data: data["hyperparameters"]["values"].update(model="resnet18"),
    "a smaller model without changes": lambda data: (
        data["hyperparameters"]["values"].update(model="resnet18"),
        data["hyperparameters"].update(changes={"missing": "unknown"}),
    ),
    "a smaller model with withheld changes": lambda data: (
        withhold("hyperparameters.changes")(data),
        data["hyperparameters"]["values"].update(model="resnet18"),
        data["hyperparameters"].update(changes=WITHHELD),
    ),
    "no settings": lambda data: data["hyperparameters"].update(values={}, changes=[]),
    "no curve, and no setting that says when to evaluate": lambda data: (
        data["metrics"].update(curve=[]),
        data["hyperparameters"]["values"].pop("evaluate_every_epochs"),
    ),
    "no changes": lambda data: data["hyperparameters"].update(changes={"missing": "unknown"}),
    "a lower target": lambda data: (
        data["case"].update(target=0.5),
        data["hyperparameters"]["values"].update(target=0.5),
    ),
    "another precision": lambda data: data["precision"].update(requested="amp", effective="amp"),
    "no cards, so no part of one": lambda data: data["environment"].update(cards=[]),
    "fewer cards": lambda data: data["topology"].update(nproc_per_node=1),
    "fewer epochs": lambda data: data["metrics"].update(epochs=9.0),
    "a better result": lambda data: data["metrics"].update(quality=0.9, best_quality=0.9),
    "no curve": lambda data: data["metrics"].update(curve=[]),
    "another metrics version": lambda data: data.update(metrics_version=99),
    "generated data": lambda data: data["dataset"].update(name="chipperf-sample"),
    "a failure": lambda data: data["status"].update(failure={"failure_class": "oom", "message": "full"}),
}


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: record.run_id)
def test_examples_are_plausible(record: Record) -> None:
    assert check_with_case(record, installed_cases()[record.case.name]) == ()
    assert summarize(record).implausible == ()


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_record_has_no_rank_and_is_nowhere_above_the_others(edit: Edit) -> None:
    row = summarize(edited(edit))
    ranks = {
        each.digest: rank
        for board in make_boards([row, summarize(HONEST)], most_rows=10)
        for each, rank in zip(board.rows, board.ranks, strict=True)
    }

    assert row.implausible
    assert (row.throughputs, row.curve, row.measured) == ((None, None, None), (), None)
    assert ranks == {row.digest: None, summarize(HONEST).digest: (1, 1)}
    assert row.order > summarize(HONEST).order


@pytest.fixture
def site(tmp_path: Path) -> Path:
    runs = write_runs(tmp_path / "runs", [HONEST, edited(too_fast)])
    return build_site(runs, tmp_path / "site", language="en").index.parent


def test_every_page_and_the_table_of_values_say_why(site: Path) -> None:
    finding = summarize(edited(too_fast)).implausible[0]
    index = (site / "index.html").read_text(encoding="utf-8")
    rows = list(csv.DictReader((site / "runs.csv").read_text(encoding="utf-8").splitlines()))
    pages = [path.read_text(encoding="utf-8") for path in (site / "runs").iterdir()]
    (marked,) = [text for text in pages if "Implausible: values of the record contradict" in text]

    assert index.count("Convergence:") == 1
    assert all(text.count("Convergence:") == 1 for text in pages)
    for text in (index, marked):
        assert '<span class="mark warn"><span lang="zh">不可信</span><span lang="en">implausible</span></span>' in text
        assert f'<li><span lang="zh">{in_language(finding, "zh")}</span><span lang="en">{finding}</span></li>' in text
    assert sorted(row["implausible"].partition("; ")[0] for row in rows) == ["", str(finding)]
    assert index.count("data-implausible>") + index.count("data-implausible ") == 1


def test_an_implausible_run_is_no_baseline_and_has_no_ratio(page: Page, site: Path) -> None:
    page.open(site / "index.html")

    assert page.run(
        "return [...document.querySelectorAll('table.runs tbody tr')]"
        ".map(row => [row.querySelectorAll('.base').length, row.querySelector('.ratio').dataset.missing ?? ''])"
    ) == [[1, ""], [0, "not_applicable"]]


def test_withheld_values_are_told_because_no_check_sees_them(tmp_path: Path) -> None:
    record = edited(windows_withheld)
    site = build_site(write_runs(tmp_path / "runs", [record]), tmp_path / "site", language="en")

    assert summarize(record).withheld == ("metrics.p_core.windows", "metrics.data_stall")
    for path in site.index.parent.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert 'title="metrics.p_core.windows, metrics.data_stall"' in text
        assert "values withheld: 2" in text


@pytest.mark.parametrize(
    ("case", "is_told"),
    [({}, False), ({"version": "9.9"}, True), ({"name": "elsewhere"}, True)],
    ids=["installed", "other version", "other case"],
)
def test_a_table_says_that_its_case_is_not_installed(tmp_path: Path, case: dict[str, str], is_told: bool) -> None:
    runs = write_runs(tmp_path / "runs", [edited(lambda data: data["case"].update(case))])
    text = build_site(runs, tmp_path / "site", language="en").index.read_text(encoding="utf-8")

    assert ("not checked against the case, which is not installed" in text) is is_told

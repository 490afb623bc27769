"""The throughputs of a row over time, and the steps between its runs."""

from __future__ import annotations

import re

import pytest
from chipperf.web.board import make_boards, summarize
from chipperf.web.site_files import build_site
from chipperf.web.trends import find_trends
from factory import throughput
from web_records import failed, make_run, write_runs


def night(day: int, rate: float, **changes):
    core = throughput(rate, spread=0.002)
    return make_run(run_id=f"n{day}", created_at=f"2026-01-{day:02}T03:00:00Z", metrics__p_core=core, **changes)


def trends(*records):
    (board,) = make_boards([summarize(record) for record in records], most_rows=100)
    return find_trends(board)


def steps(*rates):
    (trend,) = trends(*(night(day, rate) for day, rate in enumerate(rates, start=1)))
    return [[(step.verdict, f"{step.since:%d}") for step in point.steps] for point in trend.points]


def test_runs_of_a_row_are_in_the_order_of_time():
    (trend,) = trends(night(3, 9000.0), night(1, 9000.0), night(2, 9000.0))

    assert [point.run.run_id for point in trend.points] == ["n1", "n2", "n3"]


@pytest.mark.parametrize(
    "changes",
    [
        {"precision__requested": "amp"},
        {"precision__effective": "tf32"},
        {"environment__row_label": "A2"},
        {"vendor__name": "birch"},
        {"case__preset": "demo"},
        {"limits": {"max_steps": 100}},
        {"hyperparameters__changes": []},
    ],
)
def test_other_rows_are_other_trends(changes):
    assert trends(night(1, 9000.0), night(2, 9000.0, **changes)) == ()


def test_a_step_is_marked_where_it_is():
    assert steps(9000.0, 9000.0, 8500.0, 8500.0, 9000.0) == [[], [], [("lower", "02")], [], [("higher", "04")]]


def test_a_difference_within_the_tolerance_is_no_step():
    assert steps(9000.0, 8900.0, 9000.0) == [[], [], []]


def test_small_differences_that_lead_away_are_a_step_from_the_first():
    assert steps(9000.0, 8860.0, 8720.0, 8580.0) == [[], [], [("lower", "01")], []]


def test_runs_that_did_not_complete_are_in_no_trend():
    lost = failed(run_id="n2", created_at="2026-01-02T03:00:00Z")

    assert trends(night(1, 9000.0), lost) == ()
    assert len(trends(night(1, 9000.0), lost, night(3, 8000.0))[0].points) == 2


def test_a_median_that_is_not_that_of_its_windows_makes_no_step():
    edited = {**throughput(8000.0, spread=0.002), "median": 9000.0}
    (trend,) = trends(
        night(1, 9000.0), make_run(run_id="n2", metrics__p_core=edited, created_at="2026-01-02T03:00:00Z")
    )

    assert trend.steps == 0


def test_other_software_is_told_at_its_run():
    (trend,) = trends(
        night(1, 9000.0), night(2, 9000.0, environment__driver="570"), night(3, 9000.0, environment__driver="570")
    )

    assert [point.is_changed for point in trend.points] == [(False,) * 3, (True, False, False), (False,) * 3]


def test_page_has_the_trend_with_its_steps_in_both_languages(tmp_path):
    write_runs(tmp_path / "runs", [night(1, 9000.0), night(2, 8500.0, environment__driver="<570>")])
    text = build_site(tmp_path / "runs", tmp_path / "site", language="zh").index.read_text(encoding="utf-8")

    (section,) = re.findall(r'<section class="trend".*?</section>', text, re.DOTALL)
    assert "▼ p_core ×0.944" in section
    assert "<strong>&lt;570&gt;</strong>" in section
    assert "<svg" in section
    for words in ("随时间的变化", "Over time", "steps: 1", "跳变：1"):
        assert words in text


def test_page_of_single_runs_has_no_trend(tmp_path):
    write_runs(tmp_path / "runs", [night(1, 9000.0), night(2, 8500.0, precision__requested="amp")])
    text = build_site(tmp_path / "runs", tmp_path / "site", language="zh").index.read_text(encoding="utf-8")

    assert 'class="trend' not in text

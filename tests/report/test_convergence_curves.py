"""The section of a report that shows convergence curves."""

from __future__ import annotations

import pytest
from chipperf.errors import RecordError, UsageError
from chipperf.report.render import render_report
from chipperf.report.view import build_view
from curve_records import curve
from factory import UNKNOWN, make_record
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_document import parse

HEADINGS = {"zh": "收敛曲线", "en": "Convergence curve"}
OTHER = {"vendor__name": "other", "environment__row_label": "B2", "run_id": "other-run"}


def section(*records, language="en", baseline=()):
    return parse(render_report(records, language=language, baseline=baseline)).section(HEADINGS[language])


def curves_of(*records, baseline=()):
    return build_view(records, baseline=baseline).convergence.curves.curves


@pytest.mark.parametrize("language", HEADINGS)
@pytest.mark.parametrize("values", [[], [0.7]])
def test_a_run_that_was_evaluated_less_than_twice_has_no_section(language, values):
    record = make_record(**{"metrics__curve": curve(values)["metrics__curve"]})

    assert HEADINGS[language] not in render_report([record], language=language)


@pytest.mark.parametrize(("language", "before", "after"), [("zh", "运行情况", "许可证"), ("en", "Results", "License")])
def test_the_section_stands_between_results_and_licence(language, before, after):
    headings = parse(render_report([make_record(**curve([0.1, 0.2]))], language=language)).headings
    texts = [text for _, text in headings]

    assert texts[texts.index(before) :][:3] == [before, HEADINGS[language], after]


def test_both_languages_have_the_same_lines():
    records = [make_record(seed=seed, **curve([0.1, 0.2])) for seed in (1, 2)]
    baseline = [make_record(**OTHER, precision__effective="tf32", **curve([0.2, 0.3]))]
    zh, en = (section(*records, language=language, baseline=baseline) for language in HEADINGS)

    assert len(zh) == len(en) == 4


@pytest.mark.parametrize(
    ("values", "changes", "words"),
    [
        ([0.1, 0.2], {}, "Ends at epoch 2 with acc 20.0%. <strong>Below the target 75.5% throughout.</strong>"),
        ([0.76, 0.7], {}, "best 76.0%. Ends at epoch 2 with acc 70.0%. The target 75.5% was reached."),
        ([0.1, 0.2], {"case__target": {"missing": "not_applicable"}}, "There is no target for this dataset."),
        ([0.1, 0.2], {"seed": UNKNOWN}, "one run (seed unknown), 2 evaluations"),
    ],
)
def test_a_verdict_is_given_on_the_target(values, changes, words):
    (line,) = section(make_record(**curve(values) | changes))

    assert line.startswith("1: A1 1x8 fp32, one run (seed ")
    assert words in line


def test_runs_of_a_row_with_other_seeds_are_one_curve():
    records = [make_record(run_id=f"run-{seed}", seed=seed, **curve([0.7, 0.74 + seed / 100])) for seed in (3, 1, 2)]
    (line,) = section(*records)

    assert "3 runs (seeds 1, 2, 3)" in line
    assert "with acc 76.0% (75.0% to 77.0%)" in line
    assert "reached by 2 of 3 runs" in line


def test_a_second_run_with_the_same_seed_is_no_repeat():
    newer = {"created_at": "2027-01-01T00:00:00Z"}
    (found,) = curves_of(make_record(**curve([0.1, 0.2])), make_record(run_id="newer", **newer, **curve([0.3, 0.4])))

    assert [run.record.run_id for run in found.runs] == ["newer"]


def test_of_two_repeats_with_one_seed_the_newer_is_taken():
    repeats = [
        make_record(run_id=f"of-{year}", seed=7, created_at=f"{year}-01-01T00:00:00Z", **curve([0.1, 0.2]))
        for year in (2020, 2022, 2021)
    ]
    (found,) = curves_of(*repeats, make_record(run_id="r-1", **curve([0.3, 0.4])))

    assert [run.record.run_id for run in found.runs] == ["of-2022", "r-1"]


@pytest.mark.parametrize(
    "changes",
    [
        {"limits": {"max_epochs": 2}},
        {"case__preset": "demo"},
        {"precision__effective": "tf32"},
    ],
)
def test_runs_that_differ_in_more_than_the_seed_are_no_repeats(changes):
    (found,) = curves_of(make_record(**curve([0.1, 0.2])), make_record(seed=7, **curve([0.1, 0.2]) | changes))

    assert len(found.runs) == 1


def test_rows_are_curves_of_their_own():
    other = make_record(topology={"nnodes": 2, "nproc_per_node": 8}, **curve([0.1, 0.2], steps_per_epoch=5))

    assert [found.name for found in curves_of(make_record(**curve([0.1, 0.2])), other)] == [
        "A1 1x8 fp32",
        "A1 2x8 fp32",
    ]


def test_rows_that_differ_in_hyperparameters_are_named_by_them():
    change = {"key": "batch_size", "base": 32, "value": 256, "origin": "vendor"}
    records = [make_record(**curve([0.1, 0.2])), make_record(hyperparameters__changes=[change], **curve([0.1, 0.2]))]

    assert [found.name for found in curves_of(*records)] == ["A1 1x8 fp32 /", "A1 1x8 fp32 bs=256"]


def test_a_precision_that_is_not_the_requested_one_is_in_the_name():
    (found,) = curves_of(make_record(precision__effective="tf32", **curve([0.1, 0.2])))

    assert found.name == "A1 1x8 fp32 (tf32)"


def test_what_has_no_curve_is_named():
    failed = {"state": "failed", "failure": {"failure_class": "out_of_memory", "message": "m"}}
    records = [
        make_record(**curve([0.1, 0.2])),
        make_record(run_id="broken-repeat", seed=1, status=failed, **curve([0.1, 0.2])),
        make_record(topology={"nnodes": 1, "nproc_per_node": 1}, status=failed, **curve([0.1, 0.2])),
        make_record(topology={"nnodes": 2, "nproc_per_node": 8}),
    ]
    lines = section(*records)

    assert lines[1:] == [
        "No curve: A1 1x1 fp32, the run did not complete.",
        "No curve: A1 2x8 fp32, evaluated less than twice.",
        "No curve: broken-repeat, the run did not complete.",
    ]


def test_a_baseline_is_compared_where_both_were_evaluated_last():
    baseline = [make_record(**OTHER, precision__effective="tf32", **curve([0.15, 0.18]))]
    lines = section(make_record(**curve([0.1, 0.2, 0.3])), baseline=baseline)

    assert lines[1].startswith("2, baseline: B2 1x8 fp32 (tf32)")
    assert lines[2] == (
        "At epoch 2, the last at which both were evaluated: 20.0% (curve 1) above the baseline's 18.0% (curve 2)."
    )
    assert lines[3] == "The curves differ in effective precision: fp32, tf32."


def test_hyperparameters_that_are_free_are_no_difference():
    values = {"batch_size": 32, "lr": 0.1, "workers": 4}
    baseline = [make_record(**OTHER, hyperparameters__values=values | {"lr": 0.2, "workers": 8}, **curve([0.1, 0.2]))]
    lines = section(make_record(hyperparameters__values=values, **curve([0.1, 0.2])), baseline=baseline)

    assert [line for line in lines if "differ" in line] == ["The curves differ in lr: 0.1, 0.2."]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"case__name": "mobilenetv2"}, UsageError, "cases: mobilenetv2, resnet50"),
        ({"case__version": "2.0"}, UsageError, "case versions"),
        ({"case__metric": "top5"}, UsageError, "metrics: top1, top5"),
        ({"dataset__version": "2"}, UsageError, "datasets: imagenet2012 1, imagenet2012 2"),
        ({"dataset__fingerprint": "f" * 16}, UsageError, "contents of the dataset: 0123456789abcdef, ffff"),
        ({"kind": "simulated"}, UsageError, "kinds: measured, simulated"),
        ({"metrics_version": 7}, RecordError, "metrics version 7"),
        ({"metrics__curve": []}, UsageError, "a convergence curve takes a completed run with two evaluations"),
        ({"status": {"state": "killed"}}, UsageError, "a convergence curve takes"),
        ({"run_id": "r-1"}, UsageError, "is named both as a run of the report and as its baseline"),
    ],
)
def test_a_baseline_that_cannot_be_compared_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        render_report(
            [make_record(run_id="r-1", **curve([0.1, 0.2]))],
            baseline=[make_record(**OTHER | curve([0.1, 0.2]) | changes)],
        )


@pytest.mark.parametrize("changes", [{"dataset__fingerprint": UNKNOWN}, {"dataset__fingerprint_method": "another"}])
def test_fingerprints_that_cannot_be_compared_are_not(changes):
    baseline = [make_record(**OTHER, **curve([0.1, 0.2]), **changes)]

    assert len(curves_of(make_record(**curve([0.1, 0.2])), baseline=baseline)) == 2


def test_a_template_overrides_the_section(tmp_path):
    (tmp_path / "report.md.j2").write_text(
        '{% extends "core/report.md.j2" %}{% block curve %}{% if view.convergence %}'
        "{{ view.convergence.curves.curves[0].name }} is all{% endif %}{% endblock %}"
    )
    text = render_report([make_record(**curve([0.1, 0.2]))], language="en", user_templates=tmp_path)

    assert "A1 1x8 fp32 is all" in text
    assert HEADINGS["en"] not in text


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.text(max_size=30) | st.text(alphabet="|\\`*_[]()<>!#-+~&=\n 1.a:/htps", max_size=20))
def test_no_name_changes_the_shape_of_the_section(text):
    def rendered(name):
        records = [
            make_record(environment__row_label=name, **curve([0.1, 0.2])),
            make_record(environment__row_label=f"{name}2", metrics__curve=[]),
        ]
        return parse(render_report(records, language="en"))

    plain, document = rendered("A1"), rendered(text)
    assert document.headings == plain.headings
    assert len(document.section(HEADINGS["en"])) == len(plain.section(HEADINGS["en"])) == 2
    assert document.images == []


def test_run_whose_quality_is_not_defined_has_no_curve_and_no_zero() -> None:
    missing = {"missing": "not_applicable", "reason": "nothing to find"}
    defined = curve([0.1, 0.2])
    points = [point | {"value": missing} for point in defined["metrics__curve"]]
    changes = {"metrics__curve": points, "metrics__quality": missing, "metrics__best_quality": missing}
    record = make_record(**defined | changes)
    page = render_report([record], language="en")
    assert HEADINGS["en"] not in page
    assert "acc /, nothing to find" in page

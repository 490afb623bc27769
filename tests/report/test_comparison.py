"""Runs side by side."""

from __future__ import annotations

import pytest
from chipperf.errors import UsageError
from chipperf.records.schema import Missing
from chipperf.report.comparison import Scaling, compare_curves, compare_runs
from curve_records import curve, losses
from factory import UNKNOWN, make_record, throughput

OTHER = {"run_id": "other", "vendor__name": "other", "environment__row_label": "B2"}


def measure(comparison, name):
    return next(measure for measure in comparison.measures if measure.name == name)


def ratios(comparison, name):
    return tuple(cell.ratio for cell in measure(comparison, name).cells)


def caveats(comparison):
    return {caveat.text: caveat.columns for caveat in comparison.caveats}


def test_values_stand_beside_their_ratio_to_the_first_run():
    comparison = compare_runs([make_record(), make_record(**OTHER, metrics__p_train=throughput(9172.5))])

    p_train = measure(comparison, "p_train")
    assert (p_train.unit, [cell.value for cell in p_train.cells]) == ("samples/s", [4586.25, 9172.5])
    assert ratios(comparison, "p_train") == (1, 2)
    assert comparison.names == ("A1 1x8 fp32", "B2 1x8 fp32")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(UNKNOWN, 5.0, (None, None)), (5.0, UNKNOWN, (1, None)), (0.0, 5.0, (None, None))],
)
def test_there_is_no_ratio_without_both_values(first, second, expected):
    comparison = compare_runs([make_record(metrics__p_whole=first), make_record(**OTHER, metrics__p_whole=second)])

    assert ratios(comparison, "p_whole") == expected


def scaled(median: float, **changes):
    return make_record(**{"run_id": "scaled", "topology__nnodes": 2, "metrics__p_train": throughput(median), **changes})


def test_scaling_efficiency_is_throughput_for_each_device_over_that_of_the_first_run():
    comparison = compare_runs(
        [make_record(metrics__p_train=throughput(1000.0)), scaled(1800.0, hyperparameters__values__lr=0.2)]
    )

    assert comparison.scaling == (None, Scaling(efficiency=pytest.approx(0.9), base=1))


@pytest.mark.parametrize(
    "changes",
    [
        {"topology__nnodes": 1},
        {"hyperparameters__values__batch_size": 64},
        {"precision__effective": "tf32"},
        {"chipperf_version": "0.2.0"},
        {"environment__torch": "9.9"},
        {"environment__card_title": "ACME A2"},
        {"status": {"state": "killed"}},
    ],
)
def test_runs_that_are_no_scaling_pair_have_no_efficiency(changes):
    comparison = compare_runs([make_record(metrics__p_train=throughput(1000.0)), scaled(1800.0, **changes)])

    assert comparison.scaling == (None, None)


def test_a_run_that_did_not_complete_has_failed_in_every_value():
    comparison = compare_runs([make_record(), make_record(**OTHER, status={"state": "killed"})])

    failed = Missing(missing="failed", reason="killed")
    assert all(item.cells[1].value == failed for item in comparison.measures)
    assert comparison.outcomes[1] == ("not_run",)
    assert caveats(comparison)["the run did not complete: killed"] == (2,)


def test_a_record_that_is_named_twice_counts_once():
    assert len(compare_runs([make_record(), make_record()]).records) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"case__name": "mobilenetv2"}, "cases: mobilenetv2, resnet50"),
        ({"case__metric": "top5"}, "metrics: top1, top5"),
        ({"dataset__name": "other"}, "datasets: imagenet2012 1, other 1"),
        ({"dataset__fingerprint": "f"}, "contents of the dataset"),
        ({"dataset__eval_samples": 49_999}, "numbers of evaluated samples: 49999, 50000"),
        ({"metrics_version": 7}, "metrics versions: 1, 7"),
    ],
)
def test_results_that_mean_different_things_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        compare_runs([make_record(), make_record(**OTHER | changes)])


def test_no_runs_are_refused():
    with pytest.raises(UsageError, match="no runs"):
        compare_runs([])


def test_what_differs_is_listed():
    changes = {
        "limits": {"max_steps": 9},
        "kind": "simulated",
        "hyperparameters": {
            "values": {"batch_size": 64, "lr": 0.1, "workers": 8, "seed": 7},
            "changes": [],
            "global_batch_size": 512,
        },
        "knobs": [{"name": "B_FAST", "value": "1", "reason": "", "origin": "vendor"}],
        "loader__workers": 8,
        "environment__torch": "2.8.0",
    }
    comparison = compare_runs([make_record(), make_record(**OTHER | changes)])

    assert {(item.group, item.name): item.values for item in comparison.settings} == {
        ("run", "kind"): ("measured", "simulated"),
        ("run", "max_steps"): ("none", "9"),
        ("run", "global_batch_size"): ("256", "512"),
        ("scaled", "batch_size"): ("32", "64"),
        ("free", "workers"): ("not stated", "8"),
        ("knob", "ACME_TF32"): ("0", "not set"),
        ("knob", "B_FAST"): ("not set", "1"),
        ("loader", "workers"): ("4", "8"),
        ("software", "torch"): ("2.7.0", "2.8.0"),
    }
    assert comparison.names[1] == "simulated B2 1x8 fp32"


def test_repeats_are_one_curve_and_a_second_run_with_a_seed_another():
    records = [
        make_record(run_id=run_id, seed=seed, **curve([0.1, 0.2])) for run_id, seed in (("a", 1), ("b", 2), ("c", 1))
    ]
    curves = compare_curves(compare_runs(records), "quality")

    assert [[run.record.run_id for run in found.runs] for found in curves.curves] == [["a", "b"], ["c"]]


def test_a_run_that_diverged_is_a_curve_of_its_own():
    records = [
        make_record(**losses([2.0, 1.0])),
        make_record(run_id="b", seed=7, status={"state": "failed"}, **losses([2.0, 9.0])),
    ]
    curves = compare_curves(compare_runs(records), "loss")

    assert [found.finished for found in curves.curves] == [True, False]


@pytest.mark.parametrize(
    ("quantity", "changes", "message"),
    [
        ("quality", {}, "run b has too few evaluations for a curve: 0 of at least 2"),
        ("quality", {"metrics__curve": curve([0.1])["metrics__curve"]}, "run b has too few evaluations for a curve: 1"),
        ("loss", {"metrics__p_train": UNKNOWN}, "run b has too few measurement windows with a loss for a curve: 0"),
        ("loss", losses([None, 1.0]), "run b has too few measurement windows with a loss for a curve: 1"),
    ],
)
def test_a_run_without_a_curve_is_refused(quantity, changes, message):
    records = [make_record(**curve([0.1, 0.2]) | losses([2.0, 1.0])), make_record(run_id="b", **changes)]
    with pytest.raises(UsageError, match=message):
        compare_curves(compare_runs(records), quantity)

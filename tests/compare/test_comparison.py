"""Runs side by side."""

from __future__ import annotations

import csv
import io
import json

import pytest
from chipperf.compare.comparison import Scaling, compare_columns, compare_curves
from chipperf.compare.comparison_formats import as_csv, as_markdown, json_text, rows
from chipperf.compare.sides import Side
from chipperf.errors import UsageError
from chipperf.records.plausibility import check_scaling
from chipperf.records.schema import Missing
from chipperf.records.withholding import withhold
from curve_records import curve, losses
from factory import UNKNOWN, make_record, throughput
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_document import parse

SLICE = {"rank": 0, "name": "A1 sGPU 25%", "uuid": "1", "pci_bus_id": "2", "total_bytes": 2**34, "part": "sGPU 25%"}
OTHER = {"run_id": "other", "vendor__name": "other", "environment__row_label": "B2"}


def compare_runs(records):
    return compare_columns([Side(records=(record,)) for record in records])


def measure(comparison, name):
    return next(measure for measure in comparison.measures if measure.name == name)


def ratios(comparison, name):
    return tuple(cell.ratio for cell in measure(comparison, name).cells)


def footnotes(comparison):
    return {footnote.text: footnote.columns for footnote in comparison.footnotes}


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
    assert footnotes(comparison)["the run did not complete: killed"] == (2,)


def test_a_document_that_was_imported_twice_is_compared():
    dates = ("2026-11-30T01:06:00+00:00", "2026-11-30T01:06:01+00:00")
    records = [make_record(run_id="imported-1", kind="imported", created_at=date) for date in dates]

    assert len(compare_runs(records).columns) == 2


def test_a_record_that_is_named_twice_counts_once():
    assert len(compare_runs([make_record(), make_record()]).columns) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"case__name": "mobilenetv2"}, "cases: mobilenetv2, resnet50"),
        ({"case__metric": "top5"}, "metrics: top1, top5"),
        ({"dataset__name": "other"}, "datasets: imagenet2012 1, other 1"),
        ({"dataset__version": "2"}, "datasets: imagenet2012 1, imagenet2012 2"),
        ({"dataset__name": "other", "dataset__version": UNKNOWN}, "datasets: imagenet2012 1, other unknown"),
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


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"hyperparameters__global_batch_size": 512}, "global batch 512, in column 1 256"),
        ({"metrics__epochs": 90}, "epochs trained 90, in column 1 100"),
        ({"precision__effective": "tf32"}, "effective precision tf32, in column 1 fp32"),
        ({"limits": {"max_epochs": 3}}, "length at most 3 epochs, in column 1 the whole schedule"),
        ({"kind": "simulated"}, "simulated: no device ran"),
        (
            {"environment__cards": [SLICE]},
            "on a part of a card (sGPU 25%), whose figures are not those of a whole card",
        ),
        ({"case__preset": "demo"}, "preset demo, in column 1 full"),
        ({"dataset__fingerprint_method": "other", "dataset__fingerprint": "f"}, "dataset fingerprint f, in column 1 "),
        ({"dataset__fingerprint": UNKNOWN}, "not stated, so perhaps not the same: epochs planned, dataset fingerprint"),
        ({"metrics__memory__device_peak_bytes": UNKNOWN}, "mem_peak read from allocator, in column 1 device"),
        ({"metrics__e2e_time_s": 10.0}, "implausible: metrics.train_seconds is 28600, e2e_time_s"),
        ({"topology__nnodes": 2, "metrics__p_train": throughput(20_000.0)}, "implausible: p_train on 16"),
    ],
)
def test_what_weakens_a_ratio_is_a_footnote(changes, text):
    own = OTHER if "topology__nnodes" not in changes else {"run_id": "other"}
    found = footnotes(compare_runs([make_record(), make_record(**own | changes)]))

    assert 2 in next((columns for note, columns in found.items() if note.startswith(text)), ()), found


def test_footnotes_are_few_for_runs_that_differ_in_the_card_alone():
    values = {"batch_size": 32, "lr": 0.1, "epochs": 100}
    records = [make_record(hyperparameters__values=values, **changes) for changes in ({}, OTHER)]

    assert footnotes(compare_runs(records)) == {}


def test_energy_for_each_sample_is_compared_and_few_readings_are_said():
    power = {
        **{"samples": 9, "mean_w": 300.0, "max_w": 400.0, "energy_j": 128_116_700.0, "used_peak_bytes": 1},
        **{"mean_temperature_c": 60.0, "max_temperature_c": 70.0, "mean_utilization_percent": 99.0, "source": "smi"},
    }
    comparison = compare_runs([make_record(metrics__power=power), make_record(**OTHER)])

    assert [cell.value for cell in measure(comparison, "energy_per_sample").cells] == [1.0, Missing(missing="unknown")]
    assert footnotes(comparison)["energy from 9 readings of each device; fewer than 60 are coarse"] == (1,)


def test_windows_give_the_ratio_an_interval():
    comparison = compare_runs(
        [
            make_record(metrics__p_train=throughput(1000.0, spread=0.02)),
            make_record(**OTHER, metrics__p_train=throughput(2000.0, spread=0.02)),
        ]
    )
    first, second = measure(comparison, "p_train").cells

    assert (first.interval, first.no_interval, first.verdict) == (None, None, None)
    assert 1.84 < second.interval.low < 2 < second.interval.high < 2.17
    assert (second.repeats, second.windows, second.verdict) == (1, 5, "higher")


@pytest.mark.parametrize(
    ("rate", "spread", "verdict"),
    [
        (1000.0, 0.05, "no_difference"),
        (1100.0, 0.001, "higher"),
        (900.0, 0.001, "lower"),
        (1019.0, 0.0, "no_difference"),
    ],
)
def test_interval_near_one_shows_no_difference(rate, spread, verdict):
    records = [
        make_record(metrics__p_train=throughput(1000.0, spread=spread)),
        make_record(**OTHER, metrics__p_train=throughput(rate, spread=spread)),
    ]

    assert measure(compare_runs(records), "p_train").cells[1].verdict == verdict


def test_single_values_have_no_interval_and_say_so():
    second = measure(compare_runs([make_record(), make_record(**OTHER)]), "p_whole").cells[1]

    assert (second.ratio, second.interval) == (1, None)
    assert second.no_interval == "a single value in column 1 and 2"


def test_one_window_has_no_interval():
    one = throughput(1000.0)
    one["windows"] = one["windows"][:1]
    second = measure(compare_runs([make_record(), make_record(**OTHER, metrics__p_train=one)]), "p_train").cells[1]

    assert second.no_interval == "a single value in column 2"


def repeats(vendor, rates, *, planned=None, **changes):
    records = [
        make_record(
            **{"run_id": f"{vendor}-{seed}", "seed": seed, "vendor__name": vendor},
            **{"environment__row_label": vendor, "metrics__p_whole": rate, **changes},
        )
        for seed, rate in enumerate(rates)
    ]
    return Side(records=tuple(records), planned=planned or len(records), source=vendor)


def test_repeats_of_different_counts_are_columns_with_their_spread():
    comparison = compare_columns(
        [
            repeats("a", [4400.0, 4500.0, 4600.0]),
            repeats("b", [9000.0, 9100.0, 8900.0, 9050.0, 8000.0]),
            repeats("c", [4475.0]),
        ]
    )
    first, second, third = measure(comparison, "p_whole").cells

    assert (first.value, first.lowest, first.highest, first.repeats) == (4500.0, 4400.0, 4600.0, 3)
    assert second.value == pytest.approx((9000 + 9050 + 8900) / 3)
    assert second.interval.low < second.ratio < second.interval.high
    assert (third.lowest, third.no_interval) == (None, "a single value in column 3")
    assert comparison.outcomes[1] == ("converged",) * 5


def test_repeats_that_lack_a_value_have_no_result():
    column = repeats("b", [9000.0, 9100.0])
    lacking = Side(records=(column.records[0], make_record(**LACKING)), planned=2, source="b")
    cell = measure(compare_columns([repeats("a", [4500.0]), lacking]), "p_whole").cells[1]

    assert cell.value == Missing(missing="failed", reason="1 of 2 runs have none")
    assert (cell.ratio, cell.interval, cell.lowest) == (None, None, 9000.0)


LACKING = {"run_id": "l", "seed": 9, "vendor__name": "b", "environment__row_label": "b", "metrics__p_whole": UNKNOWN}


def test_repeats_that_did_not_complete_are_a_footnote():
    found = footnotes(compare_columns([repeats("a", [4500.0, 4400.0], planned=3)]))

    assert found["2 of 3 repeats completed; the others are left out"] == (1,)
    assert found["fewer than 3 repeats say nothing about the spread"] == (1,)


def test_runs_that_differ_in_more_than_their_seed_are_no_repeats():
    records = (make_record(seed=1), make_record(run_id="b", seed=2, precision__requested="amp"))

    with pytest.raises(UsageError, match="the runs in x are not repeats"):
        compare_columns([Side(records=records, source="x")])


def test_a_run_in_two_columns_makes_them_dependent():
    column = repeats("a", [4400.0, 4500.0, 4600.0])
    found = footnotes(compare_columns([column, Side(records=column.records[:1])]))

    assert found["run a-0 is in both columns, so their interval is too narrow"] == (1, 2)


def test_a_run_beside_its_withheld_copy_is_one_run():
    record = make_record(run_id="a")
    copy = withhold(record, ["metrics.e2e_time_s"], "asked for").record
    found = footnotes(compare_columns([Side(records=(record,)), Side(records=(copy,))]))

    assert found["run a is in both columns, so their interval is too narrow"] == (1, 2)


def test_three_vendors_of_which_one_withholds():
    withheld = {"missing": "withheld", "reason": "before the launch"}
    records = [make_record(), make_record(**OTHER, metrics__p_core=withheld)]
    records.append(make_record(run_id="third", vendor__name="third", environment__row_label="C3"))
    cells = measure(compare_runs(records), "p_core").cells

    assert cells[1].value == Missing(missing="withheld", reason="before the launch")
    assert [cell.ratio for cell in cells] == [1, None, 1]
    assert cells[2].interval is not None


@pytest.mark.parametrize(("metric", "is_better"), [("acc", True), ("perplexity", False)])
def test_lower_result_of_a_loss_is_the_better_one(metric, is_better):
    comparison = compare_runs([make_record(case__metric=metric), make_record(**OTHER, case__metric=metric)])

    assert measure(comparison, "quality").higher_is_better is is_better


@pytest.mark.parametrize("value", [0.0, 5e-324, 1.7e308])
def test_any_rate_is_compared(value):
    made = {"median": value, "iqr": value, "mean_of_totals": value}
    window = {"epoch": 0, "first_step": 0, "steps": 1, "samples": int(1e18 if value else 0), "seconds": 1e-308}
    extreme = made | {"windows": [window, window | {"seconds": 0.0}]}
    records = [make_record(metrics__p_train=extreme, metrics__p_whole=value), make_record(**OTHER)]

    for order in (records, records[::-1]):
        comparison = compare_runs(order)
        assert json.loads(json_text(comparison))["measures"]
        assert as_csv(comparison)
        assert as_markdown(comparison)


def test_efficiency_is_against_the_fewest_devices_of_the_same_kind():
    def run(vendor, nodes, rate):
        return make_record(
            **{"run_id": f"{vendor}{nodes}", "vendor__name": vendor, "environment__row_label": vendor},
            **{"topology__nnodes": nodes, "metrics__p_train": throughput(rate)},
        )

    comparison = compare_runs([run("a", 2, 190.0), run("b", 1, 50.0), run("a", 1, 100.0), run("b", 2, 90.0)])

    assert [each and (each.efficiency, each.base) for each in comparison.scaling] == [
        (pytest.approx(0.95), 3),
        None,
        None,
        (pytest.approx(0.9), 2),
    ]


@pytest.mark.parametrize("name", ["imagenet2012", "imagenet2012 1", "unknown"])
def test_a_document_that_states_no_version_may_be_of_any(name):
    imported = make_record(
        **OTHER, kind="imported", dataset__name=name, dataset__version=UNKNOWN, dataset__fingerprint=UNKNOWN
    )
    found = footnotes(compare_runs([make_record(), imported]))

    assert any("dataset version, dataset fingerprint" in note for note in found)


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


MISSING = st.sampled_from(["not_run", "withheld", "failed", "not_applicable", "unknown"]).map(
    lambda kind: {"missing": kind, "reason": "why"}
)
NUMBER = st.one_of(MISSING, st.floats(min_value=0, max_value=1.7e308), st.just(0.0))
CHANGES = st.fixed_dictionaries(
    {
        f"metrics__{name}": NUMBER
        for name in ("e2e_time_s", "p_whole", "p_core", "quality", "best_quality", "train_seconds", "epochs")
    }
    | {
        "metrics__p_train": st.one_of(MISSING, st.floats(min_value=1e-6, max_value=1e12).map(throughput)),
        "metrics__time_to_target": st.one_of(MISSING, st.just({"seconds": 5.0, "epoch": 1})),
        "metrics__memory": st.one_of(MISSING, st.just(make_record().metrics.memory.model_dump())),
        "metrics__train_samples": st.one_of(MISSING, st.integers(min_value=0, max_value=2**63)),
        "metrics__steps": st.one_of(MISSING, st.integers(min_value=0, max_value=2**63)),
        "precision__effective": st.one_of(MISSING, st.text()),
        "environment__row_label": st.one_of(MISSING, st.text()),
        "kind": st.sampled_from(["measured", "simulated", "imported"]),
        "status": st.sampled_from([{"state": "completed"}, {"state": "killed"}]),
    }
)


@settings(deadline=None, max_examples=40)
@given(st.lists(CHANGES, min_size=1, max_size=3))
def test_whatever_is_missing_is_named_and_never_blank(changes):
    records = [make_record(run_id=f"run-{place}", **each) for place, each in enumerate(changes)]
    comparison = compare_runs(records)

    assert all(cell.strip() for cells in rows(comparison).values() for cell in cells)
    assert json.loads(json_text(comparison))["case"] == "resnet50"
    found = list(csv.DictReader(io.StringIO(as_csv(comparison))))
    assert all(row["value"] or row["missing"] for row in found)
    tables = parse(as_markdown(comparison)).tables
    assert len({len(row) for row in tables[0]}) == 1


@given(st.lists(st.floats(min_value=1.0, max_value=1e6), min_size=1, max_size=7))
def test_result_of_repeats_is_among_them(rates):
    cell = measure(compare_columns([repeats("a", rates)]), "p_whole").cells[0]

    assert min(rates) * (1 - 1e-9) <= cell.value <= max(rates) * (1 + 1e-9)


def test_median_that_its_windows_do_not_give_has_no_interval():
    doctored = throughput(1000.0, spread=0.05) | {"median": 10_000.0}
    records = [
        make_record(metrics__p_train=throughput(1000.0, spread=0.05)),
        make_record(**OTHER, metrics__p_train=doctored),
    ]

    comparison = compare_runs(records)

    cell = measure(comparison, "p_train").cells[1]
    assert (cell.ratio, cell.interval, cell.verdict) == (10.0, None, None)
    assert cell.no_interval == "the value in column 2 is not that of its windows"


def test_run_that_failed_is_no_base_of_scaling():
    def run(name: str, devices: int, **changes):
        rate = throughput(100.0 * devices)
        topology = {"nnodes": 1, "nproc_per_node": devices}
        return make_record(run_id=name, topology=topology, metrics__p_train=rate, **changes)

    failed = run("one", 1, status={"state": "failed"})
    scaling = compare_runs([run("two", 2), run("four", 4), failed]).scaling

    assert [each and (each.efficiency, each.base) for each in scaling] == [None, (1.0, 1), None]


def test_failed_run_hides_no_other_from_the_check_of_scaling():
    def run(name: str, devices: int, rate: float, **changes):
        topology = {"nnodes": 1, "nproc_per_node": devices}
        return make_record(run_id=name, topology=topology, metrics__p_train=throughput(rate), **changes)

    failed = run("failed", 1, 100.0, status={"state": "failed"})
    found = [*check_scaling([failed, run("one", 1, 100.0), run("eight", 8, 2000.0)])]

    assert [record.run_id for record, _ in found] == ["eight"]

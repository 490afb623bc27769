"""Values that cannot be true together, and values that can."""

from __future__ import annotations

import re

import pytest
from chipperf.languages import LANGUAGES, in_language
from chipperf.records.plausibility import Peak, check_record, check_scaling, model_flops_utilization
from chipperf.records.schema import Record
from chipperf.report.render import render_report
from factory import GIB, UNKNOWN, make_record, throughput, throughput_of

POWER = {
    "samples": 28_600,
    "mean_w": 300.0,
    "max_w": 400.0,
    "energy_j": 300.0 * 8 * 28_600,
    "mean_temperature_c": 60.0,
    "max_temperature_c": 70.0,
    "mean_utilization_percent": 99.0,
    "used_peak_bytes": 21 * GIB,
    "source": "acme-smi",
}
PEAK = Peak(flops_per_s=256e12, source="data sheet")


def point(value: float) -> dict[str, float]:
    return {"epoch": 1, "step": 1, "value": value, "elapsed_s": 1.0, "samples": 1}


@pytest.mark.parametrize(
    ("check", "changes", "text"),
    [
        ("epochs", {"metrics__epochs": 90}, "metrics.epochs is 90, 500400 x 256 / 1281167 gives 100"),
        (
            "epochs",
            {"hyperparameters__values": {"epochs": 50}},
            "metrics.epochs is 100, hyperparameters.values.epochs allows at most 50",
        ),
        (
            "samples",
            {"metrics__train_samples": 64_000_000, "metrics__p_whole": UNKNOWN},
            "steps x global_batch_size gives 128102400",
        ),
        ("samples", {"metrics__p_whole": 4000.0}, "metrics.p_whole is 4000, train_samples / train_seconds gives 4479"),
        (
            "memory",
            {"metrics__memory__device_peak_bytes": 65 * GIB},
            "device_peak_bytes (GiB) is 65, total_bytes allows at most 64",
        ),
        (
            "memory",
            {"metrics__memory__reserved_peak_bytes": 65 * GIB},
            "reserved_peak_bytes (GiB) is 65",
        ),
        ("times", {"metrics__e2e_time_s": 10.0}, "metrics.train_seconds is 28600, e2e_time_s allows at most 10"),
        (
            "times",
            {"metrics__spans": [{"name": "eval", "start_s": 1.0, "seconds": 9e4}]},
            "spans.eval is 90001",
        ),
        (
            "times",
            {"metrics__time_to_target": {"seconds": 3e4, "epoch": 99}},
            "target.seconds is 30000, train_seconds",
        ),
        (
            "times",
            {"metrics__p_train": throughput(1.0)},
            "windows.seconds is 1.281e+08, train_seconds",
        ),
        ("order", {"metrics__p_core": throughput(4000.0)}, "p_core 4000 is less than p_train 4586.25"),
        ("order", {"metrics__p_train": 4000.0}, "p_train 4000 is less than p_whole 4475"),
        ("order", {"metrics__p_train": UNKNOWN, "metrics__p_core": 4000.0}, "p_core 4000 is less than p_whole"),
        (
            "result",
            {"metrics__quality": 75.6, "metrics__best_quality": 75.6},
            "quality is 75.6, fraction allows",
        ),
        ("result", {"metrics__quality": 0.76}, "metrics.quality is 0.76, best_quality allows at most 0.7561"),
        (
            "result",
            {"metrics__quality": 0.7, "metrics__best_quality": 0.7},
            "target is 0.755, best_quality allows",
        ),
        (
            "throughputs",
            {"metrics__p_train": throughput(4586.25) | {"median": 45862.5}},
            "metrics.p_train.median is 45862.5, metrics.p_train.windows gives 4586.25",
        ),
        (
            "throughputs",
            {"metrics__p_core": throughput(5000.0) | {"mean_of_totals": 50_000.0}},
            "metrics.p_core.mean_of_totals is 50000, metrics.p_core.windows gives 5000",
        ),
        (
            "result",
            {"metrics__curve": [point(0.3), point(0.2)]},
            "best_quality is 0.7561, metrics.curve gives 0.3",
        ),
        (
            "result",
            {"metrics__curve": [point(0.7561), point(0.2)]},
            "s.quality is 0.7561, metrics.curve gives 0.2",
        ),
        (
            "energy",
            {"metrics__power": POWER | {"energy_j": 1e9}},
            "energy_j is 1e+09, max_w x e2e_time_s x cards",
        ),
        (
            "energy",
            {"metrics__power": POWER | {"mean_w": 500.0}},
            "mean_w is 500, max_w allows at most 400",
        ),
    ],
)
def test_what_cannot_be_true_is_found(check, changes, text):
    findings = [finding for finding in check_record(make_record(**changes)) if finding.check == check]

    assert any(text in str(finding.text) for finding in findings), findings
    assert all(re.search("[一-鿿]", in_language(finding.text, "zh")) for finding in findings)


LOSS = {"case__lower_is_better": True, "case__target": 2.85, "metrics__quality": 2.9, "metrics__best_quality": 2.8}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, None),
        ({"metrics__best_quality": 2.95}, "metrics.best_quality is 2.95, metrics.quality allows at most 2.9"),
        (
            {"metrics__quality": 2.9, "metrics__best_quality": 2.9},
            "metrics.best_quality is 2.9, case.target allows at most 2.85",
        ),
        ({"metrics__quality": -1.0}, "0 is 0, metrics.quality allows at most -1"),
        ({"metrics__curve": [point(2.95), point(2.9)]}, "best_quality is 2.8, metrics.curve gives 2.9"),
        (
            {"metrics__curve": [point(2.8), point(2.9)], "metrics__time_to_target": UNKNOWN},
            "metrics.time_to_target is None, metrics.curve gives (1.0, 1)",
        ),
        ({"case__lower_is_better": False, "case__metric": "top1"}, "metrics.quality is 2.9, fraction allows at most 1"),
    ],
)
def test_loss_is_best_where_it_is_lowest(changes, text):
    findings = [each for each in check_record(make_record(**LOSS | changes)) if each.check == "result"]

    assert any(text in str(each.text) for each in findings) if text else findings == [], findings


def test_batch_of_sequences_counts_their_tokens():
    """The factory's run has 256 samples in a global batch, on eight cards."""
    values = {"batch_size": 4, "accumulate_steps": 1}
    name = "hyperparameters.global_batch_size"
    for per_item, given in ((8, None), (16, "batch_size x samples_per_item x accumulate_steps x topology gives 512")):
        record = make_record(hyperparameters__values=values, hyperparameters__samples_per_item=per_item)
        found = [str(each.text) for each in check_record(record) if name in str(each.text)]
        assert [given in text for text in found] == ([] if given is None else [True]), found


def withheld(field):
    """Return the changes of a record that withholds a field. Every completed run has these fields."""
    missing = {"missing": "withheld", "reason": "not yet"}
    return {field.replace(".", "__"): missing, "withheld": [{"field": f"$.{field}", "reason": "", "sha256": "0" * 64}]}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"metrics__power": POWER},
        withheld("metrics.steps"),
        {"dataset__train_samples": UNKNOWN},
        {"dataset__train_samples": 0},
        {
            "hyperparameters__global_batch_size": 0,
            "metrics__steps": 0,
            "metrics__train_samples": 0,
            "metrics__p_whole": 0,
            "metrics__p_train": UNKNOWN,
            "metrics__p_core": UNKNOWN,
        },
        {"metrics__memory": UNKNOWN},
        {"metrics__memory__device_peak_bytes": 64 * GIB},
        {
            "metrics__train_seconds": 0.0,
            "metrics__time_to_target": UNKNOWN,
            "metrics__p_train": UNKNOWN,
            "metrics__p_core": UNKNOWN,
        },
        withheld("metrics.p_core"),
        withheld("metrics.e2e_time_s") | {"metrics__power": POWER},
    ],
)
def test_what_can_be_true_is_left_alone(changes):
    assert check_record(make_record(**changes)) == ()


@pytest.mark.parametrize(("spread", "found"), [(0.0, True), (0.01, True), (0.1, False)])
def test_throughputs_may_overlap_by_as_much_as_their_windows_spread(spread, found):
    """Ten percent too little is a mistake where windows are alike, and chance where they are not."""
    record = make_record(
        metrics__p_whole=UNKNOWN, metrics__p_train=throughput(110.0, spread=spread), metrics__p_core=throughput(100.0)
    )

    assert any(finding.check == "order" for finding in check_record(record)) is found


def test_a_document_has_no_windows_that_could_spread():
    record = make_record(kind="imported", metrics__p_train=110.0, metrics__p_core=100.0, metrics__p_whole=UNKNOWN)

    texts = [str(finding.text) for finding in check_record(record) if finding.check == "order"]

    assert texts == ["p_core 100 is less than p_train 110"]


def test_overall_throughput_may_be_that_of_all_windows_together():
    """Where a few windows are slow the median lies above the mean, and the other way round."""
    train = throughput_of([4300.0, 4300.0, 4300.0, 4800.0, 4800.0], iqr=0.0)

    assert not [each for each in check_record(make_record(metrics__p_train=train)) if each.check == "order"]


def test_windows_that_took_no_time_together_imply_no_rate():
    train = throughput_of([4300.0, 4300.0], iqr=0.0)
    train["windows"].append({**train["windows"][0], "seconds": -2 * train["windows"][0]["seconds"]})

    assert not [each for each in check_record(make_record(metrics__p_train=train)) if "p_train.m" in str(each.text)]


def test_windows_of_infinite_rate_are_no_error():
    data = make_record().model_dump(mode="json")
    for window in data["metrics"]["p_train"]["windows"]:
        window["seconds"] = 1e-307

    found = [str(each.text) for each in check_record(Record.model_validate(data))]
    assert any("metrics.p_train.median is 4" in text and "inf" in text for text in found)


def test_nothing_is_known_of_the_values_of_a_run_that_did_not_complete():
    assert check_record(make_record(status={"state": "killed"}, metrics__e2e_time_s=1.0)) == ()


@pytest.mark.parametrize(("flops", "found"), [(8.18e9, False), (8.18e12, True)])
def test_utilization_of_more_than_the_peak_is_found(flops, found):
    findings = check_record(make_record(), forward_flops=flops, peak=PEAK)

    assert {finding.check for finding in findings} == ({"mfu"} if found else set())
    assert not found or "p_core 4659 is 5583% of the peak (256 TFLOP/s, data sheet)" in str(findings[0].text)


def test_utilization_takes_a_step_for_three_forward_passes():
    assert model_flops_utilization(1000.0, 2, 1e9, Peak(flops_per_s=3e12, source="")) == pytest.approx(0.5)


@pytest.mark.parametrize(("rate", "expected"), [(9000.0, []), (9700.0, ["two"])])
def test_throughput_cannot_grow_faster_than_the_devices(rate, expected):
    one = make_record(run_id="one")
    two = make_record(run_id="two", topology__nnodes=2, metrics__p_train=throughput(rate))

    assert [record.run_id for record, _ in check_scaling([two, one])] == expected


@pytest.mark.parametrize("value", [0.0, 5e-324, 1e308, -1.0])
def test_any_number_is_checked_without_an_error(value):
    """A record may hold anything that JSON can; only what is measured makes sense."""
    data = make_record(metrics__power=POWER).model_dump(mode="json")
    fields = ("e2e_time_s", "p_whole", "p_core", "quality", "best_quality", "train_seconds", "epochs")
    data["metrics"] |= dict.fromkeys(fields, value)
    data["metrics"]["power"] |= dict.fromkeys(("mean_w", "max_w", "energy_j"), value)

    findings = check_record(Record.model_validate(data), forward_flops=value, peak=Peak(flops_per_s=value, source=""))
    assert all(in_language(finding.text, language) for finding in findings for language in LANGUAGES)


def test_report_says_what_is_implausible_in_its_notes():
    records = [make_record(run_id="a", metrics__e2e_time_s=10.0), make_record(run_id="b", topology__nproc_per_node=1)]
    zh, en = (render_report(records, language=language) for language in ("zh", "en"))

    assert "  - Implausible (1x8 fp32): metrics.train_seconds is 28600, e2e_time_s allows at most 10." in en
    assert "  - 不可信（1x8 fp32）：metrics.train_seconds 为 28600，而 e2e_time_s 至多允许 10。" in zh


def test_report_of_plausible_runs_has_no_such_note():
    assert "Implausible" not in render_report([make_record()], language="en")

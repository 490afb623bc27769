"""Edits of a finished run's record: each is found when the report is rendered again, or listed with the reason why not.

The record is that of ``docs/examples/detr-cpu``, with the power that a device would have told.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.cases.recorded_settings import check_with_case, missing_settings
from chipperf.cases.registry import find_case
from chipperf.errors import PerfError
from chipperf.records.schema import Record
from chipperf.records.store import find_records, read_record
from chipperf.report.render import render_report
from factory import make_record

if TYPE_CHECKING:
    from collections.abc import Callable

    Edit = Callable[[dict[str, Any]], object]

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "detr-cpu" / "record.json"
STORED = (*find_records(ROOT / "tests" / "kept"), *find_records(ROOT / "docs" / "examples"))

KNOWN = {"target": "p_core 68.1395 is less than p_train 137.429"}
"""Findings about stored runs: on a busy machine, the pass after training was slower than training."""


def finished() -> dict[str, Any]:
    data = read_record(EXAMPLE).model_dump(mode="json")
    power = {"mean_w": 200.0, "max_w": 250.0, "energy_j": 348_000.0, "mean_temperature_c": 60.0}
    data["metrics"]["power"] |= power | {"max_temperature_c": 70.0}
    # It was made before records had this span; training began after 18.16 s.
    data["metrics"]["spans"].insert(1, {"name": "first_step", "start_s": 0.0, "seconds": 19.0})
    return data


def put(path: str, value: object) -> Edit:
    """Return an edit that sets a field."""
    *parents, last = path.split(".")

    def edit(data: dict[str, Any]) -> None:
        for parent in parents:
            data = data[int(parent)] if parent.isdigit() else data[parent]
        data[int(last) if isinstance(data, list) else last] = value

    return edit


def times(path: str, factor: float) -> Edit:
    """Return an edit that multiplies a number."""

    def edit(data: dict[str, Any]) -> None:
        value: Any = data
        for step in path.split("."):
            value = value[int(step)] if step.isdigit() else value[step]
        put(path, type(value)(value * factor))(data)

    return edit


def of_windows(name: str, change: Callable[[list[dict[str, Any]]], object]) -> Edit:
    """Return an edit of the windows of a throughput that gives it the numbers of its new windows."""

    def edit(data: dict[str, Any]) -> None:
        from chipperf.records.event_metrics import throughput
        from chipperf.records.schema import Window

        measured = data["metrics"][name]
        change(measured["windows"])
        new = throughput([Window.model_validate(window) for window in measured["windows"]])
        if new is not None:
            measured |= new.model_dump(mode="json")
        stall = 1 - data["metrics"]["p_train"]["median"] / data["metrics"]["p_core"]["median"]
        data["metrics"]["data_stall"] = stall

    return edit


def each(key: str, factor: float, windows: list[dict[str, Any]]) -> None:
    for window in windows:
        window[key] = type(window[key])(window[key] * factor)


def drop_slow(windows: list[dict[str, Any]]) -> None:
    windows[:] = sorted(windows, key=lambda window: window["seconds"] / window["steps"])[: len(windows) // 2]


def keep(count: int) -> Edit:
    return lambda data: data["metrics"]["p_core"].update(windows=data["metrics"]["p_core"]["windows"][:count])


def as_measured(seen: str) -> Edit:
    return lambda data: data["precision"].update(measured_matmul=seen, measured_convolution=seen)


def span(name: str, key: str, value: float) -> Edit:
    return lambda data: next(each for each in data["metrics"]["spans"] if each["name"] == name).update({key: value})


def ends_early(metrics: dict[str, Any]) -> None:
    metrics["curve"].pop()
    values = [point["value"] for point in metrics["curve"]]
    metrics.update(quality=values[-1], best_quality=max(values))


def all_of(*edits: Edit) -> Edit:
    return lambda data: [edit(data) for edit in edits]


REACHED = {"seconds": 100.0, "epoch": 4}
IS_PUBLISHED = all_of(
    put("dataset.name", "coco2017"),
    put("dataset.is_sample", False),
    put("dataset.fingerprint_method", "sha256 of sorted relative paths and sizes"),
)

FOUND: dict[str, Edit] = {
    "the flag of the sample is gone": put("dataset.is_sample", False),
    "the sample has another name, and no flag": all_of(put("dataset.name", "mine"), put("dataset.is_sample", False)),
    "the sample is called the case's dataset": IS_PUBLISHED,
    "no changes": put("hyperparameters.changes", []),
    "no list of changes": put("hyperparameters.changes", {"missing": "unknown"}),
    "other changes than the preset's, withheld": all_of(
        put("withheld", [{"field": "$.hyperparameters.changes", "reason": "nda", "sha256": "0" * 64}]),
        put("hyperparameters.changes", {"missing": "withheld", "reason": "nda"}),
        put("hyperparameters.values.resolution", 32),
    ),
    "a throughput without windows": all_of(
        put("metrics.p_core", 1e6), put("metrics.data_stall", {"missing": "unknown"})
    ),
    "metrics of a later version": put("metrics_version", 99),
    "preset full": put("case.preset", "full"),
    "preset unknown": put("case.preset", "fast"),
    "a change is gone": lambda data: data["hyperparameters"]["changes"].pop(),
    "a change has another base": put("hyperparameters.changes.0.base", 64),
    "a change has another value": put("hyperparameters.changes.0.value", 800),
    "a value differs from its change": put("hyperparameters.values.resolution", 800),
    "a locked value is set by hand": all_of(
        put("hyperparameters.changes.0.origin", "command line"),
        put("hyperparameters.changes.0.value", 128),
        put("hyperparameters.values.resolution", 128),
    ),
    "learning rate": put("hyperparameters.values.lr", 0.5),
    "global batch": put("hyperparameters.global_batch_size", 16),
    "eight ranks with one card": put("topology.nproc_per_node", 8),
    "two machines": put("topology.nnodes", 2),
    "no cards": put("environment.cards", []),
    "card title": put("environment.card_title", "ACME A1"),
    "vendor's device type": put("vendor.device_type", "cuda"),
    "vendor": put("vendor.name", "acme"),
    "case": put("case.name", "resnet50"),
    "metric": put("case.metric", "top1"),
    "created": put("created_at", "2025-01-01T00:00:00Z"),
    "run id": put("run_id", "detr-cpu-fp32-1x1-20200101-000000-abcd"),
    "seed": put("seed", 7),
    "version of chipperf": put("chipperf_version", "9.9"),
    "version of torch": put("environment.torch", "9.9"),
    "no distributions": put("environment.distributions", []),
    "no knobs": put("knobs", []),
    "no warnings": put("warnings", []),
    "no spans": put("metrics.spans", []),
    "the last span is gone": lambda data: data["metrics"]["spans"].pop(),
    "imported": put("kind", "imported"),
    "a failure": put("status.failure", {"failure_class": "hang", "message": "stood still"}),
    "no end-to-end time": put("metrics.e2e_time_s", {"missing": "failed", "reason": "hang"}),
    "measured bf16 in an fp32 run": as_measured("bf16"),
    "requested bf16": put("precision.requested", "bf16"),
    "autocast": put("precision.autocast_dtype", "bfloat16"),
    "max_steps": put("limits.max_steps", 5),
    "max_epochs": put("limits.max_epochs", 2),
    "fewer epochs than planned": put("hyperparameters.values.epochs", 25),
    "epochs": put("metrics.epochs", 30.0),
    "steps": put("metrics.steps", 1790),
    "samples": times("metrics.train_samples", 1.02),
    "samples of the dataset": put("dataset.train_samples", 1000),
    "samples evaluated": put("dataset.eval_samples", 5000),
    "p_core": times("metrics.p_core.median", 100),
    "p_core with its windows": of_windows("p_core", partial(each, "seconds", 0.01)),
    "p_core a tenth faster with its windows": of_windows("p_core", partial(each, "seconds", 0.9)),
    "p_core slower than its span": of_windows("p_core", partial(each, "seconds", 10.0)),
    "p_core of one window": keep(1),
    "p_core without windows": keep(0),
    "samples within a window of p_core": of_windows("p_core", partial(each, "samples", 2)),
    "steps within a window of p_core": put("metrics.p_core.windows.0.steps", 20),
    "iqr": put("metrics.p_train.iqr", 0.0),
    "p_train": times("metrics.p_train.median", 1.1),
    "slow windows are gone": of_windows("p_train", drop_slow),
    "windows overlap": put("metrics.p_train.windows.5.first_step", 12),
    "the first window is gone": of_windows("p_train", lambda windows: windows.pop(0)),
    "the last window is gone": of_windows("p_train", lambda windows: windows.pop()),
    "samples within a window": of_windows("p_train", partial(each, "samples", 2)),
    "a window is faster than it says": times("metrics.p_train.windows.3.seconds", 0.1),
    "p_whole": times("metrics.p_whole", 1.1),
    "data stall": put("metrics.data_stall", 0.0),
    "slowdown": put("metrics.step_breakdown.slowdown", 1.0),
    "phases of a step": times("metrics.step_breakdown.forward_s", 0.5),
    "end-to-end time below its spans": put("metrics.e2e_time_s", 1750.0),
    "end-to-end time above its spans": put("metrics.e2e_time_s", 1800.0),
    "a span ends after the run": span("eval", "seconds", 5000.0),
    "training time below the curve": all_of(times("metrics.train_seconds", 0.9), times("metrics.p_whole", 1 / 0.9)),
    "training time above its spans": all_of(times("metrics.train_seconds", 1.02), times("metrics.p_whole", 1 / 1.02)),
    "quality": put("metrics.quality", 0.3),
    "best quality": put("metrics.best_quality", 0.3),
    "a target that was not met": put("metrics.time_to_target", REACHED),
    "a target that was met is gone": put("case.target", 0.1),
    "time to target": all_of(put("case.target", 0.1), put("metrics.time_to_target", REACHED)),
    "a point of the curve is late": put("metrics.curve.3.elapsed_s", 10_000.0),
    "a point of the curve has another step": put("metrics.curve.3.step", 610),
    "a point of the curve has another epoch": put("metrics.curve.3.epoch", 9),
    "memory above the device's": times("metrics.memory.allocated_peak_bytes", 100),
    "energy": times("metrics.power.energy_j", 0.05),
    "energy above": times("metrics.power.energy_j", 2),
    "mean power": put("metrics.power.mean_w", 260.0),
    "mean temperature": put("metrics.power.mean_temperature_c", 80.0),
    "utilization": put("metrics.power.mean_utilization_percent", 120.0),
    "coverage above 1": put("metrics.power.coverage", 1.5),
    "values of half the training": put("metrics.power.coverage", 0.5),
    "the curve ends at its best point": lambda data: ends_early(data["metrics"]),
    "no curve": put("metrics.curve", []),
    "an evaluation is gone": lambda data: data["metrics"]["curve"].pop(3),
    "quality is missing": put("metrics.quality", {"missing": "not_applicable", "reason": ""}),
    "best quality is missing": put("metrics.best_quality", {"missing": "unknown", "reason": ""}),
    "data stall is missing": put("metrics.data_stall", {"missing": "not_run", "reason": ""}),
    **{
        f"{path} is missing": put(path, {"missing": "unknown", "reason": ""})
        for path in (
            *("seed", "hyperparameters.global_batch_size", "metrics.e2e_time_s", "metrics.train_seconds"),
            *("metrics.steps", "metrics.epochs", "metrics.train_samples", "metrics.p_whole"),
        )
    },
    "withheld without a commitment": put("metrics.data_stall", {"missing": "withheld", "reason": "embargo"}),
    "a commitment to what is told": put(
        "withheld", [{"field": "$.metrics.p_whole", "reason": "embargo", "sha256": "0" * 64}]
    ),
    "definitions of FlagPerf": put("metrics_definition", "flagperf"),
    "the sample's name in capitals": all_of(
        put("dataset.name", "ChipPerf COCO-Sample"),
        put("dataset.is_sample", False),
        put("dataset.fingerprint_method", "another"),
    ),
    "a dataset's name in capitals": all_of(IS_PUBLISHED, put("dataset.name", "COCO\uff12017")),
    "a change twice": lambda data: data["hyperparameters"]["changes"].append(data["hyperparameters"]["changes"][0]),
    "a first step before training": span("first_step", "seconds", 18.0),
    "a first step after training": span("first_step", "seconds", 1750.0),
    "a span twice": lambda data: data["metrics"]["spans"].append(data["metrics"]["spans"][0]),
    "a span of negative time": span("eval", "seconds", -100.0),
    "teardown is shorter": all_of(put("metrics.e2e_time_s", 1795.0), span("teardown", "start_s", 1793.019267267001)),
    "training that its windows do not fill": all_of(
        *(of_windows(name, partial(each, "seconds", 0.5)) for name in ("p_train", "p_core")),
        times("metrics.step_breakdown.slowdown", 2),
    ),
    "less memory than the gradients": put("metrics.gradient_bytes", 10**12),
    "another peak of the device than the telemetry's": put("metrics.memory.device_peak_bytes", 12345),
    "no memory at all": put("metrics.memory.allocated_peak_bytes", 0),
    "steps of a rank that is not there": put(
        "metrics.rank_steps", [{"rank": 7, "step_s": 0.8, "data_wait_s": 0.0, "card": "AMD EPYC"}]
    ),
    "a billion ranks": put("topology.nproc_per_node", 10**9),
    "skipped steps of no epoch": all_of(
        put("precision.grad_scaler", True), put("metrics.skipped_steps", {"steps": 3, "by_epoch": {}})
    ),
    "more skipped steps than steps": all_of(
        put("precision.grad_scaler", True), put("metrics.skipped_steps", {"steps": 5000, "by_epoch": {1: 5000}})
    ),
    "skipped steps without a scaler": put("metrics.skipped_steps", {"steps": 3, "by_epoch": {1: 3}}),
}

FOUND_BY_EVENTS = "nothing else in the record depends on it; the events do, see tests/verify/test_evidence.py"
NOT_FOUND: dict[str, tuple[Edit, str]] = {
    "loss": (put("metrics.p_train.windows.0.loss", 0.1), FOUND_BY_EVENTS),
    "a point's quality between the others": (put("metrics.curve.3.value", 0.05), FOUND_BY_EVENTS),
    "utilization within its range": (
        put("metrics.power.mean_utilization_percent", 50.0),
        "nothing else in the record depends on it; the telemetry does",
    ),
    "processor": (put("environment.cpu", "another"), "a name that nothing in the run's directory repeats"),
    "driver": (put("environment.driver", "9.9"), "a name that nothing in the run's directory repeats"),
    "fingerprint": (put("dataset.fingerprint", "0" * 64), "only the data themselves have it"),
    "a knob": (put("knobs.0.value", "64"), "only the vendor's plugin could tell what it should be"),
    "a run id of one's own": (put("run_id", "mine"), "it may be anything; reports name runs by hash"),
    "peak memory": (times("metrics.memory.allocated_peak_bytes", 0.5), "nothing else depends on it"),
    "simulated": (put("kind", "simulated"), "only the vendor's plugin knows; measured devices would lose by it"),
    "effective and measured bf16": (
        all_of(as_measured("bf16"), put("precision.effective", "bf16")),
        "some stacks compute fp32 otherwise, and their plugin says so; the report shows it",
    ),
    "a hyperparameter is gone": (
        lambda data: data["hyperparameters"]["values"].pop("epochs"),
        "records of earlier versions lack those that are newer; rules that need it say nothing",
    ),
    "a span is gone": (
        lambda data: data["metrics"].update(
            spans=[span for span in data["metrics"]["spans"] if span["name"] != "observers"]
        ),
        "what it would have to agree with says nothing without it",
    ),
    "the whole sample": (
        all_of(IS_PUBLISHED, put("dataset.name", "mine")),
        "a user's data have any name and fingerprint; the shape of the samples is not recorded",
    ),
}


def findings(data: dict[str, Any]) -> list[str]:
    record = Record.model_validate(data)
    try:
        case = find_case(record.case.name)
    except PerfError:
        case = None
    return [str(finding.text) for finding in check_with_case(record, case)]


def test_the_record_is_consistent() -> None:
    assert findings(finished()) == []


@pytest.mark.parametrize("edit", FOUND.values(), ids=FOUND)
def test_an_edit_is_found(edit: Edit) -> None:
    data = finished()
    edit(data)

    assert data != finished()
    assert findings(data)


@pytest.mark.parametrize(("edit", "reason"), NOT_FOUND.values(), ids=NOT_FOUND)
def test_an_edit_that_cannot_be_found_has_a_reason(edit: Edit, reason: str) -> None:
    data = finished()
    edit(data)

    assert data != finished()
    assert findings(data) == [], "it can be found: move it to the others"
    assert reason


@pytest.mark.parametrize(("factor", "is_found"), [(1.04, False), (1.1, True)])
def test_more_arithmetic_than_the_case_has_is_found(factor: float, is_found: bool) -> None:
    case = find_case("resnet50")
    assert case.forward_flops
    record = make_record(case__version=case.version, metrics__forward_flops=case.forward_flops * factor)

    found = findings(record.model_dump(mode="json"))

    assert any(text.startswith("metrics.forward_flops is") for text in found) is is_found


@pytest.mark.parametrize(("quality", "is_found"), [(37_805 / 50_000, False), (0.756_111, True)])
def test_a_share_of_samples_is_a_whole_number_of_them(quality: float, is_found: bool) -> None:
    point = {"epoch": 90, "step": 1, "value": quality, "elapsed_s": 1.0, "samples": 50_000}
    record = make_record(metrics__curve=[point])

    assert any("correct predictions" in text for text in findings(record.model_dump(mode="json"))) is is_found


def test_a_setting_of_the_task_is_missing() -> None:
    data = finished()
    del data["hyperparameters"]["values"]["resolution"]
    case = find_case("detr")

    assert missing_settings(Record.model_validate(finished()), case) is None
    assert str(missing_settings(Record.model_validate(data), case)) == "the record does not state resolution"


def test_five_edits_do_not_make_a_demo_a_benchmark() -> None:
    data = finished()
    best = data["metrics"]["best_quality"]
    reached = put("metrics.time_to_target", {"seconds": data["metrics"]["curve"][-1]["elapsed_s"], "epoch": 24})
    target = all_of(put("case.target", best), put("hyperparameters.values.target", best))
    all_of(IS_PUBLISHED, put("hyperparameters.changes", []), put("case.preset", "full"), reached, target)(data)

    page = render_report([Record.model_validate(data)], language="en")

    assert "dataset.train_samples is 600, dataset.name gives 118287" in page
    assert "hyperparameters.values.resolution is 64, case detr 1.0 gives 800" in page


@pytest.mark.parametrize("file", STORED, ids=lambda file: file.parent.name)
def test_stored_records_are_consistent(file: Path) -> None:
    found = findings(read_record(file).model_dump(mode="json"))

    assert [text for text in found if not text.startswith(KNOWN.get(file.parent.name, "nothing"))] == []

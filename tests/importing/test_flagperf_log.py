"""Import of FlagPerf's run logs and of its device monitors' logs."""

from __future__ import annotations

import json

import pytest
from chipperf.documents.card_names import read_card_names
from chipperf.errors import DocumentError, UsageError
from chipperf.importing.file_import import import_file
from chipperf.importing.log_lines import Stated
from chipperf.importing.monitor_log import read_monitor_log
from chipperf.records.schema import Missing, Topology
from chipperf.report.render import render_report
from hypothesis import given, settings
from hypothesis import strategies as st
from readmes import imported, readme

KEY = "resnet50:pytorch_1.13:A100:1:8:1"
FINISHED = {
    "e2e_time": 28661.25,
    "training_images_per_second": 4475.1,
    "converged": False,
    "final_loss": 1.9,
    "final_acc1": 75.0,
    "final_acc5": 92.5,
    "raw_train_time": 28600.5,
    "init_time": 12.5,
    "num_trained_samples": 128116700,
    "global_steps": 500500,
    "throughput(ips)_raw": 4479.5,
    "throughput(ips)_no_eval": 4586.5,
    "throughput(ips)_pure_compute": 4659.5,
}
# As printed by awk from the tools of three vendors.
ROWS = """2023-03-27-11:20:00
31C 57W 15MiB 40536MiB 0%
30C 59W 506MiB 40536MiB 4%

2023-03-27-11:20:05
31C 157W 39000MiB 40536MiB 99%
30C 159W 38000MiB 40536MiB 98%

"""
TABLE = """2024-05-01-10:00:00
=================== MX-SMI ===================
| Board       Name | GPU   Persist-M | Bus-id              | GPU-Util      sGPU-M |
| Pwr:Usage/Cap    | Temp       Perf | Memory-Usage        | GPU-State            |
|==================+=================+=====================+======================|
| 0     C500       | 0           Off | 0000:37:00.0        | 97%          Enabled |
| 61W / 350W       | 38C          P9 | 15155/65536 MiB     | Available            |
+------------------+-----------------+---------------------+----------------------+
"""
NAMES = read_card_names()
STARTED_MS = 1_679_916_000_000
"""On the day of ``ROWS``."""


def event(name, value=None, time_ms=STARTED_MS):
    content = {"event": name}
    if value is not None:
        content["value"] = value
    content["metadata"] = {"file": "run_pretraining.py", "lineno": 1, "time_ms": time_ms, "rank": -1}
    return f"[PerfLog] {json.dumps(content)}"


def log(*lines):
    return "\n".join(["some library says hello", event("INIT_START"), *lines]) + "\n"


@pytest.fixture
def rank0(tmp_path):
    directory = tmp_path / "run20240101" / KEY / "round1" / "10.1.2.2_noderank0"
    directory.mkdir(parents=True)
    return directory / "rank0.out.log"


def import_one(path, **facts):
    return import_file(path, Stated(**{"vendor": "nvidia", **facts}), NAMES)


def test_finished_run_becomes_a_record_with_flagperfs_definitions(rank0):
    rank0.write_text(log(event("TRAIN_START"), event("FINISHED", FINISHED)), encoding="utf-8")

    result = import_one(rank0)

    ((record, values),) = ((each.record, each.values) for each in result.records)
    assert (record.kind, record.metrics_definition, record.status.state) == ("imported", "flagperf", "completed")
    assert (record.case.name, record.topology.label, record.environment.row_label) == ("resnet50", "1x8", "A100")
    metrics = record.metrics
    assert (metrics.p_whole, metrics.p_train, metrics.p_core) == (4479.5, 4586.5, 4659.5)
    assert (metrics.e2e_time_s, metrics.train_seconds, metrics.train_samples) == (28661.25, 28600.5, 128116700)
    assert (metrics.quality, metrics.steps) == (0.75, 500500)
    assert {"final_acc5: 92.5", "converged: False", "init_time: 12.5"} <= set(record.remarks)
    line = rank0.read_text(encoding="utf-8").split("\n")[3]
    source = next(each for each in values if each.field == "metrics.p_core")
    assert (source.line, line[source.column - 1 :].startswith('"throughput(ips)_pure_compute"')) == (4, True)
    assert not result.not_understood
    assert "75.0%" in render_report([record], language="en")


def test_curve_has_the_evaluations_that_can_be_placed(rank0):
    def evaluation(value, seconds):
        return event("EVALUATE", {"eval_acc1": value}, time_ms=STARTED_MS + seconds * 1000)

    progress = {"global_steps": 500, "num_trained_samples": 128000, "epoch": 1}
    rank0.write_text(
        log(
            event("TRAIN_START", time_ms=STARTED_MS),
            evaluation(0.1, 1),
            event("STEP_END", progress),
            evaluation(12.5, 60),
            event("EPOCH_END"),
            event("FINISHED", FINISHED),
        ),
        encoding="utf-8",
    )

    result = import_one(rank0)

    (point,) = result.records[0].record.metrics.curve
    assert (point.step, point.samples, point.epoch, point.value, point.elapsed_s) == (
        500,
        Missing(missing="unknown"),
        1,
        0.125,
        60,
    )
    assert [each.line for each in result.not_understood] == [4]


@pytest.mark.parametrize(
    ("case", "key", "logged", "expected"),
    [
        ("mobilenetv2", "acc1", [68.6], [0.686]),
        ("mobilenetv2", "acc1", [0.9, 12.5, 68.6], [0.009, 0.125, 0.686]),
        # The case logs acc1 in percent, however small all of it is.
        ("resnet50", "acc1", [0.1, 0.7], [0.001, 0.007]),
        ("resnet50", "accuracy", [0.1, 0.757], [0.1, 0.757]),
        ("bert_hf", "acc1", [0.5, 0.641], [0.5, 0.641]),
        ("vit", "acc1", [0.4, 79.1], [0.004, 0.791]),
        ("detr", "mAP", [0.1, 0.361], [0.1, 0.361]),
        ("transformer_xl", "ppl", [40.5, 23.7], [40.5, 23.7]),
        ("gpt", "loss", [0.9, 2.5, 0.8], [0.9, 2.5, 0.8]),
    ],
)
def test_all_results_of_a_log_have_one_unit(rank0, case, key, logged, expected):
    progress = event("STEP_END", {"global_steps": 5})
    evaluations = [event("EVALUATE", {f"eval_{key}": value}) for value in logged]
    finished = {"e2e_time": 900.5, f"final_{key}": logged[-1]}
    rank0.write_text(log(event("TRAIN_START"), progress, *evaluations, event("FINISHED", finished)), encoding="utf-8")

    result = import_one(rank0, case=case)

    metrics = result.records[0].record.metrics
    assert [point.value for point in metrics.curve] == expected
    assert metrics.quality == expected[-1]
    assert not result.not_understood


def test_result_that_no_unit_makes_a_fraction_is_listed(rank0):
    rank0.write_text(log(event("FINISHED", {"e2e_time": 1, "final_acc1": 250})), encoding="utf-8")

    result = import_one(rank0, case="vit")

    assert result.records[0].record.metrics.quality == Missing(missing="unknown", reason="not a result")
    assert [text.reason for text in result.not_understood] == ["not a result"]


@pytest.mark.parametrize(
    ("key", "metric"), [("acc1", "accuracy"), ("ppl", "perplexity"), ("bleu", "bleu"), ("nothing", "unknown")]
)
def test_metric_of_a_case_that_is_not_installed(rank0, key, metric):
    rank0.write_text(log(event("FINISHED", {"e2e_time": 1, f"final_{key}": 0.5})), encoding="utf-8")

    assert import_one(rank0, case="some").records[0].record.case.metric == metric


@pytest.mark.parametrize("spelling", ["throughput(ips)", "throughput(sps)", "throuhgput(ips)", "throughput(tps)"])
def test_throughputs_in_the_spellings_of_flagperfs_cases(rank0, spelling):
    rates = {f"{spelling}_raw": 100.0, f"{spelling}_no_eval": 110.0, f"{spelling}_pure_compute": 120.0}
    rank0.write_text(log(event("FINISHED", {"e2e_time": 900.5, **rates})), encoding="utf-8")

    result = import_one(rank0)

    metrics = result.records[0].record.metrics
    assert (metrics.p_whole, metrics.p_train, metrics.p_core) == (100, 110, 120)
    assert not result.not_understood


def test_unknown_key_is_listed_and_kept(rank0):
    rank0.write_text(log(event("FINISHED", {**FINISHED, "thruput_raw": 7})), encoding="utf-8")

    result = import_one(rank0)

    (text,) = result.not_understood
    assert (text.line, text.reason) == (3, "the key 'thruput_raw' is unknown")
    assert "thruput_raw: 7" in result.records[0].record.remarks


def test_training_that_starts_again_is_another_attempt(rank0):
    killed = [event("TRAIN_START"), event("STEP_END", {"global_steps": 400}), event("EPOCH_END")]
    again = [event("INIT_START"), event("SUBMIT_INFO", {"vendor": "nvidia"}), event("TRAIN_START", time_ms=STARTED_MS)]
    progress = event("STEP_END", {"global_steps": 5})
    evaluation = event("EVALUATE", {"eval_acc1": 75.0}, time_ms=STARTED_MS + 10_000)
    lines = log(*killed, *again, progress, evaluation, event("FINISHED", FINISHED))
    rank0.write_text(lines, encoding="utf-8")
    (rank0.parent / "nvidia_monitor.log").write_text(ROWS, encoding="utf-8")

    result = import_one(rank0)

    first, second = (each.record for each in result.records)
    assert (first.status.state, second.status.state) == ("interrupted", "completed")
    assert (first.metrics.epochs, second.metrics.epochs) == (1, Missing(missing="unknown"))
    assert first.metrics.curve == []
    assert [(point.step, point.elapsed_s) for point in second.metrics.curve] == [(5, 10)]
    assert first.metrics.quality == Missing(missing="unknown")
    assert second.metrics.p_core == 4659.5
    assert first.run_id != second.run_id
    assert (first.remarks[0], second.remarks[0]) == ("attempt 1 of 2", "attempt 2 of 2")
    assert second.metrics.power == Missing(missing="unknown", reason="nvidia_monitor.log is of several attempts")
    assert second.metrics.memory == second.metrics.power
    assert not result.not_understood


def import_finished(rank0, line, *evaluations):
    rank0.write_text(log(event("TRAIN_START"), *evaluations, line), encoding="utf-8")
    result = import_one(rank0)
    return result.records[0].record, [text.reason for text in result.not_understood]


@pytest.mark.parametrize(
    ("added", "field", "keys"),
    [
        ({"final_acc": 75.9}, "quality", ("final_acc1 75.0", "final_acc 75.9")),
        ({"throughput(sps)_raw": 9999}, "p_whole", ("throughput(ips)_raw 4479.5", "throughput(sps)_raw 9999")),
    ],
)
def test_two_keys_of_one_value_that_disagree_are_not_understood(rank0, added, field, keys):
    record, reasons = import_finished(rank0, event("FINISHED", {**FINISHED, **added}))

    reason = f"one value, logged differently: {', '.join(keys)}"
    assert reasons == [reason, reason]
    assert getattr(record.metrics, field) == Missing(missing="unknown", reason=reason)
    assert {text.replace(" ", ": ") for text in keys} <= set(record.remarks)


def test_two_keys_of_one_value_that_agree_are_one(rank0):
    record, reasons = import_finished(rank0, event("FINISHED", {**FINISHED, "final_acc": 75.0}))

    assert (record.metrics.quality, reasons) == (0.75, [])


def test_key_that_an_event_has_twice_is_not_understood(rank0):
    line = event("FINISHED", FINISHED).replace('"final_acc1": 75.0', '"final_acc1": 64.0, "final_acc1": 75.9')

    record, reasons = import_finished(rank0, line)

    assert reasons == ["the key 'final_acc1' is there several times: 64.0, 75.9"]
    assert isinstance(record.metrics.quality, Missing)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"e2e_time": 1.0}, "metrics.train_seconds is 28600.5, e2e_time_s allows at most 1"),
        ({"throughput(ips)_pure_compute": 4400.5}, "p_core 4400.5 is less than p_train 4586.5"),
        ({"converged": True}, "converged: True, but the result 0.75 is below the case's target 0.755"),
    ],
)
def test_values_that_contradict_each_other_are_remarked(rank0, changed, text):
    record, reasons = import_finished(rank0, event("FINISHED", {**FINISHED, **changed}))

    assert record.remarks[-1] == text
    assert reasons == [f"implausible: {record.remarks[-1]}"]


def test_memory_above_the_total_is_remarked(rank0):
    (rank0.parent / "nvidia_monitor.log").write_text(ROWS.replace("39000MiB", "50000MiB"), encoding="utf-8")

    record, reasons = import_finished(rank0, event("FINISHED", FINISHED))

    assert record.remarks[-1].startswith("metrics.memory.device_peak_bytes (GiB) is 48.8281")
    assert reasons == [f"implausible: {record.remarks[-1]}"]


@pytest.mark.parametrize(
    ("logs", "reason"),
    [
        ({"nvidia": ROWS.replace("2023-03-27", "2013-03-27")}, "it is of another day than the run"),
        ({"a": ROWS, "b": ROWS}, "several monitor logs: a_monitor.log, b_monitor.log"),
    ],
)
def test_monitor_log_that_may_be_of_another_run_gives_nothing(rank0, logs, reason):
    for name, content in logs.items():
        (rank0.parent / f"{name}_monitor.log").write_text(content, encoding="utf-8")

    record, reasons = import_finished(rank0, event("FINISHED", FINISHED))

    assert record.metrics.memory == record.metrics.power == Missing(missing="unknown", reason=reason)
    assert reasons == [reason] * len(logs)


def test_evaluation_before_the_start_has_no_time(rank0):
    early = event("EVALUATE", {"eval_acc1": 75.9, "global_steps": 5}, time_ms=STARTED_MS - 1000)

    record, reasons = import_finished(rank0, event("FINISHED", FINISHED), early)

    assert record.metrics.curve == []
    assert reasons == ["no result with its step and time"]


def test_unfinished_run_says_so(rank0):
    rank0.write_text(log(event("TRAIN_START")), encoding="utf-8")

    record = import_one(rank0).records[0].record

    assert record.status.state == "interrupted"
    assert record.metrics.p_core == Missing(missing="unknown")


def test_second_finished_event_and_broken_lines_are_listed(rank0):
    second = event("FINISHED", {**FINISHED, "e2e_time": 1})
    rank0.write_text(
        log(event("FINISHED", FINISHED), second, '[PerfLog] {"event": "EVALU', "[PerfLog] nothing"), encoding="utf-8"
    )

    result = import_one(rank0)

    assert result.records[0].record.metrics.e2e_time_s == 28661.25
    assert [each.line for each in result.not_understood] == [4, 5, 6]


@pytest.mark.parametrize("value", ["fast", None, -1, True, 1e400, [1], "\ud800"])
def test_value_that_is_no_number_is_listed(rank0, value):
    rank0.write_text(log(event("FINISHED", {**FINISHED, "e2e_time": value})), encoding="utf-8")

    result = import_one(rank0)

    assert isinstance(result.records[0].record.metrics.e2e_time_s, Missing)
    assert [each.line for each in result.not_understood] == [3]


@pytest.mark.parametrize("name", ["nvidia_monitor.log", "kunlunxin_monitor.log"])
def test_monitor_log_beside_it_gives_memory_and_power(rank0, name):
    rank0.write_text(log(event("FINISHED", FINISHED)), encoding="utf-8")
    (rank0.parent / name).write_text(ROWS, encoding="utf-8")
    (rank0.parent / "cpu_monitor.log").write_text("2023-03-27-11:20:00\n12.5\n", encoding="utf-8")

    metrics = import_one(rank0).records[0].record.metrics

    assert metrics.memory.device_peak_bytes == 39000 * 2**20
    assert metrics.memory.total_bytes == 40536 * 2**20
    assert metrics.memory.device_source == metrics.power.source == name
    assert (metrics.power.samples, metrics.power.max_w, metrics.power.mean_w) == (2, 159, 108)
    assert metrics.power.energy_j == 5 * (116 + 316) / 2
    assert metrics.power.mean_utilization_percent == pytest.approx(50.25)


def test_monitor_log_of_raw_tables():
    read = read_monitor_log(TABLE, "mx-smi_monitor.log")

    assert read.memory.device_peak_bytes == 15155 * 2**20
    assert read.memory.total_bytes == 65536 * 2**20
    assert (read.power.mean_w, read.power.max_temperature_c, read.power.mean_utilization_percent) == (61, 38, 97)
    assert str(read.peak_place) == "7:40"
    assert read.not_understood == ()


def test_message_of_a_failing_tool_is_no_data():
    read = read_monitor_log(ROWS + "2023-03-27-11:20:10\nFailed to initialize: driver not loaded\n", "m.log")

    assert read.power.samples == 2
    assert [(each.text, each.place.line) for each in read.not_understood] == [
        ("Failed to initialize: driver not loaded", 10)
    ]


def test_energy_is_unknown_if_a_device_is_missing_from_a_reading():
    read = read_monitor_log(ROWS.replace("30C 159W", "30C ERR!"), "m.log")

    assert read.power.energy_j == Missing(missing="unknown")


@pytest.mark.parametrize(
    "text", ["", "hello", "2023-03-27-11:20:00\n", "2023-99-99-99:99:99\n31C 57W 15MiB 40536MiB 0%"]
)
def test_log_without_readings_is_none(text):
    assert read_monitor_log(text, "m.log") is None


@pytest.mark.parametrize(
    ("facts", "match"),
    [
        ({"vendor": None}, "name its vendor"),
        ({"case": None}, "name its model"),
        ({"topology": None}, "number of cards"),
    ],
)
def test_what_the_log_does_not_tell_is_asked_for(tmp_path, facts, match):
    path = tmp_path / "rank0.out.log"
    path.write_text(log(event("FINISHED", FINISHED)), encoding="utf-8")
    known = {"case": "resnet50", "topology": Topology(nnodes=1, nproc_per_node=8)}

    with pytest.raises(DocumentError, match=match):
        import_one(path, **{**known, **facts})

    assert import_one(path, **known).records


def test_topology_from_the_logs_of_all_processes(tmp_path):
    for node in range(2):
        directory = tmp_path / "round1" / f"10.1.2.{node}_noderank{node}"
        directory.mkdir(parents=True)
        for rank in range(4):
            (directory / f"rank{rank}.out.log").write_text(log(event("FINISHED", FINISHED)), encoding="utf-8")
    path = tmp_path / "round1" / "10.1.2.0_noderank0" / "rank0.out.log"

    assert import_one(path, case="resnet50").records[0].record.topology.label == "2x4"


def test_file_without_events_is_an_error(tmp_path):
    path = tmp_path / "rank0.out.log"
    path.write_bytes(b"\xff\xfe no event")

    with pytest.raises(DocumentError, match="no event"):
        import_one(path)


def test_logs_and_documents_share_no_table_with_measured_records(rank0):
    rank0.write_text(log(event("FINISHED", FINISHED)), encoding="utf-8")
    one = import_one(rank0).records[0].record
    other = one.model_copy(update={"metrics_definition": "chipperf"})

    with pytest.raises(UsageError, match="several metric definitions: chipperf, flagperf"):
        render_report([one, other])


def test_documents_of_flagperf_follow_its_definitions():
    assert imported(readme()).records[0].record.metrics_definition == "flagperf"


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200) | st.text("0123456789CWMiB/% |\n-:", max_size=200).map(lambda text: ROWS + text))
def test_any_text_is_a_monitor_log(text):
    read_monitor_log(text, "m.log")


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(st.text(max_size=5), values, max_size=2),
    max_leaves=5,
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["FINISHED", "EVALUATE", "TRAIN_START"]), json_values), max_size=4))
def test_any_events_are_read_or_refused(tmp_path_factory, events):
    path = tmp_path_factory.mktemp("log") / "rank0.out.log"
    values = [(name, {**FINISHED, **value} if isinstance(value, dict) else value) for name, value in events]
    path.write_text(log(*(event(name, value) for name, value in values)), encoding="utf-8")

    import_one(path, case="resnet50", topology=Topology(nnodes=1, nproc_per_node=1))

"""Import of the logs of MLPerf training."""

from __future__ import annotations

import json

import pytest
from chipperf.compare.comparison import compare_columns
from chipperf.compare.sides import Side
from chipperf.documents.card_names import read_card_names
from chipperf.errors import DocumentError, UsageError
from chipperf.importing.file_import import import_file
from chipperf.importing.log_lines import Stated
from chipperf.records.schema import Missing, Topology
from chipperf.report.render import render_report
from chipperf.web.board import make_boards, summarize
from hypothesis import given, settings
from hypothesis import strategies as st
from readmes import imported

NAMES = read_card_names()
EIGHT = Topology(nnodes=1, nproc_per_node=8)
STARTED_S = 1_600_000_000


def event(key, value=None, seconds=0.0, **metadata):
    content = {"namespace": "", "time_ms": int(1000 * (STARTED_S + seconds)), "event_type": "POINT_IN_TIME", "key": key}
    return f":::MLLOG {json.dumps({**content, 'value': value, 'metadata': {'lineno': 1, **metadata}})}"


BEFORE = (
    event("submission_org", "NVIDIA"),
    event("submission_benchmark", "resnet"),
    event("init_start"),
    event("global_batch_size", 2048),
    event("opt_base_learning_rate", 8.5),
    event("seed", 7),
)
RUN = (
    event("run_start", seconds=100),
    event("eval_accuracy", 0.61, seconds=150, epoch_num=20),
    event("eval_accuracy", 0.7593, seconds=190, epoch_num=35),
    event("run_stop", seconds=200.5, status="success"),
)


def import_one(directory, *lines, **facts):
    path = directory / "result_0.log"
    path.write_text("\n".join(["a library says hello", *lines]), encoding="utf-8")
    return import_file(path, Stated(**{"topology": EIGHT, **facts}), NAMES)


def test_values_that_no_run_has_are_not_understood(tmp_path):
    stop = event("run_stop", seconds=99, status="success")
    result = import_one(tmp_path, *BEFORE[:2], event("global_batch_size", 0), RUN[0], stop)

    (record,) = (each.record for each in result.records)
    assert isinstance(record.metrics.train_seconds, Missing)
    assert isinstance(record.hyperparameters.global_batch_size, Missing)
    assert len(result.not_understood) == 2


def test_run_becomes_a_record_under_mlperfs_definitions(tmp_path):
    result = import_one(tmp_path, *BEFORE, *RUN)

    ((record, sources),) = ((each.record, each.values) for each in result.records)
    assert (record.kind, record.metrics_definition, record.status.state) == ("imported", "mlperf", "completed")
    assert (record.vendor.name, record.case.name, record.topology.label) == ("nvidia", "resnet", "1x8")
    assert (record.metrics.train_seconds, record.metrics.quality) == (100.5, 0.7593)
    assert (record.metrics.time_to_target.seconds, record.metrics.time_to_target.epoch) == (100.5, 35)
    assert (record.seed, record.hyperparameters.global_batch_size) == (7, 2048)
    assert record.hyperparameters.values == {"opt_base_learning_rate": 8.5}
    assert record.metrics.p_whole == record.metrics.e2e_time_s == Missing(missing="unknown")
    assert [source.line for source in sources if source.field == "metrics.quality"] == [10]
    assert not result.not_understood


def test_target_of_an_installed_case_is_not_held_against_mlperfs_result(tmp_path):
    record = import_one(tmp_path, *BEFORE, *RUN, case="resnet50").records[0].record

    assert (record.case.name, record.case.metric) == ("resnet50", "eval_accuracy")
    assert record.case.target == Missing(missing="unknown")


@pytest.mark.parametrize(
    ("stop", "state"), [((), "interrupted"), ((event("run_stop", status="aborted", seconds=300),), "failed")]
)
def test_run_without_success_is_not_completed(tmp_path, stop, state):
    record = import_one(tmp_path, *BEFORE, *RUN[:-1], *stop).records[0].record

    assert record.status.state == state
    assert record.metrics.time_to_target == Missing(missing="unknown")


def test_each_run_of_a_log_is_a_record(tmp_path):
    second = (event("init_start", seconds=300), event("seed", 8), event("run_start", seconds=310))

    records = [each.record for each in import_one(tmp_path, *BEFORE, *RUN, *second).records]

    assert [record.seed for record in records] == [7, 8]
    assert len({record.run_id for record in records}) == 2


def test_unknown_keys_and_broken_lines_are_listed_once(tmp_path):
    unknown = event("tracked_stats", {"throughput": 3})

    result = import_one(tmp_path, *BEFORE, unknown, unknown, ':::MLLOG {"key": "ru', *RUN)

    assert [(text.line, text.reason) for text in result.not_understood] == [
        (8, "the key 'tracked_stats' is unknown"),
        (10, "not an event"),
    ]
    assert "tracked_stats: {'throughput': 3}" in result.records[0].record.remarks


def test_no_table_has_records_of_mlperf_and_of_others(tmp_path):
    mlperf = import_one(tmp_path, *BEFORE, *RUN, case="resnet50").records[0].record
    others = [
        mlperf.model_copy(update={"metrics_definition": name, "run_id": name}) for name in ("flagperf", "chipperf")
    ]

    for other in others:
        with pytest.raises(UsageError, match=f"several metric definitions: {other.metrics_definition}, mlperf"):
            render_report([mlperf, other])
        with pytest.raises(UsageError, match=f"several metric definitions: {other.metrics_definition}, mlperf"):
            compare_columns([Side(records=(mlperf,)), Side(records=(other,))])
    assert len(make_boards(map(summarize, (mlperf, *others)), most_rows=9)) == 3


def test_report_of_mlperfs_values_is_imported_as_such(tmp_path):
    record = import_one(tmp_path, *BEFORE, *RUN, case="resnet50").records[0].record

    again = imported(render_report([record]), vendor="nvidia").records[0].record

    assert (again.metrics_definition, again.metrics.quality) == ("mlperf", 0.7593)


@pytest.mark.parametrize(
    ("lines", "facts", "match"),
    [
        ((*BEFORE[1:], *RUN), {}, "does not name its vendor"),
        ((BEFORE[0], *RUN), {}, "does not name its model"),
        ((*BEFORE, *RUN), {"topology": None}, "number of cards"),
        (BEFORE, {}, "no run_start"),
    ],
)
def test_what_the_log_does_not_tell_is_asked_for(tmp_path, lines, facts, match):
    with pytest.raises(DocumentError, match=match):
        import_one(tmp_path, *lines, **facts)


def missing(metrics, *names):
    return {name for name in names if isinstance(getattr(metrics, name), Missing)}


STOP = event("run_stop", seconds=200.5, status="success")
OUTSIDE, NO_RESULT = "its time is outside the run", "not a result from 0 to 1"


@pytest.mark.parametrize(
    ("lines", "reasons", "state", "unknown", "quality"),
    [
        ((*RUN, event("eval_accuracy", 0.99, seconds=300)), ["eval_accuracy after run_stop"], "completed", (), 0.7593),
        ((*RUN, STOP), ["a second run_stop; the first is in line 11"], "completed", ("train_seconds",), 0.7593),
        (
            (*RUN[:3], event("run_stop", seconds=200, status="aborted"), STOP),
            ["a second run_stop; the first is in line 11"],
            "failed",
            ("train_seconds",),
            0.7593,
        ),
        ((STOP, *RUN), ["run_stop before run_start"], "completed", (), 0.7593),
        ((*RUN[:2], RUN[3], RUN[2]), ["eval_accuracy after run_stop"], "completed", (), 0.61),
        ((*RUN[:3], event("eval_accuracy", 0.9, seconds=400), STOP), [OUTSIDE], "completed", (), None),
        ((*RUN[:3], event("eval_accuracy", 75.95, seconds=195), STOP), [NO_RESULT], "completed", (), None),
        (
            (RUN[0], event("run_stop", seconds=95, status="success")),
            ["run_stop is earlier than run_start"],
            "completed",
            ("train_seconds",),
            None,
        ),
        (
            (RUN[0], event("epoch_start", seconds=100), event("run_stop", seconds=100.2, status="success")),
            ["epochs within 0.2 s: time_ms is not in milliseconds"],
            "completed",
            ("train_seconds",),
            None,
        ),
    ],
)  # fmt: skip
def test_event_counts_once_and_within_its_run(tmp_path, lines, reasons, state, unknown, quality):
    result = import_one(tmp_path, *BEFORE, *lines)

    record = result.records[0].record
    assert [text.reason for text in result.not_understood] == reasons
    assert record.status.state == state
    assert missing(record.metrics, "train_seconds") == set(unknown)
    assert (None if isinstance(record.metrics.quality, Missing) else record.metrics.quality) == quality
    if unknown:
        assert record.metrics.train_seconds.reason
        assert record.metrics.time_to_target == Missing(missing="unknown")


def test_run_does_not_start_before_the_end_of_the_one_before(tmp_path):
    second = (event("run_start", seconds=190), event("run_stop", seconds=260, status="success"))

    first, last = (each.record.metrics for each in import_one(tmp_path, *BEFORE, *RUN, *second).records)

    assert first.train_seconds == 100.5
    assert last.train_seconds == Missing(
        missing="unknown", reason="its run_start is earlier than the run before it ends"
    )


@pytest.mark.parametrize("factor", [0.001, 1000])
def test_time_that_is_not_in_milliseconds_is_none(tmp_path, factor):
    lines = [json.loads(line.removeprefix(":::MLLOG ")) for line in RUN]
    scaled = [f":::MLLOG {json.dumps({**line, 'time_ms': int(line['time_ms'] * factor)})}" for line in lines]

    result = import_one(tmp_path, *BEFORE, *scaled)

    metrics = result.records[0].record.metrics
    assert metrics.train_seconds == Missing(
        missing="unknown", reason="time_ms of run_start or run_stop is no time in milliseconds since 1970"
    )
    assert [text.line for text in result.not_understood] == [11]


@pytest.mark.parametrize(
    ("targets", "target", "seconds", "reasons"),
    [
        ((event("target_accuracy", 0.759),), 0.759, 100.5, []),
        (
            (event("quality_target", 0.8),),
            0.8,
            None,
            ["status 'success', and its last result 0.7593 is below the target 0.8"],
        ),
        ((event("target_accuracy", 75.9),), None, 100.5, ["not one target from 0 to 1"]),
        (
            (event("target_accuracy", 0.7), event("quality_target", 0.8)),
            None,
            100.5,
            ["not one target from 0 to 1"] * 2,
        ),
    ],
)
def test_success_meets_the_target_that_the_log_states(tmp_path, targets, target, seconds, reasons):
    result = import_one(tmp_path, *BEFORE, *targets, *RUN)

    record = result.records[0].record
    assert record.case.target == (Missing(missing="unknown") if target is None else target)
    assert [text.reason for text in result.not_understood] == reasons
    assert (getattr(record.metrics.time_to_target, "seconds", None)) == seconds


def test_result_of_a_benchmark_with_a_loss_is_above_1(tmp_path):
    lines = (event("target_accuracy", 2.69), RUN[0], event("eval_accuracy", 2.68, seconds=150, epoch_num=1), STOP)

    result = import_one(tmp_path, BEFORE[0], event("submission_benchmark", "gpt3"), *lines)

    metrics = result.records[0].record.metrics
    assert (metrics.quality, metrics.time_to_target.seconds) == (2.68, 100.5)
    assert not result.not_understood


def test_key_that_a_line_has_twice_is_not_understood(tmp_path):
    twice = RUN[2].replace('"value": 0.7593', '"value": 0.7593, "value": 0.99')

    result = import_one(tmp_path, *BEFORE, *RUN[:2], twice, RUN[3])

    assert result.records[0].record.metrics.quality == Missing(
        missing="unknown", reason="the last eval_accuracy is not understood"
    )
    assert [text.reason for text in result.not_understood] == [
        "not a result from 0 to 1",
        "the key 'value' is there several times: 0.7593, 0.99",
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(st.text(max_size=5), values, max_size=2),
    max_leaves=5,
)
keys = st.sampled_from(["run_start", "run_stop", "eval_accuracy", "seed", "opt_name", "global_batch_size", "x"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(keys, json_values), max_size=4))
def test_any_events_are_read(tmp_path_factory, events):
    lines = (event(key, value) for key, value in events)

    import_one(tmp_path_factory.mktemp("log"), *lines, *RUN, vendor="acme", case="resnet")

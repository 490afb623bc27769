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


def event(key, value=None, seconds=0.0, **metadata):
    content = {"namespace": "", "time_ms": int(1000 * seconds), "event_type": "POINT_IN_TIME", "key": key}
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
    second = (event("init_start"), event("seed", 8), *RUN)

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

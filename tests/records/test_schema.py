"""What a record holds, and what it refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.records.schema import Missing, Record, Topology, Window, json_schema
from chipperf.records.store import read_record
from pydantic import ValidationError

if TYPE_CHECKING:
    from support import FinishedRun


def changed(record: Record, path: str, value: Any) -> dict[str, Any]:
    content = record.model_dump(mode="json")
    *parents, field = path.split(".")
    target = content
    for parent in parents:
        target = target[parent]
    target[field] = value
    return content


def test_planned_record_survives_a_round_trip(planned: Record) -> None:
    assert Record.model_validate_json(planned.model_dump_json()) == planned


def test_real_record_survives_a_round_trip(trained_run: FinishedRun) -> None:
    record = read_record(trained_run.directory)

    assert Record.model_validate_json(record.model_dump_json()) == record


def test_what_is_not_measured_says_why(planned: Record) -> None:
    metrics = planned.metrics.model_dump()

    for name, value in metrics.items():
        if name not in ("spans", "curve", "restart_windows", "rank_steps"):
            assert value == {"missing": "not_run", "reason": "the run did not come this far"}, name


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("path", ["metrics.p_whole", "case.target", "hyperparameters.values.lr", "metrics.epochs"])
def test_only_finite_values(planned: Record, path: str, bad: float) -> None:
    with pytest.raises(ValidationError):
        Record.model_validate(changed(planned, path, bad))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("speed", 1),
        ("metrics.speed", 1),
        ("status.cause", "x"),
        ("environment.gpu", "x"),
        ("status.state", "done"),
        ("metrics.p_whole", None),
        ("metrics.p_whole", ""),
        ("metrics.quality", {"missing": "lost"}),
        ("metrics.quality", {"reason": "lost"}),
        ("environment.memory_bytes", -1),
        ("topology.nnodes", 0),
        ("schema_version", 1),
        ("schema_version", 3),
        ("kind", "typed"),
    ],
)
def test_unknown_fields_and_values_outside_the_schema_are_refused(planned: Record, path: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Record.model_validate(changed(planned, path, value))


def test_settings_keep_their_type(planned: Record) -> None:
    for value in (True, 1, 1.5, "1"):
        record = Record.model_validate(changed(planned, "hyperparameters.values.x", value))
        assert type(record.hyperparameters.values["x"]) is type(value)


def test_records_are_frozen(planned: Record) -> None:
    with pytest.raises(ValidationError):
        planned.status.state = "completed"  # type: ignore[misc, unused-ignore]


def test_missing_must_have_a_kind() -> None:
    with pytest.raises(ValidationError):
        Missing(reason="lost")  # type: ignore[call-arg]


def test_derived_values() -> None:
    assert Topology(nnodes=2, nproc_per_node=8).world_size == 16
    assert Topology(nnodes=2, nproc_per_node=8).label == "2x8"
    assert Window(epoch=1, first_step=1, steps=2, samples=30, seconds=1.5).samples_per_s == 20


def test_json_schema_describes_the_record(planned: Record) -> None:
    schema = json.loads(json.dumps(json_schema()))

    assert set(schema["properties"]) == set(planned.model_dump())
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Missing"]["properties"]["missing"]["enum"] == [
        "not_run",
        "withheld",
        "failed",
        "not_applicable",
        "unknown",
    ]

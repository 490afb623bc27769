"""A record that calls itself measured has what every run of chipperf has, and nothing that only a simulation has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.records.consistency import contradictions
from chipperf.records.schema import Record
from chipperf.records.store import read_record

if TYPE_CHECKING:
    from collections.abc import Callable

    Edit = Callable[[dict[str, Any]], object]

MEASURED = read_record(Path(__file__).parents[2] / "docs" / "examples" / "detr-cpu" / "record.json")


def without_span(name: str) -> Edit:
    def edit(data: dict[str, Any]) -> None:
        data["metrics"]["spans"] = [span for span in data["metrics"]["spans"] if span["name"] != name]

    return edit


EDITS: dict[str, tuple[Edit, str]] = {
    "init": (without_span("init"), "metrics.spans gives a run without init"),
    "teardown": (without_span("teardown"), "metrics.spans gives a run without teardown"),
    "core pass": (without_span("core_pass"), "metrics.spans gives a run without core_pass"),
    "dataset": (
        lambda data: data["dataset"].update(fingerprint_method="Simulated"),
        "dataset.fingerprint_method gives simulated",
    ),
    "memory": (
        lambda data: data["metrics"]["memory"].update(device_source="a simulation"),
        "metrics.memory.device_source gives simulated",
    ),
    "power": (
        lambda data: data["metrics"]["power"].update(source="simulator 1.0"),
        "metrics.power.source gives simulated",
    ),
}


@pytest.mark.parametrize(("edit", "found"), EDITS.values(), ids=EDITS)
def test_a_measured_record_is_of_a_run_and_of_no_simulation(edit: Edit, found: str) -> None:
    data = MEASURED.model_dump(mode="json")
    edit(data)
    told = [str(text) for _, text in contradictions(Record.model_validate(data))]

    assert f"kind is measured, {found}" in told
    data["kind"] = "simulated"
    assert not any(str(text).startswith("kind ") for _, text in contradictions(Record.model_validate(data)))


def test_a_measured_record_agrees_with_its_kind() -> None:
    assert list(contradictions(MEASURED)) == []

"""Records of earlier schemas are read as records of this one, and what names their fields as well."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.errors import RecordError
from chipperf.records.schema import SCHEMA_VERSION, Record
from chipperf.records.store import read_record
from chipperf.records.upgrade import upgrade, upgrade_field
from chipperf.records.withholding import Revealed, Secrets, commitment, fill_in, reveal, withhold
from chipperf.run.telemetry_process import read_telemetry
from kept_files import V010, written_in

if TYPE_CHECKING:
    from pathlib import Path

TWO_MACHINES = V010 / "runs" / "two-machines" / "record.json"
POWER = {
    "samples": 3,
    **{name: 1.0 for name in ("mean_w", "max_w", "energy_j", "mean_temperature_c", "max_temperature_c")},
    "mean_utilisation_percent": 50.0,
    "used_peak_bytes": 7,
    "source": "a tool",
}


def old_record() -> dict[str, Any]:
    """Return a record of version 1 with every field that has another name now."""
    content: dict[str, Any] = written_in(TWO_MACHINES)
    content["metrics"]["power"] = POWER
    content["nodes"][1]["power"] = POWER
    return content


def test_renamed_fields_keep_their_values_and_places() -> None:
    content = old_record()

    upgraded = upgrade(content)

    assert upgraded["schema_version"] == SCHEMA_VERSION
    for old, new in (
        (content["metrics"]["power"], upgraded["metrics"]["power"]),
        (content["nodes"][1]["power"], upgraded["nodes"][1]["power"]),
        (content["metrics"]["step_breakdown"], upgraded["metrics"]["step_breakdown"]),
    ):
        assert list(new.values()) == list(old.values())
    assert upgraded["nodes"][1]["power"]["mean_utilization_percent"] == 50.0
    assert Record.model_validate(upgraded).nodes[1].power == Record.model_validate(upgraded).metrics.power


def test_upgrade_changes_nothing_that_it_is_given() -> None:
    content = old_record()
    before = copy.deepcopy(content)

    upgrade(content)

    assert content == before


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION, SCHEMA_VERSION + 1, "1", None])
def test_other_versions_stay_as_they_are(version: object) -> None:
    content = old_record() | {"schema_version": version}

    assert upgrade(content) is content


@pytest.mark.parametrize(
    "part",
    [{"metrics": []}, {"metrics": {"power": "none"}}, {"nodes": {"power": 1}}, {"nodes": [1]}, {"metrics": None}],
)
def test_edited_content_is_left_for_the_schema_to_refuse(part: dict[str, Any]) -> None:
    content = {"schema_version": 1, **part}

    assert upgrade(content) == {**content, "schema_version": SCHEMA_VERSION}


def test_field_under_both_names_is_refused(tmp_path: Path) -> None:
    content = old_record()
    content["metrics"]["step_breakdown"]["optimizer_s"] = 0.001
    (tmp_path / "record.json").write_text(json.dumps(content))

    with pytest.raises(RecordError, match=r"step_breakdown\.StepBreakdown\.optimiser_s: Extra inputs"):
        read_record(tmp_path)


def test_field_of_this_version_is_refused_under_its_old_name(tmp_path: Path) -> None:
    content = old_record() | {"schema_version": SCHEMA_VERSION}
    (tmp_path / "record.json").write_text(json.dumps(content))

    with pytest.raises(RecordError, match="optimizer_s: Field required"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("path", "now"),
    [
        ("$.metrics.p_train.windows[3].seconds", "$.metrics.p_train.windows[3].seconds"),
        ("$.metrics.step_breakdown", "$.metrics.step_breakdown"),
        ("$.metrics.step_breakdown.optimiser_s", "$.metrics.step_breakdown.optimizer_s"),
        ("$.nodes[12].power.mean_utilisation_percent", "$.nodes[12].power.mean_utilization_percent"),
        ("$.hyperparameters.values.optimiser_s", "$.hyperparameters.values.optimiser_s"),
    ],
)
def test_paths_follow_their_fields(path: str, now: str) -> None:
    assert upgrade_field(path, 1) == now
    assert upgrade_field(path, SCHEMA_VERSION) == path


def test_values_withheld_under_old_names_are_filled_in() -> None:
    public = read_record(V010 / "withheld" / "breakdown")
    secrets = Secrets.model_validate(written_in(V010 / "withheld" / "breakdown.secrets.json"))

    filled = fill_in(public, secrets)

    original = read_record(V010 / "runs" / "repeats" / "repeat-2")
    assert secrets.schema_version == 1
    assert filled.metrics == original.metrics


@pytest.mark.parametrize("field", ["metrics.power.mean_utilization_percent", "metrics.power", "metrics.step_breakdown"])
def test_values_withheld_now_are_filled_in(field: str) -> None:
    record = Record.model_validate(upgrade(old_record()))

    withheld = withhold(record, [field], "under embargo")

    assert withheld.secrets.schema_version == SCHEMA_VERSION
    assert fill_in(withheld.record, withheld.secrets).metrics == record.metrics


def test_value_withheld_under_an_old_name_is_revealed_and_filled_in() -> None:
    field, salt = "$.metrics.power.mean_utilisation_percent", "0" * 64
    whole, content = old_record(), old_record()
    run_id = content["run_id"]
    content["metrics"]["power"] = {**POWER, "mean_utilisation_percent": {"missing": "withheld", "reason": "nda"}}
    committed = {"field": field, "reason": "nda", "sha256": commitment(run_id, field, 50.0, salt)}
    content["withheld"] = [{**committed, "ratio": {"run_id": "base", "value": 2.0}}]
    secrets = Secrets.model_validate({"run_id": run_id, "values": [{"field": field, "value": 50.0, "salt": salt}]})
    whole["metrics"]["power"] = {**POWER, "mean_utilisation_percent": 25.0}
    base = Record.model_validate(upgrade({**whole, "run_id": "base"}))

    public = Record.model_validate(upgrade(content))

    assert reveal(public, secrets, ratio_to=base) == [Revealed(field, 50.0, None)]
    assert fill_in(public, secrets).metrics == Record.model_validate(upgrade(old_record())).metrics


def test_reading_of_an_earlier_version_has_today_s_keys(tmp_path: Path) -> None:
    file = tmp_path / "telemetry-node0.jsonl"
    file.write_text('{"power_w": 70.0, "utilisation_percent": 91.0}\n[1]\n{"utilization_percent": 5.0}\n{"pow')
    assert read_telemetry(file) == [{"power_w": 70.0, "utilization_percent": 91.0}, {"utilization_percent": 5.0}]

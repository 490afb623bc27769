"""A fake in place of training."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from fake_training import FakeTraining

if TYPE_CHECKING:
    from pathlib import Path

    from chipperf.records.schema import Record


@pytest.fixture
def fake(tmp_path: Path, planned: Record) -> FakeTraining:
    training = FakeTraining(tmp_path)
    training.behave()
    record = planned.model_dump(mode="json")
    window = {"epoch": 1, "first_step": 1, "steps": 5, "samples": 50, "seconds": 1.0}
    record["metrics"] |= {
        "p_train": {"median": 0.0, "iqr": 1.0, "mean_of_totals": 1.0, "windows": [window] * 5},
        "quality": 0.5,
        "e2e_time_s": 60.0,
    }
    (tmp_path / "record.json").write_text(json.dumps(record))
    return training


@pytest.fixture
def suite(fake: FakeTraining, request: pytest.FixtureRequest) -> FakeTraining:
    """The fake, with the suite that the test's module has as ``SUITE``."""
    fake.write(request.module.SUITE)
    return fake

"""``perf data`` for a case whose data are in COCO format."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from invocation import Invoke
    from support import FakeDistributions

DETECTION_CASE = """
from dataclasses import replace
from chipperf.cases.classification.case import MOBILENETV2 as CLASSIFICATION
from chipperf.cases.detr.case import DETR

BASE = CLASSIFICATION.base.model_copy(update={"dataset": DETR.data.reference.name})
CASE = replace(CLASSIFICATION, name="detection", base=BASE, data=DETR.data)
"""


@pytest.fixture(autouse=True)
def _detection_case(distributions: FakeDistributions) -> None:
    """A case on COCO 2017 that another package adds."""
    distributions.add("perf-detection", "[chipperf.cases]\ndetection = detection_case:CASE\n")
    (distributions.root / "detection_case.py").write_text(DETECTION_CASE)


@pytest.fixture
def sample(invoke: Invoke, tmp_path: Path) -> Path:
    ended = invoke("data", "sample", "--case", "detection", "--size", "tiny", "--out", tmp_path)
    assert ended.code == 0, ended.err
    directory = tmp_path / ended.out.strip().rpartition("/")[2]
    assert str(directory) == ended.out.strip()
    return directory


def test_sample_is_generated_and_good(invoke: Invoke, sample: Path) -> None:
    assert json.loads((sample / "dataset.json").read_text())["name"] == "chipperf-coco-sample"

    ended = invoke("data", "check", "detection", sample, "--any-size", "--full")

    assert ended.code == 0
    assert "16 training and 8 evaluation images in 5 classes; decoded 48 files" in ended.out


def test_directory_of_another_size_than_coco(invoke: Invoke, sample: Path) -> None:
    ended = invoke("data", "check", "detection", sample)

    assert ended.code == 4
    assert "error: 16 training images; coco2017 has 118287" in ended.out
    assert "error: 8 evaluation images; coco2017 has 5000" in ended.out
    assert "has 3 faults" in ended.err
    assert "--any-size accepts other counts" in ended.err


def test_directory_that_is_not_there(invoke: Invoke, sample: Path) -> None:
    ended = invoke("data", "check", "detection", sample / "none", "--any-size")

    assert (ended.code, ended.out) == (2, "")
    assert "none does not exist" in ended.err


def test_faults_for_programs(invoke: Invoke, sample: Path) -> None:
    (sample / "annotations" / "instances_val2017.json").write_text('{"images": [{"id": 2')
    shutil.rmtree(sample / "panoptic_val2017")

    ended = invoke("data", "check", "detection", sample, "--any-size", "--json")

    assert ended.code == 4
    content = json.loads(ended.out)
    assert content["ok"] is False
    messages = [finding["message"] for finding in content["findings"] if finding["severity"] == "error"]
    assert any("instances_val2017.json: not valid JSON at line 1, column 21" in message for message in messages)
    assert any("panoptic_val2017" in message for message in messages)


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (("--case", "detection", "--classes", "3"), "--classes does not apply to the sample dataset of", "--size"),
        (
            ("--case", "detection", "--train-per-class", "3", "--val-per-class", "2"),
            "--train-per-class, --val-per-class does not apply",
            "--size",
        ),
        (("--size", "tiny"), "--size does not apply to the sample dataset of resnet50", "--classes"),
        (("--case", "detection", "--size", "tini"), "unknown size 'tini' (did you mean 'tiny'?)", "sizes: demo, tiny"),
        (("--case", "detectoin"), "unknown case 'detectoin' (did you mean 'detection'?)", "installed cases"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    invoke: Invoke, tmp_path: Path, arguments: tuple[str, ...], error: str, hint: str
) -> None:
    ended = invoke("data", "sample", "--out", tmp_path / "data", *arguments)

    assert ended.code == 2
    assert error in ended.err
    assert hint in ended.err.splitlines()[-1]
    assert not (tmp_path / "data").exists()

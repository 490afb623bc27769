"""Real cases, on two ranks and on one: stopped and resumed, they end with the same weights and figures."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from chipperf.cases.registry import find_case
from chipperf.data.coco_sample import CocoSampleOptions, ensure_coco_sample
from support import started

PROGRAM = Path(__file__).with_name("resume_program.py")


def train(case: str, ranks: int, data: Path, scratch: Path, edges: str) -> list[dict[str, Any]]:
    paths = os.pathsep.join([str(PROGRAM.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    processes = [
        started(
            [sys.executable, str(PROGRAM), case, str(rank), str(ranks), str(scratch / "store"), str(data), str(scratch)]
            + [edges],
            {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(ranks)
    ]
    results = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        results.append(json.loads(out.splitlines()[-1]))
    return results


@pytest.mark.slow
def test_classifier(image_folder: Path, tmp_path: Path) -> None:
    """Slow: two ranks train a real model three times; those of test_resumed_training.py stop after every step."""
    for result in train("mobilenetv2", 2, image_folder, tmp_path, "2,3"):
        assert set(result) == {"0", "2", "3"}
        whole = result.pop("0")
        assert whole["counts"][:2] == [6, 48]
        assert all(stopped == whole for stopped in result.values())


@pytest.mark.slow
def test_detector(tmp_path: Path) -> None:
    """Slow: forty million weights, whose dropout and AdamW have a state."""
    data = ensure_coco_sample(CocoSampleOptions(train_samples=12, val_samples=2), tmp_path)

    for result in train("detr", 1, data, tmp_path, "1"):
        assert result["1"] == result["0"]
        assert result["0"]["counts"][0] == 3


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_language_model(tmp_path: Path, ranks: int) -> None:
    """Slow: real processes. The case of another package is resumed within a window and within an epoch."""
    data = find_case("gpt2").data.ensure_few_samples(64, "tiny", tmp_path)

    for result in train("gpt2", ranks, data, tmp_path, "1,4"):
        assert set(result) == {"0", "1", "4"}
        whole = result.pop("0")
        assert whole["counts"][:2] == [6, 6 * 4 * 32 * 2 * ranks]
        assert all(stopped == whole for stopped in result.values())

"""Runs that begin and fail: one line, and a record that says the same."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from chipperf.records.store import read_record

if TYPE_CHECKING:
    from pathlib import Path

    from support import Perf


def with_a_corrupt_image(root: Path, image_folder: Path) -> str:
    shutil.copytree(image_folder, root)
    # As the directory of somebody, whose files no manifest vouches for.
    (root / "dataset.json").unlink()
    victim = sorted((root / "train").rglob("*.jpg"))[5]
    victim.write_bytes(victim.read_bytes()[:50])
    return victim.name


def test_unusable_data_is_named_and_recorded(perf: Perf, tmp_path: Path, image_folder: Path) -> None:
    root, out = tmp_path / "images", tmp_path / "run"
    fault = with_a_corrupt_image(root, image_folder)

    process = perf(
        *("train", "mobilenetv2", "--vendor", "cpu", "--preset", "tiny", "--data", root, "--out", out),
        *("--max-epochs", 1, "--set", "workers=1"),
        OMP_NUM_THREADS="1",
    )

    assert process.returncode == 1
    [line] = [line for line in process.stderr.splitlines() if line.startswith("perf: error: ")]
    assert line.startswith("perf: error: rank 0: ")
    assert fault in line
    assert "Traceback" not in process.stderr
    assert f"the record of the failed run is {out / 'record.json'}" in process.stderr
    record = read_record(out)
    assert record.status.state == "failed"
    assert record.status.failure is not None
    assert record.status.failure.failure_class == "DataError"
    assert record.status.failure.message in line
    assert not (out / ".reserve").exists()

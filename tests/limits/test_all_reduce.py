"""The all-reduce of two real ranks, against nccl-tests' formula by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("all_reduce_program.py")


def run_ranks(tmp_path: Path, how: str) -> list[tuple[int, str, str]]:
    ranks = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(rank), "2", str(tmp_path / "store"), how],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    return [(rank.returncode, *outputs) for rank in ranks if (outputs := rank.communicate(timeout=120))]


def test_bus_bandwidth_is_size_over_time_for_two_ranks(tmp_path: Path) -> None:
    (code, out, complaints), _ = run_ranks(tmp_path, "right")

    assert code == 0, complaints
    sizes = json.loads(out)
    assert [each["size_bytes"] for each in sizes] == [4096, 65536]
    for each in sizes:
        for window in each["rate"]["windows"]:
            # 2 (n - 1) / n is 1 for two ranks.
            assert window["samples"] == each["size_bytes"] * window["steps"]


def test_wrong_sum_has_no_bandwidth(tmp_path: Path) -> None:
    (code, _, complaints), _ = run_ranks(tmp_path, "wrong")

    assert code != 0
    assert "an all-reduce of 4096 bytes over 2 ranks has a wrong sum" in complaints

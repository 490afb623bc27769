"""A whole run of the plugin on a fake stack: the plugin's logic, and that nothing of it passes as measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.data.sample import SampleOptions, ensure_sample_dataset
from chipperf.languages import LANGUAGES
from chipperf_nvidia.run_settings import AUTOTUNE_VARIABLE
from fake_nvml import h200

if TYPE_CHECKING:
    from collections.abc import Callable

    from fake_machine import FakeMachine

SIMULATION = Path(__file__).with_name("simulated")
TINY = SampleOptions(classes=4, train_per_class=12, val_per_class=5, width=96, height=72)


@pytest.fixture
def perf(machine: FakeMachine, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    variables = {
        "PERF_SIMULATED_STACK": "nvidia",
        "FAKE_NVIDIA_ROOT": str(machine.root),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(SIMULATION), str(Path(__file__).parent)]),
    }

    def run(*arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "chipperf", *map(str, arguments)],
            env={**os.environ, **variables, **changes},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    return run


def by_name(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in items}


def test_doctor_finds_the_made_up_card(perf: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert "NVIDIA H200" in perf("doctor").stdout
    assert "shows none of them" in perf("doctor", CUDA_VISIBLE_DEVICES="").stdout


@pytest.mark.slow  # Trains in a process of its own, which imports torch several times.
def test_run_is_complete_and_says_that_it_is_simulated(
    perf: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    data = ensure_sample_dataset(TINY, tmp_path / "data")
    out = tmp_path / "run"
    arguments = ("--preset", "tiny", "--vendor", "nvidia", "--precision", "tf32", "--data", data, "--out", out)
    small = ("--set", "workers=0", "--set", "batch_size=4", "--set", "eval_batch_size=4", "--no-device-check")
    process = perf("train", "mobilenetv2", *arguments, *small, CUDA_VISIBLE_DEVICES=h200(0).uuid)
    log = out / "logs" / "rank0.log"
    assert process.returncode == 0, process.stderr + (log.read_text(encoding="utf-8") if log.exists() else "")

    record = json.loads((out / "record.json").read_text(encoding="utf-8"))
    assert (record["kind"], record["status"]["state"]) == ("simulated", "completed")
    assert record["vendor"]["name"] == "nvidia"
    assert (record["precision"]["requested"], record["precision"]["effective"]) == ("tf32", "tf32")

    (card,) = record["environment"]["cards"]
    assert (card["name"], card["uuid"], card["pci_bus_id"]) == ("NVIDIA H200", h200(0).uuid, "0000:1b:00.0")
    assert record["environment"]["driver"] == "570.86.15"
    assert record["environment"]["sdk"].startswith("CUDA ")

    knobs = by_name(record["knobs"])
    assert knobs["cuda.matmul.fp32_precision"]["value"] == knobs["cudnn.conv.fp32_precision"]["value"] == "tf32"
    assert (knobs["CUDA_DEVICE_ORDER"]["value"], knobs["CUDA_DEVICE_ORDER"]["origin"]) == ("PCI_BUS_ID", "vendor")
    assert knobs[AUTOTUNE_VARIABLE]["value"] == "1"
    assert knobs["CUDA_VISIBLE_DEVICES"]["value"] == h200(0).uuid
    assert knobs["cudnn.benchmark"]["value"] == "True"
    assert knobs["memory_format"]["value"] == "channels_last"

    memory, power = record["metrics"]["memory"], record["metrics"]["power"]
    assert memory["total_bytes"] == h200(0).total_bytes
    assert memory["allocated_peak_bytes"] > 0
    assert "NVML 12.570.86.15" in memory["allocator_source"]
    assert (power["mean_w"], power["max_temperature_c"]) == (pytest.approx(412.345), 61.0)
    assert (power["used_peak_bytes"], power["source"]) == (2**31, "NVML 12.570.86.15")

    for language in LANGUAGES:
        report = perf("report", out, "--lang", language)
        assert report.returncode == 0, report.stderr
        assert "simulated H200" in report.stdout
        assert "412.3" in report.stdout

"""The whole run of a C500 whose torch, tool and driver are faked: what the plugin says must arrive in the record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.data.sample import SampleOptions, ensure_sample_dataset
from chipperf_metax.mx_smi import Query
from fake_machine import FakeMachine

if TYPE_CHECKING:
    from collections.abc import Mapping

STACK = Path(__file__).with_name("simulated")
# A run takes about 30 seconds: two epochs of MobileNetV2 on the CPU, three interpreters that import torch.
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Simulation:
    """A machine with a faked C500, and what mx-smi was asked on it."""

    environment: Mapping[str, str]
    calls: Path

    def perf(self, *arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "chipperf", *map(str, arguments)],
            env={**self.environment, **changes},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    folder = tmp_path_factory.mktemp("c500")
    machine = FakeMachine(root=folder / "root", bin=STACK / "bin")
    machine.add_pci("0000:37:00.0", 0x9999, 0x4001)
    machine.add_file("sys/module/metax/version", "3.8.30\n")
    machine.add_file("dev/mxcd")
    foreign = ("MACA_", "CUDA_", "PYTORCH_", "PERF_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    calls = folder / "calls"
    environment = {
        **inherited,
        "PYTHONPATH": str(STACK),
        "PATH": f"{STACK / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PERF_SIMULATED_STACK": "metax_c500",
        "FAKE_METAX_ROOT": str(machine.root),
        "FAKE_MX_SMI_CALLS": str(calls),
        "METAX_USE_TF32": "1",
        "OMP_NUM_THREADS": "1",
    }
    return Simulation(environment=environment, calls=calls)


@pytest.fixture(scope="module")
def run_directory(simulation: Simulation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in tf32 with reproducible kernels."""
    options = SampleOptions(classes=4, train_per_class=12, val_per_class=5, width=96, height=72)
    data = ensure_sample_dataset(options, tmp_path_factory.mktemp("data"))
    directory = tmp_path_factory.mktemp("runs") / "c500"
    run = simulation.perf(
        *("train", "mobilenetv2", "--vendor", "metax", "--preset", "tiny", "--precision", "tf32"),
        *("--set", "batch_size=4", "--set", "eval_batch_size=4", "--set", "lr=0.01", "--set", "deterministic=true"),
        *("--set", "workers=0", "--no-device-check", "--data", data, "--out", directory),
    )
    log = directory / "logs" / "rank-0.log"
    assert run.returncode == 0, run.stderr + (log.read_text(encoding="utf-8") if log.exists() else "")
    return directory


@pytest.fixture(scope="module")
def record(run_directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run_directory / "record.json").read_text(encoding="utf-8"))
    return content


def test_record_says_that_the_run_is_simulated(record: dict[str, Any]) -> None:
    assert record["kind"] == "simulated"
    assert record["status"]["state"] == "completed"
    assert record["vendor"]["name"] == "metax"
    assert record["vendor"]["device_type"] == "cuda"


def test_record_holds_the_stack(record: dict[str, Any]) -> None:
    environment = record["environment"]
    assert environment["driver"] == "3.8.30"
    assert environment["sdk"] == "MACA 3.5.3.20 (torch built with 3.5.3.9)"
    assert environment["framework"] == f"pytorch-{environment['torch']}"
    assert environment["torch"].endswith("+metax3.5.3.9")
    (card,) = environment["cards"]
    assert card == {
        "rank": 0,
        "name": "MetaX C500",
        "uuid": "GPU-00000000-0000-0000-0000-000000000001",
        "pci_bus_id": "0000:37:00.0",
        "total_bytes": 65120 * 2**20,
        "part": None,
    }
    assert environment["card_short_name"] == "MXC500"


def test_record_holds_precision_and_every_knob(record: dict[str, Any]) -> None:
    assert record["precision"]["requested"] == "tf32"
    knobs = {knob["name"]: knob["value"] for knob in record["knobs"]}
    assert knobs["cuda.matmul.allow_tf32"] == knobs["cudnn.allow_tf32"] == "True"
    assert {"cuda.matmul.allow_tf32 (default)", "cudnn.allow_tf32 (default)"} <= set(knobs)
    assert (knobs["cudnn.benchmark"], knobs["cudnn.deterministic"]) == ("False", "True")
    assert knobs["layout of 4-D tensors copied to the device"] == knobs["memory_format"] == "channels_last"
    assert knobs["PYTORCH_DEFAULT_NCHW"] == "not set"
    assert knobs["METAX_USE_TF32"] == "1"


def test_record_holds_the_environment_that_was_applied(record: dict[str, Any]) -> None:
    knobs = {(knob["name"], knob["value"], knob["origin"]) for knob in record["knobs"]}
    assert {
        ("CUBLAS_WORKSPACE_CONFIG", ":4096:8", "vendor"),
        ("MCDNN_USE_DETERMINISTIC_ALGO", "1", "vendor"),
        ("ENABLE_BLAS_DETERMINISTIC_MODE", "1", "vendor"),
    } <= knobs


def test_record_holds_memory_and_telemetry_with_their_sources(record: dict[str, Any]) -> None:
    memory, power = record["metrics"]["memory"], record["metrics"]["power"]
    assert memory["total_bytes"] == 65120 * 2**20
    assert 0 < memory["allocated_peak_bytes"] <= memory["reserved_peak_bytes"] < 65120 * 2**20
    assert memory["allocator_source"].startswith("torch.cuda allocator")
    assert memory["device_source"] == power["source"] == "mx-smi 2.2.12 --summary"
    assert memory["device_peak_bytes"] == (15518872 - 878592) * 1024
    assert power["mean_w"] == pytest.approx(62.015)
    assert (power["max_temperature_c"], power["mean_utilization_percent"]) == (38.5, 0)


def test_run_trained(record: dict[str, Any]) -> None:
    metrics = record["metrics"]
    assert metrics["steps"] == 24
    assert metrics["p_train"]["median"] > 0
    assert metrics["p_core"]["median"] > 0
    assert len(metrics["curve"]) == 2


def test_tool_was_only_asked(simulation: Simulation, run_directory: Path) -> None:
    calls = set(simulation.calls.read_text(encoding="utf-8").splitlines())
    assert calls == {" ".join(query.value) for query in (Query.LIST, Query.TABLE, Query.VERSION, Query.SUMMARY)}


@pytest.mark.parametrize(
    ("language", "title", "word"),
    [("zh", "沐曦集成电路 C500 GPU配置与运行信息参考", "模拟"), ("en", "MetaX C500 GPU configuration", "simulated")],
)
def test_report_says_that_it_is_simulated(
    simulation: Simulation, run_directory: Path, tmp_path: Path, language: str, title: str, word: str
) -> None:
    report = tmp_path / f"report.{language}.md"
    run = simulation.perf("report", run_directory, "--lang", language, "--out", report)
    assert run.returncode == 0, run.stderr
    text = report.read_text(encoding="utf-8")
    assert title in text
    assert word in text
    assert "3.8.30" in text


def test_stale_variable_stops_the_run_before_it_begins(simulation: Simulation, tmp_path: Path) -> None:
    run = simulation.perf(
        *("train", "mobilenetv2", "--vendor", "metax", "--preset", "tiny", "--out", tmp_path / "run"),
        MACA_VISIBLE_DEVICES="1",
        CUDA_VISIBLE_DEVICES="0",
    )
    assert run.returncode == 3
    assert "MACA_VISIBLE_DEVICES='1' contradicts CUDA_VISIBLE_DEVICES='0'" in run.stderr
    assert not (tmp_path / "run").exists()

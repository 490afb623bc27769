"""The simulated accelerator itself, which the contract suite is tested with.

torch knows one renamed device type per process and prefers it to all others, so nothing here loads it into this one.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import acme_build
import acme_stack
import pytest
import support
from support import perf_command

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    Start = Callable[..., subprocess.CompletedProcess[str]]

HERE = Path(__file__).parent

ENVIRONMENTS = {
    ("operators", "launch_queue", "generators"): {},
    ("memory",): {"ACME_MEMORY_BYTES": str(64 * 2**20)},
    ("processes",): {"ACME_CARDS": "3", "ACME_VISIBLE_CARDS": "2,0"},
}
"""Variables of the machine, by the files of tests that run on it."""


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Starts a program beside which the plugin and the runtime are installed."""
    site = tmp_path_factory.mktemp("site")
    acme_stack.install_plugin(site)
    try:
        variables = acme_stack.environment(site)
    except acme_build.CompilerMissing as error:
        pytest.skip(str(error))

    def run(*command: object, **changes: str) -> subprocess.CompletedProcess[str]:
        return support.run([str(part) for part in command], {**variables, **changes})

    return run


@pytest.mark.slow  # A process for every machine, in one of which ResNet50 is trained.
@pytest.mark.parametrize("names", ENVIRONMENTS, ids=" ".join)
def test_card(start: Start, names: tuple[str, ...]) -> None:
    pytest_options = ("-q", "--no-header", "-p", "no:cacheprovider", "--rootdir", HERE.parents[1])
    files = [HERE / f"on_card/{name}.py" for name in names]
    process = start(sys.executable, "-m", "pytest", *pytest_options, *files, **ENVIRONMENTS[names])
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.slow  # Two processes, which import torch and its DDP.
def test_two_ranks_on_two_cards(start: Start, tmp_path: Path) -> None:
    def run(rank: int) -> subprocess.CompletedProcess[str]:
        return start(sys.executable, HERE / "rank_program.py", rank, 2, tmp_path, "accl", "cpu:gloo,acme:accl")

    with ThreadPoolExecutor() as executor:
        for process in executor.map(run, range(2)):
            assert process.returncode == 0, process.stderr


def test_runtime_can_be_loaded_in_a_child_that_was_forked_after_torch_was_imported(start: Start) -> None:
    program = (
        "import os, torch, acme_runtime; acme_runtime.cards(); child = os.fork()\n"
        "if child: raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "acme_runtime.load(); assert torch.ones(2, device='acme').sum().item() == 2"
    )
    process = start(sys.executable, "-c", program)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, "available: driver 1.4.2 lists 2 simulated card(s)"),
        ({"ACME_DRIVER": "0"}, "not available: the acme driver is not loaded"),
        ({"ACME_VISIBLE_CARDS": ""}, "not available: driver 1.4.2 is loaded, but ACME_VISIBLE_CARDS shows no card"),
    ],
)
def test_doctor_says_what_the_probe_finds(start: Start, changes: dict[str, str], found: str) -> None:
    process = start(*perf_command("doctor"), **changes)
    assert f"acme (chipperf-acme 0.1.0): {found}" in process.stdout, process.stdout + process.stderr


def test_probe_without_the_vendors_software_says_so(start: Start, tmp_path: Path) -> None:
    site = tmp_path / "site"
    acme_stack.install_plugin(site)
    process = start(*perf_command("doctor"), PYTHONPATH=str(site))
    assert "acme_runtime cannot be imported" in process.stdout, process.stdout + process.stderr


@pytest.mark.slow  # Trains in two processes of their own, which import torch several times.
def test_two_cards_train(start: Start, image_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = ("--preset", "tiny", "--max-steps", 4, "--set", "workers=0", "--precision", "fp16", "--no-device-check")
    job = ("--vendor", "acme", "--nproc", 2, "--data", image_folder, "--out", out)
    process = start(*perf_command("train", "mobilenetv2", *settings, *job))
    log = out / "logs" / "rank0.log"
    assert process.returncode == 0, process.stderr + (log.read_text(encoding="utf-8") if log.exists() else "")

    record = json.loads((out / "record.json").read_text(encoding="utf-8"))
    assert (record["kind"], record["status"]["state"]) == ("simulated", "completed")
    assert [card["uuid"] for card in record["environment"]["cards"]] == ["ACME-0000-0000", "ACME-0000-0001"]
    assert record["metrics"]["memory"]["total_bytes"] == 2**30
    assert record["metrics"]["memory"]["allocated_peak_bytes"] > 0
    assert record["precision"]["measured_matmul"] == record["precision"]["measured_convolution"] == "fp16"
    assert record["metrics"]["power"]["max_temperature_c"] == 41.0

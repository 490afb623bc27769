"""Whole runs on fake stacks: the plugin's own logic from the probe to the report, with the CPU as the device."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from chipperf.records.schema import Memory, Missing, Power
from chipperf.records.store import read_record
from fake_machine import ACCELERATOR, FakeMachine
from kunlunxin_tool import add_xpu_smi, query_of, recorded

if TYPE_CHECKING:
    from chipperf.records.schema import Record
    from support import Perf

SIMULATED = Path(__file__).with_name("simulated")
MIB = 2**20


def run_simulated(
    perf: Perf, stack: str, machine: FakeMachine, data: Path, out: Path, *arguments: object, **variables: str
) -> Record:
    """Train a tiny MobileNetV2 on a fake stack, render its reports in both languages, and return its record."""
    environment = {
        "PERF_SIMULATED_STACK": stack,
        "FAKE_MACHINE_ROOT": str(machine.root),
        # Threads that wait for each other on a busy machine take ten times as long.
        "OMP_NUM_THREADS": "1",
        "PATH": os.pathsep.join((str(machine.bin), os.environ["PATH"])),
        "PYTHONPATH": str(SIMULATED / stack),
        **variables,
    }
    trained = perf(
        *("train", "mobilenetv2", "--vendor", "kunlunxin", "--preset", "tiny", "--data", data),
        *("--set", "workers=0", "--set", "batch_size=4", "--set", "eval_batch_size=4", "--no-device-check"),
        *("--out", out, *arguments),
        **environment,
    )
    assert trained.returncode == 0, trained.stderr + "".join(log.read_text() for log in out.glob("logs/*"))
    for language, word in (("zh", "模拟"), ("en", "simulated")):
        report = perf("report", out, "--lang", language)
        assert report.returncode == 0, report.stderr
        assert word in report.stdout
    return read_record(out / "record.json")


@pytest.mark.slow(reason="a whole run in processes of its own")
def test_r300_trains_from_probe_to_report(perf: Perf, image_folder: Path, tmp_path: Path) -> None:
    machine = FakeMachine(root=tmp_path / "root", bin=tmp_path / "bin")
    machine.bin.mkdir()
    for number, address in enumerate(("0000:53:00.0", "0000:56:00.0")):
        machine.add_pci(address, 0x1D22, 0x3685, ACCELERATOR)
        machine.add_file(f"dev/xpu{number}")
    machine.add_file("proc/kunlun/version", "4.0.25\n")
    run = tmp_path / "run"
    add_xpu_smi(machine, busy=run, table=recorded("xpu_smi-table-r300"))

    record = run_simulated(
        perf,
        "kunlunxin_r300",
        machine,
        image_folder,
        run,
        PERF_KUNLUNXIN_PROFILE="r300",
        XPU_VISIBLE_DEVICES="0",
        XPU_RUN_MODE="TRAIN-FP16",
    )

    assert (record.kind, record.vendor.name, record.vendor.device_type) == ("simulated", "kunlunxin", "xpu")
    assert (record.precision.requested, record.precision.effective) == ("fp32", "fp32")
    environment = record.environment
    assert (environment.driver, environment.framework, environment.collectives) == (
        "4.0.25",
        "xmlir 0.0.1-fake",
        "XCCL",
    )
    (card,) = environment.cards
    assert (card.name, card.pci_bus_id, card.total_bytes) == ("R300", "0000:53:00.0", 32768 * MIB)
    memory, power = record.metrics.memory, record.metrics.power
    assert isinstance(memory, Memory)
    assert isinstance(power, Power)
    assert memory.device_peak_bytes == 28653 * MIB
    assert memory.device_source == "xpu-smi"
    assert isinstance(memory.allocated_peak_bytes, Missing)
    assert (power.max_w, power.max_temperature_c, power.mean_utilization_percent) == (114, 40, 94)
    knobs = {knob.name: (knob.value, knob.origin) for knob in record.knobs}
    assert knobs["XMLIR_D_XPU_L3_SIZE"][0] == "66060288"
    assert knobs["XACC_ENABLE"][0] == "1"
    assert knobs["XPU_RUN_MODE"][0] == "TRAIN-FP16"
    assert knobs["XDNN_CONV_GEMM_DTYPE"] == ("not set", "vendor")


@pytest.mark.slow(reason="a whole run of two ranks in processes of their own")
def test_p800_trains_from_probe_to_report(perf: Perf, image_folder: Path, tmp_path: Path) -> None:
    machine = FakeMachine(root=tmp_path / "root", bin=tmp_path / "bin")
    machine.bin.mkdir()
    for number, address in enumerate(("0000:03:00.0", "0000:16:00.0")):
        machine.add_pci(address, 0x1D22, 0x3688, ACCELERATOR)
        machine.add_file(f"dev/xpu{number}")
    uuids = ("GPU-00000000-0000-0000-0000-0000000000A1", "GPU-00000000-0000-0000-0000-0000000000B2")
    query = query_of(("00000000:16:00.0", uuids[0]), ("00000000:03:00.0", uuids[1]))
    run = tmp_path / "run"
    add_xpu_smi(machine, busy=run, m=recorded("xpu-smi-m-p800"), q=query)

    record = run_simulated(
        perf,
        "kunlunxin_p800",
        machine,
        image_folder,
        run,
        *("--nproc", 2),
        PERF_KUNLUNXIN_PROFILE="p800",
        PERF_KUNLUNXIN_BACKEND="cpu:gloo,cuda:flagcx",
    )

    assert (record.kind, record.vendor.name, record.vendor.device_type) == ("simulated", "kunlunxin", "cuda")
    assert (record.precision.requested, record.precision.effective) == ("fp32", "fp32")
    environment = record.environment
    assert (environment.driver, environment.sdk, environment.collectives, environment.compiler) == (
        "5.0.21.47",
        "XRE 5.13.0.0",
        "XCCL 20260209_9",
        "XTDK 3.6.0.1",
    )
    assert [(card.rank, card.name, card.uuid, card.pci_bus_id) for card in environment.cards] == [
        (0, "P800 OAM", uuids[0][4:].lower(), "0000:16:00.0"),
        (1, "P800 OAM", uuids[1][4:].lower(), "0000:03:00.0"),
    ]
    memory, power = record.metrics.memory, record.metrics.power
    assert isinstance(memory, Memory)
    assert isinstance(power, Power)
    assert memory.total_bytes == 98304 * MIB
    assert isinstance(memory.allocated_peak_bytes, int)
    assert memory.allocator_source == "torch.cuda allocator; used and total: torch.cuda.mem_get_info"
    assert memory.device_peak_bytes == 90440 * MIB
    assert power.max_w == 94
    assert power.source == "xpu-smi -m (XPU-RT 10.2)"
    knobs = {knob.name: knob.value for knob in record.knobs}
    assert (knobs["CUDART_DUMMY_REGISTER"], knobs["FLAGCX_ADAPTOR"]) == ("1", "klx")
    assert knobs["float64"] == "computed as float32"
    assert knobs["cudnn.allow_tf32"] == "False"

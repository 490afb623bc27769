"""Telemetry: joined by UUID or address, one call of the tool for all devices, bounded."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from chipperf import DeviceInfo
from chipperf_kunlunxin.xpu_smi import DeviceReader
from kunlunxin_tool import add_xpu_smi, query_of, recorded

if TYPE_CHECKING:
    from fake_machine import FakeMachine

ROWS = recorded("xpu-smi-m-p800")
QUERY = query_of(("00000000:16:00.0", "GPU-A1"), ("00000000:03:00.0", "GPU-B2"))


def device(**identity: str) -> DeviceInfo:
    return DeviceInfo(index=0, name="P800 OAM", **identity)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "identity",
    [{"uuid": "b2"}, {"uuid": "b2", "pci_bus_id": "0000:16:00.0"}, {"pci_bus_id": "0000:03:00.0"}],
    ids=["UUID", "UUID before address", "address"],
)
def test_device_is_found_by_its_identity(machine: FakeMachine, identity: dict[str, str]) -> None:
    add_xpu_smi(machine, m=ROWS, q=QUERY)
    sample = DeviceReader().sample(device(**identity))
    assert (sample.power_w, sample.temperature_c, sample.utilization_percent) == (86, 36, 0)
    assert (sample.memory_used_bytes, sample.clock_mhz) == (90440 * 2**20, 1450)
    assert sample.source == "xpu-smi -m (XPU-RT 10.2)"


def test_values_are_never_those_of_an_earlier_query(machine: FakeMachine) -> None:
    rows = ROWS.replace(" 36 0 0 0 86 ", " N/A 0 0 0 N/A ")
    add_xpu_smi(machine, m=rows, q=QUERY)
    sample = DeviceReader().sample(device(uuid="b2"))
    assert (sample.power_w, sample.temperature_c) == (None, None)


def test_unidentified_device_has_no_values(machine: FakeMachine) -> None:
    add_xpu_smi(machine, m=ROWS)
    sample = DeviceReader().sample(device(uuid="b2"))
    assert sample.source == "xpu-smi -m, which does not identify b2"
    assert (sample.power_w, sample.memory_used_bytes) == (None, None)


def test_devices_at_one_address_are_not_mixed_up(machine: FakeMachine) -> None:
    add_xpu_smi(machine, m=recorded("xpu-smi-m-k200"))
    assert DeviceReader().sample(device(pci_bus_id="0000:37:00.0")).temperature_c is None


def test_one_call_serves_all_devices_and_one_query_the_process(machine: FakeMachine) -> None:
    calls = machine.bin / "calls"
    (machine.bin / "rows").write_text(ROWS)
    (machine.bin / "query").write_text(QUERY)
    machine.add_tool(
        "xpu-smi",
        script=f'echo "$1" >> {calls}; [ "$1" = -q ] && /bin/cat {machine.bin}/query || /bin/cat {machine.bin}/rows',
    )
    reader = DeviceReader()
    reader.sample(device(uuid="a1"))
    reader.sample(device(uuid="b2"))
    assert calls.read_text().split() == ["-m", "-q"]
    current = DeviceReader(fresh_s=0)
    current.sample(device(uuid="a1"))
    current.sample(device(uuid="a1"))
    assert calls.read_text().split() == ["-m", "-q", *("-m", "-q"), "-m"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("/bin/sleep 60", "xpu-smi did not finish within"),
        ("echo '[ERROR] xpuml init failed' >&2; exit 3", "ended with status 3: [ERROR] xpuml init failed"),
        ("echo '[ERROR] xpuml init failed'", "is not Kunlunxin's"),
        (None, "xpu-smi is not installed"),
    ],
    ids=["hangs", "fails", "prints an error", "is missing"],
)
def test_tool_that_does_not_answer_is_the_source(machine: FakeMachine, script: str | None, reason: str) -> None:
    if script:
        machine.add_tool("xpu-smi", script=script)
    start_s = time.monotonic()
    sample = DeviceReader(timeout_s=0.2).sample(device(uuid="a1"))
    assert reason in sample.source
    assert sample.power_w is None
    assert time.monotonic() - start_s < 10


def test_telemetry_needs_no_torch(machine: FakeMachine) -> None:
    add_xpu_smi(machine, m=ROWS, q=QUERY)
    program = (
        "import sys\n"
        "from chipperf import DeviceInfo\n"
        "from chipperf_kunlunxin.plugin import perf_telemetry\n"
        "assert perf_telemetry(DeviceInfo(index=0, name='P800 OAM', uuid='a1')).power_w == 94\n"
        "print(*sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    assert not {"torch", "torch_xmlir", "numpy"} & set(run.stdout.split())

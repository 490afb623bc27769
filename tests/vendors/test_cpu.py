"""The CPU reference: what it measures is true, and what it cannot do it refuses."""

from __future__ import annotations

import ctypes
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import torch
from chipperf import DeviceInfo, EnvironmentSettings, MemoryStats, Rank, UnsupportedPrecision
from chipperf.plugin import installed
from chipperf.plugin.session import bind
from chipperf.torchtools import restore_switches
from chipperf.vendors import cpu

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 2**20
DEVICE = torch.device("cpu", 0)
SETTINGS = EnvironmentSettings(case="mobilenetv2", precision="fp32")


def query() -> MemoryStats:
    return cpu.perf_memory_query(DEVICE)


def allocated() -> int:
    stats = query()
    assert stats.allocated_bytes is not None
    return stats.allocated_bytes


def peak() -> int:
    stats = query()
    if stats.peak_allocated_bytes is None:
        pytest.skip("this kernel tells no peak")
    return stats.peak_allocated_bytes


@pytest.fixture
def matmul_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    restore_switches()
    torch.set_float32_matmul_precision(before)


def test_plugin_fulfils_the_specification_for_training() -> None:
    session = bind(installed.find_vendor("cpu"))

    assert session.vendor_info().device_type == "cpu"
    assert session.probe().available
    session.synchronize(DEVICE)


def test_tensor_raises_what_is_allocated() -> None:
    before = allocated()
    tensor = torch.ones(64 * MIB // 4)

    assert 60 * MIB <= allocated() - before <= 80 * MIB
    assert tensor.sum() == tensor.numel()


def test_peak_is_never_below_what_is_allocated() -> None:
    for _ in range(3):
        stats = query()
        assert stats.allocated_bytes is not None
        assert stats.peak_allocated_bytes is None or stats.peak_allocated_bytes >= stats.allocated_bytes - MIB


def test_peak_remembers_what_was_freed_until_it_is_reset() -> None:
    cpu.perf_memory_reset_peak(DEVICE)
    low = peak()
    tensor = torch.ones(64 * MIB // 4)
    high = peak()
    del tensor
    ctypes.CDLL(None).malloc_trim(0)
    assert high - low >= 60 * MIB
    # The kernel adds pages up per processor and in batches.
    assert peak() >= high - MIB

    cpu.perf_memory_reset_peak(DEVICE)

    assert peak() <= high - 50 * MIB


def test_query_changes_nothing() -> None:
    first = query()
    for _ in range(20):
        query()
    last = query()

    assert first.allocated_bytes == pytest.approx(last.allocated_bytes, abs=4 * MIB)
    assert first.peak_allocated_bytes == pytest.approx(last.peak_allocated_bytes, abs=4 * MIB)


def test_memory_the_cpu_does_not_reserve_is_unknown() -> None:
    stats = query()

    assert (stats.reserved_bytes, stats.peak_reserved_bytes) == (None, None)
    assert stats.total_bytes is not None
    assert 0 < stats.total_bytes <= psutil.virtual_memory().total
    assert stats.source.startswith("resident memory of the process; total from ")


class FakeFiles:
    """Contents of absolute paths; all others do not exist."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
        def read_text(path: Path, encoding: str | None = None, errors: str | None = None) -> str:
            if str(path) not in files:
                raise FileNotFoundError(str(path))
            return files[str(path)]

        monkeypatch.setattr(Path, "read_text", read_text)


GIB = 2**30


@pytest.mark.parametrize(
    ("files", "limit_bytes", "source"),
    [
        ({}, None, "the machine"),
        ({"/proc/self/cgroup": ""}, None, "the machine"),
        ({"/proc/self/cgroup": "0::/\n"}, None, "the machine"),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "max\n"}, None, "the machine"),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "1048576\n"}, 2**20, "the control group"),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": f"{2**60}\n"}, None, "the machine"),
        (
            {"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/memory.max": "4194304\n"},
            2**22,
            "the control group",
        ),
        (
            {
                "/proc/self/cgroup": "0::/a/b\n",
                "/sys/fs/cgroup/a/b/memory.max": "8388608",
                "/sys/fs/cgroup/a/memory.max": "4194304",
            },
            2**22,
            "the control group",
        ),
    ],
)
def test_total_is_the_tightest_limit(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], limit_bytes: int | None, source: str
) -> None:
    machine_bytes = psutil.virtual_memory().total
    FakeFiles(monkeypatch, files)

    assert cpu._memory_limit() == (limit_bytes or machine_bytes, source)


@pytest.mark.usefixtures("matmul_precision")
@pytest.mark.parametrize(("requested", "autocast"), [("fp32", None), ("bf16", "bfloat16")])
def test_precision(requested: str, autocast: str | None) -> None:
    torch.set_float32_matmul_precision("medium")

    policy = cpu.perf_precision(requested, DEVICE)  # type: ignore[arg-type]

    assert (policy.requested, policy.effective, policy.autocast_dtype) == (requested, requested, autocast)
    assert not policy.grad_scaler
    assert torch.get_float32_matmul_precision() == "highest"
    assert {knob.name: knob.value for knob in policy.knobs}["float32_matmul_precision"] == "highest"


@pytest.mark.usefixtures("matmul_precision")
@pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "conv"), reason="torch before 2.9 has no such switches")
def test_switches_that_round_fp32_are_put_back_and_declared() -> None:
    others = (torch.backends.mkldnn.conv, torch.backends.mkldnn.rnn)
    for product in others:
        product.fp32_precision = "bf16"
    try:
        policy = cpu.perf_precision("fp32", DEVICE)
        in_force = [getattr(torch.backends.mkldnn, product).fp32_precision for product in ("matmul", "conv", "rnn")]
    finally:
        restore_switches()
        for product in others:
            product.fp32_precision = "none"

    knobs = {knob.name: knob.value for knob in policy.knobs}
    assert in_force == ["ieee"] * 3
    assert [knobs[f"mkldnn.{product}.fp32_precision"] for product in ("matmul", "conv", "rnn")] == ["ieee"] * 3


@pytest.mark.parametrize("requested", ["tf32", "amp", "fp16"])
def test_other_precisions_are_refused(requested: str) -> None:
    with pytest.raises(UnsupportedPrecision, match=f"does not run {requested}") as caught:
        cpu.perf_precision(requested, DEVICE)  # type: ignore[arg-type]
    assert caught.value.hint == "use --precision fp32 or bf16"


@pytest.mark.parametrize(("local_world_size", "threads"), [(1, "8"), (2, "4"), (3, "2"), (8, "1"), (64, "1")])
def test_ranks_share_the_cores(monkeypatch: pytest.MonkeyPatch, local_world_size: int, threads: str) -> None:
    monkeypatch.setattr(cpu, "_physical_cores", lambda: 8)

    rank = Rank(world_size=local_world_size, local_world_size=local_world_size)
    variables = {item.name: item for item in cpu.perf_environment(rank, SETTINGS)}

    assert variables["OMP_NUM_THREADS"].value == threads
    assert all(item.reason for item in variables.values())


@pytest.mark.parametrize(
    ("libc", "names"), [("glibc", {"OMP_NUM_THREADS", "GLIBC_TUNABLES"}), ("", {"OMP_NUM_THREADS"})]
)
def test_allocator_is_tuned_where_it_is_glibcs(monkeypatch: pytest.MonkeyPatch, libc: str, names: set[str]) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, "2.36"))

    assert {item.name for item in cpu.perf_environment(Rank(), SETTINGS)} == names


def test_cores_are_physical_and_usable() -> None:
    usable = len(psutil.Process().cpu_affinity())

    assert 1 <= cpu._physical_cores() <= usable


def test_model_is_laid_out_channels_last_with_the_same_values() -> None:
    model = torch.nn.Conv2d(3, 4, 3)
    weights = model.weight.detach().clone()

    prepared = cpu.perf_prepare_model(model, cpu.perf_precision("fp32", DEVICE), DEVICE)

    weight = prepared.weight
    assert isinstance(weight, torch.Tensor)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(weight, weights)


def test_runtime_names_torch_and_what_sets_its_speed() -> None:
    runtime = cpu.perf_load_runtime()

    assert runtime.torch == torch.__version__
    assert runtime.collectives == "gloo"
    assert {knob.name: knob.value for knob in runtime.knobs}["threads"] == str(torch.get_num_threads())


def test_collectives_are_gloo() -> None:
    assert cpu.perf_distributed_setup(Rank(), DEVICE).backend == "gloo"


def test_probe_and_device_agree() -> None:
    [probed] = cpu.perf_probe().devices
    device = cpu.perf_device_info(DEVICE)

    assert (probed.name, probed.total_bytes) == (device.name, device.total_bytes)
    assert device.name


def test_telemetry_is_numbers_or_unknown() -> None:
    sample = cpu.perf_telemetry(DeviceInfo(index=0, name="A CPU"))

    assert isinstance(sample.memory_used_bytes, int)
    assert isinstance(sample.utilization_percent, float)
    assert 0 <= sample.utilization_percent <= 100
    for value in (sample.power_w, sample.temperature_c):
        assert value is None or value > 0


def test_power_is_energy_over_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counter = tmp_path / "energy_uj"
    clock = iter([10.0, 12.0, 13.0, 15.0])
    monkeypatch.setattr(cpu, "_RAPL_ENERGY", counter)
    monkeypatch.setattr(cpu, "_last_energy_reading", None)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    readings = []

    # The third reading comes after the counter went round.
    for microjoules in (5_000_000, 205_000_000, 1_000_000, 31_000_000):
        counter.write_text(f"{microjoules}\n")
        readings.append(cpu._package_power_w())

    assert readings == [None, 100.0, None, 15.0]


@pytest.mark.parametrize(
    ("sensors", "temperature_c"),
    [({}, None), ({"nvme": [40.0]}, None), ({"k10temp": [61.5, 40.0]}, 61.5), ({"coretemp": []}, None)],
)
def test_temperature_is_the_packages(
    monkeypatch: pytest.MonkeyPatch, sensors: dict[str, list[float]], temperature_c: float | None
) -> None:
    class Sensor:
        def __init__(self, current: float) -> None:
            self.current = current

    found = {chip: [Sensor(value) for value in values] for chip, values in sensors.items()}
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: found, raising=False)

    assert cpu._package_temperature_c() == temperature_c


@pytest.mark.parametrize(
    ("key", "listed", "told"),
    [
        ("flags", "fpu avx512f avx512_bf16 amx_bf16", "bf16 by amx_bf16 and avx512_bf16"),
        ("flags", "fpu avx512_bf16", "bf16 by avx512_bf16"),
        ("Features", "fp asimd bf16", "bf16 by bf16"),
        ("flags", "fpu avx2 avx512bw", "no known instructions for bf16, so that it is emulated"),
        ("flags", "", "no known instructions for bf16, so that it is emulated"),
    ],
)
def test_probe_says_how_the_processor_multiplies_bf16(
    monkeypatch: pytest.MonkeyPatch, key: str, listed: str, told: str
) -> None:
    monkeypatch.setattr(cpu, "_proc_value", lambda file, name: listed if name == key else "")

    assert cpu.perf_probe().reason.endswith(f" physical cores, {told}")

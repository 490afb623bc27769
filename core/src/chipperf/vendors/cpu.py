"""The CPU reference plugin. The results of all other vendors are compared with its results.

Core finds it through the same entry-point group as every other plugin. It does not change fp32 numerics. For speed it
uses every physical core, channels-last convolutions, and an allocator that keeps memory.
"""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from chipperf import (
    Capability,
    DeviceInfo,
    DistributedConfig,
    EnvironmentSettings,
    EnvironmentVariable,
    Knob,
    MemoryStats,
    Precision,
    PrecisionPolicy,
    ProbedDevice,
    ProbeResult,
    Rank,
    RuntimeInfo,
    TelemetrySample,
    Title,
    VendorInfo,
    hookimpl,
)
from chipperf.hardware import read_text
from chipperf.torchtools import MATMUL_PRECISION, precision_policy, require_precision, set_switch, switch_knobs

if TYPE_CHECKING:
    import torch

# Above these sizes glibc returns memory to the kernel after every step. The page faults in the next step cost about
# half of the training throughput. The values must exceed the size of every tensor of the cases.
_KEEP_BYTES = 8 * 2**30
_TOP_PAD_BYTES = 64 * 2**20

_CAPABILITIES = frozenset(
    map(Capability, ("bf16", "channels_last", "deterministic", "distributed", "telemetry", "unified_memory"))
)

_RAPL_ENERGY = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
_last_energy_reading: tuple[float, int] | None = None


@hookimpl
def perf_vendor_info() -> VendorInfo:
    """Describe the CPU reference."""
    return VendorInfo(
        name="cpu",
        title=Title(zh="CPU 参考实现", en="CPU reference"),
        report_title=Title(zh="CPU 参考实现配置与运行信息参考", en="CPU reference configuration and results"),
        device_type="cpu",
        capabilities=_CAPABILITIES,
    )


@hookimpl
def perf_probe() -> ProbeResult:
    """Report the host's processor, which is always present."""
    device = ProbedDevice(index=0, name=_cpu_name(), total_bytes=_memory_limit()[0])
    return ProbeResult(available=True, reason=f"{_physical_cores()} physical cores, {_bf16()}", devices=(device,))


@hookimpl
def perf_environment(rank: Rank, settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
    """Give each rank its share of the physical cores and stop glibc from returning memory after every step."""
    cores = _physical_cores()
    threads = str(max(1, cores // rank.local_world_size))
    reason = f"{cores} physical cores shared by {rank.local_world_size} ranks"
    variables = [EnvironmentVariable(name="OMP_NUM_THREADS", value=threads, reason=reason)]
    if platform.libc_ver()[0] == "glibc":
        sizes = {"mmap_threshold": _KEEP_BYTES, "trim_threshold": _KEEP_BYTES, "top_pad": _TOP_PAD_BYTES, "hugetlb": 1}
        tunables = ":".join(f"glibc.malloc.{name}={value}" for name, value in sizes.items())
        reason = "keep freed memory instead of taking page faults for it in every step; numerics unchanged"
        variables.append(EnvironmentVariable(name="GLIBC_TUNABLES", value=tunables, reason=reason))
    return tuple(variables)


@hookimpl
def perf_load_runtime() -> RuntimeInfo:
    """Import torch."""
    import torch

    return RuntimeInfo(
        torch=torch.__version__,
        collectives="gloo" if torch.distributed.is_available() else None,
        framework=f"pytorch-{torch.__version__}",
        knobs=(
            Knob(name="threads", value=str(torch.get_num_threads()), reason="intra-operator threads"),
            Knob(name="cpu_capability", value=_vector_instructions(), reason="vector instructions"),
            Knob(name="onednn", value=str(torch.backends.mkldnn.is_available()), reason="convolution library"),
        ),
    )


@hookimpl
def perf_device_init(rank: Rank) -> torch.device:
    """Return the host, which all ranks share."""
    import torch

    return torch.device("cpu", 0)


@hookimpl
def perf_device_info(device: torch.device) -> DeviceInfo:
    """Identify the processor. Its capacity is the memory that this process may use."""
    return DeviceInfo(index=0, name=_cpu_name(), total_bytes=_memory_limit()[0])


@hookimpl
def perf_synchronize(device: torch.device) -> None:
    """Do nothing, because an operator on the CPU is finished when it returns."""


@hookimpl
def perf_memory_query(device: torch.device) -> MemoryStats:
    """Read this process's resident memory, the machine's used memory, and their common limit."""
    total_bytes, limit_source = _memory_limit()
    virtual = psutil.virtual_memory()
    resident_kib, peak_kib = (_proc_value("self/status", key).removesuffix("kB") for key in ("VmRSS", "VmHWM"))
    return MemoryStats(
        source=f"resident memory of the process; total from {limit_source}",
        allocated_bytes=int(resident_kib) * 1024 if resident_kib else psutil.Process().memory_info().rss,
        peak_allocated_bytes=int(peak_kib) * 1024 if peak_kib else None,
        used_bytes=virtual.total - virtual.available,
        total_bytes=total_bytes,
    )


@hookimpl
def perf_memory_reset_peak(device: torch.device) -> None:
    """Reset the kernel's high-water mark of resident memory (proc(5), ``clear_refs``)."""
    clear_refs = Path("/proc/self/clear_refs")
    if clear_refs.exists():
        clear_refs.write_text("5")


@hookimpl
def perf_distributed_setup(rank: Rank, device: torch.device) -> DistributedConfig:
    """Use gloo."""
    return DistributedConfig(backend="gloo", timeout_s=600)


@hookimpl
def perf_precision(requested: Precision, device: torch.device) -> PrecisionPolicy:
    """Run fp32 as IEEE single precision, and bf16 through autocast."""
    import torch

    require_precision(requested, _CAPABILITIES, who="the CPU reference")
    # torch 2.9 brought a switch for each kind of product.
    products = [name for name in ("matmul", "conv", "rnn") if hasattr(torch.backends.mkldnn, name)]
    switches = {MATMUL_PRECISION: "highest"} | {f"mkldnn.{name}.fp32_precision": "ieee" for name in products}
    for name, value in switches.items():
        set_switch(name, value)
    return precision_policy(requested, knobs=switch_knobs(dict.fromkeys(switches, "fp32 is not rounded to bf16")))


@hookimpl
def perf_prepare_model(model: torch.nn.Module, precision: PrecisionPolicy, device: torch.device) -> torch.nn.Module:
    """Store convolution weights channels-last, because oneDNN's kernels are faster with them."""
    import torch

    return model.to(memory_format=torch.channels_last)


@hookimpl
def perf_telemetry(device: DeviceInfo) -> TelemetrySample:
    """Read utilization, memory, and package power and temperature if the kernel exposes them."""
    virtual = psutil.virtual_memory()
    return TelemetrySample(
        source="psutil, /sys/class/powercap",
        power_w=_package_power_w(),
        temperature_c=_package_temperature_c(),
        utilization_percent=psutil.cpu_percent(interval=None),
        memory_used_bytes=virtual.total - virtual.available,
    )


def _cpu_name() -> str:
    return " ".join(_proc_value("cpuinfo", "model name").split()) or platform.processor() or platform.machine()


def _proc_value(file: str, key: str) -> str:
    """Return the first value of a key in a file of ``/proc`` with lines ``key: value``; empty if there is none."""
    lines = (line.partition(":") for line in (read_text(Path("/proc") / file) or "").splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), "")


def _physical_cores() -> int:
    """Return the physical cores that this process may run on. SMT siblings do not add floating-point units."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (psutil.cpu_count() or 1)
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))


def _bf16() -> str:
    """Return how the processor multiplies bf16, as the kernel lists its instructions."""
    listed = (_proc_value("cpuinfo", "flags") or _proc_value("cpuinfo", "Features")).split()
    found = [name for name in ("amx_bf16", "avx512_bf16", "bf16") if name in listed]
    return f"bf16 by {' and '.join(found)}" if found else "no known instructions for bf16, so that it is emulated"


def _memory_limit() -> tuple[int, str]:
    """Return the bytes that this process may use, and what limits them: its control group or the machine."""
    limit_bytes, source = psutil.virtual_memory().total, "the machine"
    group = (read_text(Path("/proc/self/cgroup")) or "").partition("\n")[0].rpartition(":")[2]
    folder = Path("/sys/fs/cgroup") / group.strip("/")
    for candidate in (folder, *folder.parents):
        text = read_text(candidate / "memory.max") or ""
        if text.isdigit() and int(text) < limit_bytes:
            limit_bytes, source = int(text), "the control group"
    return limit_bytes, source


def _package_power_w() -> float | None:
    """Return the mean power since the last call, from the package's energy counter."""
    global _last_energy_reading
    try:
        reading = (time.monotonic(), int(read_text(_RAPL_ENERGY) or ""))
    except ValueError:
        return None
    previous, _last_energy_reading = _last_energy_reading, reading
    if previous is None or reading[0] <= previous[0] or reading[1] < previous[1]:
        return None
    return (reading[1] - previous[1]) / 1e6 / (reading[0] - previous[0])


def _package_temperature_c() -> float | None:
    read_sensors = getattr(psutil, "sensors_temperatures", None)
    sensors = read_sensors() if read_sensors else {}
    for chip in ("coretemp", "k10temp", "zenpower"):
        if sensors.get(chip):
            return float(sensors[chip][0].current)
    return None


def _vector_instructions() -> str:
    """Return the instructions of torch's kernels; torch 2.0 tells them in its description of the build only."""
    import torch

    lines = torch.__config__.show().splitlines()
    return next((line.rpartition(": ")[2] for line in lines if "CPU capability" in line), "unknown")

"""What plugins of several vendors do with torch, which they import as :mod:`chipperf.torchtools`.

torch is imported inside the functions, so that plugins can be loaded and can probe without torch.
"""

from __future__ import annotations

import fnmatch
import functools
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chipperf.errors import DeviceError, UnsupportedPrecision
from chipperf.plugin.hookspecs import hookimpl
from chipperf.plugin.types import DeviceInfo, Knob, LoaderOptions, MemoryStats, PrecisionPolicy, Rank
from chipperf.precisions import PRECISIONS, Precision, runnable_precisions
from chipperf.visible import either

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import torch


DETERMINISTIC_ALGORITHMS: Final = "use_deterministic_algorithms"
MATMUL_PRECISION: Final = "float32_matmul_precision"
MATMUL_TF32: Final = "cuda.matmul.allow_tf32"
CUDNN_TF32: Final = "cudnn.allow_tf32"
CUDNN_BENCHMARK: Final = "cudnn.benchmark"
CUDNN_DETERMINISTIC: Final = "cudnn.deterministic"

KERNEL_SWITCHES: Final[Mapping[str, str]] = {
    CUDNN_BENCHMARK: "if on, convolution algorithms are timed and the fastest is taken",
    CUDNN_DETERMINISTIC: "if on, only convolution algorithms that give equal bits",
    DETERMINISTIC_ALGORITHMS: "if on, only torch kernels that give equal bits; without one, torch raises",
    "cuda.matmul.allow_fp16_reduced_precision_reduction": "if on, fp16 products may be summed in fp16",
    "cuda.matmul.allow_bf16_reduced_precision_reduction": "if on, bf16 products may be summed in bf16",
}
"""Switches of builds whose devices are called ``cuda`` that choose kernels, and what each does, for
:func:`switch_knobs`."""

HOST_VARIABLES: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
        "with BF16 or ANY, a CPU with AMX rounds fp32 to bf16 in convolutions",
    ),
    "OMP_WAIT_POLICY": "passive: threads that wait sleep, slower on an idle machine and faster on a busy one",
    "LD_PRELOAD": "replaces functions of libraries, for example the memory allocator",
    **dict.fromkeys(("OMP_*", "GOMP_*", "KMP_*"), "threads on the host"),
    **dict.fromkeys(("MKL_*", "OPENBLAS_*", "BLIS_*", "VECLIB_*", "ONEDNN_*", "DNNL_*"), "products on the host"),
    **dict.fromkeys(("TORCH_*", "PYTORCH_*", "ATEN_*", "LRU_CACHE_CAPACITY", "THP_MEM_ALLOC_ENABLE"), "torch"),
    **dict.fromkeys(("GLIBC_TUNABLES", "MALLOC_*", "TCMALLOC_*", "MIMALLOC_*"), "memory allocator of the host"),
}
"""Variables of every vendor's host, for :func:`user_variables`; core puts them into each record."""


class Switch(NamedTuple):
    """How to read and how to set a process-wide switch of numerics."""

    get: Callable[[], Any]
    set: Callable[[Any], object]


_changed: dict[str, tuple[Switch, Any]] = {}
"""Switches that were changed, in order, each with its value before the first change."""


def read_switch(name: str) -> Any:
    """Return the value in force of a switch: a name under ``torch.backends``, for example ``cudnn.benchmark``, or
    :data:`DETERMINISTIC_ALGORITHMS`, or :data:`MATMUL_PRECISION`.
    """
    return _switch_of_torch(name).get()


def set_switch(name: str, value: Any, *, switch: Switch | None = None) -> Any:
    """Set a switch, remember what :func:`restore_switches` has to put back, and return the value in force.

    A variable of the environment may have kept it from changing. The name is as in :func:`read_switch`; with
    ``switch``, which says how to read and set one that is not torch's own, it is any name.
    """
    switch = switch or _switch_of_torch(name)
    before = switch.get()
    # To set deterministic algorithms imports torch's compiler, which takes seconds.
    if before != value:
        _changed.setdefault(name, (switch, before))
        switch.set(value)
    return switch.get()


def restore_switches() -> None:
    """Put back every switch that was changed since the last call; a teardown calls this and may be repeated."""
    while _changed:
        _, (switch, before) = _changed.popitem()
        switch.set(before)


def switch_knobs(reasons: Mapping[str, str]) -> tuple[Knob, ...]:
    """Return the switches named in ``reasons`` as knobs with the values in force."""
    return tuple(Knob(name=name, value=str(read_switch(name)), reason=reason) for name, reason in reasons.items())


def set_tf32(enabled: bool, *, older_names: bool = False) -> dict[str, Any]:
    """Turn TF32 on or off for matrix products and for convolutions, and return the switches with the values asked for.

    torch 2.9 brought ``fp32_precision`` and fails when it is mixed with the older ``allow_tf32``. So only one set of
    switches is ever touched: the one that the running torch prefers, or with ``older_names`` always ``allow_tf32``.
    """
    import torch

    if older_names or not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        wanted: dict[str, Any] = {MATMUL_TF32: enabled, CUDNN_TF32: enabled}
    else:
        value = "tf32" if enabled else "ieee"
        wanted = {f"{product}.fp32_precision": value for product in ("cuda.matmul", "cudnn.conv", "cudnn.rnn")}
    for name, value in wanted.items():
        set_switch(name, value)
    return wanted


def set_determinism(deterministic: bool, *, cudnn: bool = False, autotune: bool = False) -> None:
    """Let only kernels run that give equal bits in every run, or any kernel; ``cudnn``: the build has cuDNN's switches.

    ``autotune`` lets cuDNN time its convolution algorithms; never if ``deterministic``, because the fastest one may
    differ from run to run.
    """
    set_switch(DETERMINISTIC_ALGORITHMS, deterministic)
    if cudnn:
        set_switch(CUDNN_DETERMINISTIC, deterministic)
        set_switch(CUDNN_BENCHMARK, autotune and not deterministic)


def require_precision(
    requested: Precision, capabilities: Iterable[str], *, who: str, reasons: Mapping[str, str] | None = None
) -> None:
    """Refuse a precision that the vendor does not declare, or that is unknown, with ``UnsupportedPrecision``.

    Args:
        requested: What the user asked for.
        capabilities: What the vendor declares; fp32 needs nothing.
        who: Who refuses, as the subject of a sentence: ``the CPU reference``.
        reasons: Why, by precision, where there is more to say.
    """
    runnable = runnable_precisions(capabilities)
    if requested not in runnable:
        because = (reasons or {}).get(requested)
        raise UnsupportedPrecision(
            f"{who} does not run {requested}" + (f": {because}" if because else ""),
            hint=f"use --precision {either(runnable)}",
        )


def precision_policy(
    requested: Precision, *, knobs: tuple[Knob, ...] = (), effective: str | None = None
) -> PrecisionPolicy:
    """Return the policy of a precision that the vendor runs, as :data:`chipperf.precisions.PRECISIONS` defines it.

    ``knobs`` are the settings that take part, as they are in force. ``effective`` is what products are computed in, if
    the stack was told to compute in something else.
    """
    means = PRECISIONS[requested]
    return PrecisionPolicy(
        requested=requested,
        effective=effective or means.arithmetic,
        autocast_dtype=means.autocast_type,
        grad_scaler=means.scales_gradients,
        knobs=knobs,
    )


def convert_parameters(model: torch.nn.Module, requested: Precision) -> torch.nn.Module:
    """Convert a model's parameters to the type that the precision has, in place, and return the model.

    Batch normalization keeps fp32, because its statistics would overflow in fp16. Buffers stay as they are: autocast
    converts the inputs of the layers.
    """
    name = PRECISIONS[requested].parameter_type
    if name is None:
        return model
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    for module in model.modules():
        if not isinstance(module, _BatchNorm):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(getattr(torch, name))
    return model


def use_device(
    module: Any, device_type: str, rank: Rank, *, called: str, visible_devices_env: Sequence[str]
) -> torch.device:
    """Make the device whose index is the local rank current, and return it; :class:`DeviceError` if there are fewer.

    Args:
        module: torch's module for the device type, for example ``torch.cuda``.
        device_type: ``torch.device`` type.
        rank: Rank of this process.
        called: What a message calls a device: ``GPU``.
        visible_devices_env: Variables that restrict the visible devices, the one that wins first.
    """
    import torch

    # Counted before the device is touched: some stacks fail for good after a call with a wrong number.
    count = module.device_count()
    if rank.local_rank >= count:
        setting = next(
            (f"{name}={os.environ[name]}" for name in visible_devices_env if name in os.environ),
            f"{visible_devices_env[0]} is not set",
        )
        raise DeviceError(
            f"local rank {rank.local_rank} has no device: torch sees {count} {called}(s); {setting}",
            hint=f"use --nproc {count}, or show more devices" if count else "'perf doctor' says what the probe finds",
        )
    device = torch.device(device_type, rank.local_rank)
    module.set_device(device)
    # The allocator's counters do not exist before this.
    module.init()
    return device


def read_memory(
    module: Any,
    device: torch.device,
    *,
    device_bytes: tuple[int | None, int | None] | None = None,
    device_source: str | None = None,
) -> MemoryStats:
    """Return the counters of torch's caching allocator, and the use and the capacity of the whole device.

    What torch's module for the device type, for example ``torch.cuda``, does not count is unknown. ``device_bytes`` is
    use and capacity by a better source than its ``mem_get_info``, which is ``device_source``.
    """
    name = module.__name__
    counters: Mapping[str, int] = call_if_there(module, "memory_stats", device) or {}
    if device_bytes is None:
        free_bytes, total_bytes = call_if_there(module, "mem_get_info", device) or (None, None)
        device_bytes = (None if free_bytes is None else total_bytes - free_bytes, total_bytes)
    device_source = device_source or f"{name}.mem_get_info"
    return MemoryStats(
        source=f"{name} allocator; used and total: {device_source}" if counters else device_source,
        allocated_bytes=counters.get("allocated_bytes.all.current"),
        peak_allocated_bytes=counters.get("allocated_bytes.all.peak"),
        reserved_bytes=counters.get("reserved_bytes.all.current"),
        peak_reserved_bytes=counters.get("reserved_bytes.all.peak"),
        used_bytes=device_bytes[0],
        total_bytes=device_bytes[1],
    )


@hookimpl
def perf_device_info(device: torch.device) -> DeviceInfo:
    """Identify the device by torch's properties, which in older builds have neither UUID nor address."""
    import torch

    properties: Any = torch.cuda.get_device_properties(device)
    uuid = getattr(properties, "uuid", None)
    address = None
    if hasattr(properties, "pci_domain_id"):
        address = f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0"
    return DeviceInfo(
        index=device.index or 0,
        name=properties.name,
        uuid=f"GPU-{uuid}" if uuid else None,
        pci_bus_id=address,
        total_bytes=int(properties.total_memory) or None,
    )


@hookimpl
def perf_synchronize(device: torch.device) -> None:
    """Wait for all streams of the device; for plugins whose devices are torch's ``cuda``, to import as their hook."""
    import torch

    torch.cuda.synchronize(device)


@hookimpl
def perf_memory_query(device: torch.device) -> MemoryStats:
    """Read torch's allocator, and use and capacity by the runtime; for plugins as :func:`perf_synchronize`."""
    import torch

    return read_memory(torch.cuda, device)


@hookimpl
def perf_memory_reset_peak(device: torch.device) -> None:
    """Reset the peaks of torch's allocator; for plugins as :func:`perf_synchronize`."""
    import torch

    torch.cuda.reset_peak_memory_stats(device)


@hookimpl
def perf_loader_options() -> LoaderOptions:
    """Copy from page-locked memory, so that copies overlap with computation; for plugins whose stack has it."""
    return LoaderOptions(pin_memory=True)


@hookimpl
def perf_device_teardown() -> None:
    """Put torch's switches back and free cached memory; for plugins as :func:`perf_synchronize`."""
    import torch

    restore_switches()
    torch.cuda.empty_cache()


def user_variables(meanings: Mapping[str, str], *, environment: Mapping[str, str] = os.environ) -> tuple[Knob, ...]:
    """Return the variables of the environment that change numerics, memory or speed, whoever set them.

    ``meanings`` says what each does. A key such as ``ACME_*`` stands for all names of the stack that no other key has.
    """
    reasons: dict[str, str] = {}
    for key in sorted(meanings, key=lambda key: "*" in key):
        for name in fnmatch.filter(sorted(environment), key):
            reasons.setdefault(name, meanings[key])
    return tuple(Knob(name=name, value=environment[name], reason=reason) for name, reason in reasons.items())


def call_if_there(module: Any, function: str, *arguments: object) -> Any:
    """Return the result of a function of torch's module, or ``None`` if the vendor's build does not have it."""
    call = getattr(module, function, None)
    return None if call is None else call(*arguments)


def gradient_scaler(device_type: str, *, init_scale: float = 2.0**16, enabled: bool = True) -> torch.amp.GradScaler:
    """Return a scaler of gradients for a device type; torch before 2.3 has one for ``cuda`` only."""
    import torch

    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device_type, init_scale=init_scale, enabled=enabled)
    return torch.cuda.amp.GradScaler(init_scale=init_scale, enabled=enabled)


def nccl_version() -> str | None:
    """Return the version of the interface behind torch's ``nccl``, NCCL's own or a vendor's; ``None`` without it."""
    import torch

    if not (torch.distributed.is_available() and torch.distributed.is_nccl_available()):
        return None
    return ".".join(map(str, torch.cuda.nccl.version()))


def _switch_of_torch(name: str) -> Switch:
    import torch

    if name == DETERMINISTIC_ALGORITHMS:
        return Switch(torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms)
    if name == MATMUL_PRECISION:
        return Switch(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision)
    *path, attribute = name.split(".")
    owner = functools.reduce(getattr, path, torch.backends)
    return Switch(lambda: getattr(owner, attribute), lambda value: setattr(owner, attribute, value))

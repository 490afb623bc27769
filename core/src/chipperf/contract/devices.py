"""What several checks do with a device: find it, train on it, and read torch's global switches."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import signal
import sys
from contextlib import contextmanager, suppress
from inspect import isfunction, signature
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import psutil

from chipperf.contract import tolerances
from chipperf.contract.check import NotRun, not_run_on, require
from chipperf.contract.isolation import patient
from chipperf.errors import PluginError, UnsupportedPrecision
from chipperf.plugin.probe_process import PROBE_TIMEOUT_S, probe_vendor
from chipperf.run.programs import program
from chipperf.run.ranks import job_ranks
from chipperf.torchtools import DETERMINISTIC_ALGORITHMS, MATMUL_PRECISION, read_switch
from chipperf.train.preparation import seed_everything

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import torch

    from chipperf.contract.plugin_under_test import PluginUnderTest
    from chipperf.plugin.types import DeviceInfo, PrecisionPolicy, ProbedDevice

SEED: Final = 7
"""Seed of runs that need no other."""

UNTRAINED_STEPS: Final = 300
"""Steps of which only the hooks after them are called, one of which may act in one step of several, or keep little."""

TRAINED_CASE: Final = "mobilenetv2"
"""The case that the checks of whole runs train."""

_PRODUCT_SIZE: Final = 64

_BATCH: Final = 16
_CHANNELS: Final = 16
_IMAGE: Final = 32
_CLASSES: Final = 10

_SWITCHES: Final = (
    "allow_tf32",
    "allow_fp16_reduced_precision_reduction",
    "allow_bf16_reduced_precision_reduction",
    "allow_fp16_accumulation",
    "benchmark",
    "deterministic",
    "enabled",
    "fp32_precision",
)
"""Names of global switches in the modules of torch.backends."""

_READS_SWITCH: Final = re.compile(r"get_allow_\w+|\w+_(enabled|allowed)")
"""Names of functions that read a global switch."""

_SWITCH_OWNERS: Final = (
    "cudnn",
    "cudnn.conv",
    "cudnn.rnn",
    "cuda.matmul",
    "mkldnn",
    "mkldnn.matmul",
    "mkldnn.conv",
    "mkldnn.rnn",
)


def probed_devices(subject: PluginUnderTest) -> tuple[ProbedDevice, ...]:
    """Return the devices that the probe finds in its own process, as under a launcher; :class:`NotRun` if it fails."""
    with not_run_on(PluginError, "the probe fails, see B1"):
        return probe_vendor(subject.entry, timeout_s=patient(PROBE_TIMEOUT_S)).devices


def fault_of_identity(info: DeviceInfo, probed: ProbedDevice, local_rank: int) -> str | None:
    """Say how the runtime's identity of the device of a local rank differs from the probe's; ``None`` if it does not.

    A capacity may differ by what a driver reserves.
    """
    which = f"the device of local rank {local_rank}"
    if info.index != local_rank:
        return f"perf_device_info gives {which} the index {info.index}: return the one that it has for torch"
    for key in ("name", "uuid", "pci_bus_id"):
        said, found = getattr(info, key), getattr(probed, key)
        if None not in (said, found) and said.casefold() != found.casefold():
            return (
                f"{which} has {key} {said!r} by perf_device_info, but {found!r} by the probe: find it by its UUID or "
                "PCI address"
            )
    said_bytes, probed_bytes = info.total_bytes, probed.total_bytes
    if said_bytes is None or probed_bytes is None:
        return None
    if abs(said_bytes - probed_bytes) > tolerances.TOTAL_MEMORY * probed_bytes:
        return (
            f"{which} has {said_bytes} bytes by perf_device_info and {probed_bytes} bytes by the probe: report the "
            "device's own capacity, in bytes"
        )
    return None


def ranks_share_device(subject: PluginUnderTest) -> bool:
    """Return whether all ranks use the same device, the host itself."""
    return subject.info.device_type == "cpu"


def all_devices(subject: PluginUnderTest) -> list[torch.device]:
    """Initialize every device that the probe finds in this process. The subject's own is current."""
    _ = subject.runtime
    others = [subject.session.device_init(rank) for rank in job_ranks(len(probed_devices(subject)))[1:]]
    return [subject.session.device_init(subject.rank), *others]


def two_devices(subject: PluginUnderTest) -> tuple[torch.device, torch.device]:
    """Return the first two of :func:`all_devices`; :class:`NotRun` if there are fewer."""
    first, second, *_ = several_devices(subject)
    return first, second


@contextmanager
def other_process(subject: PluginUnderTest, size_bytes: int) -> Iterator[Callable[[], None]]:
    """Let another process hold memory of the subject's device, which this one has not used, and yield how to end it."""
    import torch

    at_work, its_word = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            _keep = torch.full((size_bytes // 4,), 1.0, device=subject.device)
            subject.session.synchronize(subject.device)
            os.write(its_word, b"\n")
            signal.pause()
        os._exit(1)
    os.close(its_word)

    def end() -> None:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)

    try:
        if not os.read(at_work, 1):
            raise NotRun("a forked process cannot use the device, see B3")
        yield end
    finally:
        end()
        os.close(at_work)


def begin_run(subject: PluginUnderTest, device: torch.device) -> PrecisionPolicy | None:
    """Call the hooks that a run calls between the initialization of its device and its first step.

    Return the policy of the precision in the check's settings; ``None`` if the plugin refuses it.
    """
    import torch

    session = subject.session
    # Made first, because it draws its weights.
    model = torch.nn.Linear(2, 2).to(device)
    seed_everything(session, SEED, device, subject.settings.deterministic)
    try:
        policy = session.precision(subject.settings.precision, device)
    except UnsupportedPrecision:
        return None
    session.prepare_model(model, policy, device)
    session.memory_reset_peak(device)
    call_between_steps(subject, device)
    return policy


def call_between_steps(subject: PluginUnderTest, device: torch.device, steps: int = 1) -> None:
    """Call the hooks that a run calls after each of some steps."""
    session = subject.session
    for _ in range(steps):
        if session.step_end:
            session.step_end(device)
        session.synchronize(device)
        session.memory_query(device)


def several_devices(subject: PluginUnderTest) -> list[torch.device]:
    """Return :func:`all_devices`; :class:`NotRun` if there is only one."""
    devices = all_devices(subject)
    if len(devices) < 2:
        raise NotRun(f"the check needs 2 devices, this machine has {len(devices)}")
    return devices


def return_free_memory() -> None:
    """Give the system back what is free: otherwise resident memory has by chance some 10 MiB more or less."""
    gc.collect()
    # Of glibc.
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def resources() -> dict[str, int]:
    """Return, by name, how much this process has of each resource that repeated calls must not increase."""
    return_free_memory()
    process = psutil.Process()
    return {
        "threads": process.num_threads(),
        "open files": process.num_fds(),
        "child processes": len(process.children(recursive=True)),
        "bytes of host memory": process.memory_info().rss,
    }


def require_kept(before: Mapping[str, int], action: str, remedy: str) -> None:
    """Check that an action, repeated since ``before``, left nothing of these :func:`resources` behind."""
    for what, amount in resources().items():
        grown = amount - before[what]
        most = tolerances.HOST_MEMORY_GROWTH_BYTES if "bytes" in what else tolerances.KEPT_HANDLES
        require(grown <= most, f"{action} left {grown} {what} behind: {remedy}")


def require_computes(subject: PluginUnderTest, device: torch.device, situation: str) -> None:
    """Check that a matrix product on the device is right. ``situation`` says what happened before, for the message."""
    import torch

    # The sums of these small integers stay below 256, so they are exact in every floating-point format.
    integers = torch.arange(_PRODUCT_SIZE**2).reshape(_PRODUCT_SIZE, _PRODUCT_SIZE).remainder(3) - 1
    operand = integers.float().to(device)
    product = torch.mm(operand, operand.T)
    subject.session.synchronize(device)
    require(
        torch.equal(product.cpu().long(), integers @ integers.T),
        f"{situation}, a product of small integers on {device} is wrong: the device must stay usable",
    )


def train(subject: PluginUnderTest, steps: int, after_step: Callable[[int], None] | None = None) -> list[torch.Tensor]:
    """Train a new network of a few convolutions on random data on the subject's device, with its hooks as in a run.

    ``after_step`` is called with the number of finished steps. Return the parameters after the last step, on the host.
    :class:`NotRun` if the device lacks an operator.
    """
    try:
        return _train(subject, steps, after_step)
    except NotImplementedError as error:
        raise NotRun(f"the device lacks an operator of training, see N1: {error}") from error


def small_network() -> torch.nn.Module:
    """Return a network of a few convolutions, with normalization and dropout."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, _CHANNELS, 3, padding=1),
        nn.BatchNorm2d(_CHANNELS),
        nn.ReLU(),
        nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(_CHANNELS, _CLASSES),
    )


def _train(subject: PluginUnderTest, steps: int, after_step: Callable[[int], None] | None) -> list[torch.Tensor]:
    import torch

    session, device = subject.session, subject.device
    images = torch.rand(_BATCH, 3, _IMAGE, _IMAGE).to(device)
    labels = torch.randint(_CLASSES, (_BATCH,)).to(device)
    model = small_network().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(1, steps + 1):
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        if session.step_end:
            session.step_end(device)
        if after_step:
            after_step(step)
    session.synchronize(device)
    return [parameter.detach().cpu() for parameter in model.parameters()]


def training_command(subject: PluginUnderTest, out: Path, *options: str, images_per_class: int) -> list[str]:
    """Return the command that trains a small case with the plugin on generated images, and writes to ``out``."""
    from chipperf.data.sample import SampleOptions, ensure_sample_dataset

    images = SampleOptions(classes=2, train_per_class=images_per_class, val_per_class=4, width=96, height=72)
    data = ensure_sample_dataset(images, subject.workspace)
    command = [*program("chipperf"), "train", TRAINED_CASE, "--vendor", subject.entry.name]
    command += ["--preset", "tiny", "--data", str(data), "--out", str(out), "--set", "workers=0"]
    return [*command, *options]


def read_switches(device_type: str) -> dict[str, object]:
    """Return the value of every global switch of numerics that can be read, by the name that plugins use for its knob.

    That is its path in ``torch.backends``, also in a module there with the name of the device type. A switch that is
    read by a function, there or in torch's module of the device type, has its name without ``get_``.
    """
    import torch

    modules = {name: module for name, module in vars(torch.backends).items() if isinstance(module, ModuleType)}
    owners = dict.fromkeys((*_SWITCH_OWNERS, *modules, device_type))
    names = [f"{owner}.{switch}" for owner in owners for switch in _SWITCHES]
    found: dict[str, object] = {}
    # Older versions take no type, and before the runtime is loaded, torch may not know it.
    with suppress(RuntimeError, TypeError):
        found["autocast"] = torch.is_autocast_enabled(device_type)
    for owner, module in [*modules.items(), (device_type, getattr(torch, device_type, None))]:
        for name, read in vars(module).items() if module else ():
            if _READS_SWITCH.fullmatch(name) and isfunction(read) and not signature(read).parameters:
                with suppress(Exception):  # It may be of a library that is not there.
                    found[f"{owner}.{name.removeprefix('get_')}"] = read()
    for name in (DETERMINISTIC_ALGORITHMS, MATMUL_PRECISION, *names):
        # torch refuses to read a switch if both its older and its newer name were set. Before 2.2, it asserts that it
        # has one.
        with suppress(RuntimeError, AttributeError, AssertionError):
            value = read_switch(name)
            # If it is not set, the product is computed in fp32.
            found[name] = "ieee" if value == "none" else value
    # These have no function that reads them all: a number below the smallest normal one is lost if it is flushed.
    tiny = torch.tensor(1e-310, dtype=torch.float64, device="cpu")
    return {**found, "default_dtype": str(torch.get_default_dtype()), "flush_denormal": not bool(tiny * 0.5)}


def read_global_state(device_type: str) -> dict[str, object]:
    """Return the global switches of numerics, and every other value that torch keeps for the whole process.

    Those are found by their names: plain values of torch.backends and of what else has switches, and functions without
    arguments that have a setter or say what is enabled.
    """
    import torch

    found = read_switches(device_type)
    kinds = (bool, int, float, str, torch.dtype, torch.device)
    places = ("torch.backends.", "torch.utils.deterministic")
    with_values = {name: module for name, module in sys.modules.items() if name.startswith(places)}
    owners: dict[str, Any] = {"torch": torch, "torch._C": torch._C, **with_values}
    owners[f"torch.{device_type}"] = getattr(torch, device_type, None)
    for path, owner in owners.items():
        for name in dir(owner):
            reads = name.endswith("_enabled") or ("get_" in name and hasattr(owner, name.replace("get_", "set_", 1)))
            if name.startswith("__") or not (reads or path in with_values):
                continue
            with suppress(Exception):
                value = getattr(owner, name)
                value = value() if reads else value
                # Choices of a library are enumerations of the C++ side.
                if isinstance(value, kinds) or hasattr(value, "__members__"):
                    found[f"{path}.{name}"] = str(value)
    return found


def set_other_switches(device_type: str) -> None:
    """Set switches to other values than they have, as a program or a user may have done before a run."""
    import torch

    torch.use_deterministic_algorithms(not torch.are_deterministic_algorithms_enabled())
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic = not torch.backends.cudnn.deterministic
    module = getattr(torch, device_type, None)
    for name in dir(module):
        change = getattr(module, name.replace("get_", "set_", 1), None)
        if name.startswith("get_") and change is not None:
            with suppress(Exception):
                value = getattr(module, name)()
                if isinstance(value, bool):
                    change(not value)

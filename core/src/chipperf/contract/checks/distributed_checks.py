"""P: checks of process groups, collectives, gradients over ranks, and the end of a run whose rank fails."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import psutil

from chipperf.contract import tolerances
from chipperf.contract.check import NotApplicable, NotRun, check, fail, require
from chipperf.contract.devices import probed_devices, ranks_share_device, training_command
from chipperf.plugin.types import Capability, DistributedConfig, Rank
from chipperf.run.directory import RunDirectory
from chipperf.run.ranks import device_key, job_ranks, rank_from_environment, rank_variables
from chipperf.run.rendezvous import LOOPBACK
from chipperf.train.preparation import data_parallel, join_process_group

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from chipperf.contract.plugin_under_test import PluginUnderTest

_LAUNCHER_VARIABLES: Final = tuple(name for name in rank_variables(Rank(), LOOPBACK, 0) if name != "GLOO_SOCKET_IFNAME")
_SLEEP_S: Final = 1.0
_SAMPLES_PER_RANK: Final = 8
_TRAINING_BEFORE_DEATH_S: Final = 2.0
_RUN_START_TIMEOUT_S: Final = 180.0

_distributed_check = partial(check, level=3, capability=Capability.DISTRIBUTED)


@_distributed_check("P1", fault="the backend string is wrong, which would show only on several cards")
def backend_is_registered(subject: PluginUnderTest) -> None:
    """After the runtime is loaded, the plugin's collective backend is registered and supports its devices."""
    import torch.distributed as dist

    device = subject.device
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    config = subject.session.distributed_setup(job_ranks(2)[0], device)
    parts = [part.rpartition(":") for part in config.backend.split(",")]
    for _, _, name in parts:
        require(
            name.lower() in dist.Backend.backend_list and dist.is_backend_available(name.lower()),
            f"backend {name!r} is not registered with torch.distributed; there are "
            f"{', '.join(dist.Backend.backend_list)}: load the library that provides it in perf_load_runtime",
        )
    devices = [kind for kind, _, _ in parts if kind]
    require(
        not devices or device.type in devices,
        f"backend {config.backend!r} names no backend for {device.type} devices",
    )


@_distributed_check("P2", ranks=2, fault="all-reduce averages, or does nothing")
def collectives_give_right_numbers(subject: PluginUnderTest) -> None:
    """All-reduce (sum and maximum), broadcast and all-gather give the right numbers in float32 and int64."""
    import torch
    import torch.distributed as dist

    _join(subject)
    rank, device = subject.rank.rank, subject.device
    for dtype in (torch.float32, torch.int64):
        base = torch.arange(1, 1001, dtype=dtype)
        mine, other = base * (rank + 1), base * (2 - rank)
        _require_equal(_reduced(mine.to(device), dist.ReduceOp.SUM), mine + other, f"all-reduce of {dtype}, sum")
        _require_equal(_reduced(mine.to(device), dist.ReduceOp.MAX), base * 2, f"all-reduce of {dtype}, maximum")
        sent = mine.to(device)
        dist.broadcast(sent, src=1)
        _require_equal(sent, base * 2, f"broadcast of {dtype} from rank 1")
        gathered = [torch.zeros_like(sent) for _ in range(2)]
        dist.all_gather(gathered, mine.to(device))
        for source, tensor in enumerate(gathered):
            _require_equal(tensor, base * (source + 1), f"all-gather of {dtype}, part of rank {source}")


@_distributed_check("P3", ranks=2, fault="the barrier does not wait")
def barrier_waits(subject: PluginUnderTest) -> None:
    """A barrier holds every rank until the last one has arrived."""
    import torch
    import torch.distributed as dist

    _join(subject)
    # Read a result back, so that both ranks start together even if the barrier is broken.
    _reduced(torch.ones(1, device=subject.device), dist.ReduceOp.SUM).cpu()
    if subject.rank.rank == 1:
        time.sleep(_SLEEP_S)
    started_s = time.perf_counter()
    dist.barrier()
    subject.session.synchronize(subject.device)
    waited_s = time.perf_counter() - started_s
    if subject.rank.rank == 0:
        least_s = tolerances.BARRIER_WAIT * _SLEEP_S
        require(
            waited_s >= least_s,
            f"rank 1 came {_SLEEP_S:g} s late to a barrier, rank 0 waited {waited_s:.3f} s instead of {least_s:g} s",
        )


@_distributed_check("P4", ranks=2, fault="gradients are summed, or each rank keeps its own gradients")
def gradients_are_those_of_the_big_batch(subject: PluginUnderTest) -> None:
    """Two ranks under DDP get the same gradients as one process that trains on both halves of the batch."""
    import torch

    config = _join(subject)
    subject.session.precision("fp32", subject.device)
    device = subject.device
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(2 * _SAMPLES_PER_RANK, 3, 16, 16, generator=generator)
    labels = torch.randint(10, (2 * _SAMPLES_PER_RANK,), generator=generator)
    torch.manual_seed(7)
    reference = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 14 * 14, 10)
    )
    model = copy.deepcopy(reference)
    torch.nn.functional.cross_entropy(reference(images), labels).backward()
    parallel = data_parallel(model.to(device), config, device)
    half = slice(subject.rank.rank * _SAMPLES_PER_RANK, (subject.rank.rank + 1) * _SAMPLES_PER_RANK)
    torch.nn.functional.cross_entropy(parallel(images[half].to(device)), labels[half].to(device)).backward()
    for (name, parameter), expected in zip(model.named_parameters(), reference.parameters(), strict=True):
        if parameter.grad is None or expected.grad is None:
            fail(f"{name} has no gradient under DDP")
        scale = float(expected.grad.abs().max())
        error = float((parameter.grad.cpu() - expected.grad).abs().max()) / scale
        require(
            error <= tolerances.DDP_GRADIENT,
            f"the gradient of {name} differs by {error:.2%} of its largest value from the gradient of the whole batch",
        )


@_distributed_check("P5", ranks=2, fault="all ranks train on card 0")
def ranks_have_devices_of_their_own(subject: PluginUnderTest) -> None:
    """Two ranks of a machine use two different devices."""
    from chipperf.run.collectives import Collectives

    if ranks_share_device(subject):
        raise NotApplicable("all ranks share the device, the only one, as unified_memory declares")
    _join(subject)
    mine = device_key(subject.session.device_info(subject.device))
    found = Collectives(subject.rank, subject.device).gather(mine)
    require(found[0] != found[1], f"ranks 0 and 1 both use the device {mine}: choose the device by the local rank")


@check("P6", level=3, fault="every machine has its own main process, and each writes a record")
def one_main_process(subject: PluginUnderTest) -> None:
    """In a job of two machines with two ranks each, exactly one process is the main one."""
    mains = []
    for rank in job_ranks(2, machines=2):
        wanted = {variable.name: variable.value for variable in subject.session.environment(rank, subject.settings)}
        taken = sorted(set(wanted) & set(_LAUNCHER_VARIABLES))
        require(
            not taken,
            f"perf_environment sets {', '.join(taken)} for rank {rank.rank}: leave that to the launcher",
        )
        if rank_from_environment({**rank_variables(rank, LOOPBACK, 0), **wanted}).is_main:
            mains.append(rank.rank)
    require(mains == [0], f"of 4 ranks on two machines {mains} are main processes instead of [0]")


@_distributed_check("P7", ranks=2, fault="a process group works only once, or leaves processes running")
def group_can_be_made_again(subject: PluginUnderTest) -> None:
    """After a process group is destroyed, a new one works, and no process is left running."""
    import torch
    import torch.distributed as dist

    before = _children()
    _join(subject)
    for attempt in (1, 2):
        mine = torch.full((1,), 1.0 + subject.rank.rank, device=subject.device)
        highest = float(_reduced(mine, dist.ReduceOp.MAX).cpu()[0])
        require(highest == 2, f"in process group {attempt}, the maximum of 1 and 2 over two ranks is {highest:g}")
        dist.destroy_process_group()
        if attempt == 1:
            # The first group's store must be closed before its port is used again.
            time.sleep(0.2)
            join_process_group(subject.session, subject.rank, subject.device)
    subject.session.device_teardown(subject.device)
    left = [command for pid, command in _children().items() if pid not in before]
    require(not left, f"after teardown these processes still run: {'; '.join(left)}")


@_distributed_check("P8", fault="the run hangs when a rank dies", timeout_s=420)
def failing_rank_ends_the_run(subject: PluginUnderTest) -> None:
    """If one of two training ranks is killed, the run ends in bounded time, fails, and names that rank."""
    if len(probed_devices(subject)) < 2 and not ranks_share_device(subject):
        raise NotRun("the check needs 2 devices")
    run = subject.workspace / "failing-run"
    # Other checks cover the device; checking it here would only take time.
    command = training_command(subject, run, "--nproc", "2", "--no-device-check", images_per_class=256)
    limit_s = tolerances.FAILED_RUN_S
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as launcher:
        try:
            victim = _training_process(launcher, run / "events.jsonl", rank="1")
            time.sleep(_TRAINING_BEFORE_DEATH_S)
            victim.kill()
            output, _ = launcher.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            fail(f"the run has not ended {limit_s:g} s after rank 1 was killed: make teardown and exit handlers return")
        finally:
            launcher.kill()
    require(launcher.returncode == 1, f"the run ended with status {launcher.returncode} instead of 1: {output[-500:]}")
    status = json.loads(RunDirectory(run).record.read_text(encoding="utf-8"))["status"]
    require(
        status["state"] == "failed" and (status["failure"] or {}).get("rank") == 1,
        f"the record does not say that rank 1 failed: {status}",
    )


@_distributed_check("P9", fault="training on one card needs a launcher")
def single_process_needs_no_rendezvous(subject: PluginUnderTest) -> None:
    """A job of one process runs without the launcher's variables."""
    for name in _LAUNCHER_VARIABLES:
        os.environ.pop(name, None)
    subject.session.distributed_setup(Rank(), subject.device)


@check("P10", level=3, needs="session", fault="the hook sets variables that the record does not list")
def environment_hook_sets_nothing(subject: PluginUnderTest) -> None:
    """``perf_environment`` returns variables, does not set them, and returns the same ones in a second call."""
    before = dict(os.environ)
    first = subject.session.environment(Rank(), subject.settings)
    changed = sorted({name for name, _ in before.items() ^ os.environ.items()})
    require(
        not changed,
        f"perf_environment changed {', '.join(changed)} itself: return the variables, so that they are recorded",
    )
    require(
        first == subject.session.environment(Rank(), subject.settings),
        "two calls of perf_environment return different variables",
    )


def _join(subject: PluginUnderTest) -> DistributedConfig:
    """Join the process group. If this fails, P1 reports it."""
    try:
        config = subject.distributed
    # Catch everything: torch raises AssertionError for an unknown backend.
    except Exception as error:
        raise NotRun(f"the process group cannot be joined, see P1: {error}") from error
    if config is None:
        raise NotRun("the check needs two ranks")
    return config


def _reduced(tensor: torch.Tensor, operation: Any) -> torch.Tensor:
    import torch.distributed as dist

    dist.all_reduce(tensor, op=operation)
    return tensor


def _require_equal(found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    wrong = int((found.cpu() != expected).sum())
    require(
        wrong == 0,
        f"{what}: {wrong} of {expected.numel()} numbers are wrong; the last should be {expected[-1]:g} and is "
        f"{found.cpu()[-1]:g}",
    )


def _children() -> dict[int, str]:
    """Return the command line of every descendant by its process id."""
    found = [process.as_dict(["pid", "cmdline", "status"]) for process in psutil.Process().children(recursive=True)]
    return {each["pid"]: " ".join(each["cmdline"] or []) for each in found if each["status"] != psutil.STATUS_ZOMBIE}


def _training_process(launcher: subprocess.Popen[str], events: Path, *, rank: str) -> psutil.Process:
    deadline_s = time.monotonic() + _RUN_START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if launcher.poll() is not None:
            output, _ = launcher.communicate()
            raise NotRun(f"two ranks do not train here, see P1 and N5: {output[-500:]}")
        if events.exists() and '"RUN_START"' in events.read_text(encoding="utf-8", errors="replace"):
            for process in psutil.Process(launcher.pid).children(recursive=True):
                with suppress(psutil.Error):
                    if "chipperf.train.worker" in process.cmdline() and process.environ().get("RANK") == rank:
                        return process
        time.sleep(0.1)
    raise NotRun(f"two ranks did not begin to train within {_RUN_START_TIMEOUT_S:g} s")

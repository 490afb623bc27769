"""P: checks of process groups, collectives, gradients over ranks, and the end of a run whose rank fails."""

from __future__ import annotations

import gc
import itertools
import json
import math
import os
import re
import signal
import subprocess
import tempfile
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import psutil

from chipperf.cases.registry import case_names
from chipperf.contract import tolerances
from chipperf.contract.check import Failed, NotApplicable, NotRun, check, fail, not_run_on, require
from chipperf.contract.checks.memory_checks import peak_is_highest_since_reset, query_changes_nothing, unknown_is_none
from chipperf.contract.checks.numerics_checks import (
    fp32_is_fp32,
    overflow_skips_step,
    precision_is_honored,
    require_model_kept,
)
from chipperf.contract.checks.seeding_checks import seed_controls_host
from chipperf.contract.checks.timing_checks import idle_synchronize_is_cheap, require_waits_for_work
from chipperf.contract.collective_trial import CollectiveTrial, numbers_of, require_equal
from chipperf.contract.devices import (
    SEED,
    UNTRAINED_STEPS,
    call_between_steps,
    probed_devices,
    ranks_share_device,
    require_kept,
    resources,
    small_network,
    training_command,
)
from chipperf.contract.isolation import call_in_fork, innermost_call, patient, reason_of
from chipperf.errors import DeviceError, PerfError, PluginError, UnsupportedPrecision
from chipperf.launch.rank_processes import GRACE_S
from chipperf.plugin.types import Capability, DistributedConfig, EnvironmentSettings, Rank
from chipperf.precisions import PRECISIONS
from chipperf.run.directory import RunDirectory, rank_log_name
from chipperf.run.failure import DUMP_SIGNAL
from chipperf.run.programs import is_program
from chipperf.run.ranks import job_ranks, rank_from_environment, rank_variables, require_distinct_cards
from chipperf.run.rendezvous import LOOPBACK, require_store
from chipperf.train.preparation import data_parallel, join_process_group, seed_everything

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from chipperf.contract.plugin_under_test import PluginUnderTest

_LAUNCHER_VARIABLES: Final = tuple(name for name in rank_variables(Rank(), LOOPBACK, 0) if name != "GLOO_SOCKET_IFNAME")
_OF_A_LAUNCHER: Final = re.compile("NODE_RANK|(ROLE|GROUP)_.*|(TORCHELASTIC|SLURM|OMPI_COMM|PMIX?)_.*")
"""Further variables by which launchers and libraries tell a process its rank."""

_LAYOUTS: Final = ((1, 2), (1, 3), (2, 2), (8, 2))
"""Machines, and processes on each, of simulated jobs."""

_OWN_PLACE: Final = re.compile(
    "(^|_)(VISIBLE|AFFINITY|PLACES|BIND|CORES?|CPUS?|NUMA|IFNAME|HCA|CACHE|DIR|PATH|FILE|PORT|LOG)(_|$)"
)
"""Words in the names of variables that may give every rank cards, cores, or files of its own."""

_SHAPES: Final = ((), (1,), (2,), (1021,), (33, 31))
_TURNS: Final = 3
_REPETITIONS: Final = 1100
"""More than a counter of ten bits can count."""

_BEYOND_A_BUCKET_BYTES: Final = 2**20
_LARGEST_BUCKET_BYTES: Final = 64 * 2**20
_LATE_S: Final = (6.0, *(0.08,) * 9)
"""How late a rank comes to each barrier. The first one finds a barrier that waits, but not for long."""

_BATCHES: Final = (2, 1)
"""Batches of each step: the first one accumulates. After it, DDP divides the gradients into other buckets."""

_GROUPS: Final = 3
_ITEM_S: Final = 300.0
_TURN_S: Final = 240.0
"""Some stacks compile kernels for minutes."""

_DRAWN: Final = 1000
_OF_EACH_PRECISION: Final = (precision_is_honored, overflow_skips_step)
_OF_EACH_RANK: Final = (fp32_is_fp32, seed_controls_host, idle_synchronize_is_cheap)
_OF_DEVICE_MEMORY: Final = (peak_is_highest_since_reset, query_changes_nothing, unknown_is_none)
"""Checks of hooks whose result may depend on a process group, without those that fork. What a process of the host
holds depends on the checks before too."""

_POLL_S: Final = 0.1
_TRAINING_BEFORE_DEATH_S: Final = 2.0
_RUN_START_TIMEOUT_S: Final = 180.0
_DUMP_S: Final = 1.0

_distributed_check = partial(check, level=3, capability=Capability.DISTRIBUTED)


@_distributed_check("P1", fault="the backend string is wrong, its library cannot start, or a time is in another unit")
def backend_works(subject: PluginUnderTest) -> None:
    """The collective backend is registered and starts, and all ranks of a job get the same plausible options."""
    import torch
    import torch.distributed as dist
    from torch.distributed import HashStore  # type: ignore[attr-defined]

    device = subject.device
    os.environ.update(rank_variables(Rank(), LOOPBACK, 29500))
    config = _same_config(subject, device)
    os.environ.update(rank_variables(Rank(), LOOPBACK, 29501))
    elsewhere = subject.session.distributed_setup(Rank(), device).init_method
    require(
        elsewhere != config.init_method or not elsewhere.startswith("tcp:"),
        f"perf_distributed_setup returns init_method={elsewhere!r} whatever MASTER_PORT is, so that the ranks of two "
        "jobs on a machine would meet: return env://, or the port that the launcher chose",
    )
    parts = [part.rpartition(":") for part in config.backend.split(",")]
    # torch 2.0 cannot say it.
    is_available = getattr(dist, "is_backend_available", lambda name: True)
    for _, _, name in parts:
        require(
            name.lower() in dist.Backend.backend_list and is_available(name.lower()),
            f"backend {name!r} is not registered with torch.distributed; there are "
            f"{', '.join(dist.Backend.backend_list)}: load the library that provides it in perf_load_runtime",
        )
    devices = [kind for kind, _, _ in parts if kind]
    require(
        not devices or device.type in devices,
        f"backend {config.backend!r} names no backend for {device.type} devices",
    )
    for what, value, (least, most), unit in (
        ("timeout_s", config.timeout_s, tolerances.COLLECTIVE_TIMEOUT_S, "seconds"),
        ("bucket_cap_mb", config.ddp.bucket_cap_mb, tolerances.BUCKET_MIB, "MiB"),
    ):
        require(
            least <= value <= most,
            f"perf_distributed_setup returns {what}={value:g}, which should be {least:g} to {most:g} {unit}",
        )
    try:
        dist.init_process_group(config.backend, store=HashStore(), rank=0, world_size=1)
        # Some libraries connect at the first collective.
        total = torch.ones(3, device=device)
        dist.all_reduce(total)
        found = total.tolist()
    except Exception as error:
        fail(f"a process group of backend {config.backend!r} cannot be made or used: {reason_of(error)}")
    require(found == [1, 1, 1], f"in a group of one rank, the sum over ranks of 1, 1, 1 is {found}")
    with not_run_on(PluginError, "several ranks cannot meet"):
        require_store()


@_distributed_check(
    "P2",
    ranks=2,
    most_ranks=3,
    fault="a collective averages, drops a call or a rank, loses digits, or does nothing",
)
def collectives_give_right_numbers(subject: PluginUnderTest) -> None:
    """The collectives of training give every rank the exact numbers, in every type, size and order that it uses.

    A third rank takes part where there is a device for it.
    """
    import torch
    import torch.distributed as dist

    from chipperf.run.collectives import Collectives

    config = _join(subject, explained_by="P1")
    device = subject.device
    trial = CollectiveTrial(subject)
    halves = _parameter_types(subject)
    total, highest = dist.ReduceOp.SUM, dist.ReduceOp.MAX
    for _ in range(_TURNS):
        for shape in _SHAPES:
            for dtype in (torch.float32, torch.int64, *halves):
                trial.reduce(dtype, shape, total)
                trial.broadcast(dtype, shape)
            for dtype in (torch.float32, torch.int64):
                trial.reduce(dtype, shape, highest)
            for dtype in (torch.float32, torch.int64, torch.uint8):
                trial.gather(dtype, shape or (1,))
    for _ in range(_REPETITIONS):
        trial.reduce(torch.float32, (3,), total)
    elements = _elements_beyond_a_bucket(config)
    trial.reduce(torch.float32, (elements,), total)
    trial.broadcast(torch.float32, (elements,))
    trial.reduce_many()
    trial.reduce_several()
    trial.reduce_after_queued_work()
    if device.type != "cpu":
        trial.gather_into_one()
    own, ranks = subject.rank.rank, subject.rank.world_size
    special = torch.tensor([[math.inf, 1, -math.inf, math.nan, 1], [1, math.nan, 5, 2, math.inf], [0] * 5][:ranks])
    for dtype in (torch.float32, *halves):
        mine = special[own].to(device, dtype, copy=True)
        dist.all_reduce(mine)
        require_equal(mine, special.sum(0).to(dtype), f"all-reduce of {dtype} with infinities and NaN, sum")
    for turn in range(2):
        # Of the second turn, only the content differs.
        items = [{"rank": rank, "turn": turn, "matches": bytes([turn, 200]) * 40_001 * rank} for rank in range(ranks)]
        found = Collectives(subject.rank, device).gather(items[own])
        require(found == items, "objects of different sizes that the ranks gather differ from what each sent")


@_distributed_check("P3", ranks=2, fault="the barrier does not wait, waits once, or only rank 0 waits")
def barrier_waits(subject: PluginUnderTest) -> None:
    """Every barrier holds every rank until the last one has arrived, whichever it is."""
    import torch.distributed as dist

    from chipperf.run.collectives import Collectives

    _join(subject)
    own = subject.rank.rank
    cores = Collectives(subject.rank, subject.device).barrier
    further = [_barrier_of(subject.device, dist.new_group([0, 1])), cores]
    barriers = [_barrier_of(subject.device)] * (len(_LATE_S) - 4) + [each for each in further for _ in range(2)]
    # Read a result back, so that both ranks start together even if the barrier is broken.
    cores()
    times_s = []
    for turn, barrier in enumerate(barriers):
        if turn % 2 == own:
            time.sleep(_LATE_S[turn])
        came_s = time.monotonic()
        barrier()
        subject.session.synchronize(subject.device)
        times_s.append((came_s, time.monotonic()))
    # Both ranks read the clock of the machine.
    others_s = _of_other_rank(subject, "P3", times_s)
    for number, ((came_s, _), (_, left_s)) in enumerate(zip(others_s, times_s, strict=True), start=1):
        early_s = came_s - left_s
        require(
            early_s <= 0,
            f"barrier {number} of {len(barriers)} let rank {own} go {early_s:.3f} s before rank {1 - own} came",
        )


@_distributed_check("P4", ranks=2, fault="gradients are summed, rounded, or each rank keeps its own")
def gradients_are_those_of_the_big_batch(subject: PluginUnderTest) -> None:
    """DDP, with the vendor's options, averages each parameter's gradient exactly, also after accumulation."""
    import torch

    config = _join(subject)
    device, own = subject.device, subject.rank.rank
    kinds = [((), torch.float32), ((37,), torch.float32), ((8, 6, 3, 3), torch.float32), ((41, 29), torch.float32)]
    kinds += [((_elements_beyond_a_bucket(config),), torch.float32)]
    kinds += [((129,), dtype) for dtype in _parameter_types(subject)]
    first, model = _weighted(kinds, seed=0), _weighted(kinds, seed=own).to(device).to(memory_format=torch.channels_last)
    parallel: Any = data_parallel(model, config, device)
    for (name, values), found in zip(first.named_parameters(), model.parameters(), strict=True):
        require_equal(found, values, f"{name} under DDP, which is that of rank 0")
    for step, batches in enumerate(_BATCHES):
        parallel.zero_grad(set_to_none=True)
        # Training works without buffers that DDP sends. Most versions of torch send none if the vendor asks for none.
        for buffer, others in zip(model.buffers(), first.buffers(), strict=True):
            buffer.copy_(others + (step + own))
        expected = [torch.zeros(shape) for shape, _ in kinds]
        for batch in range(batches):
            last, call = batch == batches - 1, 2 * step + batch
            numbers = [[numbers_of(dtype, shape, rank, call) for shape, dtype in kinds] for rank in range(2)]
            try:
                with nullcontext() if last else parallel.no_sync():
                    parallel([each.to(device) for each in numbers[own]]).backward()
            except RuntimeError as fault:
                fail(f"step {step + 1}, of {batches} batch(es), fails under DDP with {config.ddp}: {fault}")
            for mean, mine, other in zip(expected, *numbers, strict=True):
                # These numbers leave room for the sums, which are exact.
                mean += (mine.float() + other.float()) / 2
        for (name, parameter), mean in zip(model.named_parameters(), expected, strict=True):
            gradient = parameter.grad
            if gradient is None:
                fail(f"{name} has no gradient under DDP")
            which = f"gradient of {name}, {gradient.dtype}, in step {step + 1}, of {batches} batch(es)"
            require_equal(gradient.float(), mean, f"{which}, which is the mean of both ranks")
        for (name, buffer), others in zip(model.named_buffers(), first.buffers(), strict=True):
            source = 0 if config.ddp.broadcast_buffers else own
            which = f"{name} in step {step + 1} with {config.ddp}, which is that of rank {source}"
            require_equal(buffer, others + (step + source), which)


@_distributed_check("P5", ranks=2, fault="all ranks train on card 0")
def ranks_have_devices_of_their_own(subject: PluginUnderTest) -> None:
    """Two ranks of a machine use two different devices."""
    from chipperf.run.collectives import Collectives

    if ranks_share_device(subject):
        raise NotApplicable("all ranks share the CPU")
    _join(subject)
    found = Collectives(subject.rank, subject.device).gather(subject.session.device_info(subject.device))
    try:
        require_distinct_cards(found, ranks_per_node=2, device_type=subject.device.type)
    except DeviceError as error:
        fail(f"{error.message}: choose the device by the local rank")


@check("P6", level=3, fault="every machine has its own main process, and each writes a record")
def one_main_process(subject: PluginUnderTest) -> None:
    """In jobs of several machines exactly one process is the main one, and no variable tells a process its rank."""
    for machines, processes in _LAYOUTS:
        mains = []
        for rank in job_ranks(processes, machines=machines):
            wanted = {variable.name: variable.value for variable in subject.session.environment(rank, subject.settings)}
            taken = sorted(name for name in wanted if name in _LAUNCHER_VARIABLES or _OF_A_LAUNCHER.fullmatch(name))
            require(
                not taken,
                f"perf_environment sets {', '.join(taken)} for rank {rank.rank} of {rank.topology}: leave that to the "
                "launcher",
            )
            if rank_from_environment({**rank_variables(rank, LOOPBACK, 0), **wanted}).is_main:
                mains.append(rank.rank)
        require(mains == [0], f"of {rank.world_size} ranks, {rank.topology}, {mains} are main processes instead of [0]")


@_distributed_check("P7", ranks=2, fault="a process group works only once, or leaves something behind")
def group_can_be_made_again(subject: PluginUnderTest) -> None:
    """Process groups can be made again and beside each other, and leave no process, thread, file or memory behind."""
    import torch
    import torch.distributed as dist

    before = _children()
    _join(subject)
    for attempt in range(1, _GROUPS + 1):
        if attempt > 1:
            join_process_group(subject.session, subject.rank, subject.device)
        which = f"process group {attempt} of {_GROUPS}"
        _require_highest(subject, which)
        if attempt == 1:
            second, *single = [dist.new_group(ranks) for ranks in ([0, 1], [0], [1])]
            _require_highest(subject, "a second group beside the first", second)
            _require_highest(subject, "a group of one rank", single[subject.rank.rank], alone=True)
            _require_highest(subject, f"{which}, after another one was used")
            del second, single
            shared = _shared_memory_files()
        # Another rank's store must not be closed while this one uses it.
        dist.barrier()
        if torch.__version__.startswith("2.4."):
            # Core leaves that to the end of the process.
            raise NotRun("torch 2.4 can wait forever when it takes a process group apart: check with another torch")
        dist.destroy_process_group()
        # The first group's store must be closed before its port is used again.
        gc.collect()
        time.sleep(0.2)
        if attempt == 1:
            footprint = _footprint()
    grown = {what: count - footprint[what] for what, count in _footprint().items()}
    subject.session.device_teardown(subject.device)
    left = [command for pid, command in _children().items() if pid not in before]
    require(not left, f"after teardown these processes still run: {'; '.join(left)}")
    stale = sorted(path for path in shared if Path(path).exists())
    require(not stale, f"after teardown these files of shared memory are still there: {', '.join(stale)}")
    for what, count in grown.items():
        require(
            count < _GROUPS - 1,
            f"{_GROUPS - 1} more process groups left {count} more {what}, although they were destroyed",
        )


@_distributed_check("P8", fault="the run hangs when a rank dies", timeout_s=420)
def failing_rank_ends_the_run(subject: PluginUnderTest) -> None:
    """If one of two training ranks is killed, the run ends in bounded time, fails, and names that rank."""
    if len(probed_devices(subject)) < 2 and not ranks_share_device(subject):
        raise NotRun("the check needs 2 devices")
    # The check may be carried out twice.
    run = RunDirectory(Path(tempfile.mkdtemp(prefix="failing-run-", dir=subject.workspace)) / "run")
    # Other checks cover the device; checking it here would only take time.
    command = training_command(subject, run.path, "--nproc", "2", "--no-device-check", images_per_class=256)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as launcher:
        try:
            ranks = _training_processes(launcher, run.events)
            time.sleep(_TRAINING_BEFORE_DEATH_S)
            ranks["1"].kill()
            output = _output_of_the_end(launcher, ranks["0"], run.path / rank_log_name(0))
        finally:
            launcher.kill()
    require(launcher.returncode == 1, f"the run ended with status {launcher.returncode} instead of 1: {output[-500:]}")
    status = json.loads(run.record.read_text(encoding="utf-8"))["status"]
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
    """For every run and rank, ``perf_environment`` returns valid variables, the same ones each time, and sets none."""
    declared = (None, *subject.info.capabilities)
    precisions = [name for name, precision in PRECISIONS.items() if precision.capability in declared]
    for case, precision, deterministic in itertools.product(case_names(), precisions, (False, True)):
        settings = EnvironmentSettings(case=case, precision=precision, deterministic=deterministic)
        for machines, processes in ((1, 1), (1, 2), (2, 2)):
            ranks = job_ranks(processes, machines=machines)
            wanted = [_environment(subject, rank, settings) for rank in ranks]
            for rank, variables in zip(ranks, wanted, strict=True):
                for name in {**wanted[0], **variables}:
                    mine, first = variables.get(name), wanted[0].get(name)
                    require(
                        mine == first or _OWN_PLACE.search(name),
                        f"perf_environment returns {name}={mine} for rank {rank.rank} and {first} for rank 0 of "
                        f"{rank.topology}: ranks may differ in cards, cores and files only",
                    )


@_distributed_check("P11", ranks=2, fault="a failed collective counts as done, or fails long after its time limit")
def absent_rank_fails_the_collective(subject: PluginUnderTest) -> None:
    """If a rank does not join a collective, it fails on the others, soon after the time limit of its process group."""
    # The port tells a second attempt from the first.
    begun, over = (subject.workspace / f"P11-{os.environ['MASTER_PORT']}-{state}" for state in ("begun", "over"))
    # Such a failure may end the process. The time limit of the check ends this process too.
    outcome = call_in_fork(_await_absent_rank, (subject, begun, over), timeout_s=math.inf)
    if subject.rank.is_main:
        over.touch()
    if not begun.exists():
        raise NotRun(f"the ranks cannot use a process group, see P1 and P2: {outcome.fault}")
    if not subject.rank.is_main:
        return
    took_s = time.time() - begun.stat().st_mtime
    asked_s = patient(tolerances.ABSENCE_S)
    done = outcome.fault is None and outcome.value
    require(not done, f"rank 1 stayed away from an all-reduce, which counts as done on rank 0 {done}: raise its error")
    # A process that is ended by its library may write first what it knows.
    most_s = patient(tolerances.ABSENCE_NOTICED_S if outcome.fault is None else tolerances.ABSENCE_ENDS_PROCESS_S)
    require(
        took_s < most_s,
        f"rank 1 stayed away from an all-reduce in a group with a time limit of {asked_s:g} s, and rank 0 waited "
        f"{took_s:.0f} s for it: let the collective library keep to the time limit that it is given",
    )


@_distributed_check(
    "P12",
    ranks=2,
    fault="in jobs, or on some ranks, a hook does something else, or waits for its peers",
    timeout_s=600,
)
def hooks_do_the_same_in_a_job(subject: PluginUnderTest) -> None:
    """In a job, each rank's hooks do what they do in a single process, wait for no rank, and leave the group alone.

    The hooks of one rank are called while the other one waits. Most of them are those that other checks call alone.
    """
    import torch.distributed as dist

    with not_run_on(PerfError, "a rank cannot use its device, see P2"):
        device, session = subject.device, subject.session
        alone = session.device_info(device)
    _join(subject)
    drawn = ""
    for turn in range(2):
        if turn == subject.rank.rank:
            # Some of these checks stand for other ranks.
            with patch.dict(os.environ):
                drawn = _call_hooks(subject)
            require(
                session.device_info(device) == alone,
                f"perf_device_info gives {session.device_info(device)} in a job, and {alone} before the ranks met",
            )
            for _ in range(2):
                session.device_teardown(device)
            require(
                dist.is_initialized(),
                "a hook destroyed the process group, perhaps perf_device_teardown: other ranks may still use it, so it "
                "ends with the process",
            )
            session.device_init(subject.rank)
        try:
            others = _of_other_rank(subject, f"P12-{turn}", drawn, limit_s=_TURN_S)
        except RuntimeError as error:
            fail(
                f"the hooks of rank {turn} have not returned within {patient(_TURN_S):g} s while the other one called "
                f"none: let no hook wait for another rank ({reason_of(error)})"
            )
    require(
        others == drawn,
        f"after perf_seed with the same seed, the ranks' devices draw different numbers: {drawn} and {others}, as "
        "digests: the rank may not take part",
    )
    _require_highest(subject, "the group after perf_device_teardown")


def _call_hooks(subject: PluginUnderTest) -> str:
    """Call the hooks of this rank in a job, as other checks do, and return a digest of its device's random numbers."""
    import torch

    from chipperf.train.model_changes import digest

    session, device = subject.session, subject.device
    settings = subject.settings
    seed_everything(session, SEED, device, False)
    drawn = digest(torch.rand(_DRAWN, device=device))
    try:
        for precision in PRECISIONS:
            subject.settings = replace(settings, precision=precision)
            with suppress(UnsupportedPrecision):
                policy = session.precision(precision, device)
                require_model_kept(subject, policy, small_network(), "a network")
            for each in _OF_EACH_PRECISION:
                with suppress(NotApplicable):
                    each.function(subject)
        subject.settings = settings
        has_memory = Capability.UNIFIED_MEMORY not in subject.info.capabilities
        for each in (*_OF_EACH_RANK, *(_OF_DEVICE_MEMORY if has_memory else ())):
            with suppress(NotApplicable):
                each.function(subject)
        require_waits_for_work(subject)
        call_between_steps(subject, device)
        kept = resources()
        call_between_steps(subject, device, UNTRAINED_STEPS)
        require_kept(kept, f"the hooks after {UNTRAINED_STEPS} steps", "no hook may keep anything of a step")
    except Failed as fault:
        fail(f"in a job of two ranks: {fault}")
    return drawn


def _await_absent_rank(arguments: tuple[PluginUnderTest, Path, Path]) -> str:
    """Wait on rank 0 for a collective without rank 1. Return how it counts as done in spite of that, or nothing."""
    import torch
    import torch.distributed as dist

    subject, begun, over = arguments
    _join(subject)
    group: Any = dist.new_group([0, 1], timeout=timedelta(seconds=patient(tolerances.ABSENCE_S)))
    for which in (None, group):
        _require_highest(subject, "a group", which)
    if not subject.rank.is_main:
        while not over.exists():
            time.sleep(_POLL_S)
        return ""
    begun.touch()
    signal.alarm(math.ceil(patient(tolerances.ABSENCE_ENDS_PROCESS_S)))
    total = torch.ones(3, device=subject.device)
    with suppress(Exception):
        dist.all_reduce(total, group=group)
        subject.session.synchronize(subject.device)
        return f"with {total.tolist()}"
    with suppress(Exception):
        work: Any = dist.all_reduce(total, group=group, async_op=True)
        with suppress(Exception):
            work.wait()
            return "by its wait()"
        work.get_future().wait()
        return "by its future"
    return ""


def _environment(subject: PluginUnderTest, rank: Rank, settings: EnvironmentSettings) -> dict[str, str]:
    """Return the variables that a rank needs, after checking them and what the hook has done."""
    before = dict(os.environ)
    variables = subject.session.environment(rank, settings)
    changed = sorted({name for name, _ in before.items() ^ os.environ.items()})
    require(
        not changed,
        f"perf_environment changed {', '.join(changed)} itself: return the variables, so that they are recorded",
    )
    require(
        variables == subject.session.environment(rank, settings),
        f"two calls of perf_environment return different variables for rank {rank.rank} of {rank.topology}",
    )
    for variable in variables:
        require(
            re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", variable.name) and "\0" not in variable.value,
            f"perf_environment returns {variable.name!r}={variable.value!r}, which is no environment variable",
        )
        require(variable.reason.strip(), f"perf_environment gives no reason for {variable.name}")
    names = [variable.name for variable in variables]
    require(len(set(names)) == len(names), f"perf_environment returns a variable twice: {', '.join(names)}")
    return {variable.name: variable.value for variable in variables}


def _same_config(subject: PluginUnderTest, device: torch.device) -> DistributedConfig:
    """Return the options of the process group, which must be the same for all ranks of a job."""
    for machines, processes in reversed(_LAYOUTS):
        ranks = job_ranks(processes, machines=machines)
        first, *others = [subject.session.distributed_setup(rank, device) for rank in ranks]
        for rank, config in zip(ranks[1:], others, strict=True):
            require(
                config == first,
                f"perf_distributed_setup returns {config} for rank {rank.rank} of {rank.topology}, and {first} for "
                "rank 0: all ranks need the same options",
            )
    return first


def _join(subject: PluginUnderTest, *, explained_by: str = "P1 and P2") -> DistributedConfig:
    """Join the process group."""
    try:
        config = subject.distributed
    # Catch everything: torch raises AssertionError for an unknown backend.
    except Exception as error:
        raise NotRun(f"the process group cannot be joined, see {explained_by}: {reason_of(error)}") from error
    if config is None:
        raise NotRun("the check needs two ranks")
    return config


def _barrier_of(device: torch.device, group: Any = None) -> Callable[[], object]:
    """Return torch's barrier of a group, carried out by the device's backend also if the group has one for the host."""
    import torch.distributed as dist

    plain = partial(dist.barrier, group=group)
    if device.type == "cpu":
        return plain
    barrier = partial(plain, device_ids=[device.index])
    try:
        barrier()
    except RuntimeError as error:
        # Older versions of torch take the argument for one backend only.
        if "device_ids" not in str(error):
            raise
        return plain
    return barrier


def _weighted(kinds: Sequence[tuple[tuple[int, ...], torch.dtype]], *, seed: int) -> torch.nn.Module:
    """Return a model with parameters of these shapes and types. Its inputs are exactly the gradients."""
    import torch

    class Weighted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(seed)
            for number, (shape, dtype) in enumerate(kinds):
                self.register_parameter(f"parameter_{number}", torch.nn.Parameter(torch.rand(shape).to(dtype)))
            self.register_buffer("mean", torch.rand(3))
            self.register_buffer("count", torch.randint(2**40, ()))

        def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
            pairs = zip(self.parameters(), inputs, strict=True)
            return torch.stack([(parameter * each).sum().float() for parameter, each in pairs]).sum()

    return Weighted()


def _parameter_types(subject: PluginUnderTest) -> list[torch.dtype]:
    """Return the 16-bit types of parameters, and so of gradients, in the precisions that the plugin declares."""
    import torch

    capabilities = subject.info.capabilities
    names = {each.parameter_type for each in PRECISIONS.values() if each.capability in capabilities}
    return [getattr(torch, name) for name in sorted(filter(None, names))]


def _elements_beyond_a_bucket(config: DistributedConfig) -> int:
    """Return an odd number of float32 that fill more than a bucket of DDP."""
    bucket_bytes = min(config.ddp.bucket_cap_mb * 2**20, _LARGEST_BUCKET_BYTES)
    return int(bucket_bytes + _BEYOND_A_BUCKET_BYTES) // 4 + 3


def _of_other_rank(subject: PluginUnderTest, check: str, item: Any, *, limit_s: float = _ITEM_S) -> Any:
    """Return what the other rank has, as JSON, through a file: without the collectives that are under test.

    If it has nothing within the limit, torch raises a RuntimeError.
    """
    from torch.distributed import FileStore  # type: ignore[attr-defined]

    store = FileStore(str(subject.workspace / f"{check}-{os.environ['MASTER_PORT']}-of-ranks"), 2)
    store.set_timeout(timedelta(seconds=patient(limit_s)))
    store.set(str(subject.rank.rank), json.dumps(item))
    return json.loads(store.get(str(1 - subject.rank.rank)))


def _require_highest(subject: PluginUnderTest, which: str, group: Any = None, *, alone: bool = False) -> None:
    """Check that a group of both ranks, or of this one alone, finds the highest number."""
    import torch
    import torch.distributed as dist

    own = subject.rank.rank + 1.0
    found, wanted = torch.full((1,), own, device=subject.device), own if alone else 2.0
    dist.all_reduce(found, op=dist.ReduceOp.MAX, group=group)
    require(
        found.item() == wanted, f"in {which}, the maximum of the ranks' numbers is {found.item():g}, not {wanted:g}"
    )


def _children() -> dict[int, str]:
    """Return the command line of every descendant by its process id."""
    found = [process.as_dict(["pid", "cmdline", "status"]) for process in psutil.Process().children(recursive=True)]
    return {each["pid"]: " ".join(each["cmdline"] or []) for each in found if each["status"] != psutil.STATUS_ZOMBIE}


def _footprint() -> dict[str, int]:
    """Return, by name, the number of each resource that a process group takes and must give back."""
    process = psutil.Process()
    return {"threads": process.num_threads(), "open files and sockets": process.num_fds()}


def _shared_memory_files() -> set[str]:
    """Return the files of shared memory that this process uses, on Linux."""
    with suppress(OSError):
        areas = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
        return set(re.findall(r" (/dev/shm/.*?)(?: \(deleted\))?$", areas, re.MULTILINE))
    return set()


def _training_processes(launcher: subprocess.Popen[str], events: Path) -> dict[str, psutil.Process]:
    """Wait until two ranks train, and return the process of each."""
    deadline_s = time.monotonic() + patient(_RUN_START_TIMEOUT_S)
    while time.monotonic() < deadline_s:
        if launcher.poll() is not None:
            output, _ = launcher.communicate()
            raise NotRun(f"two ranks do not train here, see P1, P2 and N5: {output[-500:]}")
        if events.exists() and '"RUN_START"' in events.read_text(encoding="utf-8", errors="replace"):
            found = {}
            for process in psutil.Process(launcher.pid).children(recursive=True):
                with suppress(psutil.Error):
                    if is_program(process.cmdline(), "chipperf.train.worker"):
                        found[process.environ()["RANK"]] = process
            if found.keys() >= {"0", "1"}:
                return found
        time.sleep(0.1)
    raise NotRun(f"two ranks did not begin to train within {patient(_RUN_START_TIMEOUT_S):g} s")


def _output_of_the_end(launcher: subprocess.Popen[str], peer: psutil.Process, log: Path) -> str:
    """Return what a launcher says until it has ended, after one of its two ranks was killed; ``peer`` is the other."""
    began_s, busy_s = time.monotonic(), _busy_s(peer)
    # Then the launcher kills its ranks.
    for limit_s in (min(patient(tolerances.FAILED_RUN_S), GRACE_S - 3), patient(4 * tolerances.FAILED_RUN_S)):
        try:
            return launcher.communicate(timeout=limit_s)[0]
        except subprocess.TimeoutExpired:
            waited_s = time.monotonic() - began_s
            if peer.is_running() and _busy_s(peer) - busy_s < waited_s / 2:
                place = ""
                with suppress(psutil.Error, OSError):
                    peer.send_signal(DUMP_SIGNAL)
                    time.sleep(_DUMP_S)
                    place = innermost_call(log.read_text(encoding="utf-8", errors="replace"))
                fail(f"rank 0 waits, and has not ended {waited_s:.0f} s after rank 1 was killed{place}: let it return")
    fail(f"the run has not ended {time.monotonic() - began_s:.0f} s after rank 1 was killed")


def _busy_s(process: psutil.Process) -> float:
    """Return how long a process's main thread has run, or waited for a core on a busy machine; Linux counts both."""
    with suppress(OSError):
        running_ns, waiting_ns, _ = Path(f"/proc/{process.pid}/schedstat").read_text(encoding="ascii").split()
        return (int(running_ns) + int(waiting_ns)) / 1e9
    return 0.0

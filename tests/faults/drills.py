"""The drills: each starts a real run, disturbs it, and says how it ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import acme_stack
import psutil
from chipperf.records.store import read_record
from chipperf.run.directory import RunDirectory
from quick_cases import install_quick_cases
from support import (
    FakeDistributions,
    evaluations,
    events_of,
    fill,
    perf_command,
    perf_environment,
    process_starter,
    processes_naming,
    ranks_of,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from network_namespaces import Machine

LIMIT_S = 300
"""Until a run has come far enough to be disturbed, or has ended by itself, on cores that others use too."""

BOUNDED_S = 100
"""After the fault. Ranks have 30 seconds to save; everything else takes moments."""


@dataclass(frozen=True)
class Outcome:
    """How a disturbed run ended.

    Attributes:
        exit_code: Of its launcher.
        seconds: From the fault to its end; of a fault that was there from the beginning, the whole run.
        state: The record's; ``None`` where the directory is gone.
        failure_class: The record's.
        complaints: What the launcher wrote to its standard error.
        earlier_intact: True if every event from before the fault is still there.
        orphans: Command lines of processes that were left.
    """

    exit_code: int
    seconds: float
    state: str | None
    failure_class: str | None
    complaints: str
    earlier_intact: bool
    orphans: list[str]


@dataclass(frozen=True)
class Workplace:
    """Where drills run.

    Attributes:
        root: A directory of their own.
        images: A tiny dataset.
        disk: A small file system, for those that fill it; ``None`` if there is none.
        machines: Two, for those that lose one; ``None`` if there are none.
    """

    root: Path
    images: Path
    disk: Path | None = None
    machines: tuple[Machine, Machine] | None = None


@dataclass(frozen=True, kw_only=True)
class Drill:
    """A fault.

    Attributes:
        fault: What happens.
        disturb: Does it to a run that has evaluated once; ``None`` if the run has it in itself.
        arguments: Further ones of ``perf train``.
        environment: Variables that bring the fault about.
        state: Status that the record must have; ``None`` if there can be none.
        failure_class: What it must say.
        exit_code: Of the launcher.
        prepare: Changes the dataset before the run; returns the one to use.
        needs: ``accelerator``, ``disk``, ``small disk`` or ``two machines``.
    """

    fault: str
    state: str | None
    failure_class: str | None
    disturb: Callable[[subprocess.Popen[str], RunDirectory, Workplace], None] | None = None
    arguments: tuple[object, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    exit_code: int = 1
    prepare: Callable[[Workplace], Path] | None = None
    needs: str = ""

    def __str__(self) -> str:
        return self.fault


def kill_second_rank(process: subprocess.Popen[str], directory: RunDirectory, workplace: Workplace) -> None:
    _, second = ranks_of(process)
    second.kill()


def terminate(process: subprocess.Popen[str], directory: RunDirectory, workplace: Workplace) -> None:
    process.terminate()


def hang_up(process: subprocess.Popen[str], directory: RunDirectory, workplace: Workplace) -> None:
    process.send_signal(signal.SIGHUP)


def terminate_second_rank(process: subprocess.Popen[str], directory: RunDirectory, workplace: Workplace) -> None:
    _, second = ranks_of(process)
    second.terminate()


def kill_loader(process: subprocess.Popen[str], directory: RunDirectory, workplace: Workplace) -> None:
    for child in _children_of_rank(process, telemetry=False):
        child.kill()


def kill_telemetry(process: subprocess.Popen[str], directory: RunDirectory, workplace: Workplace) -> None:
    [telemetry] = _children_of_rank(process, telemetry=True)
    telemetry.kill()


def _children_of_rank(process: subprocess.Popen[str], *, telemetry: bool) -> list[psutil.Process]:
    [rank] = ranks_of(process)
    return [each for each in rank.children() if ("chipperf.run.telemetry_process" in each.cmdline()) is telemetry]


def delete_directory(process: subprocess.Popen[str], directory: RunDirectory, workplace: Workplace) -> None:
    # Renamed first: a run that writes meanwhile would keep it from becoming empty.
    gone = directory.path.with_name("gone")
    directory.path.rename(gone)
    shutil.rmtree(gone)


def fill_disk(process: subprocess.Popen[str], directory: RunDirectory, workplace: Workplace) -> None:
    fill(directory.path.parent)


def let_second_machine_vanish(process: subprocess.Popen[str], directory: RunDirectory, workplace: Workplace) -> None:
    assert workplace.machines is not None
    workplace.machines[1].pull_the_plug()


def with_a_corrupt_image(workplace: Workplace) -> Path:
    images = workplace.root / "images"
    shutil.copytree(workplace.images, images)
    (images / "dataset.json").unlink()
    victim = sorted((images / "train").rglob("*.jpg"))[5]
    victim.write_bytes(victim.read_bytes()[:50])
    return images


def start_another(process: subprocess.Popen[str], directory: RunDirectory, workplace: Workplace) -> None:
    """Begin a second run in the directory; that it is refused is seen here, and then the first one is stopped."""
    second = subprocess.run(
        perf_command("train", "mobilenetv2", "--vendor", "cpu", "--preset", "tiny", "--out", directory.path)
        + ["--data", str(workplace.images)],
        env=perf_environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert second.returncode == 2, second.stderr
    assert "already holds a run" in second.stderr
    assert process.poll() is None
    process.terminate()


DRILLS = (
    Drill(
        fault="SIGKILL of a rank",
        disturb=kill_second_rank,
        arguments=("--nproc", 2),
        state="failed",
        failure_class="rank_died",
    ),
    Drill(
        fault="a rank hangs",
        arguments=("--nproc", 2, "--hang-timeout", 30),
        environment={"DRILL_FAULT": "hang"},
        state="failed",
        failure_class="hang",
    ),
    Drill(
        fault="SIGTERM from a scheduler",
        disturb=terminate,
        state="interrupted",
        failure_class="interrupted",
    ),
    Drill(
        fault="SIGHUP of a closed terminal",
        disturb=hang_up,
        state="interrupted",
        failure_class="interrupted",
    ),
    Drill(
        fault="SIGTERM to one of two ranks",
        disturb=terminate_second_rank,
        arguments=("--nproc", 2),
        state="interrupted",
        failure_class="interrupted",
    ),
    Drill(
        fault="SIGKILL of a loader process",
        disturb=kill_loader,
        state="failed",
        failure_class="loader_died",
    ),
    Drill(
        fault="SIGKILL of the telemetry process",
        disturb=kill_telemetry,
        arguments=("--vendor", "acme", "--no-device-check", "--budget", "20s"),
        state="completed",
        failure_class=None,
        exit_code=0,
        needs="accelerator",
    ),
    Drill(
        fault="a machine vanishes",
        disturb=let_second_machine_vanish,
        state="failed",
        failure_class="node_lost",
        needs="two machines",
    ),
    Drill(
        fault="the loss becomes NaN",
        environment={"DRILL_FAULT": "nan"},
        state="failed",
        failure_class="non_finite_loss",
    ),
    Drill(
        fault="the device is out of memory",
        arguments=("--vendor", "acme", "--set", "batch_size=8", "--no-device-check"),
        environment={"ACME_MEMORY_BYTES": str(2**17)},
        state="failed",
        failure_class="out_of_memory",
        needs="accelerator",
    ),
    Drill(
        fault="a corrupt image",
        prepare=with_a_corrupt_image,
        state="failed",
        failure_class="DataError",
    ),
    Drill(
        fault="the disk is full while logging",
        disturb=fill_disk,
        state="failed",
        failure_class="RecordError",
        needs="disk",
    ),
    Drill(
        fault="the disk is too small for checkpoints",
        arguments=("--max-steps", 7, "--set", "checkpoint_every_epochs=1"),
        environment={"DRILL_FAULT": "large checkpoints"},
        state="completed",
        failure_class=None,
        exit_code=0,
        needs="small disk",
    ),
    Drill(
        fault="the clock jumps by a day, back and forth",
        arguments=("--max-steps", 12),
        environment={"DRILL_FAULT": "clock"},
        state="completed",
        failure_class=None,
        exit_code=0,
    ),
    Drill(
        fault="the run's directory is deleted",
        disturb=delete_directory,
        state=None,
        failure_class=None,
    ),
    Drill(
        fault="a second run into the directory",
        disturb=start_another,
        state="interrupted",
        failure_class="interrupted",
    ),
)


def run_drill(drill: Drill, workplace: Workplace) -> Outcome:
    """Start a run, disturb it, and wait for its end.

    Raises:
        subprocess.TimeoutExpired: It does not end.
        acme_build.CompilerMissing: The accelerator cannot be built here.
    """
    site = FakeDistributions(workplace.root / "site")
    site.root.mkdir()
    path = install_quick_cases(site)
    environment = perf_environment(PYTHONPATH=path, OMP_NUM_THREADS="1", **drill.environment)
    if drill.needs == "accelerator":
        acme_stack.install_plugin(site.root)
        environment = acme_stack.environment(site.root, **drill.environment)
        environment["PYTHONPATH"] += f"{os.pathsep}{path}"
    images = drill.prepare(workplace) if drill.prepare else workplace.images
    place = workplace.disk if drill.needs.endswith("disk") and workplace.disk else workplace.root
    directory = RunDirectory(place / "run")
    vendor = () if "--vendor" in drill.arguments else ("--vendor", "cpu")
    command = ("train", "faulty", "--data", images, "--out", directory.path, "--set", "workers=1", *vendor)
    settings = () if drill.needs == "small disk" else ("--set", "checkpoint_every_epochs=0")
    run = perf_command(*command, *settings, *drill.arguments)
    with process_starter(directory.path) as start:
        if workplace.machines is None:
            first = start(run, environment)
        else:
            machines = workplace.machines
            first, _ = (
                start(each.starts(number, machines[0], *run), {**environment, "GLOO_SOCKET_IFNAME": each.interface})
                for number, each in enumerate(machines)
            )
        return _disturbed(drill, first, directory, workplace)


def _disturbed(drill: Drill, process: subprocess.Popen[str], directory: RunDirectory, workplace: Workplace) -> Outcome:
    before: list[dict[str, Any]] = []
    if drill.disturb is not None:
        wait_for(lambda: evaluations(directory) >= 1, process, LIMIT_S)
        before = events_of(directory)
    start_s = time.monotonic()
    if drill.disturb is not None:
        drill.disturb(process, directory, workplace)
    _, complaints = process.communicate(timeout=BOUNDED_S if drill.disturb else LIMIT_S)
    seconds = time.monotonic() - start_s
    # Loader processes end by themselves, a moment after their rank.
    psutil.wait_procs(processes_naming(str(directory.path)), timeout=20)
    record = read_record(directory.path) if directory.path.exists() else None
    return Outcome(
        exit_code=process.returncode,
        seconds=seconds,
        state=record.status.state if record else None,
        failure_class=record.status.failure.failure_class if record and record.status.failure else None,
        complaints=complaints,
        earlier_intact=record is None or events_of(directory)[: len(before)] == before,
        orphans=[" ".join(each.cmdline()) for each in processes_naming(str(directory.path))],
    )

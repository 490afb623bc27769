"""Running ``perf`` as a process, and what the shared fixtures hand out."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import psutil
from chipperf.run.programs import is_program
from ready_python import ReadyProcess, stands_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from chipperf.run.directory import RunDirectory
    from chipperf.run.plan import RunPlan

TIMEOUT_S = 150


class Perf(Protocol):
    """Runs ``perf`` in a process of its own, which is forked where that makes no difference."""

    def __call__(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]: ...


class StartProcess(Protocol):
    """Starts a command in a session of its own; see :func:`started`."""

    def __call__(
        self, command: list[str], environment: Mapping[str, str], *, executed: bool = False
    ) -> subprocess.Popen[str] | ReadyProcess: ...


class MakePlan(Protocol):
    """Makes a plan of a small run on the CPU reference, with changes."""

    def __call__(self, **changes: Any) -> RunPlan: ...


@dataclass(frozen=True)
class FinishedRun:
    """A run of ``perf train`` that completed."""

    directory: Path
    process: subprocess.CompletedProcess[str]


class FakeDistributions:
    """Distributions in a directory that is on ``sys.path``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, name: str, entry_points: str, *, version: str = "1.2") -> None:
        folder = self.root / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (folder / "entry_points.txt").write_text(entry_points)

    @property
    def python_path(self) -> str:
        """``PYTHONPATH`` of a process that finds them."""
        return os.pathsep.join([str(self.root), *filter(None, [os.environ.get("PYTHONPATH")])])


def forget_modules(root: Path) -> None:
    """Unload the modules whose files lie below ``root``: the next test may bring others of the same names."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(f"{root}/"):
            del sys.modules[name]


def perf_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "chipperf", *(str(argument) for argument in arguments)]


def run(
    command: list[str], environment: Mapping[str, str], directory: Path | None = None, timeout_s: float = TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end: a program that imports torch by a fork, where that makes no difference."""
    process = started(command, environment, directory)
    try:
        out, complaints = process.communicate(timeout=timeout_s)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, complaints)


def started(
    command: list[str], environment: Mapping[str, str], directory: Path | None = None, *, executed: bool = False
) -> subprocess.Popen[str] | ReadyProcess:
    """Start a command: a program that imports torch by a fork, where that makes no difference, unless ``executed``."""
    if not executed and stands_in(command, environment):
        return ReadyProcess(command, environment, directory)
    return subprocess.Popen(
        command,
        env=environment,
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_perf(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``perf`` in a process of its own, which is forked where that makes no difference."""
    return run(perf_command(*arguments), perf_environment(**environment))


def execute_perf(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``perf`` as users do."""
    return subprocess.run(
        perf_command(*arguments),
        env=perf_environment(**environment),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def perf_environment(**changes: str) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PERF_")}
    return environment | changes


def processes_naming(text: str) -> list[psutil.Process]:
    """Return the running processes whose command line contains ``text``."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or [])
        if text in command and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def ranks_of(launcher: subprocess.Popen[str] | ReadyProcess) -> list[psutil.Process]:
    """Return the training processes of a launcher, in the order of their ranks."""
    children = psutil.Process(launcher.pid).children()
    ranks = [each for each in children if is_program(each.cmdline(), "chipperf.train.worker")]
    return sorted(ranks, key=lambda each: int(each.environ()["RANK"]))


@contextmanager
def process_starter(place: Path) -> Iterator[StartProcess]:
    """Start processes that are gone afterwards, with their children and every process whose command names ``place``."""
    processes: list[subprocess.Popen[str] | ReadyProcess] = []

    def start(
        command: list[str], environment: Mapping[str, str], *, executed: bool = False
    ) -> subprocess.Popen[str] | ReadyProcess:
        processes.append(started(command, environment, executed=executed))
        return processes[-1]

    try:
        yield start
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        for left in processes_naming(str(place)):
            left.kill()


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def wait_for(
    condition: Callable[[], object],
    process: subprocess.Popen[str] | ReadyProcess | None = None,
    limit_s: float = TIMEOUT_S,
) -> None:
    """Wait until something is so; ``process`` may not end before."""
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s, f"not so within {limit_s:g} s"
        time.sleep(0.1)


def events_of(directory: RunDirectory) -> list[dict[str, Any]]:
    """Return the events that a run has written completely."""
    if not directory.events.exists():
        return []
    lines = directory.events.read_text(encoding="utf-8").split("\n")
    # What comes after the last line's end was cut off.
    return [json.loads(line) for line in lines[:-1]]


def evaluations(directory: RunDirectory) -> int:
    """Return how often a run has evaluated."""
    return sum(event["event"] == "EVAL_STOP" for event in events_of(directory))


def fill(root: Path) -> None:
    """Leave not a byte free."""
    for size in (64 * 1024, 1):
        with (root / f"ballast-{size}").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * size)

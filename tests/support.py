"""Running ``perf`` as a process, and what the shared fixtures hand out."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import psutil

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from chipperf.launch.plan import RunPlan

TIMEOUT_S = 150


class Perf(Protocol):
    """Runs ``perf`` in a process of its own."""

    def __call__(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]: ...


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


def forget_modules(root: Path) -> None:
    """Unload the modules whose files lie below ``root``: the next test may bring others of the same names."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(f"{root}/"):
            del sys.modules[name]


def perf_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "chipperf", *(str(argument) for argument in arguments)]


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


def ranks_of(launcher: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the training processes of a launcher, in the order of their ranks."""
    children = psutil.Process(launcher.pid).children()
    ranks = [each for each in children if "chipperf.train.worker" in each.cmdline()]
    return sorted(ranks, key=lambda each: int(each.environ()["RANK"]))


def fill(root: Path) -> None:
    """Leave not a byte free."""
    for size in (64 * 1024, 1):
        with (root / f"ballast-{size}").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * size)

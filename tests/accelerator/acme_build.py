"""Builds the simulated accelerator's torch backend, once per source, torch and compiler."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).with_name("acme.cpp")
FLAGS = ("-std=c++20", "-O1", "-fPIC", "-shared")
LIBRARIES = ("c10", "torch_cpu", "torch")


class CompilerMissing(Exception):
    """No C++ compiler is installed, so the accelerator cannot be simulated."""


def library() -> Path:
    """Return the compiled backend, and compile it first if it is not in the cache.

    Processes that ask at the same time wait for the one that compiles.

    Raises:
        CompilerMissing: There is no C++ compiler.
        RuntimeError: The compiler does not take the source; the message holds what it said.
    """
    compiler = _find_compiler()
    folder = platformdirs.user_cache_path("chipperf-tests")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"acme-{_fingerprint(compiler)}.so"
    with _locked(folder / "acme.lock"):
        if not target.exists():
            _compile(compiler, target)
    return target


def _find_compiler() -> str:
    wanted = os.environ.get("CXX", "g++")
    compiler = shutil.which(wanted)
    if compiler is None:
        raise CompilerMissing(f"the simulated accelerator needs a C++ compiler, and {wanted} is not on PATH")
    return compiler


def _fingerprint(compiler: str) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    parts = (SOURCE.read_bytes(), " ".join(FLAGS).encode(), importlib.metadata.version("torch").encode(), version)
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(compiler: str, target: Path) -> None:
    torch_folder = _torch_folder()
    unfinished = target.with_suffix(f".{os.getpid()}")
    command = [
        *(compiler, *FLAGS, str(SOURCE), "-o", str(unfinished)),
        *("-isystem", str(torch_folder / "include")),
        *("-isystem", str(torch_folder / "include/torch/csrc/api/include")),
        *(f"-L{torch_folder / 'lib'}", *(f"-l{name}" for name in LIBRARIES)),
    ]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode != 0:
        unfinished.unlink(missing_ok=True)
        raise RuntimeError(f"{compiler} cannot compile {SOURCE.name}:\n{process.stderr[:4000]}")
    unfinished.replace(target)


def _torch_folder() -> Path:
    """Find torch without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise RuntimeError("torch is not installed; install chipperf[train]")
    return Path(spec.origin).parent

"""Runs all benchmarks, or those that are named, one after another, and writes one page with their tables.

One that fails does not stop the others; the exit code is 1 then, and the last line names it.

Run: python benchmarks/run_all.py --out build/benchmarks.md limits start_up
"""

from __future__ import annotations

import argparse
import ast
import os
import platform
import subprocess
import sys
import time
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).resolve().parent
LIMIT_S = 600
"""A benchmark is meant to end in three minutes on two quiet cores; one that takes longer than this is ended."""


def benchmarks() -> list[Path]:
    """Return the scripts that measure: those that run by themselves, but for this one."""
    found = [path for path in sorted(HERE.glob("*.py")) if '__name__ == "__main__"' in path.read_text(encoding="utf-8")]
    return [path for path in found if path.name != Path(__file__).name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="all by default")
    parser.add_argument("--smallest", action="store_true", help="as little as shows that all of them run")
    parser.add_argument("--out", type=Path, default=HERE.parent / "build" / "benchmarks.md")
    arguments = parser.parse_args()
    scripts = {path.stem: path for path in benchmarks()}
    if unknown := set(arguments.names).difference(scripts):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(scripts)}")
    chosen = [scripts[name] for name in arguments.names or scripts]
    failed = write_page(chosen, arguments.out, ["--smallest"] if arguments.smallest else [])
    print(f"\n{arguments.out}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def write_page(scripts: Sequence[Path], out: Path, options: Sequence[str] = ()) -> list[str]:
    """Run scripts, print and write what they print, and return the names of those that failed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    failed = []
    with out.open("w", encoding="utf-8") as page:

        def write(text: str) -> None:
            print(text, flush=True)
            print(text, file=page, flush=True)

        write(f"# Benchmarks\n\n{machine()}")
        for script in scripts:
            purpose = (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
            write(f"\n## {script.stem}\n\n{purpose}\n")
            start_s = time.monotonic()
            printed, fault = run(script, options)
            if fault:
                failed.append(script.stem)
            write(f"{printed}\n{fault or 'Done'} after {time.monotonic() - start_s:.0f} s.")
    return failed


def run(script: Path, options: Sequence[str]) -> tuple[str, str]:
    """Return what a script prints, and why it failed, empty if it did not; its complaints go to the terminal."""
    command = [sys.executable, str(script), *options]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        printed = error.stdout or b""
        return printed.decode() if isinstance(printed, bytes) else printed, "**Failed**: it was ended"
    return done.stdout, f"**Failed** with exit code {done.returncode}" if done.returncode else ""


def machine() -> str:
    """Return a table of what figures depend on, and the load before the first benchmark."""
    names = (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {
        "Processor": next(names, platform.processor() or platform.machine()),
        "Cores": cores,
        "System": platform.platform(),
        "Python": platform.python_version(),
        "torch": version("torch"),
        "Date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "Load of the last minute": f"{os.getloadavg()[0]:.2f}",
    }
    return "\n".join(["| Machine | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts.items())])


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


if __name__ == "__main__":
    main()

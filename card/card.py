"""Show on a card what this repository cannot show without one, in nine minutes: ``make card``.

Runs what exists, part after part, and leaves a folder with all output and a page of the results. A part that fails or
hangs keeps no other from its turn. Exit code 0 only if all parts passed.

Run: python card/card.py --vendor NAME --out DIR
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from chipperf.cases.registry import case_names
from chipperf.errors import PerfError
from chipperf.plugin.probe_process import ask
from chipperf.plugin.selection import Selection, select_vendor
from chipperf.plugin.types import PluginDescription
from chipperf.precisions import runnable_precisions

HERE = Path(__file__).resolve().parent
PERF = (sys.executable, "-m", "chipperf")
GRACE_S = 8.0
"""End of every part's time, in which what it started may end properly before it is killed."""


@dataclass
class Part:
    """Commands that run together, and what came of them.

    Attributes:
        seconds: Time that is kept for the part, of the nine minutes.
        commands: Commands by the file in the folder that keeps their standard output; their standard error is in the
            file with the suffix ``.log``.
        at_once: Number of commands that run side by side.
        read: Returns figures, and faults that no exit code tells; by default the figures are what was printed.
        state: ``done``, ``failed``, ``timed out`` or ``not run``; ``why`` explains it.
    """

    name: str
    seconds: float
    commands: Mapping[str, tuple[str, ...]]
    at_once: int = 1
    read: Callable[[Path], tuple[list[str], list[str]]] | None = None
    state: str = "not run"
    why: list[str] = field(default_factory=lambda: ["no time was left, or this was interrupted"])
    figures: list[str] = field(default_factory=list)
    took_s: float = 0.0

    def run(self, out: Path, limit_s: float) -> None:
        """Run the commands for at most ``limit_s``, and take their figures."""
        start_s = time.monotonic()
        end_s = start_s + limit_s - GRACE_S
        waiting, faults = list(self.commands), []
        running: dict[str, subprocess.Popen[bytes]] = {}
        try:
            while (waiting or running) and time.monotonic() < end_s:
                for file in waiting[: self.at_once - len(running)]:
                    running[file] = start(self.commands[file], out / file)
                    waiting.remove(file)
                for file in [file for file, process in running.items() if process.poll() is not None]:
                    code = running.pop(file).returncode
                    faults += [f"{file}: exit code {code}: {last_words(out / file)}"] if code else []
                time.sleep(0.05)
        finally:
            stop(list(running.values()))
        self.took_s = time.monotonic() - start_s
        if len(waiting) == len(self.commands):
            return
        late = [f"{file}: not done after {limit_s:.0f} s" for file in running]
        late += [f"{file}: not begun within {limit_s:.0f} s" for file in waiting]
        try:
            printed = [line for file in self.commands for line in read_lines(out / file)]
            self.figures, found = self.read(out) if self.read else (printed, [])
        except (OSError, ValueError, LookupError, TypeError) as error:
            found = [f"no figures: {type(error).__name__}: {error}"]
        self.why = [*faults, *late, *found]
        self.state = "timed out" if late else "failed" if self.why else "done"


def main() -> None:
    """Run all parts on the chosen vendor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vendor", help="the only one with devices here, if not given; cpu tries the parts themselves")
    parser.add_argument("--out", type=Path, help="new directory; card/VENDOR-DATE if not given")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for all parts together [%(default)g]")
    arguments = parser.parse_args()
    end_s = time.monotonic() + arguments.minutes * 60
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        selection = select_vendor(arguments.vendor)
        info, _ = ask(selection.entry, "describe", PluginDescription)
    except PerfError as error:
        print(f"card: error: {error.message}\n  hint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    now = datetime.now(timezone.utc)
    out = (arguments.out or HERE / f"{selection.entry.name}-{now:%Y%m%d-%H%M%S}").resolve()
    if out.exists() and any(out.iterdir()):
        print(f"card: error: {out} is not empty\n  hint: choose another --out", file=sys.stderr)
        sys.exit(2)
    parts = plan(selection.entry.name, runnable_precisions(info.capabilities), out, arguments.minutes / 9.0)
    carry_out(parts, out, end_s, title(selection, now))
    print(f"results: {out / 'README.md'}")
    sys.exit(any(part.state != "done" for part in parts))


def plan(vendor: str, precisions: Sequence[str], out: Path, scale: float) -> list[Part]:
    """Return all parts, the contract last, which gets all time that is left; write the suites that they run.

    ``scale`` multiplies time limits within parts, on slow machines.
    """
    # Of the table of precisions, the last one that a vendor runs is a fast one.
    pair = list(dict.fromkeys((precisions[0], precisions[-1])))
    windows = {"measure_warmup_steps": 5, "measure_window_steps": 5}
    shortened = {"budget": f"{12 * max(1.0, scale):.0f}s", "set": {"batch_size": 64, "eval_batch_size": 64, **windows}}
    # Of fewer steps, amp may skip all: the gradient scaler begins too high, and halves at each overflow.
    tiny = {"preset": "tiny", "max_steps": 24, "device_check": False, "set": {"workers": 1}}
    throughput = suite(out, "throughput", vendor, {"case": "resnet50", "precision": pair, **shortened})
    trainings: dict[str, tuple[str, ...]] = {}
    for case in case_names():
        trainings |= suite(out, case, vendor, {"case": case, "precision": list(precisions), **tiny})
    doctor = (*PERF, "doctor", "--compute", "--json")
    cold = (sys.executable, str(HERE / "cold_start.py"), vendor)
    bare = (sys.executable, str(HERE.parent / "benchmarks/harness_overhead.py"), "--batch-size=32", "--vendor", vendor)
    tools = (sys.executable, str(HERE / "telemetry.py"), vendor, str(out / "tools"))
    site = (*PERF, "site", str(out / "runs"), "--lang=en", "--out", str(out / "site"))
    certify = (*PERF, "contract", "certify", "--vendor", vendor, "--out", str(out / "certificate"))
    factor = f"--timeout-factor={max(1.0, scale):g}"
    statement = f"--statement={out / 'contract.json'}"
    contract = (*PERF, "contract", "run", "--vendor", vendor, "--level=3", statement, factor)
    # A tiny run keeps about three cores of a card's host busy.
    at_once = max(1, (os.cpu_count() or 1) // 3)
    return [
        Part("cold start of the management library", 25, {f"cold-start-{number}.txt": cold for number in (1, 2, 3)}),
        Part("doctor", 30, {"doctor.json": doctor}, read=partial(read_doctor, vendor)),
        Part("harness against a bare loop", 35, {"harness.txt": bare}),
        Part("telemetry against the vendor's tools", 30, {"telemetry.txt": tools}),
        Part("p_train and p_core", 75, throughput),
        Part("all cases in all precisions, shortened", 110, trainings, at_once=at_once),
        Part("pages of all runs", 10, {"site.txt": site}),
        Part("certificate", 60, {"certificate.txt": certify}),
        Part("contract", 165, {"contract.txt": contract}, read=read_contract),
    ]


def suite(out: Path, name: str, vendor: str, options: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Write a suite of one ``[[run]]``, and return the command that runs it."""
    file = out / "suites" / f"{name}.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    settings = {**options, **{f"set.{key}": value for key, value in options["set"].items()}, "vendor": vendor}
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items() if key != "set"]
    file.write_text("\n".join(["[[run]]", *lines, ""]), encoding="utf-8")
    return {f"suite-{name}.txt": (*PERF, "suite", str(file), "--out", str(out / "runs" / name))}


def carry_out(parts: Sequence[Part], out: Path, end_s: float, heading: Sequence[str]) -> None:
    """Run the parts until ``end_s`` of the monotonic clock, and write the page after each.

    A part gets its share of the time that is left, so that those after a fast one have more.
    """
    write_page(out, heading, parts)
    for number, part in enumerate(parts):
        share = part.seconds / sum(each.seconds for each in parts[number:])
        limit_s = (end_s - time.monotonic()) * share
        print(f"{part.name}: at most {limit_s:.0f} s", flush=True)
        part.run(out, limit_s)
        print(f"  {part.state} after {part.took_s:.0f} s", *part.why, sep="\n    ", flush=True)
        write_page(out, heading, parts)


def start(command: Sequence[str], file: Path) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, so that all that it leaves can be ended."""
    with file.open("wb") as stdout, file.with_suffix(".log").open("wb") as stderr:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True)


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask processes to end, and kill what is left in the end; one that the kernel keeps is left behind."""
    end_s = time.monotonic() + GRACE_S - 1
    for process in processes:
        process.terminate()
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, end_s - time.monotonic()))
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(1.0)


def last_words(file: Path) -> str:
    """Return what a command that failed said: the error of ``perf``, or else the last line of its log."""
    lines = read_lines(file.with_suffix(".log")) or ["nothing was said"]
    return next((line.removeprefix("perf: error: ") for line in lines if line.startswith("perf: error: ")), lines[-1])


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file that are not empty, whatever its bytes are; none if there is no file."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def read_doctor(vendor: str, out: Path) -> tuple[list[str], list[str]]:
    """Return what doctor found of the vendor; a device that does not compute is a fault."""
    vendors = json.loads((out / "doctor.json").read_text(encoding="utf-8"))["vendors"]
    (found,) = (each for each in vendors if each["name"] == vendor)
    figures = [found["reason"], *(f"{name}: {value}" for name, value in found["compute"].items())]
    return figures, [] if found["compute"].get("compute") == "ok" else ["the first device does not compute"]


def read_contract(out: Path) -> tuple[list[str], list[str]]:
    """Return the claim, and every check that found a fault."""
    results = json.loads((out / "contract.json").read_text(encoding="utf-8"))["results"]
    faulty = [each for each in results if each["verdict"] in ("failed", "advisory")]
    found = [f"{each['check']}: {each['message'].partition(chr(10))[0]}" for each in faulty]
    return [*found, *read_lines(out / "contract.txt")[-1:]], []


def title(selection: Selection, now: datetime) -> list[str]:
    """Return the heading of the page: vendor, devices, versions and date."""
    devices = [device.name for device in selection.probe.devices]
    names = (selection.entry.distribution, "torch")
    versions = [*(f"{name} {version(name)}" for name in names), f"driver {selection.probe.driver_version or 'unknown'}"]
    lines = [f"# {selection.entry.name}: {len(devices)} × {devices[0]}", ""]
    lines.append(" · ".join([*versions, f"{now:%Y-%m-%d %H:%M} UTC"]))
    if "PERF_SIMULATED_STACK" in os.environ:
        lines += ["", "**Simulated**: fake modules stand in for the vendor's stack. This is no measurement of a card."]
    return lines


def write_page(out: Path, heading: Sequence[str], parts: Sequence[Part]) -> None:
    """Write ``README.md``: a table of the parts, then why each is not done, its figures and its files."""
    lines = [*heading, "", "| Part | Result | Seconds |", "| --- | --- | ---: |"]
    lines += [f"| {part.name} | {part.state} | {part.took_s:.0f} |" for part in parts]
    lines += ["", "Read the files before you publish them: they have UUIDs, paths and what is installed."]
    for part in parts:
        lines += ["", f"## {part.name}: {part.state}"]
        lines += ["", *(f"* {reason}" for reason in part.why)] if part.why else []
        lines += ["", "```text", *part.figures, "```"] if part.figures else []
        files = [out / name for file in part.commands for name in (file, Path(file).with_suffix(".log"))]
        kept = [f"[{file.name}]({file.name})" for file in files if file.exists() and file.stat().st_size]
        lines += ["", f"Files: {', '.join(kept)}"] if kept else []
    (out / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Stands for ``perf train``: a small process that behaves as a test's ``behavior.json`` says for its directory.

Arguments are those of ``perf train``. FAKE_TRAIN names a directory with ``record.json``, the record of a completed run,
and ``behavior.json``: what to do, by a part of ``--out``, or of ``OUT@nodeN`` for one of several machines, which meet
first. Every start is a line of ``starts`` there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil
from chipperf.records.process_files import hold_process_file

WAIT_S = 60


def option(name: str) -> str | None:
    return next((text.partition("=")[2] for text in reversed(sys.argv) if text.startswith(f"--{name}=")), None)


def write(out: Path, record: dict[str, object], **status: object) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "plan.json").write_text("{}")
    (out / "record.json").write_text(json.dumps(record | {"status": status}))


def meet(place: Path, node_rank: int, nnodes: int) -> None:
    """Wait until the other machines of this attempt, and no others, are there."""
    point = str(option("rdzv")).replace(":", "-")
    (place / f"met-{point}-{node_rank}").touch()
    deadline_s = time.monotonic() + WAIT_S
    while not all((place / f"met-{point}-{other}").exists() for other in range(nnodes)):
        if time.monotonic() > deadline_s:
            sys.exit("perf: error: the others did not come")
        time.sleep(0.02)


def main() -> int:
    place, out = Path(os.environ["FAKE_TRAIN"]), Path(option("resume") or option("out") or "")
    seed = int(option("seed") or json.loads((out / "record.json").read_text())["seed"])
    with (place / "starts").open("a") as file:
        file.write(json.dumps(sys.argv[1:]) + "\n")
    record = json.loads((place / "record.json").read_text())
    record["run_id"], record["seed"] = f"run-{seed}", seed
    record["metrics"]["p_train"]["median"] = 1000.0 + seed
    if not option("resume"):
        record["case"]["name"], record["precision"]["requested"] = sys.argv[1], option("precision") or "fp32"
        record["topology"] |= {"nnodes": int(option("nnodes") or 1), "nproc_per_node": int(option("nproc") or 1)}
    behavior = json.loads((place / "behavior.json").read_text())
    node_rank, nnodes = int(option("node-rank") or 0), int(option("nnodes") or 1)
    name = f"{out}@node{node_rank}" if nnodes > 1 else str(out)
    action = next((action for part, action in behavior.items() if part in name), "complete")
    print(f"fake run with seed {seed}", flush=True)
    if action == "hang":
        time.sleep(WAIT_S)
    if nnodes > 1 and action != "refuse":
        meet(place, node_rank, nnodes)
    if node_rank and action == "complete":
        return 0
    if action == "fail":
        failure = {"failure_class": "out_of_memory", "message": "the device has no memory left"}
        write(out, record, state="failed", failure=failure)
        return 1
    if action == "refuse":
        print("perf: error: no device is here\n  hint: plug one in")
        return 3
    if action == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "stop parent":
        stopped: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
        os.kill(os.getppid(), signal.SIGTERM)
        deadline_s = time.monotonic() + WAIT_S
        while not stopped and time.monotonic() < deadline_s:
            time.sleep(0.02)
        time.sleep(0.2)
        (place / "stopped").write_text(str(len(stopped)))
        write(
            out, record, state="interrupted", failure={"failure_class": "interrupted", "message": "stopped by a signal"}
        )
        return 1
    if action in ("kill parent", "outlive parent"):
        parent = psutil.Process(os.getppid())
        write(out, record, state="running")
        held = hold_process_file(out / "process.json")
        parent.kill()
        if action == "outlive parent":
            (place / "pid").write_text(str(os.getpid()))
            time.sleep(WAIT_S)
        os.close(held)
    write(out, record, state="completed")
    return 0


if __name__ == "__main__":
    sys.exit(main())

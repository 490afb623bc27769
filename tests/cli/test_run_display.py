"""What a terminal and a log show of a run while it runs, and what is said when it ended."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.cli import live
from chipperf.cli.live import RunPicture
from chipperf.cli.train import _print_summary, _why_ended
from chipperf.records.schema import Missing, TimeToTarget
from chipperf.run.progress import Progress
from factory import make_record, throughput
from rich.console import Console

if TYPE_CHECKING:
    from pathlib import Path

TRAINING = {"phase": "training", "steps": 2480, "steps_per_epoch": 310, "target": 0.757}


@pytest.fixture
def telemetry(tmp_path: Path) -> Path:
    file = tmp_path / "telemetry-node0.jsonl"
    readings = [
        {"device": f"card {number}", "power_w": 310.4, "memory_used_bytes": (50 + number) * 2**30}
        for number in (0, 1, 0, 1)
    ]
    lines = ["half a line", *map(json.dumps, [{"mark": "start"}, *readings])]
    file.write_text("\n".join(lines) + '\n{"device": "ca', encoding="utf-8")
    return file


def shown(picture: RunPicture, width: int = 60) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(picture.draw())
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_picture_needs_no_legend_and_60_columns(telemetry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((100.0, 110.0, 130.0))
    monkeypatch.setattr(live.time, "monotonic", lambda: next(clock))
    picture = RunPicture("mobilenetv2", telemetry)
    picture.take(Progress(step=34, **TRAINING))
    picture.take(Progress(step=44, samples_per_s=12345.6, samples="images", loss=2.269, best=0.155, **TRAINING))

    lines = shown(picture)

    assert lines == [
        "mobilenetv2: training, epoch 1 of 8",
        f"{' ' * 24} step 44 of 2480",
        "30s elapsed, at most about 1h21m12s left",
        "12345.6 images/s, loss 2.269, memory 51.0 GiB, power 621 W",
        "best 15.50%, target 75.70%",
    ]
    assert max(map(len, lines)) <= 60


@pytest.mark.parametrize(
    ("total", "left_s", "text"),
    [(None, None, ""), (1200, None, "300 of 1200"), (1200, 61.2, "300 of 1200, about 1m1s left")],
)
def test_count_of_items_says_what_is_known(total: int | None, left_s: float | None, text: str) -> None:
    task: Any = SimpleNamespace(total=total, completed=300, time_remaining=left_s)

    assert live._Counted().render(task).plain == text


def test_picture_of_training_that_met_its_target_has_no_half_full_bar(tmp_path: Path) -> None:
    picture = RunPicture("mobilenetv2", tmp_path / "none")
    picture.take(Progress(**TRAINING | {"phase": "finished"}, step=1240, best=0.76))

    assert shown(picture) == ["mobilenetv2: finished", "0s elapsed", "best 76.00%, target 75.70%"]


def test_picture_before_training_promises_nothing(tmp_path: Path) -> None:
    picture = RunPicture("mobilenetv2", tmp_path / "none")
    picture.take(Progress(phase="initializing"))

    assert shown(picture) == ["mobilenetv2: initializing", "0s elapsed"]


def test_power_that_one_device_does_not_tell_is_not_added_up(telemetry: Path) -> None:
    reading = {"device": "card 2", "power_w": None, "memory_used_bytes": 1}
    complete = telemetry.read_text(encoding="utf-8").rpartition("\n")[0]
    telemetry.write_text(f"{complete}\n{json.dumps(reading)}\n", encoding="utf-8")
    picture = RunPicture("mobilenetv2", telemetry)

    assert shown(picture)[-1] == "memory 51.0 GiB"


def test_lines_of_a_log_repeat_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states = [
        Progress(phase="initializing"),
        Progress(phase="initializing"),
        Progress(step=3, **TRAINING),
        Progress(step=2480, evaluation="epoch 8: top1 76.00%", best=0.76, **TRAINING),
        Progress(**TRAINING | {"phase": "measuring"}, step=2480, evaluation="epoch 8: top1 76.00%", best=0.76),
        Progress(**TRAINING | {"phase": "finished"}, step=2480, evaluation="epoch 8: top1 76.00%", best=0.76),
    ]
    left = iter(states)
    stop = threading.Event()

    def read(_: Path) -> Progress:
        state = next(left, None)
        if state is None:
            stop.set()
        return state or states[-1]

    monkeypatch.setattr(live, "_POLL_S", 0)
    monkeypatch.setattr(live, "read_progress", read)
    monkeypatch.setenv("PERF_QUIET", "")
    live._print_lines(tmp_path / "progress.json", "resnet50", stop)

    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [
        "resnet50: initializing",
        "resnet50: training",
        "resnet50: epoch 8: top1 76.00%, best 76.00%, target 75.70%",
    ]
    assert lines[3:] == ["resnet50: measuring"]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (
            {"metrics__time_to_target": TimeToTarget(seconds=66.5, epoch=4), "case__target": 0.5},
            "target 50.00% met in epoch 4, after 66.5 s of training",
        ),
        ({"limits__max_steps": 7, "metrics__steps": 7}, "--max-steps 7 reached; target 50.00% not met"),
        ({"limits__max_epochs": 2, "metrics__epochs": 2.0}, "--max-epochs 2 reached; target 50.00% not met"),
        (
            {"limits__budget_s": 1800.0, "metrics__projected_train_seconds": 9000.0},
            "the budget of 30m is used up; target 50.00% not met",
        ),
        ({}, "all epochs trained; target 50.00% not met"),
        ({"case__target": 2.85, "case__lower_is_better": True}, "all epochs trained; target 2.85 not met"),
        (
            {"case__target": Missing(missing="not_applicable", reason="none")},
            "all epochs trained; there is no target on this dataset",
        ),
    ],
)
def test_end_of_a_run_says_why_it_ended(values: dict[str, object], why: str) -> None:
    not_met = Missing(missing="failed", reason="not reached")
    record = make_record(**{"case__target": 0.5, "metrics__time_to_target": not_met} | values)

    assert _why_ended(record) == why


TERMINAL = """
import sys, time
from pathlib import Path
from chipperf.cli.live import counting_progress, run_progress
from chipperf.cli.streams import Output
from chipperf.run.progress import ProgressFile

sys.stderr = Output(sys.stderr, may_lose=True)
with counting_progress("reading"):
    time.sleep(0.2)
file = Path(sys.argv[1]) / "progress.json"
progress = ProgressFile(file, 1)
progress.training(310, 0.757, None)
with run_progress(file, "resnet50"):
    for step in range(40, 46):
        progress.report(step, 2480, 32)
        time.sleep(0.3)
    print("a notice with \\x1b[31mcolor", file=sys.stderr)
    progress.evaluated(1.0, "top1", 0.155)
    time.sleep(1)
print("over", file=sys.stderr)
"""


def test_real_terminal_of_60_columns_is_redrawn(tmp_path: Path) -> None:
    """Rich writes its sequences as they are, and what others print meanwhile is escaped and stays."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "", "PERF_QUIET": ""}
    with subprocess.Popen(
        [sys.executable, "-c", TERMINAL, tmp_path], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        written = b""
        with suppress(OSError):  # Linux' end of a terminal.
            while part := os.read(ours, 65536):
                written += part
    os.close(ours)

    text = written.decode()
    lines = list(filter(None, re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text).replace("\r", "\n").splitlines()))
    assert process.returncode == 0, text
    assert "\\u001b" not in text.replace("\\u001b[31mcolor", "")
    assert "a notice with \\u001b[31mcolor" in lines
    assert "resnet50: training, epoch 1 of 8" in lines
    # Progress is written once a second: which step it shows depends on the machine.
    assert any(re.search(r"step 4[1-5] of 2480$", line) for line in lines)
    assert "resnet50: epoch 1: top1 15.50%, best 15.50%, target 75.70%" in lines
    assert lines[-1] == "over"
    assert max(map(len, lines)) <= 60


@pytest.mark.parametrize(("p_core", "warned"), [(9844.0, False), (98.0, True)])
def test_a_run_ends_with_what_cannot_be_true_of_it(
    capsys: pytest.CaptureFixture[str], p_core: float, warned: bool
) -> None:
    _print_summary(make_record(metrics__p_core=throughput(p_core)))

    assert ("warning: implausible: p_core 98 is less than p_train" in capsys.readouterr().err) == warned

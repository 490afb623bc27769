"""The event log's line shape."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from chipperf.errors import RecordError
from chipperf.run.events import EventLog

if TYPE_CHECKING:
    from support import FinishedRun


def test_line_goes_to_the_output_and_to_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before_ns = time.monotonic_ns()
    log = EventLog(tmp_path / "events.jsonl", rank=0)

    log.write("eval_accuracy", 0.75, metric="top1", epoch=3, step=40)

    # Read before the log is closed: a killed run keeps its events.
    [line] = (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()
    log.close()
    entry = json.loads(line)
    assert capsys.readouterr().out == f"[PerfLog] {line}\n"
    assert (entry["event"], entry["value"]) == ("EVAL_ACCURACY", 0.75)
    metadata = entry["metadata"]
    assert before_ns <= metadata.pop("monotonic_ns") <= time.monotonic_ns()
    assert abs(metadata.pop("time_ms") / 1000 - time.time()) < 60
    assert metadata == {"rank": 0, "metric": "top1", "epoch": 3, "step": 40}


def test_log_takes_any_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank's output may be ASCII, and the name of a file in a reason may be any bytes."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    log = EventLog(tmp_path / "events.jsonl", rank=0)

    log.write("run_stop", "failed", reason="数据/\udcff.jpg")
    log.close()

    assert json.loads((tmp_path / "events.jsonl").read_text())["metadata"]["reason"] == "数据/\udcff.jpg"


def test_rank_without_a_file_still_prints(capsys: pytest.CaptureFixture[str]) -> None:
    log = EventLog(None, rank=11)

    log.write("run_start")
    log.close()

    line = capsys.readouterr().out.removeprefix("[PerfLog] ")
    assert json.loads(line)["metadata"]["rank"] == 11


def test_events_are_appended(tmp_path: Path) -> None:
    for event in ("init_start", "init_stop"):
        log = EventLog(tmp_path / "events.jsonl", rank=0)
        log.write(event)
        log.close()

    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["INIT_START", "INIT_STOP"]


def test_log_that_cannot_be_written_is_an_error() -> None:
    log = EventLog(Path("/dev/full"), rank=0)

    with pytest.raises(RecordError, match="cannot write the event log /dev/full: No space left on device"):
        log.write("run_start")
    log.close()


def test_real_run_speaks_mlperfs_vocabulary_in_order(trained_run: FinishedRun) -> None:
    lines = (trained_run.directory / "events.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    names = [entry["event"] for entry in entries]

    assert names[:2] == ["INIT_START", "INIT_STOP"]
    assert names[-1] == "RUN_STOP"
    assert entries[-1]["value"] == "success"
    assert names.index("RUN_START") < names.index("EPOCH_START") < names.index("WINDOW_STOP")
    assert names.count("EPOCH_START") == names.count("EPOCH_STOP") == names.count("EVAL_ACCURACY") == 2
    values = {entry["event"]: entry["value"] for entry in entries}
    assert values["GLOBAL_BATCH_SIZE"] == 8
    assert (values["TRAIN_SAMPLES"], values["EVAL_SAMPLES"], values["SEED"]) == (24, 9, 5)
    clocks = [entry["metadata"]["monotonic_ns"] for entry in entries]
    assert clocks == sorted(clocks)
    assert {entry["metadata"]["rank"] for entry in entries} == {0}

"""The stages of a qualification, with a fake in place of ``perf``."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from chipperf.bundle.pack import pack
from chipperf.errors import UsageError
from chipperf.launch.sequence import ProcessSequence
from chipperf.qualify import qualification
from chipperf.qualify.qualification import Qualification, QualificationDirectory, StageRunner
from chipperf.qualify.qualify_plan import STAGES
from chipperf.qualify.verdict import judge_qualification, verdict_markdown
from chipperf.suites.suite_plan import plan_suite
from qualify_states import make_state
from support import wait_for

FAKE = Path(__file__).with_name("fake_perf.py")

if TYPE_CHECKING:
    from collections.abc import Callable

    from support import FinishedRun


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(qualification, "program", lambda module: [sys.executable, str(FAKE)])
    monkeypatch.setenv("FAKE_PERF", str(tmp_path))
    (tmp_path / "behavior.json").write_text("{}")
    return tmp_path


@pytest.fixture
def carry_out(place: Path) -> Callable[..., Qualification]:
    directory = QualificationDirectory(place / "out")

    def carry_out(state: Qualification | None = None) -> Qualification:
        state = state or directory.read()
        sequence = ProcessSequence()
        with directory.locked(), sequence.stopping_at_signals():
            StageRunner(state, directory, sequence, lambda stage: None).carry_out()
        return state

    return carry_out


def calls(place: Path) -> list[str]:
    return [line.split()[0] for line in (place / "calls.txt").read_text().splitlines()]


def states(state: Qualification) -> dict[str, str]:
    return {stage.name: stage.state for stage in state.stages}


def test_every_stage_is_carried_out_in_order(carry_out: Callable[..., Qualification], place: Path) -> None:
    state = carry_out(make_state())

    assert set(states(state).values()) == {"completed"}
    assert calls(place) == ["doctor", "contract", "limits", "contract", "suite", "report", "bundle", "bundle"]
    assert QualificationDirectory(place / "out").read() == state


def test_stage_that_fails_keeps_no_other_from_its_turn(carry_out: Callable[..., Qualification], place: Path) -> None:
    (place / "behavior.json").write_text(json.dumps({"limits": "fail"}))

    state = carry_out(make_state())

    assert states(state)["limits"] == "failed"
    assert state.stage("limits").error == "it was told to"
    assert states(state)["bundle"] == "completed"


def test_stage_without_time_left_is_ended(carry_out: Callable[..., Qualification], place: Path) -> None:
    (place / "behavior.json").write_text(json.dumps({"doctor": "hang"}))
    state = make_state()
    state.stage("doctor").allotted_s = 0.5

    carry_out(state)

    assert states(state)["doctor"] == "out_of_time"
    assert states(state)["contract"] == "completed"


def test_stage_whose_last_commands_had_no_time_is_not_completed(
    carry_out: Callable[..., Qualification], place: Path
) -> None:
    (place / "behavior.json").write_text(json.dumps({"bundle": "finish when told to end"}))
    state = make_state()
    for stage in state.stages:
        stage.allotted_s = 0.5 if stage.name == "bundle" else 0.1

    carry_out(state)

    assert calls(place).count("bundle") == 1
    assert states(state)["bundle"] == "out_of_time"


def test_time_that_a_stage_leaves_goes_to_the_next(place: Path) -> None:
    state = make_state(allotted_s=60.0)
    state.stage("doctor").seconds, state.stage("contract").seconds = 10.0, 40.0
    runner = StageRunner(state, QualificationDirectory(place / "out"), ProcessSequence(), lambda stage: None)

    assert runner._left_s(state.stage("limits")) == pytest.approx(60 + 50 + 20)
    state.stage("contract").seconds = 400.0
    assert runner._left_s(state.stage("limits")) == pytest.approx(60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_qualification_does_nothing_twice(
    number: int, carry_out: Callable[..., Qualification], place: Path
) -> None:
    (place / "behavior.json").write_text(json.dumps({"limits": "hang"}))

    def interrupt() -> None:
        wait_for((place / "hanging").exists)
        os.kill(os.getpid(), number)

    # A shell lets its background jobs ignore Ctrl-C.
    before = signal.signal(number, signal.default_int_handler)
    threading.Thread(target=interrupt).start()
    try:
        state = carry_out(make_state())
    finally:
        signal.signal(number, before)
    assert states(state) == {
        **dict.fromkeys(STAGES, "waiting"),
        "doctor": "completed",
        "contract": "completed",
        "limits": "interrupted",
    }
    (place / "behavior.json").write_text("{}")

    again = carry_out()

    assert set(states(again).values()) == {"completed"}
    assert again.sessions == 2
    assert calls(place) == [
        *("doctor", "contract", "limits"),
        *("limits", "contract", "suite", "report", "bundle", "bundle"),
    ]
    limits = [line for line in (place / "calls.txt").read_text().splitlines() if line.startswith("limits")]
    assert [line.rpartition("/")[2] for line in limits] == ["limits-1", "limits-2"]


def test_stage_of_a_killed_qualification_begins_again(place: Path) -> None:
    directory = QualificationDirectory(place / "out")
    state = make_state()
    state.stage("doctor").state = "running"
    with directory.locked():
        directory.write(state)

    assert directory.read().stage("doctor").state == "interrupted"


def test_suite_has_the_runs_that_fit(carry_out: Callable[..., Qualification], place: Path) -> None:
    state = make_state(allotted_s=9.0)
    for stage in state.stages:
        if stage.name != "suite":
            stage.allotted_s = 0.1

    carry_out(state)

    (run,) = plan_suite(place / "out" / "suite.toml").runs
    assert (run.case, run.precision, run.topology, state.runs) == ("mobilenetv2", "fp32", "1x1", 1)


def test_qualification_is_not_overwritten(carry_out: Callable[..., Qualification], place: Path) -> None:
    carry_out(make_state())

    with pytest.raises(UsageError, match="already holds a qualification"):
        QualificationDirectory(place / "out").require_none()


def test_verdict_says_what_was_not_done(carry_out: Callable[..., Qualification], place: Path) -> None:
    (place / "behavior.json").write_text(json.dumps({"limits": "fail", "bundle": "fail"}))
    directory = QualificationDirectory(place / "out")

    verdict = judge_qualification(carry_out(make_state()), directory)
    pages = [verdict_markdown(verdict, language) for language in ("en", "zh")]

    texts = [str(text) for text in verdict.may_not]
    for expected in (
        "Contract: no level, because there is no statement",
        "Limits of the machine: none were measured",
        "First steps against the CPU reference, not compared: mobilenetv2",
        "Runs for which the budget left no time: mobilenetv2-fp32-1x1, mobilenetv2-bf16-1x1",
        "Stage limits: it was told to",
        "Anything about an accelerator: this is the CPU reference",
    ):
        assert expected in texts
    assert verdict.may == []
    assert "perf qualify --vendor=cpu" in pages[0]
    assert "不可声明的结论及原因" in pages[1]
    assert "Stage" not in pages[1]


def test_bundle_that_was_changed_after_its_check_is_not_verified(
    carry_out: Callable[..., Qualification], place: Path, trained_run: FinishedRun
) -> None:
    directory = QualificationDirectory(place / "out")
    directory.path.mkdir()
    pack([trained_run.directory], [], directory.bundle)
    carry_out(make_state())
    packed = directory.bundle.read_bytes()

    told = {}
    for content in (packed, b"another"):
        directory.bundle.write_bytes(content)
        verdict = judge_qualification(directory.read(), directory)
        told[content] = any("is verified" in str(text) for text in verdict.may)

    assert told == {packed: True, b"another": False}
    assert "The bundle bundle.tar.gz: it was changed after it was checked" in map(str, verdict.may_not)

"""What machine 0 of a suite tells the others, through the channel that launchers have."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from chipperf.errors import ConfigError, TrainingError
from chipperf.suites import execution
from chipperf.suites.execution import Follower, Machine, leading
from chipperf.suites.state import NextAttempt, SuiteDirectory
from chipperf.suites.suite_plan import PlannedRun, SuitePlan
from support import wait_for

if TYPE_CHECKING:
    from pathlib import Path

RUN = PlannedRun(
    configuration="resnet50-fp32-2x1",
    repeat=1,
    case="resnet50",
    precision="fp32",
    topology="2x1",
    seed=1,
    arguments=("resnet50", "--seed=1"),
)
PLAN = SuitePlan(runs=(RUN,), ignored=())
ATTEMPT = NextAttempt(run=RUN.name, number=3, directory=RUN.name, resumes=False)


@pytest.fixture
def place() -> Machine:
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    return Machine(0, "localhost", port - execution._PORTS + 1)


def follow(place: Machine, plan: SuitePlan, root: Path) -> Follower:
    return Follower(Machine(1, place.host, place.port), plan, SuiteDirectory(root))


def heard(other: Follower) -> NextAttempt:
    """Return what goes on, as soon as it is heard: what one end writes may reach the other a moment later."""

    def listen() -> NextAttempt | None:
        other.listen()
        return other.attempt

    wait_for(listen)
    assert other.attempt is not None
    return other.attempt


def test_others_hear_what_runs_and_that_it_ended(place: Machine, tmp_path: Path) -> None:
    with leading(place, PLAN) as announce:
        other = follow(place, PLAN, tmp_path)
        other.listen()
        assert (other.attempt, other.has_ended) == (None, False)

        assert place.port_of_attempt(ATTEMPT.number) == place.port + 3
        announce(ATTEMPT)
        joint = heard(other)
        assert joint == ATTEMPT
        assert other.is_at(joint)

        announce(None)
        wait_for(lambda: not other.is_at(joint))
        other.leave()


def test_suite_waits_until_the_others_know_its_end(
    place: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = follow(place, PLAN, tmp_path)
    waits = []

    def hear(delay_s: float) -> None:
        waits.append(delay_s)
        other.listen()
        if other.has_ended:
            other.leave()

    with leading(place, PLAN):
        other.listen()
        monkeypatch.setattr(execution.time, "sleep", hear)

    assert other.has_ended
    assert waits


def test_other_plan_is_refused(place: Machine, tmp_path: Path) -> None:
    plan = SuitePlan(runs=(RUN.model_copy(update={"seed": 2}),), ignored=())

    with leading(place, PLAN), pytest.raises(ConfigError, match="repeat-1 has other options"):
        follow(place, plan, tmp_path).listen()


def test_port_that_is_taken_is_named(place: Machine) -> None:
    with (
        socket.create_server(("", place.suite_port), family=socket.AF_INET6, dualstack_ipv6=True),
        pytest.raises(TrainingError, match=f"machine 0 cannot listen on localhost:{place.suite_port}"),
        leading(place, PLAN),
    ):
        pass


def test_suite_that_vanished_leaves_its_attempt_alone(
    place: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with leading(place, PLAN) as announce:
        announce(ATTEMPT)
        other = follow(place, PLAN, tmp_path)
        joint = heard(other)
        other._channel = None
        monkeypatch.setattr(execution, "Channel", lost)
        monkeypatch.setattr(execution, "LOST_S", -1.0)

        assert other.is_at(joint)
        with pytest.raises(TrainingError, match="has not responded"):
            other.listen()


def lost(*place: object, **options: object) -> None:
    raise execution.ChannelLost("nobody")

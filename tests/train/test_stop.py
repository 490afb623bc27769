"""How ranks that hear of a signal at different moments stop at the same edge."""

from __future__ import annotations

import random
import signal
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.errors import TrainingStopped
from chipperf.plugin.types import Rank
from chipperf.train import stop as stop_module
from chipperf.train.stop import StopRequest

if TYPE_CHECKING:
    from collections.abc import Callable


class SharedStore:
    """What torch's stores do, in one process."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    def set(self, key: str, value: str) -> None:
        self._values[key] = value.encode()

    def check(self, keys: list[str]) -> bool:
        return all(key in self._values for key in keys)

    def get(self, key: str) -> bytes:
        return self._values[key]


def nothing() -> None:
    return


def send(number: int = signal.SIGTERM) -> None:
    signal.raise_signal(number)


def ranks(count: int) -> list[StopRequest]:
    store = SharedStore()
    return [StopRequest(Rank(rank=rank, world_size=count), lambda: store) for rank in range(count)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_single_rank_stops_at_the_next_edge(number: signal.Signals) -> None:
    stop = StopRequest()

    with stop.deferred():
        assert not stop.reached(nothing)
        send(number)
        send(number)
        assert stop.reached(nothing)
    assert stop.requested


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)

    with StopRequest().deferred():
        assert signal.getsignal(signal.SIGTERM) != before

    assert signal.getsignal(signal.SIGTERM) == before


def test_other_errors_pass() -> None:
    def fail() -> None:
        with StopRequest().deferred():
            send()
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail()


@pytest.mark.parametrize("told_before", [True, False])
def test_signal_interrupts_at_once_where_nothing_is_lost(told_before: bool) -> None:
    reached = []

    def evaluate(stop: StopRequest) -> None:
        with stop.deferred():
            if told_before:
                send()
            reached.append("evaluation")
            with stop.immediate():
                send()
                reached.append("end")

    with pytest.raises(TrainingStopped):
        evaluate(StopRequest())
    assert reached == ["evaluation"]


@pytest.mark.parametrize("count", [2, 3, 8])
def test_all_ranks_stop_at_the_same_edge(count: int) -> None:
    """Any order of events that a device allows.

    A rank that was told waits for its device, so it finishes no step that another one has not begun. One that was not
    may be many steps ahead.
    """
    rng = random.Random(count)
    for _ in range(300):
        requests = ranks(count)
        told_at = [rng.randrange(1, 12) for _ in range(count)]
        edges, stopped_at = [0] * count, [0] * count
        while not all(stopped_at):
            number = rng.randrange(count)
            is_told = edges[number] + 1 >= told_at[number]
            slowest = min(edges)
            if stopped_at[number] or (is_told and edges[number] > slowest) or edges[number] > slowest + 5:
                continue
            edges[number] += 1
            if is_told:
                requests[number].requested = True
            if requests[number].reached(nothing):
                stopped_at[number] = edges[number]
        assert len(set(stopped_at)) == 1
        assert stopped_at[0] <= max(told_at) + 5 + 1


def test_device_is_waited_for_only_after_a_signal() -> None:
    [stop, _] = ranks(2)
    waits: list[int] = []
    wait: Callable[[], object] = lambda: waits.append(1)  # noqa: E731

    stop.reached(wait)
    assert waits == []
    stop.requested = True
    stop.reached(wait)
    assert waits == [1]


def test_rank_that_alone_was_told_stops_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    [stop, _] = ranks(2)
    stop.requested = True
    assert not stop.reached(nothing)
    monkeypatch.setattr(stop_module, "_AGREEMENT_S", -1.0)

    with pytest.raises(TrainingStopped):
        stop.reached(nothing)


@pytest.mark.parametrize("variables", [{}, {"MASTER_ADDR": "localhost", "MASTER_PORT": "none"}])
def test_without_a_store_a_signal_interrupts(monkeypatch: pytest.MonkeyPatch, variables: dict[str, Any]) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stop = StopRequest(Rank(world_size=2))
    stop.requested = True

    with pytest.raises(TrainingStopped):
        stop.reached(nothing)

"""Which peak of memory a run reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chipperf.plugin.types import MemoryStats, Rank
from tiny_training import FakeSession, StopAt, TwoRanks, make_random_training, make_training, resume_training

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_counter_that_one_rank_does_not_know_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    class OtherKnowsNothing(TwoRanks):
        def gather(self, item):  # type: ignore[no-untyped-def]
            return [item, MemoryStats(source="fake")]

    session = FakeSession(memory=MemoryStats(source="fake", peak_allocated_bytes=10))
    rank = Rank(world_size=2, local_world_size=2)
    training = make_training(monkeypatch, collectives=OtherKnowsNothing(), session=session, rank=rank)

    training.loop.train()

    assert training.state.memory is not None
    assert training.state.memory.peak_allocated_bytes is None


def test_peak_memory_is_that_of_all_sessions_without_their_warmup(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"batches_per_epoch": 24, "epochs": 1, "measure_warmup_steps": 4}
    session = FakeSession(memory=MemoryStats(source="fake", peak_allocated_bytes=70, used_bytes=None))
    first = make_random_training(monkeypatch, checkpoints=tmp_path, stop=StopAt(11), session=session, **options)
    assert not first.loop.train()
    session = FakeSession(memory=MemoryStats(source="fake", peak_allocated_bytes=50, used_bytes=9))
    second = resume_training(monkeypatch, tmp_path, 2, session=session, **options)

    second.loop.train()

    assert second.state.memory is not None
    assert second.state.memory.peak_allocated_bytes == 70
    assert second.state.memory.used_bytes is None
    assert session.calls.count("reset") == 1

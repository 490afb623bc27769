"""Training of a linear model on data in memory, with a session that counts and a clock that is turned by hand."""

from __future__ import annotations

import random
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from chipperf.cases.base import Hyperparameters
from chipperf.cases.workload import Evaluation
from chipperf.plugin.registration import EVENT_HOOKS
from chipperf.plugin.types import MemoryStats, PrecisionPolicy, Rank
from chipperf.records.checkpoints import newest_valid
from chipperf.records.schema import Dataset, Limits, Loader
from chipperf.run.collectives import Collectives
from chipperf.run.directory import RunDirectory
from chipperf.run.events import EventLog
from chipperf.run.progress import ProgressFile
from chipperf.train import context as context_module
from chipperf.train import loop as loop_module
from chipperf.train.checkpoint import CheckpointWriter, read_checkpoint
from chipperf.train.context import RunContext, Spans
from chipperf.train.core_pass import measure_core
from chipperf.train.loop import TrainingLoop
from chipperf.train.replica import Replica
from chipperf.train.stop import StopRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pytest
    from chipperf.plugin.session import Session
    from chipperf.run.plan import RunPlan
    from chipperf.train.run_state import RunState

FEATURES = 3
DEVICE = torch.device("cpu")


@dataclass
class FakeDevice:
    """A device whose work is queued at once and done only when somebody waits for it."""

    now_s: float = 0.0
    queued_s: float = 0.0

    def perf_counter(self) -> float:
        return self.now_s

    def spend(self, seconds: float) -> None:
        self.now_s += seconds

    def synchronize(self) -> None:
        self.now_s += self.queued_s
        self.queued_s = 0.0


@dataclass
class FakeSession:
    """Records what training asks of a vendor."""

    device: FakeDevice = field(default_factory=FakeDevice)
    memory: MemoryStats = field(default_factory=lambda: MemoryStats(source="fake"))
    calls: list[str] = field(default_factory=list)
    events: list[tuple[str, Any]] = field(default_factory=list)
    step_end: Callable[[torch.device], None] | None = None

    def prepare_model(self, model: torch.nn.Module, precision: object, device: object) -> torch.nn.Module:
        return model

    def seed(self, seed: int, device: object, deterministic: bool) -> None:
        self.calls.append(f"seed {seed}")

    def synchronize(self, device: object) -> None:
        self.calls.append("synchronize")
        self.device.synchronize()

    def memory_reset_peak(self, device: object) -> None:
        self.calls.append("reset")

    def memory_query(self, device: object) -> MemoryStats:
        return self.memory

    def notify(self, event: object) -> None:
        self.events.append((EVENT_HOOKS[type(event).__name__], event))


class StopAt(StopRequest):
    """Stops training at an edge, counted from 1: after a step, or after an evaluation."""

    def __init__(self, edge: int) -> None:
        super().__init__()
        self._stops_at = edge

    def reached(self, wait_for_device: Callable[[], object]) -> bool:
        self._edge += 1
        return self._edge == self._stops_at


class FakeWorkload:
    """Binary targets from a linear model with batch statistics, or what a test puts in the place of a method."""

    dataset = Dataset(name="memory", fingerprint_method="", is_sample=True)
    loader = Loader(
        workers=0,
        prefetch_factor=None,
        pin_memory=False,
        persistent_workers=False,
        start_method=None,
        decoder="",
        resize="",
    )
    target: float | None = None
    eval_samples = 10

    def __init__(self, session: FakeSession, *, batches_per_epoch: int, accumulate_steps: int, batch_size: int) -> None:
        self.session = session
        self.batch_size = batch_size
        self.batches_per_epoch = batches_per_epoch
        self.steps_per_epoch = batches_per_epoch // accumulate_steps
        self.memory_format = torch.contiguous_format
        self.max_gradient_norm: float | None = None
        self.qualities: Iterator[float] = iter(())
        self.device_seconds_per_step = 1.0
        self.host_seconds_per_step = 0.001
        self.optimizer: torch.optim.Optimizer | None = None

    def build_model(self) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.BatchNorm1d(FEATURES), torch.nn.Linear(FEATURES, 1))

    def build_optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
        return self.optimizer

    def learning_rates(self, step: int) -> list[float]:
        return [0.01 / (step + 1)]

    def epoch_batches(self, epoch: int, first_batch: int = 0) -> Iterator[torch.Tensor]:
        # torch's loaders draw a seed for their processes whenever they are opened.
        torch.rand(1)
        generator = torch.Generator().manual_seed(epoch)
        batches = [torch.randn(self.batch_size, FEATURES, generator=generator) for _ in range(self.batches_per_epoch)]
        yield from batches[first_batch:]

    def to_device(self, batch: torch.Tensor) -> torch.Tensor:
        return batch

    def sample_count(self, batch: torch.Tensor) -> int:
        return len(batch)

    def loss(self, model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        self.session.calls.append("step")
        self.session.device.spend(self.host_seconds_per_step)
        self.session.device.queued_s += self.device_seconds_per_step
        return cast("torch.Tensor", model(batch)).square().mean()

    def evaluate(self, model: torch.nn.Module, collectives: object, autocast: object) -> Evaluation:
        self.session.calls.append("evaluate")
        return Evaluation(value=next(self.qualities, 0.5), samples=self.eval_samples)


class TwoRanks(Collectives):
    """What a collective over this rank and a slower one with ``other_samples`` of every ten returns."""

    def __init__(self) -> None:
        super().__init__(Rank(), DEVICE)
        self.barriers = 0

    def barrier(self) -> None:
        self.barriers += 1

    def sum_counts(self, values: Sequence[int]) -> list[int]:
        return [2 * value for value in values]

    def max_counts(self, values: Sequence[int]) -> list[int]:
        return [3 * value for value in values]

    def gather(self, item: Any) -> list[Any]:
        if not isinstance(item, MemoryStats):
            return [item]
        counters = {name: value for name, value in asdict(item).items() if isinstance(value, int)}
        return [item, replace(item, **{name: 3 * value for name, value in counters.items()})]


@dataclass
class Training:
    """A training loop with everything a test looks at."""

    loop: TrainingLoop
    replica: Replica
    context: RunContext
    session: FakeSession
    workload: Any

    @property
    def state(self) -> RunState:
        return self.loop.state

    def measure_core(self) -> None:
        measure_core(self.context, self.replica, self.state)


def make_training(
    monkeypatch: pytest.MonkeyPatch,
    *,
    batches_per_epoch: int = 12,
    batch_size: int = 5,
    limits: Limits | None = None,
    target: float | None = None,
    collectives: Collectives | None = None,
    rank: Rank | None = None,
    session: FakeSession | None = None,
    checkpoints: Path | None = None,
    run_session: int = 1,
    stop: StopRequest | None = None,
    grad_scaler: bool = False,
    **hyperparameters: Any,
) -> Training:
    session = session or FakeSession()
    # Spans keep the real clock.
    clock = SimpleNamespace(perf_counter=session.device.perf_counter, monotonic=time.monotonic)
    for module in (context_module, loop_module):
        monkeypatch.setattr(module, "time", clock)
    values: dict[str, Any] = {
        "model": "linear",
        "dataset": "memory",
        "target": 0.9,
        "epochs": 2,
        "batch_size": batch_size,
        "lr": 0.1,
        "eval_batch_size": 5,
        "seed": 0,
        "measure_warmup_steps": 2,
        "measure_window_steps": 5,
        "measure_core_steps": 2,
    }
    h = Hyperparameters(**{**values, **hyperparameters})
    workload = FakeWorkload(
        session, batches_per_epoch=batches_per_epoch, accumulate_steps=h.accumulate_steps, batch_size=batch_size
    )
    rank = rank or Rank()
    collectives = collectives or Collectives(rank, DEVICE)
    writer = None
    if checkpoints is not None:
        writer = CheckpointWriter(
            checkpoints,
            run_id="run-1",
            session=run_session,
            keep=h.keep_checkpoints,
            rank=rank,
            collectives=collectives,
        )
    context = RunContext(
        plan=cast("RunPlan", SimpleNamespace(run_id="run-1", limits=limits or Limits())),
        directory=RunDirectory(Path("unused")),
        session=cast("Session", session),
        workload=workload,
        hyperparameters=h,
        target=target,
        metric="top1",
        precision=PrecisionPolicy(requested="fp32", effective="fp32", grad_scaler=grad_scaler),
        distributed=None,
        device=DEVICE,
        rank=rank,
        collectives=collectives,
        events=EventLog(None, rank.rank),
        progress=ProgressFile(None, rank.world_size),
        spans=Spans(0.0),
        checkpoints=writer,
        stop=stop or StopRequest(),
    )
    torch.manual_seed(0)
    replica = Replica(context)
    return Training(TrainingLoop(context, replica), replica, context, session, workload)


def make_random_training(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Training:
    """A training whose losses depend on every generator, and whose quality depends on the weights."""
    random.seed(1)
    np.random.seed(1)
    training = make_training(monkeypatch, **options)
    workload = training.workload

    def loss(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        workload.session.device.queued_s += 1.0
        dropped = torch.nn.functional.dropout(batch, 0.5) * (1 + random.random()) + np.random.rand()
        result: torch.Tensor = model(dropped).square().mean()
        return result

    def evaluate(model: torch.nn.Module, *_: object) -> Evaluation:
        torch.rand(1)
        with torch.no_grad():
            value = float(model(torch.ones(1, FEATURES)).sigmoid())
        return Evaluation(value=value, samples=workload.eval_samples, details={"half": value / 2})

    workload.loss = loss
    workload.evaluate = evaluate
    return training


def resume_training(monkeypatch: pytest.MonkeyPatch, checkpoints: Path, run_session: int, **options: Any) -> Training:
    """The same training, gone back to its newest checkpoint."""
    training = make_random_training(monkeypatch, checkpoints=checkpoints, run_session=run_session, **options)
    found, faults = newest_valid(checkpoints)
    assert found is not None
    assert faults == []
    training.loop.restore(*read_checkpoint(found[0], 0))
    return training


def weights(training: Training) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in training.replica.model.state_dict().values()]

"""Torch side of the case on a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from chipperf.cases.workload import Evaluation
from chipperf.cases.workload_parts import dataset_record
from chipperf.data.dataset_identity import identify_directory
from chipperf.records.schema import Loader
from table_case import FEATURES, FILE, read_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.cases.base import Hyperparameters
    from chipperf.cases.workload import WorkloadContext


class TableWorkload:
    memory_format = torch.contiguous_format
    max_gradient_norm = None
    target = None
    loader = Loader(
        workers=0,
        prefetch_factor=None,
        pin_memory=False,
        persistent_workers=False,
        start_method=None,
        decoder="none",
        resize="none",
    )

    def __init__(self, context: WorkloadContext[Hyperparameters]) -> None:
        self._hyperparameters = context.hyperparameters
        self._device = context.device
        self._train, self._eval = (torch.from_numpy(rows) for rows in read_table(context.data_root))
        self.steps_per_epoch = len(self._train) // context.hyperparameters.batch_size
        self.eval_samples = len(self._eval)
        self.dataset = dataset_record(
            identify_directory(
                context.data_root,
                [FILE],
                train_samples=len(self._train),
                eval_samples=len(self._eval),
                classes=None,
                reference=context.reference,
                target_key="target",
            )
        )

    def build_model(self) -> torch.nn.Module:
        return torch.nn.Linear(FEATURES, 1)

    def build_optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=self._hyperparameters.lr)

    def learning_rates(self, step: int) -> list[float]:
        return [self._hyperparameters.lr]

    def epoch_batches(self, epoch: int, first_batch: int = 0) -> Iterator[torch.Tensor]:
        order = torch.randperm(len(self._train), generator=torch.Generator().manual_seed(epoch))
        batches = self._train[order].split(self._hyperparameters.batch_size)
        return iter(batches[first_batch : self.steps_per_epoch])

    def to_device(self, batch: torch.Tensor) -> torch.Tensor:
        return batch.to(self._device)

    def sample_count(self, batch: torch.Tensor) -> int:
        return len(batch)

    def loss(self, model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.mse_loss(model(batch[:, :-1])[:, 0], batch[:, -1])

    def evaluate(self, model: torch.nn.Module, collectives: Any, autocast: Any) -> Evaluation:
        rows = self.to_device(self._eval)
        with torch.inference_mode():
            error = float((model(rows[:, :-1])[:, 0] - rows[:, -1]).square().mean() / rows[:, -1].var(correction=0))
        return Evaluation(value=max(0.0, 1 - error), samples=len(rows))

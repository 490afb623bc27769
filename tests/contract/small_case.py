"""A case that trains in milliseconds: a few layers on images drawn from a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from chipperf.cases.base import Case, CaseData, Hyperparameters, ReportProfile
from chipperf.data.dataset_identity import ReferenceDataset
from chipperf.plugin.types import Title
from chipperf.records.schema import Dataset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.cases.workload import WorkloadContext

_CLASSES = 3


class SmallWorkload:
    dataset = Dataset(name="drawn from a seed", fingerprint_method="", classes=_CLASSES, is_sample=True)
    memory_format = torch.contiguous_format
    max_gradient_norm = 1.0

    def __init__(self, context: WorkloadContext[Hyperparameters]) -> None:
        self._device = context.device
        self._batch_size = context.hyperparameters.batch_size

    def build_model(self) -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(8 * 36, _CLASSES),
        )

    def build_optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)

    def learning_rates(self, step: int) -> list[float]:
        return [0.1]

    def epoch_batches(self, epoch: int, first_batch: int = 0) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(epoch)
        while True:
            images = torch.randn(self._batch_size, 3, 8, 8, generator=generator)
            yield images, torch.arange(self._batch_size) % _CLASSES

    def to_device(self, batch: Any) -> Any:
        images, labels = batch
        return images.contiguous(memory_format=self.memory_format).to(self._device), labels.to(self._device)

    def loss(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        images, labels = batch
        return torch.nn.functional.cross_entropy(model(images), labels)


_TEXT = Title(zh="小", en="small")

CASE = Case(
    name="small",
    version="1.0",
    summary="a few layers",
    base=Hyperparameters(
        model="small", dataset="seed", target=0.5, epochs=1, batch_size=64, lr=0.1, eval_batch_size=1, seed=0
    ),
    presets={"full": {}, "tiny": {"batch_size": 16}},
    metric="top1",
    report=ReportProfile(
        model_title="small",
        task=_TEXT,
        quality_column="acc",
        quality_legend=_TEXT,
        sample_noun=_TEXT,
    ),
    data=CaseData(
        reference=ReferenceDataset(name="seed", title="seed", train_samples=256, eval_samples=1, classes=_CLASSES)
    ),
    load_workload=lambda: SmallWorkload,  # type: ignore[arg-type,return-value]
)

"""Torch part of the classification cases: torchvision model, ImageFolder data, SGD, top-1 accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torchvision
from torch.nn.functional import cross_entropy

from chipperf.cases.workload import Evaluation, WorkloadContext
from chipperf.cases.workload_parts import ImageWorkload, fused_if_possible, loader_arguments
from chipperf.data.imagefolder import identify_imagefolder, scan_imagefolder
from chipperf.data.loader import build_evaluation_loader, build_training_loader
from chipperf.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from chipperf.cases.classification.hyperparameters import ClassificationHyperparameters
    from chipperf.run.collectives import Collectives

Images = tuple[torch.Tensor, torch.Tensor]
"""Images ``(N, 3, H, W)`` and int64 labels ``(N,)``: uint8 on the host, normalized float32 on the device."""


class ClassificationWorkload(ImageWorkload["ClassificationHyperparameters"]):
    """An image classifier on one worker."""

    def __init__(self, context: WorkloadContext[ClassificationHyperparameters]) -> None:
        h = context.hyperparameters
        folder = scan_imagefolder(context.data_root)
        identity = identify_imagefolder(folder, context.reference)
        shared = loader_arguments(context, image_size=h.image_size)
        train_loader = build_training_loader(folder.train, batch_size=h.batch_size, seed=h.seed, **shared)
        super().__init__(context, identity, train_loader)
        self._classes = len(folder.classes)
        self._eval_loader = build_evaluation_loader(
            folder.val, batch_size=h.eval_batch_size, resize_to=h.eval_resize_size, **shared
        )

    def build_model(self) -> torch.nn.Module:
        """Return torchvision's model with one output per class of the dataset."""
        model: torch.nn.Module = torchvision.models.get_model(
            self._hyperparameters.model, weights=None, num_classes=self._classes
        )
        return model

    def build_optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Return SGD with momentum."""
        h = self._hyperparameters
        return fused_if_possible(
            torch.optim.SGD, model.parameters(), lr=h.lr, momentum=h.momentum, weight_decay=h.weight_decay
        )

    def learning_rates(self, step: int) -> list[float]:
        """Return the learning rate with linear warm-up and stepwise decay."""
        h = self._hyperparameters
        warmup_steps = h.warmup_epochs * self.steps_per_epoch
        if step < warmup_steps:
            return [h.lr * min(1.0, (step + 1) / warmup_steps)]
        return [h.lr * h.lr_gamma ** (step // self.steps_per_epoch // h.lr_step_epochs)]

    def to_device(self, batch: Images) -> Images:
        """Copy the uint8 images (a quarter of the float32 bytes) and normalize them on the device."""
        images, labels = batch
        images = images.to(self._device, non_blocking=True)
        images = self._normalize(images).contiguous(memory_format=self.memory_format)
        return images, labels.to(self._device, non_blocking=True)

    def sample_count(self, batch: Images) -> int:
        """Return the number of images."""
        return len(batch[1])

    def loss(self, model: torch.nn.Module, batch: Images) -> torch.Tensor:
        """Return the mean cross entropy."""
        images, labels = batch
        return cross_entropy(model(images), labels)

    def evaluate(
        self, model: torch.nn.Module, collectives: Collectives, autocast: Callable[[], AbstractContextManager[object]]
    ) -> Evaluation:
        """Return the top-1 accuracy: correct predictions over all samples, both counted as integers."""
        correct = torch.zeros((), dtype=torch.int64, device=self._device)
        counted = 0
        with torch.inference_mode():
            for batch in self._eval_loader:
                images, labels = self.to_device(batch)
                with autocast():
                    predictions = model(images).argmax(dim=1)
                correct += (predictions == labels).sum()
                counted += len(labels)
        total_correct, total = collectives.sum_counts([int(correct), counted])
        if total != self.eval_samples:
            raise TrainingError(
                f"evaluation counted {total} samples, the split has {self.eval_samples}",
                failure_class="evaluation_count",
            )
        return Evaluation(value=total_correct / total, samples=total)

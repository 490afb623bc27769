"""Torch side of the quick cases."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import replace
from typing import Any

import torch
from chipperf.cases.classification.workload import ClassificationWorkload

STEP_S = 0.1
"""A step takes that long: a run must not be over before it is disturbed."""

AFTER_STEPS = 4
"""Steps that go well before a fault."""

LARGE = 2**21
"""Numbers of four bytes: more than the small file system of the drill holds."""

FAULT, RANK = os.environ.get("DRILL_FAULT"), os.environ.get("RANK")


class Quick(ClassificationWorkload):
    """Real images and the real loader, with layers that have statistics and draw random numbers."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        # Nothing but its last epoch, or what is done to it, ends the run.
        self.target = None

    def build_model(self) -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, stride=2),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(4),
            torch.nn.Flatten(),
            torch.nn.Dropout(0.2),
            torch.nn.Linear(8 * 16, self._classes),
        )

    def loss(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        time.sleep(STEP_S)
        return super().loss(model, batch)


class Watched(Quick):
    """Puts a digest of the weights on record at every evaluation."""

    def evaluate(self, model: torch.nn.Module, collectives: Any, autocast: Any) -> Any:
        weights = b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
        digest = int(hashlib.sha256(weights).hexdigest()[:12], 16)
        return replace(super().evaluate(model, collectives, autocast), details={"weights": float(digest)})


class Faulty(Quick):
    """Fails in the way that ``DRILL_FAULT`` names."""

    steps = 0

    def build_model(self) -> torch.nn.Module:
        model = super().build_model()
        if FAULT == "large checkpoints":
            model.register_buffer("ballast", torch.zeros(LARGE))
        return model

    def loss(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        self.steps += 1
        loss = super().loss(model, batch)
        if self.steps > AFTER_STEPS and FAULT == "nan":
            loss = loss * float("nan")
        if self.steps > AFTER_STEPS and FAULT == "hang" and RANK == "1":
            time.sleep(100_000)
        return loss


WORKLOADS = {"endless": Quick, "faulty": Faulty, "watched": Watched}

"""Hyperparameters and texts that the image classification cases share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from chipperf.cases.base import Hyperparameters, Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chipperf.records.schema import Setting


class ClassificationHyperparameters(Hyperparameters):
    """Hyperparameters of a torchvision classifier trained with SGD on an ImageFolder dataset.

    ``lr`` decays by ``lr_gamma`` every ``lr_step_epochs`` epochs, after a linear warm-up of ``warmup_epochs``.
    """

    optimizer: Annotated[Literal["sgd"], Role.LOCKED] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1), Role.LOCKED] = 0.9
    weight_decay: Annotated[float, Field(ge=0), Role.LOCKED]
    lr_step_epochs: Annotated[int, Field(ge=1), Role.LOCKED]
    lr_gamma: Annotated[float, Field(gt=0, le=1), Role.LOCKED]
    image_size: Annotated[int, Field(ge=32), Role.LOCKED] = 224
    eval_resize_size: Annotated[int, Field(ge=32), Role.LOCKED] = 256

    warmup_epochs: Annotated[float, Field(ge=0), Role.SCALED] = 0.0


PRESETS: Mapping[str, Mapping[str, Setting]] = {
    "full": {},
    "demo": {
        "image_size": 112,
        "eval_resize_size": 128,
        "epochs": 8,
        "lr_step_epochs": 3,
        "lr_gamma": 0.3,
        "batch_size": 32,
        "eval_batch_size": 50,
        "lr": 0.05,
        "warmup_epochs": 1.0,
        "measure_window_steps": 10,
    },
    "tiny": {
        "image_size": 32,
        "eval_resize_size": 36,
        "epochs": 2,
        "batch_size": 4,
        "eval_batch_size": 4,
        "measure_warmup_steps": 1,
        "measure_window_steps": 2,
        "measure_core_steps": 1,
    },
}
"""``full``: the benchmark. ``demo``: learns in minutes on a few CPU cores. ``tiny``: only shows that all parts run.

Every preset keeps the model's structure.
"""

"""Hyperparameters of DETR, and their presets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from chipperf.cases.base import Hyperparameters, Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chipperf.records.schema import Setting


class DetrHyperparameters(Hyperparameters):
    """Hyperparameters of DETR.

    ``lr`` is the learning rate of the transformer; the backbone uses ``lr * backbone_lr_factor``. Both fall to a tenth
    after ``lr_drop_epochs``. ``resolution`` is the shorter side of the images in pixels and scales the whole
    augmentation. ``targets`` selects what is learned: boxes, masks of instances too (reported as mask mAP), or segments
    of things and stuff (reported as panoptic quality). ``backbone_weights`` is a file in the dataset's directory with
    the ``state_dict`` of torchvision's ResNet; if it is empty, the whole backbone is trained from new weights.

    ``padding_multiple`` rounds the sizes of batches up, and ``static_shapes`` gives every batch the same size, for
    compilers that build a program per shape.
    """

    optimizer: Annotated[Literal["adamw"], Role.LOCKED] = "adamw"
    weight_decay: Annotated[float, Field(ge=0), Role.LOCKED] = 1e-4
    max_gradient_norm: Annotated[float, Field(gt=0), Role.LOCKED] = 0.1
    backbone_lr_factor: Annotated[float, Field(gt=0, le=1), Role.LOCKED] = 0.1
    lr_drop_epochs: Annotated[int, Field(ge=1), Role.LOCKED] = 200
    resolution: Annotated[int, Field(ge=32), Role.LOCKED] = 800
    backbone: Annotated[Literal["resnet50", "resnet18"], Role.LOCKED] = "resnet50"
    encoder_layers: Annotated[int, Field(ge=1), Role.LOCKED] = 6
    decoder_layers: Annotated[int, Field(ge=1), Role.LOCKED] = 6
    queries: Annotated[int, Field(ge=1), Role.LOCKED] = 100
    dilation: Annotated[bool, Role.LOCKED] = False
    targets: Annotated[Literal["boxes", "masks", "panoptic"], Role.LOCKED] = "boxes"
    dropout: Annotated[float, Field(ge=0, lt=1), Role.LOCKED] = 0.1
    backbone_weights: Annotated[str, Role.LOCKED] = "resnet50-0676ba61.pth"

    padding_multiple: Annotated[int, Field(ge=1), Role.FREE] = 1
    static_shapes: Annotated[bool, Role.FREE] = False


PRESETS: Mapping[str, Mapping[str, Setting]] = {
    "full": {},
    "demo": {
        "resolution": 64,
        "backbone": "resnet18",
        "encoder_layers": 1,
        "decoder_layers": 2,
        "queries": 25,
        "epochs": 24,
        "lr_drop_epochs": 20,
        "evaluate_every_epochs": 2,
        "batch_size": 8,
        "eval_batch_size": 8,
        "backbone_weights": "",
        "backbone_lr_factor": 1.0,
        "dropout": 0.0,
        "measure_window_steps": 10,
    },
    "tiny": {
        "resolution": 64,
        "epochs": 2,
        "batch_size": 2,
        "eval_batch_size": 2,
        "backbone_weights": "",
        "measure_warmup_steps": 1,
        "measure_window_steps": 2,
        "measure_core_steps": 1,
    },
}
"""``full``: the benchmark. ``demo``: learns on a few CPU cores. ``tiny``: only shows that all parts run.

Every preset keeps all parts of the model. ``tiny`` keeps their sizes too; ``demo`` has a smaller backbone, fewer layers
and fewer queries: from new weights, the full depth does not learn within the minutes of a demonstration.
"""

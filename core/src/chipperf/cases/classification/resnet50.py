"""ResNet50 on ImageNet2012.

Base values and target come from FlagPerf's ``training/benchmarks/resnet50/pytorch/config/_base.py``.
"""

from __future__ import annotations

from chipperf.cases.classification.case import classification_case
from chipperf.cases.classification.case_data import IMAGENET2012
from chipperf.cases.classification.hyperparameters import ClassificationHyperparameters

CASE = classification_case(
    name="resnet50",
    version="1.0",
    summary="ResNet50 image classification, SGD, ImageNet2012",
    model_title="resnet50",
    base=ClassificationHyperparameters(
        model="resnet50",
        dataset=IMAGENET2012.reference.name,
        target=0.755,
        epochs=100,
        weight_decay=1e-4,
        lr_step_epochs=30,
        lr_gamma=0.1,
        batch_size=32,
        lr=0.1,
        eval_batch_size=32,
        seed=0,
        deterministic=True,
    ),
    forward_flops=8.18e9,
)

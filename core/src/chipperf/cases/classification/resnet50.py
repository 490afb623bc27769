"""ResNet50 on ImageNet2012.

Base values and target are those of FlagPerf's ``training/benchmarks/resnet50/pytorch/config/_base.py``.
"""

from __future__ import annotations

from chipperf.cases.base import Case
from chipperf.cases.classification.case_parts import (
    classification_report,
    ensure_classification_sample,
    load_classification_workload,
)
from chipperf.cases.classification.hyperparameters import PRESETS, ClassificationHyperparameters

CASE = Case(
    name="resnet50",
    version="1.0",
    summary="ResNet50 image classification, SGD, ImageNet2012",
    base=ClassificationHyperparameters(
        model="resnet50",
        dataset="imagenet2012",
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
    presets=PRESETS,
    metric="top1",
    report=classification_report("resnet50"),
    load_workload=load_classification_workload,
    forward_flops=8.18e9,
    ensure_sample=ensure_classification_sample,
)

"""MobileNetV2 on ImageNet2012.

Base values and target are those of FlagPerf's ``training/benchmarks/mobilenetv2/pytorch/config/_base.py``.
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
    name="mobilenetv2",
    version="1.0",
    summary="MobileNetV2 image classification, SGD, ImageNet2012",
    base=ClassificationHyperparameters(
        model="mobilenet_v2",
        dataset="imagenet2012",
        target=0.686,
        epochs=300,
        weight_decay=4e-5,
        lr_step_epochs=1,
        lr_gamma=0.98,
        batch_size=8,
        lr=0.045,
        eval_batch_size=8,
        seed=41,
    ),
    presets=PRESETS,
    metric="top1",
    report=classification_report("MobilenetV2"),
    load_workload=load_classification_workload,
    forward_flops=0.602e9,
    ensure_sample=ensure_classification_sample,
)

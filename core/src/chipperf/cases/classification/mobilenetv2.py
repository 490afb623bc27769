"""MobileNetV2 on ImageNet2012.

Base values and target come from FlagPerf's ``training/benchmarks/mobilenetv2/pytorch/config/_base.py``.
"""

from __future__ import annotations

from chipperf.cases.classification.case import classification_case
from chipperf.cases.classification.case_data import IMAGENET2012
from chipperf.cases.classification.hyperparameters import ClassificationHyperparameters

CASE = classification_case(
    name="mobilenetv2",
    version="1.0",
    summary="MobileNetV2 image classification, SGD, ImageNet2012",
    model_title="MobilenetV2",
    base=ClassificationHyperparameters(
        model="mobilenet_v2",
        dataset=IMAGENET2012.reference.name,
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
    forward_flops=0.602e9,
)

"""ResNet50 and MobileNetV2 on ImageNet2012.

Base values and targets come from FlagPerf's ``training/benchmarks/NAME/pytorch/config/_base.py``.
"""

from __future__ import annotations

from chipperf.cases.base import Case, ReportProfile, WorkloadFactory
from chipperf.cases.classification.case_data import IMAGENET2012
from chipperf.cases.classification.hyperparameters import PRESETS, ClassificationHyperparameters
from chipperf.plugin.types import Title


def _load_workload() -> WorkloadFactory:
    from chipperf.cases.classification.workload import ClassificationWorkload

    return ClassificationWorkload


def _case(
    name: str, base: ClassificationHyperparameters, *, model: str, model_title: str, forward_flops: float
) -> Case:
    return Case(
        name=name,
        version="1.0",
        summary=f"{model} image classification, SGD, ImageNet2012",
        base=base,
        presets=PRESETS,
        metric="top1",
        report=ReportProfile(
            model_title=model_title,
            task=Title(en="Image classification"),
            quality_column="acc",
            quality_legend=Title(en="top-1 accuracy (acc1)"),
            sample_noun=Title(en="images"),
        ),
        data=IMAGENET2012,
        load_workload=_load_workload,
        forward_flops=forward_flops,
    )


RESNET50 = _case(
    "resnet50",
    ClassificationHyperparameters(
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
    model="ResNet50",
    model_title="resnet50",
    forward_flops=8.18e9,
)

MOBILENETV2 = _case(
    "mobilenetv2",
    ClassificationHyperparameters(
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
    model="MobileNetV2",
    model_title="MobilenetV2",
    forward_flops=0.602e9,
)

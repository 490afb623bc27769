"""ResNet50 and MobileNetV2 on ImageNet2012, with one directory of images per class.

Base values and targets come from FlagPerf's ``training/benchmarks/NAME/pytorch/config/_base.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from chipperf.cases.base import Case, CaseData, ReportProfile, WorkloadFactory
from chipperf.cases.classification.hyperparameters import PRESETS, ClassificationHyperparameters
from chipperf.data.dataset_identity import ReferenceDataset
from chipperf.plugin.types import Title

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from chipperf.cases.base import Progress, SampleSize
    from chipperf.data.dataset_check import CheckReport

_FEW_CLASSES: Final = 4
_WIDTH_HEIGHT: Final = {"tiny": (128, 96), "real": (500, 375)}
"""Width and height in pixels; ``real`` is the usual size of ImageNet's photographs."""


def _check(root: Path, expected: ReferenceDataset | None, *, full: bool, progress: Progress) -> CheckReport:
    from chipperf.data.imagefolder import check_imagefolder

    return check_imagefolder(root, expected, full=full, progress=progress)


def _ensure_sample(progress: Progress, root: Path | None = None, options: Mapping[str, Any] | None = None) -> Path:
    from chipperf.data.sample import SampleOptions, ensure_sample_dataset

    return ensure_sample_dataset(SampleOptions(**(options or {})), root, progress)


def _ensure_few_samples(samples: int, size: SampleSize, root: Path | None = None) -> Path:
    from chipperf.data.sample import SampleOptions, ensure_sample_dataset

    width, height = _WIDTH_HEIGHT[size]
    per_class = -(-samples // _FEW_CLASSES)
    options = SampleOptions(
        classes=_FEW_CLASSES, train_per_class=per_class, val_per_class=1, width=width, height=height
    )
    return ensure_sample_dataset(options, root)


IMAGENET2012: Final = CaseData(
    reference=ReferenceDataset(
        name="imagenet2012", title="ImageNet2012", train_samples=1_281_167, eval_samples=50_000, classes=1000
    ),
    parts=("train", "val"),
    check=_check,
    ensure_sample=_ensure_sample,
    sample_options=("classes", "train_per_class", "val_per_class"),
    ensure_few_samples=_ensure_few_samples,
)


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

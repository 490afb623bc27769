"""What the image classification cases share beside their hyperparameters: their wording, sample and workload."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chipperf.cases.base import Progress, ReportProfile, WorkloadFactory
from chipperf.plugin.types import Title

if TYPE_CHECKING:
    from pathlib import Path


def classification_report(model_title: str) -> ReportProfile:
    """Return how a report speaks of a classification case whose model is called ``model_title``."""
    return ReportProfile(
        model_title=model_title,
        dataset_title="ImageNet2012",
        task=Title(zh="图像分类", en="Image classification"),
        quality_column="acc",
        quality_legend=Title(zh="单位为top1分类准确率(acc1)", en="top-1 accuracy (acc1)"),
        sample_noun=Title(zh="图片", en="images"),
    )


def load_classification_workload() -> WorkloadFactory:
    """Import torch and return the factory that every classification case uses."""
    from chipperf.cases.classification.workload import ClassificationWorkload

    return ClassificationWorkload


def ensure_classification_sample(progress: Progress) -> Path:
    """Generate the sample dataset of images in class directories and return its directory."""
    from chipperf.data.sample import ensure_sample_dataset

    return ensure_sample_dataset(progress=progress)

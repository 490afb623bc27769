"""Construction of image classification cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chipperf.cases.base import Case, ReportProfile, WorkloadFactory
from chipperf.cases.classification.case_data import IMAGENET2012
from chipperf.cases.classification.hyperparameters import PRESETS
from chipperf.plugin.types import Title

if TYPE_CHECKING:
    from chipperf.cases.classification.hyperparameters import ClassificationHyperparameters


def classification_case(
    *,
    name: str,
    version: str,
    summary: str,
    model_title: str,
    base: ClassificationHyperparameters,
    forward_flops: float,
) -> Case:
    """Return a case that trains a torchvision classifier on ImageNet2012; see :class:`.base.Case`."""
    return Case(
        name=name,
        version=version,
        summary=summary,
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


def _load_workload() -> WorkloadFactory:
    from chipperf.cases.classification.workload import ClassificationWorkload

    return ClassificationWorkload

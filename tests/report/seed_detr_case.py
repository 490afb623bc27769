"""The DETR case of the seed document, as far as a report needs it; installed by a test as a distribution."""

from __future__ import annotations

from typing import NoReturn

from chipperf.cases.base import Case, Hyperparameters, ReportProfile
from chipperf.types import Title


def _load_workload() -> NoReturn:
    raise NotImplementedError("this case is only reported")


CASE = Case(
    name="detr",
    version="1.0",
    summary="DETR object detection, COCO 2017",
    base=Hyperparameters(
        model="detr", dataset="coco2017", target=0.42, epochs=300, batch_size=128, lr=1e-4, eval_batch_size=128, seed=42
    ),
    presets={"full": {}},
    metric="mAP",
    report=ReportProfile(
        model_title="detr",
        dataset_title="coco2017",
        task=Title(zh="目标检测、全景分割", en="Object detection, panoptic segmentation"),
        quality_column="mAP",
        quality_legend=Title(zh="所有类别的 Average Precision（平均精度）的均值", en="mean average precision"),
        sample_noun=Title(zh="样本", en="samples"),
        quality_as_percent=False,
    ),
    load_workload=_load_workload,
)

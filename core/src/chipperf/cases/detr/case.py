"""DETR on COCO 2017.

Base values and target are those of FlagPerf's ``training/benchmarks/detr/pytorch/config/_base.py``, which are the
reference's (Carion et al., 2020) but for the batch size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chipperf.cases.base import Case, Progress, ReportProfile, WorkloadFactory
from chipperf.cases.detr.hyperparameters import PRESETS, DetrHyperparameters
from chipperf.plugin.types import Title

if TYPE_CHECKING:
    from pathlib import Path


def _load_workload() -> WorkloadFactory:
    from chipperf.cases.detr.workload import DetrWorkload

    return DetrWorkload


def _ensure_sample(progress: Progress) -> Path:
    from chipperf.data.coco_sample import ensure_coco_sample

    return ensure_coco_sample(progress=progress)


CASE = Case(
    name="detr",
    version="1.0",
    summary="DETR object detection and panoptic segmentation, AdamW, COCO 2017",
    base=DetrHyperparameters(
        model="detr",
        dataset="coco2017",
        target=0.42,
        epochs=300,
        batch_size=128,
        lr=1e-4,
        eval_batch_size=128,
        seed=42,
    ),
    presets=PRESETS,
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
    ensure_sample=_ensure_sample,
)

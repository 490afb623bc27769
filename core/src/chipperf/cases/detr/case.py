"""DETR on COCO 2017.

Base values and target come from FlagPerf's ``training/benchmarks/detr/pytorch/config/_base.py``. They equal the values
of the reference (Carion et al., 2020), except the batch size.
"""

from __future__ import annotations

from chipperf.cases.base import Case, ReportProfile, WorkloadFactory
from chipperf.cases.detr.case_data import COCO2017
from chipperf.cases.detr.hyperparameters import PRESETS, DetrHyperparameters
from chipperf.plugin.types import Title


def _load_workload() -> WorkloadFactory:
    from chipperf.cases.detr.workload import DetrWorkload

    return DetrWorkload


CASE = Case(
    name="detr",
    version="1.0",
    summary="DETR object detection and panoptic segmentation, AdamW, COCO 2017",
    base=DetrHyperparameters(
        model="detr",
        dataset=COCO2017.reference.name,
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
        task=Title(en="Object detection, panoptic segmentation"),
        quality_column="mAP",
        quality_legend=Title(en="mean average precision"),
        sample_noun=Title(en="samples"),
        quality_as_percent=False,
    ),
    data=COCO2017,
    load_workload=_load_workload,
)

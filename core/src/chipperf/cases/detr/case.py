"""DETR on COCO 2017, with annotations of instances and of panoptic segments.

Base values and target come from FlagPerf's ``training/benchmarks/detr/pytorch/config/_base.py``. They equal the values
of the reference (Carion et al., 2020), except the batch size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from chipperf.cases.base import Case, CaseData, ReportProfile, WorkloadFactory
from chipperf.cases.detr.hyperparameters import PRESETS, DetrHyperparameters
from chipperf.data.dataset_identity import ReferenceDataset
from chipperf.errors import UsageError, did_you_mean
from chipperf.plugin.types import Title

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from chipperf.cases.base import Progress, SampleSize
    from chipperf.data.dataset_check import CheckReport

_WIDTH_HEIGHT: Final = {"tiny": (128, 96), "real": (640, 480)}
"""Width and height in pixels; ``real`` is the usual size of COCO's photographs."""


def _check(root: Path, expected: ReferenceDataset | None, *, full: bool, progress: Progress) -> CheckReport:
    from chipperf.data.coco import check_coco

    return check_coco(root, expected, full=full, progress=progress)


def _ensure_sample(progress: Progress, root: Path | None = None, options: Mapping[str, Any] | None = None) -> Path:
    from chipperf.data.coco_sample import SIZES, ensure_coco_sample

    size = (options or {}).get("size", "demo")
    if size not in SIZES:
        raise UsageError(f"unknown size {size!r}{did_you_mean(size, SIZES)}", hint=f"sizes: {', '.join(SIZES)}")
    return ensure_coco_sample(SIZES[size], root, progress)


def _ensure_few_samples(samples: int, size: SampleSize, root: Path | None = None) -> Path:
    from chipperf.data.coco_sample import CocoSampleOptions, ensure_coco_sample

    width, height = _WIDTH_HEIGHT[size]
    return ensure_coco_sample(CocoSampleOptions(train_samples=samples, val_samples=1, width=width, height=height), root)


COCO2017: Final = CaseData(
    # The classes are the categories of things.
    reference=ReferenceDataset(
        name="coco2017", title="coco2017", train_samples=118_287, eval_samples=5_000, classes=80
    ),
    check=_check,
    ensure_sample=_ensure_sample,
    sample_options=("size",),
    ensure_few_samples=_ensure_few_samples,
)


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

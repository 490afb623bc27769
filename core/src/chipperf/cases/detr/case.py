"""DETR on COCO 2017: boxes of objects, their masks too, or panoptic segments.

The base values of ``detr`` and its target come from FlagPerf's ``training/benchmarks/detr/pytorch/config/_base.py``.
They equal the values of the reference (Carion et al., 2020, and its repository facebookresearch/detr), except the batch
size. The other cases have the reference's batch size, and the quality of its panoptic model with ResNet-50 as targets.

They train boxes and masks jointly. The reference trains the mask head afterwards, on frozen weights; the paper (section
4.4) finds similar results for both. :meth:`.PanopticSplit.objects` says how the segments differ.
"""

from __future__ import annotations

from functools import partial
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
    from chipperf.data.coco import TargetKind
    from chipperf.data.dataset_check import CheckReport

_WIDTH_HEIGHT: Final = {"tiny": (128, 96), "real": (640, 480)}
"""Width and height in pixels; ``real`` is the usual size of COCO's photographs."""


def _check(
    kind: TargetKind, root: Path, expected: ReferenceDataset | None, *, full: bool, progress: Progress
) -> CheckReport:
    from chipperf.data.coco import check_coco

    return check_coco(root, expected, kind=kind, full=full, progress=progress)


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


def _load_workload() -> WorkloadFactory:
    from chipperf.cases.detr.workload import DetrWorkload

    return DetrWorkload


def _case(
    name: str, kind: TargetKind, *, what: str, task: Title, metric: str, legend: Title, target: float, batch_size: int
) -> Case:
    data = CaseData(
        # The classes are the categories of things.
        reference=ReferenceDataset(
            name="coco2017", title="coco2017", train_samples=118_287, eval_samples=5_000, classes=80
        ),
        parts=("train2017", "val2017", "annotations"),
        check=partial(_check, kind),
        ensure_sample=_ensure_sample,
        sample_options=("size",),
        ensure_few_samples=_ensure_few_samples,
    )
    return Case(
        name=name,
        version="1.0",
        summary=f"DETR {what}, AdamW, COCO 2017",
        base=DetrHyperparameters(
            model="detr",
            dataset=data.reference.name,
            target=target,
            epochs=300,
            batch_size=batch_size,
            lr=1e-4,
            eval_batch_size=batch_size,
            seed=42,
            targets=kind,
        ),
        presets=PRESETS,
        metric=metric,
        report=ReportProfile(
            model_title=name,
            task=task,
            quality_column=metric,
            quality_legend=legend,
            sample_noun=Title(en="samples"),
            quality_as_percent=False,
        ),
        data=data,
        load_workload=_load_workload,
    )


DETR: Final = _case(
    "detr",
    "boxes",
    what="object detection",
    # FlagPerf's name for the task of its case, which trains boxes.
    task=Title(en="Object detection, panoptic segmentation"),
    metric="mAP",
    legend=Title(en="mean average precision"),
    target=0.42,
    batch_size=128,
)

DETR_MASKS: Final = _case(
    "detr_masks",
    "masks",
    what="instance segmentation",
    task=Title(en="Instance segmentation"),
    metric="segm_mAP",
    legend=Title(en="mean average precision of masks"),
    target=0.314,
    batch_size=2,
)

DETR_PANOPTIC: Final = _case(
    "detr_panoptic",
    "panoptic",
    what="panoptic segmentation",
    task=Title(en="Panoptic segmentation"),
    metric="PQ",
    legend=Title(en="panoptic quality"),
    target=0.44,
    batch_size=2,
)

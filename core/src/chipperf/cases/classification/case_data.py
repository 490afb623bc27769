"""Data of the image classification cases: ImageNet2012, with one directory of images per class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from chipperf.cases.case_data import CaseData
from chipperf.data.dataset_identity import ReferenceDataset

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from chipperf.cases.case_data import Progress, SampleSize
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
    check=_check,
    ensure_sample=_ensure_sample,
    sample_options=("classes", "train_per_class", "val_per_class"),
    ensure_few_samples=_ensure_few_samples,
)

"""The case ``gpt2``: GPT-2 on OpenWebText, in tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from chipperf import Title
from chipperf.cases.base import Case, CaseData, ReportProfile, WorkloadFactory
from chipperf.data.dataset_identity import ReferenceDataset

from chipperf_lm.hyperparameters import BASE, PRESETS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from chipperf.cases.base import Progress, SampleSize
    from chipperf.data.dataset_check import CheckReport


def _check(root: Path, expected: ReferenceDataset | None, *, full: bool, progress: Progress) -> CheckReport:
    from chipperf_lm.tokens import check_tokens

    return check_tokens(root, expected, full=full, progress=progress)


def _ensure_sample(progress: Progress, root: Path | None = None, options: Mapping[str, Any] | None = None) -> Path:
    from chipperf_lm.sample import ensure_text_sample

    return ensure_text_sample(progress, root, options)


def _ensure_few_samples(samples: int, size: SampleSize, root: Path | None = None) -> Path:
    from chipperf_lm.sample import ensure_few_tokens

    preset = PRESETS["tiny" if size == "tiny" else "full"]
    return ensure_few_tokens(samples, int(preset.get("sequence_length", BASE.sequence_length)), root)


def _load_workload() -> WorkloadFactory:
    from chipperf_lm.workload import GptWorkload

    return GptWorkload


GPT2: Final = Case(
    name="gpt2",
    version="1.0",
    summary="GPT-2 124M language model, AdamW, OpenWebText",
    base=BASE,
    presets=PRESETS,
    metric="loss",
    lower_is_better=True,
    report=ReportProfile(
        model_title="GPT-2",
        task=Title(zh="语言模型预训练", en="Language model pretraining"),
        quality_column="val_loss",
        quality_legend=Title(
            zh="验证集每 token 交叉熵（nat），越低越好", en="validation loss in nats per token, lower is better"
        ),
        sample_noun=Title(zh=" token ", en="tokens"),
        quality_as_percent=False,
    ),
    data=CaseData(
        # Tokens of nanoGPT's data/openwebtext, each but the first predicted once.
        reference=ReferenceDataset(
            name=BASE.dataset,
            title="OpenWebText",
            train_samples=9_035_582_198 - 1,
            eval_samples=4_434_897 - 1,
            classes=None,
        ),
        check=_check,
        ensure_sample=_ensure_sample,
        sample_options=("size",),
        ensure_few_samples=_ensure_few_samples,
    ),
    load_workload=_load_workload,
    forward_flops=BASE.forward_flops,
)

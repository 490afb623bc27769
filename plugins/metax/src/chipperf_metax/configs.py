"""What FlagPerf's C500 (64 GiB) configurations set, by case and topology (nodes x devices per node).

Values are those of FlagPerf's ``training/metax/<case>-pytorch/config`` files; memory figures in the reasons are from
its READMEs. A topology without a row has no configuration there.
"""

from __future__ import annotations

from typing import Final

from chipperf import CaseOverride, CaseOverrides

_TF32 = (
    "FlagPerf turns TF32 on for this case with METAX_USE_TF32=1 and reports it as fp32; here TF32 runs only with "
    "--precision tf32"
)


def _shortened(flagperf_epochs: int, epochs: int) -> str:
    return (
        f"FlagPerf's configuration shortens training to {flagperf_epochs} of {epochs} epochs; epochs are locked, so "
        f"use --max-epochs {flagperf_epochs} to reproduce it: the report declares a shortened run"
    )


CONFIGS: Final[dict[tuple[str, str], CaseOverrides]] = {
    ("resnet50", "1x1"): CaseOverrides(
        overrides=(
            CaseOverride(key="batch_size", value=256, reason="29.3 GiB of the C500's 64 GiB in use"),
            CaseOverride(key="eval_batch_size", value=256, reason="evaluates with the training batch"),
            CaseOverride(key="lr", value=0.8, reason="8 times the base lr for 8 times the base batch per device"),
        ),
        notes=(_TF32, _shortened(6, 100)),
    ),
    ("resnet50", "1x8"): CaseOverrides(
        overrides=(
            CaseOverride(key="batch_size", value=128, reason="19.3 GiB of the C500's 64 GiB in use"),
            CaseOverride(key="eval_batch_size", value=128, reason="evaluates with the training batch"),
            CaseOverride(key="lr", value=0.4, reason="4 times the base lr for 4 times the base batch per device"),
        ),
        notes=(_TF32,),
    ),
    ("resnet50", "2x8"): CaseOverrides(
        overrides=(
            CaseOverride(key="batch_size", value=256, reason="32.2 GiB of the C500's 64 GiB in use"),
            CaseOverride(key="eval_batch_size", value=256, reason="evaluates with the training batch"),
            CaseOverride(key="lr", value=0.8, reason="8 times the base lr for 8 times the base batch per device"),
        ),
        notes=(_TF32,),
    ),
    ("mobilenetv2", "1x1"): CaseOverrides(
        overrides=(
            CaseOverride(key="batch_size", value=704, reason="59.3 GiB of the C500's 64 GiB in use"),
            CaseOverride(key="eval_batch_size", value=704, reason="evaluates with the training batch"),
            CaseOverride(key="lr", value=0.72, reason="16 times the base lr of 0.045, for the larger batch"),
        ),
        notes=(_TF32, _shortened(10, 300)),
    ),
    ("mobilenetv2", "1x8"): CaseOverrides(
        overrides=(
            CaseOverride(key="batch_size", value=704, reason="62.2 GiB of the C500's 64 GiB in use"),
            CaseOverride(key="eval_batch_size", value=704, reason="evaluates with the training batch"),
            CaseOverride(key="lr", value=0.72, reason="16 times the base lr of 0.045, for the larger batch"),
        ),
        notes=(_TF32,),
    ),
    ("mobilenetv2", "2x8"): CaseOverrides(
        overrides=(
            CaseOverride(key="batch_size", value=640, reason="58.7 GiB of the C500's 64 GiB in use"),
            CaseOverride(key="eval_batch_size", value=640, reason="evaluates with the training batch"),
            CaseOverride(key="lr", value=0.72, reason="16 times the base lr of 0.045, for 16 devices"),
        ),
        notes=(_TF32, _shortened(100, 300)),
    ),
    ("detr", "1x1"): CaseOverrides(
        overrides=(
            CaseOverride(key="batch_size", value=8, reason="60.7 GiB of the C500's 64 GiB in use"),
            CaseOverride(key="eval_batch_size", value=8, reason="evaluates with the training batch"),
        ),
        notes=(_TF32,),
    ),
    ("detr", "1x8"): CaseOverrides(
        overrides=(
            CaseOverride(key="batch_size", value=8, reason="57.2 GiB of the C500's 64 GiB in use"),
            CaseOverride(key="eval_batch_size", value=8, reason="evaluates with the training batch"),
        ),
        notes=(_TF32,),
    ),
    ("detr", "2x8"): CaseOverrides(
        overrides=(
            CaseOverride(key="batch_size", value=8, reason="46.3 GiB of the C500's 64 GiB in use"),
            CaseOverride(key="eval_batch_size", value=8, reason="evaluates with the training batch"),
        ),
        notes=(_TF32,),
    ),
}
"""Overrides by case name and topology."""

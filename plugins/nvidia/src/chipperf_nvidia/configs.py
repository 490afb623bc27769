"""What FlagPerf's A100 (40 GiB) configurations set, by case and topology (nodes x devices per node).

Values are those of FlagPerf's ``training/nvidia/<case>-pytorch/config`` files; memory figures in the reasons are from
its READMEs. A topology without a row has no configuration there.
"""

from __future__ import annotations

from typing import Final

from chipperf import CaseOverride, CaseOverrides

CONFIGS: Final[dict[tuple[str, str], CaseOverrides]] = {
    ("resnet50", "1x1"): CaseOverrides(
        overrides=(
            CaseOverride(key="batch_size", value=256, reason="27.6 GiB of the A100's 40 GiB in use"),
            CaseOverride(key="eval_batch_size", value=256, reason="evaluates with the training batch"),
            CaseOverride(key="lr", value=0.8, reason="8 times the base lr for 8 times the base batch per device"),
        ),
    ),
    ("resnet50", "1x8"): CaseOverrides(
        overrides=(
            CaseOverride(key="batch_size", value=32, reason="FlagPerf's reference run on 8 A100: the base batch"),
            CaseOverride(key="eval_batch_size", value=32, reason="evaluates with the training batch"),
            CaseOverride(key="lr", value=0.1, reason="FlagPerf's reference run on 8 A100: the base lr"),
        ),
    ),
    ("resnet50", "2x8"): CaseOverrides(
        overrides=(
            CaseOverride(key="batch_size", value=256, reason="27.9 GiB of the A100's 40 GiB in use"),
            CaseOverride(key="eval_batch_size", value=256, reason="evaluates with the training batch"),
            CaseOverride(key="lr", value=0.8, reason="8 times the base lr for 8 times the base batch per device"),
        ),
    ),
    ("mobilenetv2", "1x1"): CaseOverrides(
        overrides=(
            CaseOverride(key="batch_size", value=256, reason="FlagPerf's A100 configuration; the base is 8"),
            CaseOverride(key="eval_batch_size", value=128, reason="FlagPerf's A100 configuration"),
            CaseOverride(key="lr", value=0.36, reason="8 times the base lr of 0.045, for the larger batch"),
        ),
        notes=(
            "FlagPerf's README publishes this row with batch_size 512 and lr 0.72; its configuration sets these values",
        ),
    ),
    ("mobilenetv2", "1x8"): CaseOverrides(
        overrides=(
            CaseOverride(key="batch_size", value=32, reason="FlagPerf's reference run on 8 A100: 4.9 GiB of 40 GiB"),
            CaseOverride(key="eval_batch_size", value=32, reason="evaluates with the training batch"),
        ),
    ),
    ("mobilenetv2", "2x8"): CaseOverrides(
        notes=(
            "FlagPerf has no NVIDIA configuration of mobilenetv2 on 2x8: the case's base values apply",
            "FlagPerf's README publishes this row with batch_size 512 and lr 0.72",
        ),
    ),
    ("detr", "1x1"): CaseOverrides(
        overrides=(
            CaseOverride(key="batch_size", value=8, reason="38.2 GiB of the A100's 40 GiB in use"),
            CaseOverride(key="eval_batch_size", value=8, reason="evaluates with the training batch"),
        ),
    ),
    ("detr", "1x8"): CaseOverrides(
        overrides=(
            CaseOverride(key="batch_size", value=8, reason="37.2 GiB of the A100's 40 GiB in use"),
            CaseOverride(key="eval_batch_size", value=8, reason="evaluates with the training batch"),
        ),
    ),
    ("detr", "2x8"): CaseOverrides(
        overrides=(
            CaseOverride(key="batch_size", value=8, reason="39.6 GiB of the A100's 40 GiB in use"),
            CaseOverride(key="eval_batch_size", value=8, reason="evaluates with the training batch"),
        ),
    ),
}
"""Overrides by case name and topology."""

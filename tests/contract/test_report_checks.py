"""Which texts of a report mention another vendor."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest
from chipperf.contract.check import Failed
from chipperf.contract.checks import report_checks
from chipperf.contract.plugin_under_test import PluginUnderTest
from chipperf.plugin.installed import find_vendor
from chipperf.plugin.types import EnvironmentSettings, Rank

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("on an A100.", True),
        ("A100-SXM4", True),
        ("在A100上运行", True),
        ("on a BI-V150", True),
        ("天数智芯", True),
        ("in 910 steps", False),
        ("nvidia", True),
        ("NVIDIA_TF32_OVERRIDE=0", False),
        ("PERF_NVIDIA_A100", False),
        ("A1000", False),
    ],
)
def test_other_vendors_are_mentioned_by_words_and_not_by_variables(
    text: str, mentions: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = PluginUnderTest(
        find_vendor("cpu"), Rank(), EnvironmentSettings(case="resnet50", precision="fp32"), tmp_path
    )
    monkeypatch.setattr(report_checks, "_render", lambda *_: text)

    with pytest.raises(Failed, match="of (nvidia|iluvatar)") if mentions else nullcontext():
        report_checks.report_names_no_other_vendor.function(subject)

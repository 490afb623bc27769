"""docs/verify.md shows what is really written and computed."""

from __future__ import annotations

import re
import subprocess

from chipperf.records.withholding import commitment
from chipperf.report.provenance import ReportCell
from documents import ROOT, blocks

PATH = ROOT / "docs" / "verify.md"


def test_example_of_a_cell_is_one():
    (example,) = blocks(PATH, "json")
    assert ReportCell.model_validate_json(example).sources


def test_example_of_a_commitment_gives_what_chipperf_computes():
    (example,) = blocks(PATH, "console")
    printed = subprocess.run(
        ["bash", "-c", example.removeprefix("$ ")], capture_output=True, text=True, check=True
    ).stdout
    assert re.match(r"[0-9a-f]{64}", printed)[0] == commitment("r-1", "$.metrics.quality", 0.7561, "0" * 64)

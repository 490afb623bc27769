"""The steps of docs/cases.md lead to a case that keeps the contract."""

from __future__ import annotations

import re

import pytest
from documents import ROOT, blocks
from walkthrough import echoed, follow

PATH = ROOT / "docs" / "cases.md"


@pytest.mark.slow
def test_every_step_leads_on(tmp_path_factory):
    """Slow: makes an environment, builds a wheel, trains, and runs the contract of cases twice."""
    settings, directory = tmp_path_factory.mktemp("settings"), tmp_path_factory.mktemp("tutorial")
    commands = "".join(blocks(PATH, "sh"))
    environment = f"set -e\npython3 -m venv own\nsource own/bin/activate\npip install -q '{ROOT}/core'\n"

    printed = follow("\n".join([environment, *echoed(commands)]), directory, settings)

    (shown,) = blocks(PATH, "text")
    assert printed["perf contract case tabular"].splitlines()[-1] == shown.strip()
    assert "1 passed" in printed["python -m pytest chipperf-tabular"]
    report = (directory / "tabular.zh.md").read_text(encoding="utf-8")
    assert re.search("点分类.*", report)
    assert "每秒点数" in report

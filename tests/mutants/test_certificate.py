"""The equivalence certificate tells a good plugin from one that computes something else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from acme_build import CompilerMissing
from acme_stack import environment, install_plugin
from chipperf.contract.certificate import Certificate
from support import perf_command, run

from mutants.mutant import install_mutant
from mutants.numerics import MUTANTS

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

TIMEOUT_S = 300

STEPS = 3
"""Each of the two batches, and the first one again, on which the loss is seen to fall."""

CASES = ("mobilenetv2",)
"""N5 trains the others."""


def certify(site: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    try:
        variables = environment(site, XDG_CACHE_HOME=str(site))
    except CompilerMissing as error:
        pytest.skip(f"the simulated accelerator cannot be built: {error}")
    command = perf_command("contract", "certify", "--vendor", "acme", "--out", site / "certificate", *arguments)
    return run(command, variables, timeout_s=TIMEOUT_S)


def test_good_plugin_is_certified(tmp_path: Path) -> None:
    install_plugin(tmp_path)
    done = certify(tmp_path, "--steps", STEPS, *(part for case in CASES for part in ("--case", case)))
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "certificate/equivalence.json").read_text(encoding="utf-8")
    comparisons = Certificate.model_validate_json(written).comparisons
    assert [(one.case, one.within, one.falls) for one in comparisons] == [(name, True, True) for name in CASES]
    assert done.stdout.count("within tolerance") == len(comparisons)


def test_mutant_is_not_certified(tmp_path: Path) -> None:
    install_mutant(next(mutant for mutant in MUTANTS if mutant.name == "tf32_as_fp32"), tmp_path)
    done = certify(tmp_path, "--case", "mobilenetv2", "--steps", 1)
    assert done.returncode == 4, done.stderr
    assert "is allowed" in done.stdout

"""The equivalence certificate tells a good plugin from one that computes something else."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from acme_build import CompilerMissing
from acme_stack import environment, install_plugin
from support import perf_command

from mutants.mutant import install_mutant
from mutants.numerics import MUTANTS

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_S = 300
FAULTS = ("tf32_as_fp32", "gradients_are_halved")


def certify(site: Path) -> subprocess.CompletedProcess[str]:
    try:
        variables = environment(site, XDG_CACHE_HOME=str(site))
    except CompilerMissing as error:
        pytest.skip(f"the simulated accelerator cannot be built: {error}")
    arguments = ("--vendor", "acme", "--case", "mobilenetv2", "--steps", 2, "--out", site / "certificate")
    return subprocess.run(
        perf_command("contract", "certify", *arguments),
        env=variables,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def test_good_plugin_is_certified(tmp_path: Path) -> None:
    install_plugin(tmp_path)
    done = certify(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "within tolerance" in done.stdout


@pytest.mark.parametrize("mutant", [each for each in MUTANTS if each.name in FAULTS], ids=lambda mutant: mutant.name)
def test_mutant_is_not_certified(mutant, tmp_path: Path) -> None:
    install_mutant(mutant, tmp_path)
    done = certify(tmp_path)
    assert done.returncode == 4, done.stderr
    assert "are allowed" in done.stdout

"""The checks as pytest items, one per vendor and check: ``pytest --pyargs chipperf.contract --perf-vendor NAME``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chipperf.contract.check import Check, all_checks
from chipperf.contract.check_runner import Runner
from chipperf.contract.statement import judge
from chipperf.contract.waivers import Waiver, read_waivers
from chipperf.plugin.installed import find_vendor


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one item per vendor and check, up to the requested level."""
    level = metafunc.config.getoption("--perf-level")
    vendors = metafunc.config.getoption("--perf-vendor")
    if not vendors:
        pytest.fail("--perf-vendor NAME is missing: name the plugin to check", pytrace=False)
    metafunc.parametrize("vendor", vendors, scope="module")
    metafunc.parametrize("check", [pytest.param(each, id=each.id) for each in all_checks() if each.level <= level])


@pytest.fixture(scope="module")
def runner(vendor: str) -> Iterator[Runner]:
    """Return the runner of the vendor's plugin."""
    with Runner(find_vendor(vendor)) as runner:
        yield runner


@pytest.fixture(scope="module")
def waivers(pytestconfig: pytest.Config) -> dict[str, Waiver]:
    """Return the waivers by check id."""
    path = pytestconfig.getoption("--perf-waivers")
    return read_waivers(path) if path else {}


def test_conforms(runner: Runner, waivers: dict[str, Waiver], check: Check) -> None:
    """Check that the plugin passes the check."""
    waiver = waivers.get(check.id)
    result = runner.run(check)
    judged = judge(result, waiver)
    message = f"{check.id}: {check.summary}\n{judged.message}\n{result.detail}".rstrip()
    if judged.verdict in ("failed", "unexpected_pass"):
        pytest.fail(message, pytrace=False)
    if judged.verdict == "waived" and waiver is not None:
        pytest.xfail(f"{waiver.kind}: {waiver.reason}")
    if judged.verdict != "passed":
        pytest.skip(f"{judged.verdict.replace('_', ' ')}: {judged.message}")

"""The pytest options of the contract suite: ``pytest --pyargs chipperf.contract --perf-vendor NAME``.

The options must come from an installed plugin, because with ``--pyargs`` pytest does not read the options of a
conftest.py (pytest-dev/pytest#1596). Runs of other projects get the options and no other change.
"""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the contract's options."""
    group = parser.getgroup("chipperf", "chipperf contract suite (--pyargs chipperf.contract)")
    group.addoption(
        "--perf-vendor", action="append", default=[], metavar="NAME", help="Vendor plugin to check; may be repeated."
    )
    group.addoption(
        "--perf-level", type=int, choices=(0, 1, 2, 3), default=0, help="Highest level to check; 0 needs no device."
    )
    group.addoption("--perf-waivers", type=Path, metavar="FILE", help="Checks known to fail, as TOML.")


def pytest_configure(config: pytest.Config) -> None:
    """Check that the vendors and the waivers file exist, before pytest collects tests."""
    vendors, waivers = config.getoption("--perf-vendor"), config.getoption("--perf-waivers")
    if not vendors:
        return
    # Imported here, because every run of pytest in the environment imports this module.
    from chipperf.contract.waivers import read_waivers
    from chipperf.errors import PerfError
    from chipperf.plugin.installed import find_vendor

    try:
        for vendor in vendors:
            find_vendor(vendor)
        if waivers is not None:
            read_waivers(waivers)
    except PerfError as error:
        raise pytest.UsageError(f"{error.message}\nhint: {error.hint}") from error

"""The plugin fulfills chipperf's contract, as far as this machine can show it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support import Perf

WAIVERS = Path(__file__).parents[1] / "contract-waivers.toml"


def test_plugin_fulfils_the_contract(perf: Perf) -> None:
    """Level 0 is checked everywhere, the levels above where a card is; ``pytest -rP`` shows the result."""
    completed = perf("contract", "run", "--vendor", "kunlunxin", "--waivers", WAIVERS)

    print(completed.stdout)
    assert completed.returncode == 0, completed.stderr

"""Writes the list of checks into docs/contract.md: ``python docs/generate_contract.py``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf.contract.check import LEVELS
from chipperf.contract.registry import all_checks

if TYPE_CHECKING:
    from chipperf.contract.check import Check

PAGE = Path(__file__).with_name("contract.md")

_LIST = re.compile(r"(?<=<!-- checks: made by docs/generate_contract.py -->\n).*?(?=<!-- /checks -->)", re.DOTALL)


def page() -> str:
    """Return the content of docs/contract.md: what it says now, with the checks of today."""
    content, count = _LIST.subn(lambda _: _table(), PAGE.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(f"{PAGE} does not have the two marks around the list of checks")
    return content


def _table() -> str:
    checks = all_checks()
    counts = ", ".join(f"{sum(check.level == level for check in checks)} at level {level}" for level in LEVELS)
    lines = [
        f"{len(checks)} checks: {counts}.",
        "",
        "| Check | Level | Since | Capability | A conforming plugin | Finds |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_row(check) for check in checks),
    ]
    return "\n".join(lines) + "\n"


def _row(check: Check) -> str:
    capability = f"`{check.capability}`" if check.capability else ""
    cells = (check.id, str(check.level), check.since, capability, _markdown(check.summary), _markdown(check.fault))
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

"""Every check of the contract, in the order of their ids."""

from __future__ import annotations

import importlib
import pkgutil
import re
from functools import cache

from chipperf.contract import checks
from chipperf.contract.check import Check
from chipperf.errors import UsageError, did_you_mean


@cache
def all_checks() -> tuple[Check, ...]:
    """Return every check, ordered by letter and number; imports neither torch nor a plugin."""
    found: dict[str, Check] = {}
    for module in pkgutil.iter_modules(checks.__path__, checks.__name__ + "."):
        for value in vars(importlib.import_module(module.name)).values():
            # A module may import another's check.
            if isinstance(value, Check) and found.setdefault(value.id, value) is not value:
                raise ValueError(f"two checks have the id {value.id}")
    return tuple(sorted(found.values(), key=_order))


def find_check(id: str) -> Check:
    """Return the check called ``id``.

    Raises:
        UsageError: There is none.
    """
    known = {check.id: check for check in all_checks()}
    if id not in known:
        raise UsageError(
            f"there is no check {id!r}{did_you_mean(id, known)}", hint="'perf contract list' prints all of them"
        )
    return known[id]


def _order(check: Check) -> tuple[str, int]:
    letter, number = re.fullmatch(r"([A-Z])(\d+)", check.id).groups()  # type: ignore[union-attr]
    return letter, int(number)

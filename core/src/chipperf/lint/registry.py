"""Every rule, in the order of their ids."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING

from chipperf.errors import UsageError, did_you_mean
from chipperf.lint import rules
from chipperf.lint.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Sequence


@cache
def all_rules() -> tuple[Rule, ...]:
    """Return every rule."""
    found: dict[str, Rule] = {}
    for module in pkgutil.iter_modules(rules.__path__, rules.__name__ + "."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Rule) and found.setdefault(value.id, value) is not value:
                raise ValueError(f"two rules have the id {value.id}")
    return tuple(found[id] for id in sorted(found))


def choose_rules(select: Sequence[str] = (), ignore: Sequence[str] = ()) -> tuple[Rule, ...]:
    """Return the rules that are selected, by default all, without those that are ignored.

    Raises:
        UsageError: A name is no rule's id.
    """
    known = {rule.id: rule for rule in all_rules()}
    for id in (*select, *ignore):
        if id not in known:
            raise UsageError(
                f"there is no rule {id!r}{did_you_mean(id, known)}", hint="'perf lint --list' prints all of them"
            )
    wanted = set(select or known) - set(ignore)
    return tuple(rule for id, rule in known.items() if id in wanted)

"""The first fault that pydantic found in an input, as messages tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import ValidationError


def first_fault(error: ValidationError) -> str:
    """Return the first fault with its place, for example ``status.state: Field required``."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{_place(first['loc'])}: {first['msg']}"


def first_place(error: ValidationError) -> str:
    """Return the place of the first fault: keys and indices joined by dots, or ``top level``."""
    return _place(error.errors(include_url=False, include_input=False)[0]["loc"])


def _place(steps: Iterable[int | str]) -> str:
    return ".".join(map(str, steps)) or "top level"

"""Commands that run in the test's own process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


class Invoke(Protocol):
    """Runs ``perf`` in this process."""

    def __call__(self, *arguments: object) -> Ended: ...

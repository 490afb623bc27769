"""What a rule says: a problem with its place, or that the evidence is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from chipperf.documents.markdown import Place


Severity = Literal["error", "warning"]


class NotChecked(Exception):
    """The evidence that a rule needs is not there; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A place at which a document breaks a rule.

    Attributes:
        place: Line and column.
        message: What is wrong there, with the values that are.
        severity: The rule's own if ``None``.
    """

    place: Place
    message: str
    severity: Severity | None = None

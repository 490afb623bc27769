"""The results of a rule: a problem with its place, or missing evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from chipperf.documents.markdown import Place


Severity = Literal["error", "warning"]


class NotChecked(Exception):
    """The evidence that a rule needs is missing. The message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A place at which a document breaks a rule.

    Attributes:
        place: Line and column.
        message: Description of the fault, with the values in the document.
        severity: Severity; ``None`` is the rule's own.
    """

    place: Place
    message: str
    severity: Severity | None = None

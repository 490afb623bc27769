"""Catalogs of functions that have a stable id: contract checks and lint rules."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from chipperf.errors import UsageError, did_you_mean


class Entry(Protocol):
    """An entry of a catalog. Its ``id`` is letters and a number, for example ``M4`` or ``L04``."""

    @property
    def id(self) -> str:
        """Stable name. It is never reused for another entry."""


EntryT = TypeVar("EntryT", bound=Entry)


@dataclass(eq=False)
class Catalog(Generic[EntryT]):
    """All entries of one kind that the modules of a package define.

    The modules of ``package`` are imported on the first use of the entries. For messages, ``noun`` is the word for an
    entry, and ``listing`` the command that prints all of them.
    """

    package: str
    kind: type[EntryT]
    noun: str
    listing: str
    _entries: dict[str, EntryT] = field(default_factory=dict, init=False)

    def entries(self) -> dict[str, EntryT]:
        """Return every entry by its id, ordered by letters and number. Two entries must not have the same id."""
        if not self._entries:
            found: dict[str, EntryT] = {}
            for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__, f"{self.package}."):
                for value in vars(importlib.import_module(module.name)).values():
                    # A module may import another module's entry.
                    if isinstance(value, self.kind) and found.setdefault(value.id, value) is not value:
                        raise ValueError(f"two {self.noun}s have the id {value.id}")
            self._entries = {id: found[id] for id in sorted(found, key=_order)}
        return self._entries

    def find(self, id: str) -> EntryT:
        """Return the entry called ``id``.

        Raises:
            UsageError: No entry has this id; the message suggests the nearest one.
        """
        known = self.entries()
        if id not in known:
            raise UsageError(
                f"there is no {self.noun} {id!r}{did_you_mean(id, known)}",
                hint=f"'{self.listing}' prints all of them",
            )
        return known[id]


def require_id(id: str, pattern: str, example: str) -> None:
    """Raise :class:`ValueError` unless ``id`` matches ``pattern``."""
    if not re.fullmatch(pattern, id):
        raise ValueError(f"{id!r} is not an id such as {example!r}")


def summary_of(function: Callable[..., object], id: str) -> str:
    """Return the first line of a function's docstring, which it must have, as the summary of the entry ``id``."""
    documented = inspect.getdoc(function)
    if sys.flags.optimize > 1:  # The source has what python -OO leaves out.
        documented = ast.get_docstring(ast.parse(inspect.getsource(function)).body[0])  # type: ignore[arg-type]
    summary = (documented or "").partition("\n")[0]
    if not summary:
        raise ValueError(f"{id} has no docstring to take its summary from")
    return summary


def _order(id: str) -> tuple[str, int]:
    letters = id.rstrip("0123456789")
    return letters, int(id[len(letters) :])

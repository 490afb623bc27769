"""Run records: reading them from code, their schema, and writing them without losing anything.

The names here are the public interface, see ``docs/records.md``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chipperf.records.rows import UNITS as UNITS
    from chipperf.records.rows import UnreadableRecord as UnreadableRecord
    from chipperf.records.rows import load as load
    from chipperf.records.rows import table as table
    from chipperf.records.schema import Missing as Missing
    from chipperf.records.schema import Record as Record
    from chipperf.records.store import StoredRecord as StoredRecord

_PLACES = {
    **dict.fromkeys(("Missing", "Record"), "schema"),
    "StoredRecord": "store",
    **dict.fromkeys(("UNITS", "UnreadableRecord", "load", "table"), "rows"),
}
"""Module of each public name. Every module of this package imports this one, and few need them."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)

"""The other vendors on this machine, whom a plugin must neither claim nor mention."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from chipperf.errors import PluginError
from chipperf.plugin import installed
from chipperf.plugin.session import bind

if TYPE_CHECKING:
    from chipperf.contract.subject import Subject
    from chipperf.plugin.installed import PluginEntry
    from chipperf.plugin.types import VendorInfo


def other_entries(subject: Subject) -> list[PluginEntry]:
    """Return the installed vendors but the one under test, each name once."""
    entries = {entry.name: entry for entry in installed.vendors() if entry.name != subject.entry.name}
    return list(entries.values())


def other_vendors(subject: Subject) -> list[VendorInfo]:
    """Return what the other vendors say of themselves; the reference is none, and a broken plugin speaks for nobody."""
    found = []
    for entry in other_entries(subject):
        if entry.name != installed.REFERENCE_VENDOR:
            with suppress(PluginError):
                found.append(bind(entry, purpose="inspect").vendor_info())
    return found


def mentions(text: str, name: str) -> bool:
    """Tell whether ``name`` stands in ``text`` as a word of its own, in either case."""
    # A letter of Chinese or Japanese next to a Latin name does not belong to it, although \\w matches it.
    letter = "[A-Za-z0-9_-]" if name.isascii() else r"(?!)"
    return re.search(rf"(?<!{letter}){re.escape(name)}(?!{letter})", text, re.IGNORECASE) is not None

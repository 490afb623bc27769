"""Registry of installed cases: core's cases and those of the entry-point group ``chipperf.cases``."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from chipperf.cases.base import Case
from chipperf.cases.classification.case import MOBILENETV2, RESNET50
from chipperf.cases.detr.case import DETR, DETR_MASKS, DETR_PANOPTIC
from chipperf.errors import PluginError, PluginLoadError, UsageError, did_you_mean
from chipperf.plugin.installed import PluginEntry, entries, load_object
from chipperf.plugin.probe_process import ask

if TYPE_CHECKING:
    from collections.abc import Iterator

ENTRY_POINT_GROUP = "chipperf.cases"

_BUILT_IN = {case.name: case for case in (RESNET50, MOBILENETV2, DETR, DETR_MASKS, DETR_PANOPTIC)}


def case_names() -> tuple[str, ...]:
    """Return the names of all installed cases, core's cases first."""
    added = {entry.name for entry in entries(ENTRY_POINT_GROUP)} - set(_BUILT_IN)
    return (*_BUILT_IN, *sorted(added))


def guarded_cases() -> Iterator[tuple[str, Case | PluginError]]:
    """Yield the name of every installed case with the case, or with what is wrong with it; see :func:`find_case`."""
    yield from _BUILT_IN.items()
    by_name: dict[str, list[PluginEntry]] = {}
    for entry in entries(ENTRY_POINT_GROUP):
        by_name.setdefault(entry.name, []).append(entry)
    for name in sorted(by_name.keys() - _BUILT_IN.keys()):
        try:
            yield name, _load(by_name[name], guarded=True)
        except PluginError as error:
            yield name, error


def find_case(name: str, *, guarded: bool = False) -> Case:
    """Return the case called ``name``. With ``guarded``, an added case is first imported in a child process.

    Raises:
        UsageError: There is no such case; the message suggests the nearest name.
        PluginLoadError: The entry point of an added case is not a :class:`~chipperf.cases.base.Case`, or two
            distributions add a case with that name.
        PluginError: A guarded case ends its process, hangs or prints too much.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    added = [entry for entry in entries(ENTRY_POINT_GROUP) if entry.name == name]
    if added:
        return _load(added, guarded=guarded)
    known = case_names()
    raise UsageError(f"unknown case {name!r}{did_you_mean(name, known)}", hint=f"installed cases: {', '.join(known)}")


_ask_once = cache(ask)


def _load(added: list[PluginEntry], *, guarded: bool) -> Case:
    entry = added[0]
    if len(added) > 1:
        values = " and ".join(each.value for each in added)
        raise PluginLoadError(
            f"case {entry.name!r} is provided more than once: by {values}", hint="uninstall all but one"
        )
    if guarded:
        _ask_once(entry, "load", None)
    case = load_object(entry)
    if not isinstance(case, Case) or case.name != entry.name:
        raise PluginLoadError(
            f"{entry}: {entry.value!r} is not a Case of that name",
            hint="let the entry point name a chipperf Case object",
        )
    return case

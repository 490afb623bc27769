"""Choosing exactly one vendor: the named one, or the only one with devices on this machine."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from chipperf.errors import VendorSelectionError
from chipperf.plugin.installed import (
    REFERENCE_VENDOR,
    VENDOR_VARIABLE,
    PluginEntry,
    ambiguous_vendor,
    find_vendor,
    vendors,
)
from chipperf.plugin.probe_process import probe_vendor, probe_vendors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chipperf.plugin.probe_process import ProbeOutcome
    from chipperf.plugin.types import ProbeResult


AUTO: Final = "auto"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The chosen vendor.

    Attributes:
        entry: The vendor's entry point.
        origin: ``option`` or ``environment`` if the user named the vendor, ``auto`` if only this vendor is available.
        probe: Result of the vendor's probe, with at least one device.
    """

    entry: PluginEntry
    origin: Literal["option", "environment", "auto"]
    probe: ProbeResult


def select_vendor(name: str | None = None) -> Selection:
    """Choose exactly one vendor and check that it has devices on this machine.

    Args:
        name: A vendor's name, ``auto``, or ``None`` for the value of the variable ``PERF_VENDOR`` (default ``auto``).
            ``auto`` chooses the only vendor with devices on this machine, except for the reference.

    Raises:
        VendorSelectionError: The vendor is not installed or not available. For ``auto``: no vendor or several vendors
            are available.
        PluginLoadError: The named vendor's plugin is broken.
        VendorHookError: The named vendor's probe raises or does not return.
    """
    wanted = name or os.environ.get(VENDOR_VARIABLE) or AUTO
    if wanted == AUTO:
        return _select_only_available()
    entry = find_vendor(wanted)
    probe = probe_vendor(entry)
    if not probe.available:
        raise VendorSelectionError(
            f"{entry} is not available: {probe.reason}", hint="'perf doctor' shows what every vendor's probe finds"
        )
    return Selection(entry=entry, origin="option" if name else "environment", probe=probe)


def _select_only_available() -> Selection:
    candidates = [entry for entry in vendors() if entry.name != REFERENCE_VENDOR]
    unique, faults = _split_ambiguous(candidates)
    outcomes = probe_vendors(unique)
    available = [(outcome.entry, outcome.result) for outcome in outcomes if outcome.result and outcome.result.available]
    if len(available) > 1:
        found = "; ".join(f"{entry}: {result.reason}" for entry, result in available)
        raise VendorSelectionError(
            f"several vendors are available: {found}", hint=f"choose one with --vendor NAME or {VENDOR_VARIABLE}"
        )
    faults += [_why_not(outcome) for outcome in outcomes if not outcome.available]
    if not available:
        reasons = "; ".join(faults) or "no vendor plugin is installed"
        raise VendorSelectionError(
            f"no vendor is available: {reasons}",
            hint=f"--vendor {REFERENCE_VENDOR} runs the reference, which is never chosen automatically",
        )
    for fault in faults:
        logger.info("not chosen: %s", fault)
    entry, result = available[0]
    return Selection(entry=entry, origin="auto", probe=result)


def _why_not(outcome: ProbeOutcome) -> str:
    # A fault's message already names the plugin.
    return str(outcome.fault) if outcome.fault else f"{outcome.entry}: {outcome.reason}"


def _split_ambiguous(candidates: Iterable[PluginEntry]) -> tuple[list[PluginEntry], list[str]]:
    by_name: dict[str, list[PluginEntry]] = {}
    for entry in candidates:
        by_name.setdefault(entry.name, []).append(entry)
    unique = [entries[0] for entries in by_name.values() if len(entries) == 1]
    faults = [str(ambiguous_vendor(entries)) for entries in by_name.values() if len(entries) > 1]
    return unique, faults

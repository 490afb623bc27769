"""Choosing exactly one vendor: the named one, or the only one with devices on this machine."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Final, Literal

from chipperf.errors import PluginError, VendorSelectionError
from chipperf.plugin import installed
from chipperf.plugin.installed import REFERENCE_VENDOR, VENDOR_VARIABLE, PluginEntry
from chipperf.plugin.probe_process import PROBE_TIMEOUT_S, ask_all, probe_vendor
from chipperf.plugin.session import require_recent_torch
from chipperf.plugin.types import ProbeResult

AUTO: Final = "auto"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The chosen vendor and the result of its probe, with at least one device.

    ``origin`` is ``option`` or ``environment`` if the user named the vendor, ``auto`` if only it is available.
    """

    entry: PluginEntry
    origin: Literal["option", "environment", "auto"]
    probe: ProbeResult


def select_vendor(name: str | None = None) -> Selection:
    """Choose the vendor ``name``, or by default that of the variable ``PERF_VENDOR``; it must have devices here.

    ``auto``, the default, chooses the only vendor with devices on this machine, except for the reference. If there is
    none or several, a :class:`VendorSelectionError` says so; other plugin errors are those of the named vendor's probe,
    and that of a torch that is too old for all of them.
    """
    require_recent_torch()
    wanted = name or os.environ.get(VENDOR_VARIABLE) or AUTO
    if wanted == AUTO:
        return _select_only_available()
    entry = installed.find_vendor(wanted)
    probe = probe_vendor(entry)
    if not probe.available:
        raise VendorSelectionError(
            f"{entry} is not available: {probe.reason}", hint="'perf doctor' shows what every vendor's probe finds"
        )
    return Selection(entry=entry, origin="option" if name else "environment", probe=probe)


def _select_only_available() -> Selection:
    by_name: dict[str, list[PluginEntry]] = {}
    for entry in installed.vendors():
        by_name.setdefault(entry.name, []).append(entry)
    by_name.pop(REFERENCE_VENDOR, None)
    faults = [str(installed.ambiguous_vendor(entries)) for entries in by_name.values() if len(entries) > 1]
    unambiguous = (entries[0] for entries in by_name.values() if len(entries) == 1)
    available = []
    for entry, answer in ask_all(unambiguous, "probe", ProbeResult, timeout_s=PROBE_TIMEOUT_S):
        if isinstance(answer, PluginError):
            # Its message already names the plugin.
            faults.append(str(answer))
        elif answer.available:
            available.append((entry, answer))
        else:
            faults.append(f"{entry}: {answer.reason}")
    if len(available) > 1:
        found = "; ".join(f"{entry}: {result.reason}" for entry, result in available)
        raise VendorSelectionError(
            f"several vendors are available: {found}", hint=f"choose one with --vendor NAME or {VENDOR_VARIABLE}"
        )
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

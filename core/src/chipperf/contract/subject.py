"""The plugin under test, as a check sees it inside its own process."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chipperf.contract.check import Failed, NotApplicable, NotRun, find_check
from chipperf.errors import PerfError, PluginError
from chipperf.plugin import installed
from chipperf.plugin.installed import PluginEntry
from chipperf.plugin.session import Session, bind
from chipperf.plugin.types import EnvironmentSettings, Rank

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from chipperf.plugin.types import DistributedConfig, PrecisionPolicy, ProbeResult, RuntimeInfo, VendorInfo


class Subject:
    """A vendor plugin under test.

    What a check needs is made on first use and only once, in the order of a real run: session, runtime, device, process
    group. The runner has made sure beforehand that this works as far as the check declares with ``needs``.

    Attributes:
        entry: The plugin's entry point.
        rank: Place of this process among those that carry out the check.
        settings: The run for which this process's environment is set up.
        workspace: Directory that every check of a run shares; what takes long to make is left there for the next one.
    """

    def __init__(self, entry: PluginEntry, rank: Rank, settings: EnvironmentSettings, workspace: Path) -> None:
        self.entry = entry
        self.rank = rank
        self.settings = settings
        self.workspace = workspace

    @cached_property
    def session(self) -> Session:
        """The plugin, bound for training."""
        return bind(self.entry)

    @property
    def info(self) -> VendorInfo:
        """What the plugin says of itself."""
        return self.session.vendor_info()

    @cached_property
    def runtime(self) -> RuntimeInfo:
        """The vendor's stack, imported."""
        return self.session.load_runtime()

    @cached_property
    def device(self) -> torch.device:
        """The device of this rank, initialised, with the runtime loaded before."""
        _ = self.runtime
        return self.session.device_init(self.rank)

    @cached_property
    def distributed(self) -> DistributedConfig | None:
        """The process group of the ranks that carry out the check, joined; ``None`` for a single one."""
        from chipperf.train.preparation import join_process_group

        return join_process_group(self.session, self.rank, self.device)

    def probe(self) -> ProbeResult:
        """Probe in this process."""
        return self.session.probe()

    def precision(self, requested: Any) -> PrecisionPolicy:
        """Set the device up for a precision.

        Raises:
            UnsupportedPrecision: The device cannot run it.
        """
        return self.session.precision(requested, self.device)

    def teardown(self) -> None:
        """Release the device."""
        self.session.device_teardown(self.device)


def describe(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Bind the plugin and return what it says of itself: name, capabilities, hooks, and the faults of binding it."""
    entry = PluginEntry(**arguments["entry"])
    try:
        session = bind(entry)
    except PerfError as error:
        return {"fault": error.message}
    info = session.vendor_info()
    return {
        "fault": None,
        "simulated": session.simulated,
        "capabilities": sorted(str(capability) for capability in info.capabilities),
        "api_version": info.api_version,
    }


def environment(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that the plugin wants before the interpreter of a rank starts."""
    session = bind(PluginEntry(**arguments["entry"]))
    variables = session.environment(Rank(**arguments["rank"]), EnvironmentSettings(**arguments["settings"]))
    # As in a run, what the user has set stays.
    return {variable.name: variable.value for variable in variables if variable.name not in os.environ}


def initialise(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Load the runtime and initialise the device; return its name and the versions of the stack."""
    subject = _subject(arguments)
    info = subject.session.device_info(subject.device)
    return {"device": asdict(info), "runtime": asdict(subject.runtime)}


def carry_out(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Carry out one check in this process and return its status, a message, and where it failed."""
    subject = _subject(arguments)
    try:
        find_check(arguments["check"]).function(subject)
    except Failed as failure:
        return {"status": "failed", "message": str(failure)}
    except NotApplicable as reason:
        return {"status": "not_applicable", "message": str(reason)}
    except NotRun as reason:
        return {"status": "not_run", "message": str(reason)}
    except PerfError as error:
        return {"status": "failed", "message": error.message, "detail": traceback.format_exc()}
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        return {"status": "failed", "message": message, "detail": traceback.format_exc()}
    finally:
        _leave_process_group()
    return {"status": "passed", "message": ""}


def _subject(arguments: Mapping[str, Any]) -> Subject:
    return Subject(
        PluginEntry(**arguments["entry"]),
        Rank(**arguments["rank"]),
        EnvironmentSettings(**arguments["settings"]),
        Path(arguments["workspace"]),
    )


def _leave_process_group() -> None:
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


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

"""The plugin under test inside the process of a check, and the functions that the runner calls in such a process."""

from __future__ import annotations

import os
import traceback
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chipperf.contract.check import Failed, NotApplicable, NotRun, find_check
from chipperf.contract.isolation import reason_of, set_timeout_factor
from chipperf.documents.card_names import SHIPPED_FILE, CardNames, Mention
from chipperf.plugin.installed import PluginEntry
from chipperf.plugin.probe_process import installed_infos
from chipperf.plugin.session import Session, bind
from chipperf.plugin.types import DistributedConfig, EnvironmentSettings, Rank, RuntimeInfo, VendorInfo
from chipperf.train.preparation import join_process_group

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


@dataclass(eq=False)
class PluginUnderTest:
    """A vendor plugin under test, of one rank among the processes of the check.

    Session, runtime, device and process group are created at their first use, once, in the order of a real run. The
    runner has checked that the parts in the check's ``needs`` work. This process's environment is set up for a run with
    ``settings``. All checks share the directory ``workspace``, for files that take long to make.
    """

    entry: PluginEntry
    rank: Rank
    settings: EnvironmentSettings
    workspace: Path

    @cached_property
    def session(self) -> Session:
        """The bound plugin."""
        return bind(self.entry)

    @property
    def info(self) -> VendorInfo:
        """The result of ``perf_vendor_info``."""
        return self.session.vendor_info()

    @cached_property
    def runtime(self) -> RuntimeInfo:
        """The versions of the vendor's stack, which is loaded."""
        return self.session.load_runtime()

    @cached_property
    def device(self) -> torch.device:
        """The initialized device of this rank. The runtime is loaded first."""
        _ = self.runtime
        return self.session.device_init(self.rank)

    @cached_property
    def distributed(self) -> DistributedConfig | None:
        """The options of the joined process group of the check's ranks; ``None`` if there is only one rank."""
        return join_process_group(self.session, self.rank, self.device)


def describe(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Bind the plugin, and return its device type, its capabilities and whether it is simulated."""
    session = _subject(arguments).session
    info = session.vendor_info()
    return {
        "simulated": session.simulated,
        "device_type": info.device_type,
        "capabilities": sorted(map(str, info.capabilities)),
    }


def environment(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment variables that the plugin asks for before the interpreter of a rank starts."""
    subject = _subject(arguments)
    variables = subject.session.environment(subject.rank, subject.settings)
    # As in a run, variables that the user has set stay unchanged.
    return {variable.name: variable.value for variable in variables if variable.name not in os.environ}


def initialize(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Load the runtime and initialize the device. Return the device's identity and the versions of the stack."""
    subject = _subject(arguments)
    info = subject.session.device_info(subject.device)
    return {"device": asdict(info), "runtime": asdict(subject.runtime)}


def carry_out(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Run one check in this process and return its status, its message, and the traceback of a failure.

    Its process groups end with the process: torch 2.4 waits forever when it takes one apart at the wrong moment.
    """
    subject = _subject(arguments)
    try:
        find_check(arguments["check"]).function(subject)
    except (Failed, NotApplicable, NotRun) as result:
        statuses = {Failed: "failed", NotApplicable: "not_applicable", NotRun: "not_run"}
        return {"status": statuses[type(result)], "message": str(result)}
    except Exception as error:
        # torch's error for an operator that a device lacks. N1 tries them all.
        if isinstance(error, NotImplementedError) and arguments["check"] != "N1":
            return {"status": "not_run", "message": f"the device lacks an operator, see N1: {reason_of(error)}"}
        return {"status": "failed", "message": reason_of(error), "detail": traceback.format_exc()}
    return {"status": "passed", "message": ""}


def _subject(arguments: Mapping[str, Any]) -> PluginUnderTest:
    set_timeout_factor(arguments["timeout_factor"])
    return PluginUnderTest(
        PluginEntry(**arguments["entry"]),
        Rank(**arguments["rank"]),
        EnvironmentSettings(**arguments["settings"]),
        Path(arguments["workspace"]),
    )


def foreign_names(subject: PluginUnderTest, text: str) -> list[Mention]:
    """Return where a text mentions another vendor or its products, whether or not its plugin is installed."""
    names, own = _card_names(subject.info)
    # A number alone is more often a value than the name of a product.
    return [each for each in names.find(text) if each.vendor not in own and not each.text.isdecimal()]


@cache
def _card_names(info: VendorInfo) -> tuple[CardNames, frozenset[str]]:
    """Return all names of vendors and products, and the names under which the vendor of ``info`` is known."""
    shipped = CardNames()
    shipped.add_file(SHIPPED_FILE)
    own_words = " / ".join((info.name, *(device.name for device in info.known_devices)))
    names = CardNames()
    # The first meaning of a name counts, so a name that two vendors use is this vendor's own.
    for each in (info, *installed_infos()):
        names.add_plugin(each)
    names.add_file(SHIPPED_FILE)
    own = {info.name, *(mention.vendor for mention in shipped.find(own_words))}
    return names, frozenset(own)

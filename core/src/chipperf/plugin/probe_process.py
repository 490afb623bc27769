"""Probing vendors, each in its own process.

A probe is vendor code on a machine that may not have the vendor's driver. In a child process it can crash, hang, print
or exit without affecting the caller. It also cannot leave a device context open, which would break a later fork.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from chipperf import errors
from chipperf.errors import PluginError, VendorHookError
from chipperf.plugin.types import ProbedDevice, ProbeResult

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chipperf.plugin.installed import PluginEntry

PROBE_TIMEOUT_S: Final = 10.0
"""Time limit of a probe, including the start of its interpreter."""

# The child must find the same plugins as its parent, also if their path is in sys.path but not in PYTHONPATH.
_BOOTSTRAP: Final = (
    "import sys; sys.path[:] = sys.argv.pop().split('\\n'); from chipperf.plugin.probe_process import main; main()"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOutcome:
    """The outcome of probing one vendor: a result, or why there is none; see :func:`probe_vendor`."""

    entry: PluginEntry
    result: ProbeResult | None = None
    fault: PluginError | None = None

    @property
    def available(self) -> bool:
        """True if the probe found a device."""
        return self.result is not None and self.result.available

    @property
    def reason(self) -> str:
        """The reason in the result, or the fault."""
        return self.result.reason if self.result else str(self.fault)


def probe_vendors(entries: Iterable[PluginEntry]) -> tuple[ProbeOutcome, ...]:
    """Probe vendors with different names at the same time. A fault of one does not affect the others."""

    def outcome_of(entry: PluginEntry) -> ProbeOutcome:
        try:
            return ProbeOutcome(entry=entry, result=probe_vendor(entry))
        except PluginError as fault:
            return ProbeOutcome(entry=entry, fault=fault)

    with ThreadPoolExecutor() as pool:
        return tuple(pool.map(outcome_of, entries))


def probe_vendor(entry: PluginEntry, *, timeout_s: float = PROBE_TIMEOUT_S) -> ProbeResult:
    """Run a vendor's ``perf_probe`` in a child process, which is killed after ``timeout_s``.

    A :class:`PluginLoadError` says why the plugin cannot be used, a :class:`VendorHookError` why there is no result.
    """
    command = [sys.executable, "-c", _BOOTSTRAP, json.dumps(asdict(entry)), "\n".join(sys.path)]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as child:
        try:
            answer, complaints = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise VendorHookError(
                f"{entry}: perf_probe did not return within {timeout_s:g} s",
                hint=f"check the driver, and report it to the authors of {entry.distribution}",
            ) from error
        finally:
            # The probe may have started processes, for example a vendor's management tool.
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    return _parse(entry, answer, exit_status=child.returncode, complaints=complaints)


def main() -> None:
    """Probe a vendor and print its result or fault as JSON. The first argument is the vendor's entry as JSON.

    Only the answer goes to standard output. The plugin's own output goes to standard error.
    """
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from chipperf.plugin.installed import PluginEntry
    from chipperf.plugin.session import bind

    try:
        content = asdict(bind(PluginEntry(**json.loads(sys.argv[1])), purpose="inspect").probe())
    except PluginError as fault:
        content = {"fault": type(fault).__name__, "message": fault.message, "hint": fault.hint}
    with answer:
        json.dump(content, answer)
    # Threads of the plugin must not keep the process alive.
    os._exit(0)


def _parse(entry: PluginEntry, answer: str, *, exit_status: int, complaints: str) -> ProbeResult:
    try:
        content: dict[str, Any] = json.loads(answer)
    except ValueError as error:
        last_words = complaints.strip().splitlines()[-1:] or ["it printed nothing"]
        raise VendorHookError(
            f"{entry}: perf_probe ended its process with exit status {exit_status}: {last_words[0]}",
            hint=f"report it to the authors of {entry.distribution}",
        ) from error
    if "fault" in content:
        fault: type[PluginError] = getattr(errors, content["fault"])
        raise fault(content["message"], hint=content["hint"])
    devices = tuple(ProbedDevice(**device) for device in content.pop("devices"))
    return ProbeResult(**content, devices=devices)

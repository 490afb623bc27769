"""Running the checks of a plugin: each check in its own process, with a time limit."""

from __future__ import annotations

import os
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

from chipperf.contract import plugin_under_test
from chipperf.contract.check import all_checks, fp32
from chipperf.contract.isolation import CallOutcome, ForkServer, ForkServers
from chipperf.errors import PluginError
from chipperf.plugin.probe_process import probe_vendor
from chipperf.plugin.types import Rank
from chipperf.run.ranks import rank_variables
from chipperf.run.rendezvous import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from chipperf.contract.check import Check
    from chipperf.plugin.installed import PluginEntry
    from chipperf.plugin.types import EnvironmentSettings

Status = Literal["passed", "failed", "not_applicable", "not_run"]

_WORSE: Final[tuple[Status, ...]] = ("failed", "not_run", "not_applicable", "passed")
"""All statuses, the worst first."""

_DESCRIBE_TIMEOUT_S: Final = 30.0
_INITIALIZE_TIMEOUT_S: Final = 300.0
"""The first use of a device loads libraries and compiles kernels, which takes minutes on some stacks."""

_GRACE_S: Final = 5.0
"""Time for the other ranks to notice that one rank failed, so that their results can be reported too."""

# Importing the checks takes longer than running most checks of level 0.
_TORCH_FREE_PRELOAD: Final = (
    plugin_under_test.__name__,
    *sorted({check.function.__module__ for check in all_checks()}),
)
_PRELOAD: Final = (*_TORCH_FREE_PRELOAD, "torch", "torch.distributed", "torchvision")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The result of a check.

    Attributes:
        check: The check.
        status: ``not_applicable`` if the check does not apply to the plugin, ``not_run`` if it could not run.
        message: Why the check did not pass; empty if it passed.
        detail: Traceback or output that explains the message.
        seconds: Duration.
    """

    check: Check
    status: Status
    message: str = ""
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginReadiness:
    """What works of a plugin on this machine, determined before the first check.

    Attributes:
        session_fault: Why the plugin cannot be bound; ``None`` if it can.
        device_fault: Why its device cannot be used; ``None`` if it can.
        no_device: Why there is no device on this machine; ``None`` if there is one.
        simulated: True if fake modules replace the vendor's stack.
        capabilities: Declared capabilities.
        device_count: Number of devices that the probe found.
        device: Identity of the first device.
        runtime: Versions of the vendor's stack.
    """

    session_fault: str | None = None
    device_fault: str | None = None
    no_device: str | None = None
    simulated: bool = False
    capabilities: frozenset[str] = frozenset()
    device_count: int = 0
    device: Mapping[str, Any] = field(default_factory=dict)
    runtime: Mapping[str, Any] = field(default_factory=dict)


class Runner:
    """Runs checks on one plugin. Use it as a context manager, because it keeps processes.

    Args:
        entry: The plugin.
        timeout_factor: Factor of the time limit of each check, for slow machines.
        servers: Processes to share with the runners of other plugins on the same path; by default its own processes.
    """

    def __init__(self, entry: PluginEntry, *, timeout_factor: float = 1.0, servers: ForkServers | None = None) -> None:
        self.entry = entry
        self._timeout_factor = timeout_factor
        self._own_servers = ForkServers()
        self._servers = servers or self._own_servers
        self._environments: dict[tuple[Rank, EnvironmentSettings], dict[str, str]] = {}
        self._workspace = tempfile.TemporaryDirectory(prefix="chipperf-contract-", ignore_cleanup_errors=True)

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._own_servers.close()
        self._workspace.cleanup()

    @cached_property
    def static_readiness(self) -> PluginReadiness:
        """Whether the plugin can be bound. Needs neither torch nor a device."""
        outcome = self._torch_free("describe", fp32()[0], {}, _DESCRIBE_TIMEOUT_S)
        fault = outcome.fault or outcome.value["fault"]
        if fault:
            return PluginReadiness(session_fault=fault, device_fault=fault)
        return PluginReadiness(
            simulated=outcome.value["simulated"], capabilities=frozenset(outcome.value["capabilities"])
        )

    @cached_property
    def readiness(self) -> PluginReadiness:
        """Whether the plugin can be bound and its device used."""
        static = self.static_readiness
        if static.session_fault:
            return static
        known: dict[str, Any] = {"simulated": static.simulated, "capabilities": static.capabilities}
        try:
            probe = probe_vendor(self.entry)
        except PluginError as error:
            return PluginReadiness(**known, device_fault=error.message)
        if not probe.available:
            return PluginReadiness(**known, no_device=probe.reason)
        known["device_count"] = len(probe.devices)
        try:
            server = self._server(Rank(), fp32()[0])
            outcome = self._call(server, "initialize", {}, Rank(), fp32()[0], _INITIALIZE_TIMEOUT_S)
        except PluginError as error:
            return PluginReadiness(**known, device_fault=error.message)
        if outcome.fault:
            return PluginReadiness(**known, device_fault=outcome.fault)
        return PluginReadiness(**known, device=outcome.value["device"], runtime=outcome.value["runtime"])

    def run(self, check: Check) -> CheckResult:
        """Run one check and return its result. Errors of the plugin become part of the result."""
        prevented = self._prevented(check)
        if prevented:
            return prevented
        results = []
        for settings in check.settings():
            results.append(self._run_with(check, settings))
            if results[-1].status == "failed":
                break
        return _join(check, results)

    def _run_with(self, check: Check, settings: EnvironmentSettings) -> CheckResult:
        """Run a check in the environment that the plugin asks for in a run with these settings."""
        if check.level == 0:
            outcome = self._torch_free("carry_out", settings, {"check": check.id}, check.timeout_s)
            return _result(check, {0: outcome})
        try:
            servers = [self._server(rank, settings) for rank in _ranks(check)]
        except PluginError as error:
            return CheckResult(check=check, status="not_run", message=error.message)
        return _result(check, self._together(check, settings, servers))

    def _prevented(self, check: Check) -> CheckResult | None:
        """Return the result of a check that cannot run on this plugin or machine, or ``None`` if it can run."""
        readiness = self.static_readiness if check.level == 0 else self.readiness
        if check.needs != "entry" and readiness.session_fault:
            return _not_run(check, f"the plugin cannot be bound: {readiness.session_fault}")
        if check.capability is not None and check.capability not in readiness.capabilities:
            return CheckResult(check=check, status="not_applicable", message=f"{check.capability} is not declared")
        if check.level > 0 and readiness.no_device:
            return _not_run(check, f"no device: {readiness.no_device}")
        if check.needs == "device" and readiness.device_fault:
            return _not_run(check, f"the device cannot be used: {readiness.device_fault}")
        # Several ranks may share a device that is the whole host.
        if check.ranks > max(1, readiness.device_count) and "unified_memory" not in readiness.capabilities:
            return _not_run(check, f"the check needs {check.ranks} devices, this machine has {readiness.device_count}")
        return None

    def _together(
        self, check: Check, settings: EnvironmentSettings, servers: list[ForkServer]
    ) -> dict[int, CallOutcome]:
        """Return the outcome of each rank, except for ranks that only waited for a failed rank."""
        ranks = _ranks(check)
        variables: list[dict[str, str]] = [{} for _ in ranks]
        if check.ranks > 1:
            port = _free_port()
            variables = [rank_variables(rank, LOOPBACK, port) for rank in ranks]
        with ThreadPoolExecutor(len(ranks)) as pool:
            calls = [
                pool.submit(
                    self._call,
                    server,
                    "carry_out",
                    {"check": check.id},
                    rank,
                    settings,
                    check.timeout_s,
                    environment=environment,
                )
                for server, rank, environment in zip(servers, ranks, variables, strict=True)
            ]
            stuck = set(calls)
            try:
                for call in as_completed(calls):
                    if _report(call.result())["status"] == "failed":
                        break
                # Ranks that wait for the failed one would wait until their time limit.
                _, stuck = wait(calls, timeout=_GRACE_S)
            finally:
                # Also after an interrupt by the user, because the pool's block ends only after every call has ended.
                for server, call in zip(servers, calls, strict=True):
                    if call in stuck:
                        server.stop_call()
            return {rank: call.result() for rank, call in enumerate(calls) if call not in stuck}

    def _torch_free(
        self, function: str, settings: EnvironmentSettings, arguments: Mapping[str, Any], timeout_s: float
    ) -> CallOutcome:
        server = self._servers.get(os.environ, _TORCH_FREE_PRELOAD)
        return self._call(server, function, arguments, Rank(), settings, timeout_s)

    def _server(self, rank: Rank, settings: EnvironmentSettings) -> ForkServer:
        """Return the server that forks the checks of ``rank``. It has the environment that the vendor asks for."""
        key = (rank, settings)
        if key not in self._environments:
            wanted = self._torch_free("environment", settings, {"rank": asdict(rank)}, _DESCRIBE_TIMEOUT_S)
            if wanted.fault:
                raise PluginError(f"{self.entry}: perf_environment: {wanted.fault}")
            self._environments[key] = {**os.environ, **wanted.value}
        return self._servers.get(self._environments[key], _PRELOAD, number=rank.local_rank)

    def _call(
        self,
        server: ForkServer,
        function: str,
        arguments: Mapping[str, Any],
        rank: Rank,
        settings: EnvironmentSettings,
        timeout_s: float,
        *,
        environment: Mapping[str, str] | None = None,
    ) -> CallOutcome:
        return server.call(
            f"{plugin_under_test.__name__}:{function}",
            {
                "entry": asdict(self.entry),
                "rank": asdict(rank),
                "settings": asdict(settings),
                "workspace": self._workspace.name,
                **arguments,
            },
            timeout_s=timeout_s * self._timeout_factor,
            environment=environment,
        )


def _not_run(check: Check, reason: str) -> CheckResult:
    return CheckResult(check=check, status="not_run", message=reason)


def _ranks(check: Check) -> list[Rank]:
    if check.ranks == 1:
        return [Rank()]
    size = check.ranks
    return [Rank(rank=index, local_rank=index, world_size=size, local_world_size=size) for index in range(size)]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        port: int = listener.getsockname()[1]
        return port


def _result(check: Check, outcomes: Mapping[int, CallOutcome]) -> CheckResult:
    """Join the results of the ranks. The worst status becomes the status of the check."""
    seconds = max(outcome.seconds for outcome in outcomes.values())
    reports = {rank: _report(outcome) for rank, outcome in outcomes.items()}
    for status in _WORSE[:-1]:
        concerned = [(rank, report) for rank, report in reports.items() if report["status"] == status]
        if concerned:
            message = "; ".join(
                f"rank {rank}: {report['message']}" if check.ranks > 1 else report["message"]
                for rank, report in concerned
            )
            detail = "\n".join(report["detail"] for _, report in concerned if report["detail"])
            return CheckResult(check=check, status=status, message=message, detail=detail, seconds=seconds)
    return CheckResult(check=check, status="passed", seconds=seconds)


def _join(check: Check, results: Sequence[CheckResult]) -> CheckResult:
    """Join the results of a check with each of its settings. The worst status becomes the status of the check."""
    worst = min((result.status for result in results), key=_WORSE.index)
    deciding = [result for result in results if result.status == worst]
    return CheckResult(
        check=check,
        status=worst,
        message="; ".join(dict.fromkeys(result.message for result in deciding if result.message)),
        detail="\n".join(dict.fromkeys(result.detail for result in deciding if result.detail)),
        seconds=sum(result.seconds for result in results),
    )


def _report(outcome: CallOutcome) -> dict[str, str]:
    if outcome.fault:
        return {"status": "failed", "message": outcome.fault, "detail": outcome.output}
    report: dict[str, str] = {"detail": "", **outcome.value}
    return report

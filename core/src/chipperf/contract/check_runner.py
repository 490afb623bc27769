"""Running the checks of a plugin: each check in its own process, with a time limit."""

from __future__ import annotations

import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

from chipperf.contract import plugin_under_test
from chipperf.contract.check import Check, all_checks, find_check, fp32
from chipperf.contract.isolation import CallOutcome, ForkServer, ForkServers
from chipperf.errors import PluginError
from chipperf.plugin.probe_process import PROBE_TIMEOUT_S, probe_vendor
from chipperf.plugin.types import EnvironmentSettings, Rank
from chipperf.run.ranks import job_ranks, rank_variables
from chipperf.run.rendezvous import LOOPBACK, listen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chipperf.plugin.installed import PluginEntry

Status = Literal["passed", "failed", "not_applicable", "not_run"]

_WORSE: Final[tuple[Status, ...]] = ("failed", "not_run", "not_applicable", "passed")
"""All statuses, the worst first."""

_DESCRIBE_TIMEOUT_S: Final = 30.0
_INITIALIZE_TIMEOUT_S: Final = 300.0
"""The first use of a device loads libraries and compiles kernels, which takes minutes on some stacks."""

_GRACE_S: Final = 5.0
"""Time for the other ranks to notice that one rank failed, so that their results can be reported too."""

_REFERENCE: Final = re.compile(r"\bsee ([A-Z]\d{1,2}(?:(?:, | and | or )[A-Z]\d{1,2})*)")
"""How a check that could not run names the checks that say why."""

# Importing the checks takes longer than running most checks of level 0.
_TORCH_FREE_PRELOAD: Final = (
    plugin_under_test.__name__,
    *sorted({check.function.__module__ for check in all_checks()}),
)
_PRELOAD: Final = (*_TORCH_FREE_PRELOAD, "torch", "torch.distributed", "torchvision")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The result of a check: ``not_applicable`` if it does not apply to the plugin, ``not_run`` if it could not run.

    ``message`` says why the check did not pass; ``detail`` is a traceback or output that explains it.
    """

    check: Check
    status: Status
    message: str = ""
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginReadiness:
    """What works of a plugin on this machine, determined before the first check.

    The faults say why the plugin cannot be bound and why its device cannot be used, ``no_device`` why there is none.
    ``simulated`` means that fake modules replace the vendor's stack, ``device`` is the first one.
    """

    session_fault: str | None = None
    device_fault: str | None = None
    no_device: str | None = None
    simulated: bool = False
    device_type: str = ""
    capabilities: Sequence[str] = ()
    device_count: int = 0
    device: Mapping[str, Any] = field(default_factory=dict)
    runtime: Mapping[str, Any] = field(default_factory=dict)


class Runner:
    """Runs checks on one plugin. Use it as a context manager, because it keeps processes.

    ``timeout_factor`` multiplies every time limit, for slow machines. ``servers`` are processes to share
    with the runners of other plugins on the same path. ``case`` is the case for which every check runs, by default
    those that the check asks for.
    """

    def __init__(
        self,
        entry: PluginEntry,
        *,
        timeout_factor: float = 1.0,
        servers: ForkServers | None = None,
        case: str | None = None,
    ) -> None:
        self.entry = entry
        self._case = case
        self._timeout_factor = timeout_factor
        self._own_servers = ForkServers()
        self._servers = servers or self._own_servers
        self._environments: dict[tuple[Rank, EnvironmentSettings], dict[str, str]] = {}
        self._results: dict[str, CheckResult | None] = {}
        self._workspace = tempfile.TemporaryDirectory(prefix="chipperf-contract-", ignore_cleanup_errors=True)

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._own_servers.close()
        self._workspace.cleanup()

    @cached_property
    def static_readiness(self) -> PluginReadiness:
        """Whether the plugin can be bound. Needs neither torch nor a device."""
        outcome = self._call(self._torch_free_server(), "describe", Rank(), fp32()[0], _DESCRIBE_TIMEOUT_S)
        return PluginReadiness(session_fault=outcome.fault, device_fault=outcome.fault, **(outcome.value or {}))

    @cached_property
    def readiness(self) -> PluginReadiness:
        """Whether the plugin can be bound and its device used."""
        found = self.static_readiness
        if found.session_fault:
            return found
        try:
            probe = probe_vendor(self.entry, timeout_s=PROBE_TIMEOUT_S * self._timeout_factor)
            if not probe.available:
                return replace(found, no_device=probe.reason)
            found = replace(found, device_count=len(probe.devices))
            server = self._server(Rank(), fp32()[0])
        except PluginError as error:
            return replace(found, device_fault=error.message)
        outcome = self._call(server, "initialize", Rank(), fp32()[0], _INITIALIZE_TIMEOUT_S)
        return replace(found, device_fault=outcome.fault, **(outcome.value or {}))

    def run(self, check: Check) -> CheckResult:
        """Run one check and return its result, once. Errors of the plugin become part of the result.

        A check that could not run, and says that another one finds the reason, fails if that one finds none.
        """
        known = self._results.get(check.id)
        if known is not None:
            return known
        # A check under way explains nothing to the checks that it refers to.
        self._results[check.id] = None
        result = self._run(check)
        silent = self._silent(result)
        if silent:
            # A measurement on a busy machine may have been the reason.
            result = self._run(check)
            silent = self._silent(result)
        if silent:
            verb = "finds" if len(silent) == 1 else "find"
            message = f"it could not run, and {' and '.join(silent)} {verb} no fault: {result.message}"
            result = replace(result, status="failed", message=message)
        self._results[check.id] = result
        return result

    def _silent(self, result: CheckResult) -> list[str]:
        """Return the checks that a check that could not run refers to, if none of them says why."""
        reference = _REFERENCE.search(result.message) if result.status == "not_run" else None
        if reference is None:
            return []
        named = re.findall(r"[A-Z]\d+", reference[1])
        others = [find_check(id) for id in named if id in {check.id for check in all_checks()}]
        for other in others:
            known = self._results[other.id] if other.id in self._results else self.run(other)
            if known is not None and known.status in ("failed", "not_run"):
                return []
        return [other.id for other in others]

    def _run(self, check: Check) -> CheckResult:
        prevented = self._prevented(check)
        if prevented:
            return prevented
        results: list[CheckResult] = []
        own = None if self._case is None else (EnvironmentSettings(case=self._case, precision="fp32"),)
        for settings in own or check.settings():
            try:
                ranks = self._run_with(check, settings)
            except PluginError as error:
                ranks = [_not_run(check, error.message)]
            results.append(_join(check, ranks, seconds=max(result.seconds for result in ranks)))
            if results[-1].status == "failed":
                break
        return _join(check, results, seconds=sum(result.seconds for result in results))

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
            return _not_run(check, f"the device cannot be used, see D1 and D7: {readiness.device_fault}")
        # Ranks on the CPU share it.
        if check.ranks > max(1, readiness.device_count) and readiness.device_type != "cpu":
            return _not_run(check, f"the check needs {check.ranks} devices, this machine has {readiness.device_count}")
        return None

    def _run_with(self, check: Check, settings: EnvironmentSettings) -> list[CheckResult]:
        """Return the result of each rank, except for ranks that only waited for a failed rank."""
        ranks = job_ranks(self._rank_count(check))
        servers = [self._torch_free_server() if check.level == 0 else self._server(rank, settings) for rank in ranks]
        with listen(LOOPBACK) as listener:
            port = listener.getsockname()[1]

        def carry_out(rank: Rank, server: ForkServer) -> CheckResult:
            # As in a run, of a single process too.
            variables = rank_variables(rank, LOOPBACK, port) if check.level else {}
            timeout_s = check.timeout_s
            outcome = self._call(server, "carry_out", rank, settings, timeout_s, check=check.id, environment=variables)
            report = outcome.value or {"status": "failed", "message": outcome.fault, "detail": outcome.output}
            return CheckResult(check=check, seconds=outcome.seconds, **report)

        with ThreadPoolExecutor(len(ranks)) as pool:
            calls = [pool.submit(carry_out, rank, server) for rank, server in zip(ranks, servers, strict=True)]
            stuck = set(calls)
            try:
                for call in as_completed(calls):
                    if call.result().status != "passed":
                        break
                # Ranks that wait for one that gave up would wait until their time limit.
                _, stuck = wait(calls, timeout=_GRACE_S * self._timeout_factor)
            finally:
                # Also after an interrupt by the user, because the pool's block ends only after every call has ended.
                for server, call in zip(servers, calls, strict=True):
                    if call in stuck:
                        server.stop_call()
            results = {rank.rank: call.result() for rank, call in zip(ranks, calls, strict=True) if call not in stuck}
        # When one rank has found a fault and left, the others meet errors that only hide it.
        causes = {rank: result for rank, result in results.items() if result.status == "failed" and not result.detail}
        return _with_ranks(causes or results) if check.ranks > 1 else list(results.values())

    def _rank_count(self, check: Check) -> int:
        """Return how many ranks run a check here. On the CPU they share it."""
        if check.most_ranks == check.ranks or self.readiness.device_type == "cpu":
            return check.most_ranks
        return min(check.most_ranks, max(check.ranks, self.readiness.device_count))

    def _torch_free_server(self) -> ForkServer:
        return self._servers.get(os.environ, _TORCH_FREE_PRELOAD)

    def _server(self, rank: Rank, settings: EnvironmentSettings) -> ForkServer:
        """Return the server that forks the checks of ``rank``. It has the environment that the vendor asks for."""
        key = (rank, settings)
        if key not in self._environments:
            wanted = self._call(self._torch_free_server(), "environment", rank, settings, _DESCRIBE_TIMEOUT_S)
            if wanted.fault:
                raise PluginError(f"{self.entry}: perf_environment: {wanted.fault}")
            self._environments[key] = {**os.environ, **wanted.value}
        return self._servers.get(self._environments[key], _PRELOAD, number=rank.local_rank)

    def _call(
        self,
        server: ForkServer,
        function: str,
        rank: Rank,
        settings: EnvironmentSettings,
        timeout_s: float,
        *,
        check: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> CallOutcome:
        subject = {"entry": asdict(self.entry), "rank": asdict(rank), "settings": asdict(settings)}
        return server.call(
            f"{plugin_under_test.__name__}:{function}",
            {**subject, "workspace": self._workspace.name, "check": check, "timeout_factor": self._timeout_factor},
            timeout_s=timeout_s * self._timeout_factor,
            environment=environment,
        )


def _not_run(check: Check, reason: str) -> CheckResult:
    return CheckResult(check=check, status="not_run", message=reason)


def _with_ranks(results: Mapping[int, CheckResult]) -> list[CheckResult]:
    """Return the results of some ranks with messages that name the ranks, together if they say the same."""
    said: dict[str, list[str]] = {}
    for rank, result in results.items():
        said.setdefault(result.message, []).append(str(rank))
    who = {message: f"rank{'s' * (len(ranks) > 1)} {' and '.join(ranks)}" for message, ranks in said.items()}
    return [
        replace(result, message=f"{who[result.message]}: {result.message}") if result.message else result
        for result in results.values()
    ]


def _join(check: Check, results: Sequence[CheckResult], *, seconds: float) -> CheckResult:
    """Join the results of a check with its ranks or its settings. The worst status becomes the status of the check."""
    worst = min((result.status for result in results), key=_WORSE.index)
    deciding = [result for result in results if result.status == worst]
    return CheckResult(
        check=check,
        status=worst,
        message="; ".join(dict.fromkeys(result.message for result in deciding if result.message)),
        detail="\n".join(dict.fromkeys(result.detail for result in deciding if result.detail)),
        seconds=seconds,
    )

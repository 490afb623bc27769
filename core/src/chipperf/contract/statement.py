"""The conformance statement: the results of the checks, and the levels that a vendor may claim."""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import model_validator

import chipperf
from chipperf.contract.check import CONTRACT_VERSION, LEVELS, Level, all_checks
from chipperf.contract.waivers import Waiver
from chipperf.plugin.types import API_VERSION, Capability
from chipperf.records.schema import StrictModel

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from chipperf.contract.check_runner import CheckResult, PluginReadiness
    from chipperf.plugin.installed import PluginEntry

Verdict = Literal["passed", "failed", "waived", "unexpected_pass", "advisory", "not_applicable", "not_run"]
"""A result after the waivers were applied. ``unexpected_pass`` is a waived check that passed. ``advisory`` is a failed
check that does not count because it is new."""

_OBSTACLES: Final = {
    "failed": "failed",
    "unexpected_pass": "waived but passing",
    "not_run": "not run",
    "bug": "waived as bug",
    "planned": "waived as planned",
}
"""Verdicts, and kinds of waivers, that keep a level from being claimed, with their words in a claim."""

_NO_DEVICE: Final = "no device"
"""Remark on the levels whose checks need a device, where there is none."""

_NAMED: Final = 5
"""Number of checks that a claim lists by name. It gives only the number of further checks."""


class JudgedResult(StrictModel):
    """A check's result after the waivers were applied. ``message`` says why the check did not pass."""

    check: str
    level: Level
    verdict: Verdict
    message: str
    seconds: float
    waiver: Waiver | None

    @model_validator(mode="after")
    def _require_waiver(self) -> JudgedResult:
        if self.verdict in ("waived", "unexpected_pass") and self.waiver is None:
            raise ValueError(f"{self.check} is {self.verdict}, and has no waiver")
        return self


class LevelClaim(StrictModel):
    """Whether a vendor may claim a level, and how many checks apply to the plugin and passed.

    It may if every check that applies, of this level and below, passed or is waived as unsupported. What sets several
    devices of one process apart does not apply to a machine with one. ``remark`` says why the level may not be claimed,
    or on which waivers and how few devices the claim depends.
    """

    level: Level
    claimed: bool
    passed: int
    applicable: int
    remark: str

    @property
    def phrase(self) -> str:
        """The claim in a statement's line."""
        if self.remark == _NO_DEVICE:
            return f"L{self.level} not run (no device)"
        remark = f" ({self.remark})" if self.remark else ""
        return f"L{self.level} {self.passed}/{self.applicable}{'' if self.claimed else ' not claimed'}{remark}"


class Statement(StrictModel):
    """The conformance statement of one run of the contract suite.

    Attributes:
        contract_version: Version of the list of checks.
        api_version: Version of the hook specification.
        simulated: True if fake modules replaced the vendor's stack. Then only level 0 can be claimed.
        device: Identity of the first device.
    """

    contract_version: str
    chipperf_version: str
    api_version: str
    vendor: str
    distribution: str
    distribution_version: str
    finished_utc: str
    python: str
    system: str
    simulated: bool
    device: dict[str, Any]
    runtime: dict[str, Any]
    levels: tuple[LevelClaim, ...]
    results: tuple[JudgedResult, ...]

    @model_validator(mode="after")
    def _require_consistent(self) -> Statement:
        for fault in self._contradictions():
            raise ValueError(f"the statement contradicts itself: {fault}")
        return self

    def _contradictions(self) -> Iterator[str]:
        levels = [each.level for each in self.levels]
        # With chosen checks only, it claims no level.
        if levels and (levels != list(LEVELS)[: len(levels)] or not {each.level for each in self.results} <= {*levels}):
            yield "its levels are not those of its results"
        if len({each.check for each in self.results}) < len(self.results):
            yield "it has two results of one check"
        no_device = any(each.remark == _NO_DEVICE for each in self.levels)
        judge_alike = partial(_claims, levels, self.results, no_device=no_device, simulated=self.simulated)
        expected = judge_alike(apart=())
        # The number of devices stands in a remark at most.
        if self.levels not in (expected, judge_alike(apart=_checks_of_several_devices())):
            said, follows = (" · ".join(each.phrase for each in claims) for claims in (self.levels, expected))
            yield f"it says '{said}', and its results '{follows}'"

    @property
    def strange_checks(self) -> list[str]:
        """The checks without a result at their level, and the results of no check, if every check had to run."""
        checks = {(check.id, check.level): check.advisory for check in all_checks()}
        known = {(each.check, each.level): each.verdict == "advisory" for each in self.results if self.levels}
        forgiven = {key for key, is_advisory in known.items() if is_advisory and not checks.get(key)}
        return sorted(check for check, _ in (checks.keys() ^ known.keys()) | forgiven)

    @property
    def succeeded(self) -> bool:
        """False if a check failed without a waiver, or a waived check passed."""
        return not any(result.verdict in ("failed", "unexpected_pass") for result in self.results)

    @property
    def line(self) -> str:
        """The statement as one line for a README, such as ``contract 1.0 · L0 14/14 · L1 not run (no device)``."""
        return " · ".join([f"contract {self.contract_version}", *(claim.phrase for claim in self.levels)])


def make_statement(
    entry: PluginEntry,
    standing: PluginReadiness,
    results: Sequence[CheckResult],
    waivers: Mapping[str, Waiver],
    *,
    level: int | None,
) -> Statement:
    """Return the statement for the results of every check up to ``level``. With ``None`` it claims no level."""
    judged = tuple(judge(result, waivers.get(result.check.id)) for result in results)
    apart = _checks_of_several_devices() if standing.device_count == 1 else frozenset()
    levels = [each for each in LEVELS if level is not None and each <= level]
    no_device = bool(standing.no_device)
    claims = _claims(levels, judged, no_device=no_device, simulated=standing.simulated, apart=apart)
    return Statement(
        contract_version=CONTRACT_VERSION,
        chipperf_version=chipperf.__version__,
        api_version=API_VERSION,
        vendor=entry.name,
        distribution=entry.distribution,
        distribution_version=entry.version,
        finished_utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        simulated=standing.simulated,
        device=dict(standing.device),
        runtime=dict(standing.runtime),
        levels=claims,
        results=judged,
    )


def judge(result: CheckResult, waiver: Waiver | None) -> JudgedResult:
    """Return a result after its waiver was applied."""
    verdict: Verdict = result.status
    message = result.message
    if result.status == "failed" and waiver is not None:
        verdict = "waived"
    elif result.status == "failed" and result.check.advisory:
        verdict = "advisory"
    elif result.status == "passed" and waiver is not None:
        verdict = "unexpected_pass"
        message = f"it passes, but is waived as {waiver.kind} ({waiver.reason}): remove the waiver"
    check, seconds = result.check, round(result.seconds, 3)
    return JudgedResult(
        check=check.id, level=check.level, verdict=verdict, message=message, seconds=seconds, waiver=waiver
    )


def _checks_of_several_devices() -> frozenset[str]:
    return frozenset(check.id for check in all_checks() if check.capability == Capability.MULTI_DEVICE)


def _claims(
    levels: Sequence[Level], results: Sequence[JudgedResult], *, no_device: bool, simulated: bool, apart: Container[str]
) -> tuple[LevelClaim, ...]:
    """Judge levels. ``apart`` are the checks of several devices, which a machine with a single one cannot run."""
    claims: list[LevelClaim] = []
    for level in levels:
        of_level = [result for result in results if result.level == level]
        obstacles = [_NO_DEVICE] if level > 0 and no_device else ["simulated"] if level > 0 and simulated else []
        claims.append(_claim(level, of_level, claims, obstacles, apart))
    return tuple(claims)


def _claim(
    level: Level,
    results: Sequence[JudgedResult],
    below: Sequence[LevelClaim],
    obstacles: Sequence[str],
    apart: Container[str],
) -> LevelClaim:
    lonely = [result.check for result in results if result.verdict == "not_run" and result.check in apart]
    applicable = [
        result
        for result in results
        if result.verdict not in ("not_applicable", "advisory") and result.check not in lonely
    ]
    checks: dict[str, list[str]] = {}
    for result in applicable:
        kind = result.waiver.kind if result.verdict == "waived" and result.waiver else result.verdict
        checks.setdefault(kind, []).append(result.check)
    faults = [*obstacles]
    if _NO_DEVICE not in faults:
        faults += [f"{_enumerate(checks[kind])} {words}" for kind, words in _OBSTACLES.items() if kind in checks]
        if not applicable:
            faults.append("no check ran")
        if not faults and not all(claim.claimed for claim in below):
            faults.append("a lower level is not claimed")
    conditions = [f"{', '.join(checks['unsupported'])} unsupported"] if "unsupported" in checks else []
    conditions += [f"1 device, {_enumerate(lonely)} not run"] if lonely else []
    return LevelClaim(
        level=level,
        claimed=not faults,
        passed=len(checks.get("passed", ())),
        applicable=len(applicable),
        remark="; ".join(faults or conditions),
    )


def _enumerate(checks: Sequence[str]) -> str:
    more = len(checks) - _NAMED
    return f"{', '.join(checks[:_NAMED])} and {more} more" if more > 1 else ", ".join(checks)

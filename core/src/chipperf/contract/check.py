"""The type of a check, the decorator that makes one, and the exceptions that report its result."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from chipperf.cases.registry import case_names
from chipperf.catalog import Catalog, require_id, summary_of
from chipperf.plugin.types import Capability, EnvironmentSettings
from chipperf.precisions import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.errors import PerfError

CONTRACT_VERSION: Final = "1.0"
"""Version of the list of checks, as a conformance statement gives it. A new check raises the minor version."""

Level = Literal[0, 1, 2, 3]
"""0 static: no device, no torch. 1 device. 2 training. 3 distributed."""

LEVELS: Final[dict[Level, str]] = {0: "static", 1: "device", 2: "training", 3: "distributed"}

Needs = Literal["entry", "session", "device"]
"""What must work before a check can run: the installed entry point, the bound session, or the initialized device."""

Settings = Callable[[], tuple[EnvironmentSettings, ...]]
"""Returns the runs for which a plugin sets up its environment. The check runs once for each, in that environment."""

_DEFAULT_TIMEOUT_S: Final[dict[Level, float]] = {0: 60, 1: 180, 2: 600, 3: 300}


def fp32() -> tuple[EnvironmentSettings, ...]:
    """Return one run in fp32, for a check that does not depend on the precision."""
    return (EnvironmentSettings(case=case_names()[0], precision="fp32"),)


def each_precision() -> tuple[EnvironmentSettings, ...]:
    """Return one run in each precision."""
    return tuple(EnvironmentSettings(case=case_names()[0], precision=precision) for precision in PRECISIONS)


def deterministic() -> tuple[EnvironmentSettings, ...]:
    """Return one deterministic run in each precision."""
    return tuple(replace(settings, deterministic=True) for settings in each_precision())


def each_case() -> tuple[EnvironmentSettings, ...]:
    """Return one run in fp32 of each case."""
    return tuple(EnvironmentSettings(case=name, precision="fp32") for name in case_names())


class Failed(Exception):
    """The plugin fails the check. The message says what was expected, what was found, and what to do."""


class NotRun(Exception):
    """The check cannot run here: the machine lacks something, or the message names the check that finds the fault.

    After ``see M1``, the check fails unless M1 fails or cannot run either.
    """


class NotApplicable(Exception):
    """The check does not apply to this plugin."""


@contextmanager
def not_run_on(kind: type[PerfError], reason: str) -> Iterator[None]:
    """Raise :class:`NotRun` if the block raises an error that another check reports."""
    try:
        yield
    except kind as error:
        raise NotRun(f"{reason}: {error.message}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of the contract.

    Attributes:
        id: Stable name: a letter for the area and a number, for example ``M4``.
        summary: One sentence that is true of a conforming plugin. The first line of the function's docstring.
        fault: The mistake that the check finds.
        ranks: Number of processes that run the check together. Each has its own device.
        most_ranks: Their number where there are devices for them.
        since: Version of the contract that introduced the check.
    """

    id: str
    summary: str
    fault: str
    level: Level
    capability: Capability | None
    needs: Needs
    ranks: int
    most_ranks: int
    settings: Settings
    since: str
    timeout_s: float
    function: Callable[[Any], None]

    @property
    def advisory(self) -> bool:
        """True if the check is new in this version. Its failure is reported, and counts from the next version on."""
        return self.since == CONTRACT_VERSION and not CONTRACT_VERSION.endswith(".0")


def check(
    id: str,
    *,
    level: Level,
    fault: str,
    needs: Needs | None = None,
    capability: Capability | None = None,
    ranks: int = 1,
    most_ranks: int = 1,
    settings: Settings = fp32,
    since: str = "1.0",
    timeout_s: float | None = None,
) -> Callable[[Callable[[Any], None]], Check]:
    """Return a decorator that makes a check of a function. The first line of its docstring is the check's summary.

    The function returns if the plugin conforms. Otherwise it raises :class:`Failed`, usually through :func:`require`.
    Any other exception counts as a failure too. The arguments are the attributes of :class:`Check`. By default a check
    needs ``session`` at level 0 and ``device`` at higher levels, and has the time limit of its level.
    """
    require_id(id, "[A-Z][0-9]{1,2}", "M4")

    def decorate(function: Callable[[Any], None]) -> Check:
        return Check(
            id=id,
            summary=summary_of(function, id),
            fault=fault,
            level=level,
            capability=capability,
            needs=needs or ("session" if level == 0 else "device"),
            ranks=ranks,
            most_ranks=max(ranks, most_ranks),
            settings=settings,
            since=since,
            timeout_s=timeout_s or _DEFAULT_TIMEOUT_S[level],
            function=function,
        )

    return decorate


def require(condition: object, message: str) -> None:
    """Raise :class:`Failed` with ``message`` unless ``condition`` holds."""
    if not condition:
        fail(message)


def fail(message: str) -> NoReturn:
    """Raise :class:`Failed`."""
    raise Failed(message)


_CHECKS: Final = Catalog("chipperf.contract.checks", Check, noun="check", listing="perf contract list")


def all_checks() -> tuple[Check, ...]:
    """Return every check, ordered by letter and number. Imports neither torch nor a plugin."""
    return tuple(_CHECKS.entries().values())


_CASE_CHECKS: Final = Catalog(
    "chipperf.contract.case_checks", Check, noun="check", listing="perf contract list --cases"
)


def case_checks() -> tuple[Check, ...]:
    """Return every check of a case, ordered by number. Imports neither torch nor a case of another package."""
    return tuple(_CASE_CHECKS.entries().values())


def find_check(id: str) -> Check:
    """Return the check with an id, of a plugin or of a case; an unknown one is a :class:`UsageError`."""
    return (_CASE_CHECKS if id.startswith("K") else _CHECKS).find(id)

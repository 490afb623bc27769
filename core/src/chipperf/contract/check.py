"""What a check is, and how it says what it found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from chipperf.cases.registry import case_names
from chipperf.catalog import Catalog, require_id, summary_of
from chipperf.plugin.types import PRECISIONS, EnvironmentSettings

if TYPE_CHECKING:
    from chipperf.plugin.types import Capability

CONTRACT_VERSION: Final = "1.0"
"""Version of the list of checks, in a conformance statement. A new check raises the minor version."""

Level = Literal[0, 1, 2, 3]
"""0 static: no device, no torch. 1 device. 2 training. 3 distributed."""

LEVELS: Final[dict[Level, str]] = {0: "static", 1: "device", 2: "training", 3: "distributed"}
"""Every level and its name."""

Needs = Literal["entry", "session", "device"]
"""How far a plugin must work for a check to say anything: be installed, be bindable, or have initialised its device."""

Settings = Callable[[], tuple[EnvironmentSettings, ...]]
"""Says for which runs a plugin sets its environment up: a check is carried out once with each, in that environment."""

_DEFAULT_TIMEOUT_S: Final[dict[Level, float]] = {0: 60, 1: 180, 2: 600, 3: 300}


def fp32() -> tuple[EnvironmentSettings, ...]:
    """Settings of a check that is about no precision in particular."""
    return (EnvironmentSettings(case=case_names()[0], precision="fp32"),)


def deterministic() -> tuple[EnvironmentSettings, ...]:
    """Settings of a check of deterministic training."""
    return tuple(replace(each, deterministic=True) for each in fp32())


def each_precision() -> tuple[EnvironmentSettings, ...]:
    """Settings of a check of every precision."""
    return tuple(replace(each, precision=precision) for each in fp32() for precision in PRECISIONS)


def each_case() -> tuple[EnvironmentSettings, ...]:
    """Settings of a check that trains every case."""
    return tuple(EnvironmentSettings(case=name, precision="fp32") for name in case_names())


class Failed(Exception):
    """The plugin breaks the check; the message says what was expected, what was found, and what to do."""


class NotRun(Exception):
    """The check could not be carried out here, for a reason that is not the plugin's fault."""


class NotApplicable(Exception):
    """The check does not concern this plugin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of the contract.

    Attributes:
        id: Stable name, a letter for the area and a number, for example ``M4``.
        summary: One sentence: what holds for a conforming plugin. The first line of the function's docstring.
        fault: What a plugin that fails it gets wrong.
        level: Level it belongs to.
        capability: Capability without which it does not apply.
        needs: How far the plugin must work before the check can say anything.
        ranks: Processes that carry it out together, each on a device of its own.
        settings: Runs for which the plugin's environment is set up; the check is carried out once with each.
        since: Version of the contract that introduced it.
        timeout_s: Time it has.
        function: Carries it out; takes a :class:`~chipperf.contract.subject.Subject`.
    """

    id: str
    summary: str
    fault: str
    level: Level
    capability: Capability | None
    needs: Needs
    ranks: int
    settings: Settings
    since: str
    timeout_s: float
    function: Callable[[Any], None]

    @property
    def advisory(self) -> bool:
        """True for a check that is new in this version: its failure is reported, and counts from the next one on."""
        return self.since == CONTRACT_VERSION and not CONTRACT_VERSION.endswith(".0")

    @property
    def target(self) -> str:
        """Module and name of the function, as :mod:`chipperf.contract.isolation` calls it."""
        return f"{self.function.__module__}:{self.function.__name__}"


def check(
    id: str,
    *,
    level: Level,
    fault: str,
    needs: Needs | None = None,
    capability: Capability | None = None,
    ranks: int = 1,
    settings: Settings = fp32,
    since: str = "1.0",
    timeout_s: float | None = None,
) -> Callable[[Callable[[Any], None]], Check]:
    """Make a check of a function whose docstring's first line is the check's summary.

    The function returns if the plugin conforms. Otherwise it raises :class:`Failed`, best through :func:`require`. Any
    other exception counts as a failure too.

    Args:
        id: See :class:`Check`, as all that follow.
        level: Level it belongs to.
        fault: What a plugin that fails it gets wrong.
        needs: By default ``session`` at level 0 and ``device`` above.
        capability: Capability without which it does not apply.
        ranks: Processes that carry it out together.
        settings: By default one run in fp32.
        since: Version of the contract that introduced it.
        timeout_s: By default what is ample for the level.
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
    """Return every check, ordered by letter and number; imports neither torch nor a plugin."""
    return tuple(_CHECKS.entries().values())


def find_check(id: str) -> Check:
    """Return the check called ``id``.

    Raises:
        UsageError: There is none.
    """
    return _CHECKS.find(id)

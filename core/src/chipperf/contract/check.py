"""What a check is, and how it says what it found."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

    from chipperf.plugin.types import Capability

CONTRACT_VERSION: Final = "1.0"
"""Version of the list of checks, in a conformance statement. A new check raises the minor version."""

Level = Literal[0, 1, 2, 3]
"""0 static: no device, no torch. 1 device. 2 training. 3 distributed."""

LEVELS: Final[dict[Level, str]] = {0: "static", 1: "device", 2: "training", 3: "distributed"}
"""Every level and its name."""

Needs = Literal["entry", "session", "device"]
"""How far a plugin must work for a check to say anything: be installed, be bindable, or have initialised its device."""

_ID: Final = re.compile(r"[A-Z][0-9]{1,2}")
_DEFAULT_TIMEOUT_S: Final[dict[Level, float]] = {0: 60, 1: 180, 2: 600, 3: 300}


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
        since: Version of the contract that introduced it.
        timeout_s: By default what is ample for the level.
    """
    if not _ID.fullmatch(id):
        raise ValueError(f"{id!r} is not a check id such as 'M4'")

    def decorate(function: Callable[[Any], None]) -> Check:
        summary = (inspect.getdoc(function) or "").partition("\n")[0]
        if not summary:
            raise ValueError(f"check {id} has no docstring to take its summary from")
        return Check(
            id=id,
            summary=summary,
            fault=fault,
            level=level,
            capability=capability,
            needs=needs or ("session" if level == 0 else "device"),
            ranks=ranks,
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

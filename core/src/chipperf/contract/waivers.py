"""Waivers: a TOML file in which the authors of a plugin list checks that fail, each with the reason.

Waivers are strict. A waived check that passes fails the run. A waiver names exactly one check. A waiver of an unknown
check is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import StringConstraints, ValidationError

from chipperf.contract.check import find_check
from chipperf.errors import ConfigError, UsageError, first_fault
from chipperf.plugin.types import API_VERSION
from chipperf.records.schema import StrictModel
from chipperf.toml import parse_toml

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Waiver(StrictModel):
    """One check that is known to fail, and why.

    Attributes:
        kind: ``unsupported``: the hardware cannot do it, and the level may still be claimed. ``bug``: the
            plugin has a bug. ``planned``: the feature is not built yet. With ``bug`` and ``planned`` the run
            succeeds, but the level is not claimed.
        until_api: First API version for which the waiver is not accepted.
    """

    check: _Text
    kind: Literal["unsupported", "bug", "planned"]
    reason: _Text
    issue: _Text | None = None
    until_api: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+$")] | None = None


class _WaiverFile(StrictModel):
    waiver: tuple[Waiver, ...] = ()


def read_waivers(path: Path) -> dict[str, Waiver]:
    """Return the waivers in a TOML file by check id; a :class:`ConfigError` names the file and the waiver.

    It must not waive an unknown check or a check twice, and none of its waivers may have expired.
    """
    try:
        content = _WaiverFile.model_validate(parse_toml(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="check --waivers") from error
    except ValueError as error:
        raise ConfigError(
            f"{path}: {first_fault(error) if isinstance(error, ValidationError) else error}",
            hint="write each waiver as a [[waiver]] table with check, kind and reason, optionally issue and until_api",
        ) from error
    waivers: dict[str, Waiver] = {}
    for waiver in content.waiver:
        check, until = waiver.check, waiver.until_api
        try:
            find_check(check)
        except UsageError as error:
            raise ConfigError(f"{path}: a waiver matches no check: {error.message}", hint=error.hint) from error
        if check in waivers:
            raise ConfigError(f"{path}: {check} is waived twice", hint="keep one of the two")
        if until is not None and _numbers(API_VERSION) >= _numbers(until):
            raise ConfigError(
                f"{path}: the waiver of {check} ended with API version {until}, this is {API_VERSION}",
                hint="fix the plugin, or set a later until_api",
            )
        waivers[check] = waiver
    return waivers


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))

"""Parsing and formatting of durations such as ``90s``, ``30m``, ``2h`` and ``1h30m``."""

from __future__ import annotations

import re

from chipperf.errors import UsageError

_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0}
_NUMBER = r"\d+(?:\.\d+)?"
_DURATION = re.compile("".join(f"(?:(?P<{unit}>{_NUMBER}){unit})?" for unit in _UNITS_S), re.ASCII)


def parse_duration(text: str, who: str) -> float:
    """Return the seconds of a duration: hours, minutes and seconds, each with its unit, the largest unit first.

    Any other text, and no time at all, is a :class:`UsageError` about ``who``, an option or a key.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    hint = "write hours, minutes or seconds with their unit: 90s, 30m, 2h, 1h30m"
    if match is None or not any(match.groups()):
        raise UsageError(f"{who} {text!r} is not a duration", hint=hint)
    seconds = sum(float(match[unit] or 0) * unit_s for unit, unit_s in _UNITS_S.items())
    if seconds <= 0:
        raise UsageError(f"{who} {text!r} is not a positive duration", hint=hint)
    return seconds


def format_duration(seconds: float) -> str:
    """Return a duration in its largest units, rounded to seconds from one minute on.

    >>> format_duration(5400), format_duration(90), format_duration(0.5)
    ('1h30m', '1m30s', '0.5s')
    """
    if seconds < 60:
        return f"{seconds:.3g}s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "m"), (rest_s, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count)

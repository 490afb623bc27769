"""Units of time and throughput that the header or the legend of a column states."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from chipperf.documents.wording import in_brackets

if TYPE_CHECKING:
    from chipperf.records.columns import Column

_SECONDS: Final = {
    0.001: ("ms", "millisecond", "milliseconds", "毫秒"),
    1.0: ("s", "sec", "second", "seconds", "秒"),
    60.0: ("min", "mins", "minute", "minutes", "分", "分钟"),
    3600.0: ("h", "hr", "hrs", "hour", "hours", "时", "小时"),
    86400.0: ("d", "day", "days", "天"),
}
_SECONDS_OF: Final = {name: seconds for seconds, names in _SECONDS.items() for name in names}
_TIME: Final = "|".join(sorted(_SECONDS_OF, key=len, reverse=True))
_UNIT: Final = (
    r"(?P<scale>(?:k|thousands?|millions?|千|万)(?:\s+|(?=img|image|sample|seq|token|图|样|/|$))|)"
    rf"(?:(?P<alone>{_TIME})|(?:[a-z]*|图片|图像|样本|序列|张)\s*(?:(?:/|per\s|每)\s*(?P<per>{_TIME}))?)"
)
_LEGEND: Final = re.compile(
    rf"(?:\bin\s+|单位[为是：:]?\s*|\bunit:?\s+(?:is\s+)?)(?P<unit>{_UNIT})(?![a-z])", re.IGNORECASE
)
_FULL: Final = re.compile(_UNIT, re.IGNORECASE)


def stated_factor(column: Column, header: str, legend: str) -> float | None:
    """Return the factor from the numbers of a column to its unit; ``None`` if the stated unit is another, or not clear.

    What is no unit in the header's brackets or in the legend states none.
    """
    said = _LEGEND.search(legend)
    stated = set()
    for text in (in_brackets(header), said["unit"] if said else legend):
        match = _FULL.fullmatch(text.strip())
        if match is None:
            continue
        alone, per = (_SECONDS_OF.get((match[name] or "").casefold()) for name in ("alone", "per"))
        if match["scale"] or (per if column.kind == "time" else alone):
            return None
        if seconds := alone or per:
            stated.add(seconds if alone else 1 / seconds)
    return None if len(stated) > 1 else next(iter(stated), 1.0)

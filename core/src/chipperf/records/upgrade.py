"""Records of earlier schemas, read as records of this one: a step for each version that a later one replaced.

Nothing on disk is changed, so digests of files stay what they were. What names fields of a record (a provenance, values
that are revealed later) is upgraded as well. A commitment is not: it is to the name and the value of that time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from chipperf.records.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_RENAMED: Final[Mapping[int, Mapping[str, str]]] = {
    1: {
        "metrics.step_breakdown.optimiser_s": "optimizer_s",
        "metrics.power.mean_utilisation_percent": "mean_utilization_percent",
        "nodes.*.power.mean_utilisation_percent": "mean_utilization_percent",
    },
}
"""What the version after it calls fields of a version; ``*`` is every item of a list."""

_RENAMED_IN_READINGS: Final[Mapping[str, str]] = {"utilisation_percent": "utilization_percent"}
"""New name of a key in telemetry readings of chipperf 0.1.0. Readings have no version; the old key is never written."""

_INDEX: Final = re.compile(r"\[\d+\]")


def upgrade(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a record's file as this version would have written it; ``content`` stays as it is.

    A file of an unknown version comes back unchanged, and so does what an edited file has in a field's place.
    """
    version = content.get("schema_version")
    while isinstance(version, int) and version in _RENAMED:
        for path, name in _RENAMED[version].items():
            content = _rename(content, path.split("."), name)
        version += 1
        content = {**content, "schema_version": version}
    return content


def upgrade_field(path: str, version: int) -> str:
    """Return what this version calls a field of a record.

    Args:
        path: The field as JSONPath, for example ``$.metrics.p_train``.
        version: Version of the record's schema.

    >>> upgrade_field("$.nodes[1].power.mean_utilisation_percent", 1)
    '$.nodes[1].power.mean_utilization_percent'
    """
    for each in range(version, SCHEMA_VERSION):
        name = _RENAMED[each].get(_INDEX.sub(".*", path).removeprefix("$."))
        path = f"{path.rpartition('.')[0]}.{name}" if name else path
    return path


def upgrade_reading(reading: dict[str, Any]) -> dict[str, Any]:
    """Return a telemetry reading with the keys of this version."""
    return {_RENAMED_IN_READINGS.get(key, key): value for key, value in reading.items()}


def _rename(value: Any, path: Sequence[str], name: str) -> Any:
    step, *below = path
    if step == "*" and isinstance(value, list):
        return [_rename(each, below, name) for each in value]
    # A field that stands there under both names is left for the schema to refuse.
    if not isinstance(value, dict) or step not in value or (not below and name in value):
        return value
    if below:
        return {**value, step: _rename(value[step], below, name)}
    return {name if key == step else key: each for key, each in value.items()}

"""Upgrading records of earlier schemas when they are read, one version at a time.

Files on disk and their digests do not change. Other content that names fields of a record (a provenance, or values that
are revealed later) is upgraded too. A commitment is not, because its digest covers the old name and value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from chipperf.records.schema import SCHEMA_VERSION

_RENAMED: Final[Mapping[int, Mapping[str, str]]] = {
    1: {
        "metrics.step_breakdown.optimiser_s": "optimizer_s",
        "metrics.power.mean_utilisation_percent": "mean_utilization_percent",
        "nodes.*.power.mean_utilisation_percent": "mean_utilization_percent",
    },
}
"""For each version, the fields that the next version renames; ``*`` is every item of a list."""

_RENAMED_IN_READINGS: Final[Mapping[str, str]] = {"utilisation_percent": "utilization_percent"}
"""New name of a key in telemetry readings of chipperf 0.1.0. Readings have no version; the old key is never written."""

_INDEX: Final = re.compile(r"\[\d+\]")


def upgrade(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a record's file in the current schema. ``content`` does not change.

    A file of an unknown version is returned unchanged. So is invalid content of a field in an edited file.
    """
    version = content.get("schema_version")
    while isinstance(version, int) and version in _RENAMED:
        for path, name in _RENAMED[version].items():
            content = _rename(content, path.split("."), name)
        version += 1
        content = {**content, "schema_version": version}
    return content


def upgrade_field(path: str, version: int) -> str:
    """Return the current name of a record's field.

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
    """Return a telemetry reading with the current keys."""
    return {_RENAMED_IN_READINGS.get(key, key): value for key, value in reading.items()}


def _rename(value: Any, path: Sequence[str], name: str) -> Any:
    step, *below = path
    if step == "*" and isinstance(value, list):
        return [_rename(each, below, name) for each in value]
    # A field with both names is left for the schema to reject.
    if not isinstance(value, dict) or step not in value or (not below and name in value):
        return value
    if below:
        return {**value, step: _rename(value[step], below, name)}
    return {name if key == step else key: each for key, each in value.items()}

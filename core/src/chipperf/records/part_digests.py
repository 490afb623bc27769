"""Digests of the parts of a record that the main rank writes; its last event repeats them.

So a value that no other event or reading tells cannot be changed in the record alone without anybody noticing.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

_OF_THE_LAUNCHER: Final = {"status", "nodes", "disabled_observers", "machine_limits", "evidence", "withheld"}
"""Parts that are written after the main rank's last event."""

_DIGITS: Final = 16


def part_digests(content: bytes) -> dict[str, str]:
    """Return the beginning of the SHA-256 of each part of a record's file, by field; warnings are numbered from 0.

    A part is a field of the record or of its metrics. The launcher may still add a span and warnings, and it tells the
    end-to-end time. With several machines, it also sums up their telemetry.

    Raises:
        ValueError: The content is not JSON.
    """
    record = json.loads(content)
    parts: dict[str, Any] = {name: value for name, value in record.items() if name not in _OF_THE_LAUNCHER}
    parts |= {f"warnings.{index}": warning for index, warning in enumerate(parts.pop("warnings"))}
    metrics = parts.pop("metrics")
    metrics["spans"] = [span for span in metrics["spans"] if span["name"] != "teardown"]
    late = {"e2e_time_s"} if record["topology"]["nnodes"] == 1 else {"e2e_time_s", "power", "memory"}
    parts |= {f"metrics.{name}": value for name, value in metrics.items() if name not in late}
    texts = {name: json.dumps(value, sort_keys=True) for name, value in parts.items()}
    return {name: hashlib.sha256(text.encode()).hexdigest()[:_DIGITS] for name, text in texts.items()}

"""Reading a run's log: JSON objects on marked lines between the output of other programs, and attempts among them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from chipperf.documents.document_identity import find_case_by_model, slug
from chipperf.documents.markdown import Located, Place, one_line
from chipperf.errors import DocumentError
from chipperf.importing.imported import ImportSource, NotUnderstood, SourceFile
from chipperf.records.files import read_bounded

if TYPE_CHECKING:
    from pathlib import Path

    from chipperf.records.schema import Topology

MAX_LOG_BYTES: Final = 256 * 2**20
"""Size limit of a log."""

_TIMES_S: Final = (946_684_800, 4_102_444_800)
"""The years 2000 to 2099. A number outside is no time in milliseconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEvent:
    """A marked line: the event's name, its value or values, its time, and the line as it stands in the log.

    The time is ``None`` if it cannot be in milliseconds since 1970. Keys that the line has several times, with
    different values, are only in ``repeated``.
    """

    name: str
    value: Any
    metadata: Mapping[str, Any]
    time_s: float | None
    line: int
    text: str
    repeated: Mapping[str, Sequence[object]]

    @property
    def values(self) -> Mapping[str, Any]:
        """The values by name; empty if the event has one value or none."""
        return self.value if isinstance(self.value, dict) else {}

    def located(self, value: object, key: str) -> Located:
        """Return a value as text with the place of its key."""
        return Located(str(value), self._place(key))

    def source(self, file: str, field: str, value: object, key: str) -> ImportSource:
        """Return the source of a record's field: a value and its key in the line."""
        return ImportSource.at(self.located(value, key), file, field)

    def refusal(self, file: str, key: str, reason: str) -> NotUnderstood:
        """Return the event, at the place of a key, as not understood for a reason."""
        return NotUnderstood.at(Located(_shortened(self.text), self._place(key)), file, reason)

    def _place(self, key: str) -> Place:
        return Place(self.line, max(self.text.find(json.dumps(key)), 0) + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What the user states about the files; ``None`` if a file states it. Documents state the last two."""

    vendor: str | None = None
    case: str | None = None
    topology: Topology | None = None
    precision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The text of a log, and its identity."""

    path: Path
    text: str
    file: SourceFile


def read_log(path: Path) -> Log:
    """Read a log; a :class:`DocumentError` says why it cannot be read."""
    try:
        content = read_bounded(path, MAX_LOG_BYTES)
    except OSError as error:
        hint = "name a log; of a large one, keep the lines with [PerfLog] or :::MLLOG: grep -F"
        raise DocumentError(f"cannot read {path}: {error.strerror}", hint=hint) from error
    # Many libraries write to this log. An invalid character must not make the events unreadable.
    text = content.decode("utf-8", errors="replace")
    return Log(path=path, text=text, file=SourceFile(name=path.name, sha256=hashlib.sha256(content).hexdigest()))


def require_identity(
    path: Path, vendor: str | None, model: str | None, topology: Topology | None
) -> tuple[str, str, Topology]:
    """Return vendor, case and topology of a log, or raise a :class:`DocumentError` on what is not known."""
    if vendor is None:
        raise DocumentError(f"{path} does not name its vendor", hint="give it with --vendor NAME")
    if model is None:
        raise DocumentError(f"{path} does not name its model", hint="give the case with --case NAME")
    if topology is None:
        raise DocumentError(f"{path} does not give the number of cards", hint="give it with --topology 1x8")
    case = find_case_by_model(model)
    return vendor, case.name if case else slug(model), topology


def read_events(log: Log, mark: str, name_key: str) -> tuple[list[LogEvent], list[NotUnderstood]]:
    """Return the events on a log's marked lines, whose names stand under ``name_key``, and the lines without one."""
    events, others = [], []
    for number, line in enumerate(log.text.splitlines(), start=1):
        before, found, after = line.partition(mark)
        if not found:
            continue
        if event := _event(after, name_key, number, line):
            events.append(event)
            for key, values in event.repeated.items():
                reason = f"the key {key!r} is there several times: {', '.join(map(str, values))}"
                others.append(event.refusal(log.path.name, key, reason))
        else:
            place = Place(number, len(before) + 1)
            others.append(NotUnderstood.at(Located(_shortened(line), place), log.path.name, "not an event"))
    return events, others


def attempt_run_id(log: Log, index: int, attempts: int) -> str:
    """Return the run id of an attempt, counted from 1."""
    return f"imported-{log.file.sha256[:8]}" + (f"-{index}" if attempts > 1 else "")


def split_attempts(events: Sequence[LogEvent], *, begin: str, start: str) -> list[list[LogEvent]]:
    """Return the events of each attempt. Training that starts again, or the process that begins it, is a new one."""
    starts = [index for index, event in enumerate(events) if event.name == start]
    bounds = [0]
    for before, index in zip(starts, starts[1:], strict=False):
        begins = (each for each in range(index, before, -1) if events[each].name == begin)
        bounds.append(next(begins, index))
    return [list(events[first:last]) for first, last in zip(bounds, [*bounds[1:], len(events)], strict=True)]


def number(value: object) -> float | None:
    """Return a number of JSON that is finite and not negative, otherwise ``None``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) and found >= 0 else None


def text_or_none(value: object) -> str | None:
    """Return a text that is not empty, otherwise ``None``."""
    return value if isinstance(value, str) and value else None


def _event(content: str, name_key: str, line: int, text: str) -> LogEvent | None:
    repeated: dict[str, list[object]] = {}

    def unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, list[Any]] = {}
        for key, value in pairs:
            found.setdefault(key, []).append(value)
        several = {key: values for key, values in found.items() if any(each != values[0] for each in values)}
        repeated.update(several)
        return {key: values[0] for key, values in found.items() if key not in several}

    try:
        # Another process may have written to the same line after the event.
        found, _ = json.JSONDecoder(object_pairs_hook=unambiguous).raw_decode(content.lstrip())
        if "\\ud" in content.casefold():
            # Half of a surrogate pair is no text, and no file can hold it.
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get(name_key), str):
        return None
    metadata = found.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    time_s = (number(found.get("time_ms", metadata.get("time_ms"))) or 0) / 1000
    return LogEvent(
        name=found[name_key],
        value=found.get("value"),
        metadata=metadata,
        time_s=time_s if _TIMES_S[0] <= time_s < _TIMES_S[1] else None,
        line=line,
        text=text,
        repeated=repeated,
    )


def _shortened(line: str) -> str:
    return one_line(line)[:200]

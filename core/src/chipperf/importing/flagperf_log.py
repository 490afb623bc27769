"""Importing the logs of a FlagPerf run: events from ``rank0.out.log``, telemetry from ``*_monitor.log`` files.

The values keep FlagPerf's definitions: ``p_core`` is timed without waiting for the device, and samples are counted as
in the code of each model. docs/report.md lists the definitions.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from chipperf.documents import wording
from chipperf.documents.document_identity import find_case_by_model, installed_cases, slug
from chipperf.documents.markdown import Located, Place, one_line
from chipperf.errors import DocumentError
from chipperf.importing.blank import blank_record
from chipperf.importing.imported import Import, ImportedRecord, ImportSource, NotUnderstood, SourceFile
from chipperf.importing.monitor_log import read_monitor_log
from chipperf.records.schema import UNKNOWN, UNKNOWN_NAME, EvaluationPoint, Failure, Status, Topology

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from chipperf.documents.card_names import CardNames

MAX_LOG_BYTES: Final = 256 * 2**20
"""Size limit of a log."""

_MARK: Final = "[PerfLog]"
_EVENT: Final = re.compile(r"\[PerfLog\]\s*(\{.*)")
_CASE_KEY: Final = re.compile(r"([\w.-]+):([\w.-]+):([\w.-]+):(\d{1,4}):(\d{1,4}):\d+")
_NUMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "e2e_time_s": ("e2e_time",),
    "p_whole": ("throughput(ips)_raw",),
    "p_train": ("throughput(ips)_no_eval",),
    "p_core": ("throughput(ips)_pure_compute",),
    "train_seconds": ("raw_train_time", "train_time"),
}
_COUNTS: Final[Mapping[str, tuple[str, ...]]] = {
    "train_samples": ("num_trained_samples",),
    "steps": ("global_steps",),
}
_RESULT_KINDS: Final = ("accuracy", "mean average precision")


@dataclass(frozen=True, slots=True)
class _Event:
    name: str
    value: Mapping[str, Any]
    time_s: float | None
    line: int
    text: str

    def place(self, key: str) -> Place:
        return Place(self.line, max(self.text.find(json.dumps(key)), 0) + 1)


@dataclass(slots=True)
class _Log:
    events: list[_Event] = field(default_factory=list)
    unknown: list[Located] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """Facts that a log may not contain and the user can give. ``None`` is detected from the log's directories."""

    vendor: str | None = None
    case: str | None = None
    topology: Topology | None = None
    precision: str | None = None


def import_log(path: Path, *, names: CardNames, facts: RunFacts) -> Import:
    """Return the record of a FlagPerf run.

    Args:
        path: Log of the main process. Monitor logs in the same directory are read too.
        names: Names of vendors and cards.
        facts: Known facts of the run.

    Raises:
        DocumentError: The log cannot be read or has no event, or vendor, case or topology is unknown.
    """
    text, file = _read(path)
    log = _parse(text)
    if not log.events:
        raise DocumentError(
            f"{path} has no event of FlagPerf's log", hint=f"its lines start with {_MARK}; try rank0.out.log"
        )
    known = _complete(path, log, facts)
    importer = _Importer(path.name, log, case=known.case or "")
    record = blank_record(
        run_id=f"imported-{file.sha256[:8]}",
        vendor=known.vendor or "",
        case=known.case or "",
        topology=known.topology or Topology(nnodes=1, nproc_per_node=1),
        names=names,
        metrics_definition="flagperf",
    )
    metrics = importer.metrics()
    files = [file]
    for monitor in sorted(path.parent.glob("*_monitor.log")):
        monitor_text, monitor_file = _read(monitor)
        read = read_monitor_log(monitor_text, monitor.name)
        if read is None:
            continue
        files.append(monitor_file)
        metrics |= {"power": read.power, "memory": read.memory}
        if read.peak_place:
            importer.source("metrics.memory", monitor.name, read.peak_place, str(read.memory))
        importer.list(monitor.name, read.not_understood, "no reading of a device")
    update: dict[str, Any] = {
        "metrics": record.metrics.model_copy(update=metrics),
        "status": importer.status(),
        "precision": record.precision.model_copy(update={"requested": known.precision or UNKNOWN_NAME}),
        "environment": record.environment.model_copy(update=_card(path)),
        "remarks": importer.remarks,
    }
    complete = type(record).model_validate(record.model_copy(update=update).model_dump())
    importer.list(path.name, log.unknown, "not an event")
    return Import(
        files=tuple(files),
        records=(ImportedRecord(complete, tuple(importer.sources)),),
        not_understood=tuple(importer.not_understood),
    )


class _Importer:
    """Reads values from events, and collects their places."""

    def __init__(self, name: str, log: _Log, *, case: str) -> None:
        self._name = name
        self._log = log
        self._case = installed_cases().get(case)
        self.sources: list[ImportSource] = []
        self.remarks: list[str] = []
        self.not_understood: list[NotUnderstood] = []
        finished = [event for event in log.events if event.name == "FINISHED"]
        self._finished = finished[0] if finished else None
        for event in finished[1:]:
            self._refuse(event, "event", "a second FINISHED event, from the main process of another machine")

    def status(self) -> Status:
        """Return the status ``completed`` if the log has the event that ends a run, else ``interrupted``."""
        if self._finished:
            return Status(state="completed")
        message = "the log has no FINISHED event"
        return Status(state="interrupted", failure=Failure(failure_class="unfinished", message=message))

    def metrics(self) -> dict[str, Any]:
        """Return the metrics in the log."""
        metrics: dict[str, Any] = {"curve": list(self._curve())}
        epochs = sum(event.name == "EPOCH_END" for event in self._log.events)
        if epochs:
            metrics["epochs"] = epochs
        if self._finished:
            metrics |= self._finished_metrics(self._finished)
        return metrics

    def source(self, field: str, file: str, place: Place, text: str) -> None:
        """Add the place of a value to the sources."""
        self.sources.append(ImportSource(field=field, file=file, line=place.line, column=place.column, text=text))

    def list(self, file: str, texts: Sequence[Located], reason: str) -> None:
        """Add lines that were not understood."""
        for each in texts:
            self.not_understood.append(
                NotUnderstood(file=file, line=each.place.line, column=each.place.column, text=each.text, reason=reason)
            )

    def _finished_metrics(self, event: _Event) -> dict[str, Any]:
        metrics: dict[str, Any] = {}
        used = set()
        for field_name, keys in (*_NUMBERS.items(), *_COUNTS.items()):
            key = next((key for key in keys if key in event.value), None)
            if key is None:
                continue
            used.add(key)
            value = _number(event.value[key])
            if value is None or (field_name in _COUNTS and not value.is_integer()):
                self._refuse(event, key, "not a number, or negative")
                continue
            metrics[field_name] = int(value) if field_name in _COUNTS else value
            self.source(f"metrics.{field_name}", self._name, event.place(key), str(event.value[key]))
        if key := self._result_key(event.value, "final_"):
            used.add(key)
            value = _fraction(event.value[key])
            if value is None:
                self._refuse(event, key, "not a result")
            else:
                metrics["quality"] = value
                self.source("metrics.quality", self._name, event.place(key), str(event.value[key]))
        self.remarks += [f"{key}: {value}" for key, value in event.value.items() if key not in used]
        return metrics

    def _result_key(self, value: Mapping[str, Any], prefix: str) -> str | None:
        kinds = {key: wording.quality_kind(key.removeprefix(prefix)) for key in value if key.startswith(prefix)}
        own = wording.quality_kind(self._case.report.quality_column) if self._case else None
        for wanted in (own, *_RESULT_KINDS):
            for key, kind in kinds.items():
                if kind is not None and kind == wanted:
                    return key
        return None

    def _curve(self) -> Iterator[EvaluationPoint]:
        started = next((event.time_s for event in self._log.events if event.name == "TRAIN_START"), None)
        epoch = 0
        last: dict[str, Any] = {}
        for event in self._log.events:
            if event.name in ("STEP_END", "EVALUATE", "EPOCH_BEGIN", "EPOCH_END"):
                last |= event.value
            if event.name == "EPOCH_END":
                epoch += 1
            if event.name != "EVALUATE":
                continue
            key = self._result_key(event.value, "eval_")
            point = self._point(event, key, epoch, last, started) if key else None
            if point:
                self.source("metrics.curve", self._name, event.place(key or ""), str(event.value))
                yield point
            elif event.value:
                self._refuse(event, key or "event", "no result with its step, samples and time")

    def _point(
        self, event: _Event, key: str, epoch: int, last: Mapping[str, Any], started: float | None
    ) -> EvaluationPoint | None:
        value = _fraction(event.value[key])
        step, samples = _number(last.get("global_steps")), _number(last.get("num_trained_samples"))
        if value is None or step is None or samples is None or started is None or event.time_s is None:
            return None
        written = _number(last.get("epoch"))
        return EvaluationPoint(
            epoch=int(written) if written is not None else epoch,
            step=int(step),
            value=value,
            elapsed_s=event.time_s - started,
            samples=int(samples),
        )

    def _refuse(self, event: _Event, key: str, reason: str) -> None:
        place = event.place(key)
        self.not_understood.append(
            NotUnderstood(
                file=self._name, line=place.line, column=place.column, text=one_line(event.text)[:200], reason=reason
            )
        )


def _read(path: Path) -> tuple[str, SourceFile]:
    try:
        if path.stat().st_size > MAX_LOG_BYTES:
            raise DocumentError(
                f"{path} is larger than {MAX_LOG_BYTES // 2**20} MiB", hint=f"keep its lines with {_MARK}: grep -F"
            )
        content = path.read_bytes()
    except OSError as error:
        raise DocumentError(f"cannot read {path}: {error.strerror}", hint="name a file that exists") from error
    # Many libraries write to this log. An invalid character must not make the events unreadable.
    text = content.decode("utf-8", errors="replace")
    return text, SourceFile(name=path.name, sha256=hashlib.sha256(content).hexdigest())


def _parse(text: str) -> _Log:
    log = _Log()
    for number, line in enumerate(text.splitlines(), start=1):
        if _MARK not in line:
            continue
        match = _EVENT.search(line)
        event = _event(match[1], number, line) if match else None
        if event:
            log.events.append(event)
        else:
            log.unknown.append(Located(one_line(line)[:200], Place(number, line.find(_MARK) + 1)))
    return log


def _event(text: str, number: int, line: str) -> _Event | None:
    try:
        # Another process may have written to the same line after the event.
        content, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("event"), str):
        return None
    value = content.get("value")
    metadata = content.get("metadata")
    time_ms = _number(metadata.get("time_ms")) if isinstance(metadata, dict) else None
    return _Event(
        name=content["event"],
        value=value if isinstance(value, dict) else {},
        time_s=None if time_ms is None else time_ms / 1000,
        line=number,
        text=line,
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _fraction(value: Any) -> float | None:
    number = _number(value)
    if number is None or number > 100:
        return None
    return number / 100 if number > 1 else number


def _complete(path: Path, log: _Log, facts: RunFacts) -> RunFacts:
    """Add facts from the log's directories and its first event."""
    key = _case_key(path)
    submitted = next((event.value for event in log.events if event.name == "SUBMIT_INFO"), {})
    vendor = facts.vendor or _text(submitted.get("vendor"))
    model = facts.case or _text(submitted.get("model")) or (key[1] if key else None)
    topology = facts.topology or (Topology(nnodes=int(key[4]), nproc_per_node=int(key[5])) if key else None)
    if topology is None:
        topology = _count_processes(path)
    if vendor is None:
        raise DocumentError(f"{path} does not name its vendor", hint="give it with --vendor NAME")
    if model is None:
        raise DocumentError(f"{path} does not name its model", hint="give the case with --case NAME")
    if topology is None:
        raise DocumentError(f"{path} does not give the number of cards", hint="give it with --topology 1x8")
    case = find_case_by_model(model)
    return RunFacts(
        vendor=vendor, case=case.name if case else slug(model), topology=topology, precision=facts.precision
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _case_key(path: Path) -> re.Match[str] | None:
    """Return the match of the directory that FlagPerf names after the case: ``resnet50:pytorch_1.13:A100:1:8:1``."""
    for parent in path.absolute().parents:
        match = _CASE_KEY.fullmatch(parent.name)
        if match and int(match[4]) and int(match[5]):
            return match
    return None


def _count_processes(path: Path) -> Topology | None:
    """Return the topology from the number of logs: one log per process, in one directory per machine."""
    directory = path.absolute().parent
    if "noderank" not in directory.name:
        return None
    processes = len(list(directory.glob("rank*.out.log")))
    machines = len(list(directory.parent.glob("*noderank*")))
    return Topology(nnodes=machines, nproc_per_node=processes) if processes else None


def _card(path: Path) -> dict[str, Any]:
    key = _case_key(path)
    return {"row_label": key[3], "card_short_name": key[3]} if key else {"row_label": UNKNOWN}

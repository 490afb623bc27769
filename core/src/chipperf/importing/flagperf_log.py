"""Importing the logs of a FlagPerf run: events from ``rank0.out.log``, telemetry from ``*_monitor.log`` files.

The values keep FlagPerf's definitions: ``p_core`` is timed without waiting for the device, and samples are counted as
in the code of each model. docs/report.md lists the definitions.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from chipperf.documents import wording
from chipperf.documents.document_identity import find_case_by_model, installed_cases, slug
from chipperf.documents.markdown import Located, Place, one_line
from chipperf.errors import DocumentError
from chipperf.importing.imported import Import, ImportSource, NotUnderstood, SourceFile, imported_record
from chipperf.importing.monitor_log import read_monitor_log
from chipperf.records.files import read_bounded
from chipperf.records.schema import UNKNOWN, UNKNOWN_NAME, EvaluationPoint, Failure, Status, Topology

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from chipperf.documents.card_names import CardNames

MAX_LOG_BYTES: Final = 256 * 2**20
"""Size limit of a log."""

_MARK: Final = "[PerfLog]"
_EVENT: Final = re.compile(r"\[PerfLog\]\s*(\{.*)")
_CASE_KEY: Final = re.compile(r"([\w.-]+):([\w.-]+):([\w.-]+):(\d{1,4}):(\d{1,4}):\d+")
_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "e2e_time_s": ("e2e_time",),
    "p_whole": ("throughput(ips)_raw",),
    "p_train": ("throughput(ips)_no_eval",),
    "p_core": ("throughput(ips)_pure_compute",),
    "train_seconds": ("raw_train_time", "train_time"),
    "train_samples": ("num_trained_samples",),
    "steps": ("global_steps",),
}
_COUNTS: Final = ("train_samples", "steps")
_RESULT_KINDS: Final = ("accuracy", "mean average precision")


def import_log(
    path: Path,
    *,
    names: CardNames,
    vendor: str | None = None,
    case: str | None = None,
    topology: Topology | None = None,
    precision: str | None = None,
) -> Import:
    """Return the record of a FlagPerf run; a :class:`DocumentError` says why there is none.

    ``path`` is the log of the main process. Monitor logs in the same directory are read too. Vendor, case and topology
    are by default those in the log and its directories; without one there is no record.
    """
    text, file = _read(path)
    log = _Log(text, path.name)
    if not log.events:
        raise DocumentError(
            f"{path} has no event of FlagPerf's log", hint=f"its lines start with {_MARK}; try rank0.out.log"
        )
    key = _case_key(path)
    vendor, case, topology = _identify(path, key, log, vendor, case, topology)
    card = {"row_label": key[3], "card_short_name": key[3]} if key else {"row_label": UNKNOWN}
    metrics = log.metrics(case)
    files = [file]
    for monitor in sorted(path.parent.glob("*_monitor.log")):
        monitor_text, monitor_file = _read(monitor)
        read = read_monitor_log(monitor_text, monitor.name)
        if read is None:
            continue
        files.append(monitor_file)
        metrics |= {"power": read.power, "memory": read.memory}
        if read.peak_place:
            peak = Located(str(read.memory), read.peak_place)
            log.sources.append(ImportSource.at(peak, monitor.name, "metrics.memory"))
        lines = read.not_understood
        log.not_understood += [NotUnderstood.at(each, monitor.name, "no reading of a device") for each in lines]
    record = imported_record(
        run_id=f"imported-{file.sha256[:8]}",
        vendor=vendor,
        case=case,
        topology=topology,
        names=names,
        metrics_definition="flagperf",
        values={
            "metrics": metrics,
            "status": log.status(),
            "precision": {"requested": precision or UNKNOWN_NAME},
            "environment": card,
            "remarks": log.remarks,
        },
        sources=log.sources,
    )
    return Import(files=tuple(files), records=(record,), not_understood=(*log.not_understood, *log.no_events))


@dataclass(frozen=True, slots=True)
class _Event:
    name: str
    value: Mapping[str, Any]
    time_s: float | None
    line: int
    text: str

    def place(self, key: str) -> Place:
        return Place(self.line, max(self.text.find(json.dumps(key)), 0) + 1)

    def result_key(self, prefix: str, kinds: list[str]) -> str | None:
        """Return the key of the result of the first of some kinds that the event has."""
        found = {key: wording.quality_kind(key.removeprefix(prefix)) for key in self.value if key.startswith(prefix)}
        return next((key for wanted in kinds for key, kind in found.items() if kind == wanted), None)


class _Log:
    """The events of a log; the values in them with their places; and lines that are marked as an event and are none."""

    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self.events: list[_Event] = []
        self.no_events: list[NotUnderstood] = []
        self.sources: list[ImportSource] = []
        self.remarks: list[str] = []
        self.not_understood: list[NotUnderstood] = []
        for number, line in enumerate(text.splitlines(), start=1):
            if _MARK not in line:
                continue
            if event := _event(line, number):
                self.events.append(event)
            else:
                place = Place(number, line.find(_MARK) + 1)
                self.no_events.append(NotUnderstood.at(Located(one_line(line)[:200], place), name, "not an event"))

    def named(self, name: str) -> list[_Event]:
        return [event for event in self.events if event.name == name]

    def status(self) -> Status:
        if self.named("FINISHED"):
            return Status(state="completed")
        message = "the log has no FINISHED event"
        return Status(state="interrupted", failure=Failure(failure_class="unfinished", message=message))

    def metrics(self, case_name: str) -> dict[str, Any]:
        finished = self.named("FINISHED")
        for event in finished[1:]:
            self._refuse(event, "event", "a second FINISHED event, from the main process of another machine")
        case = installed_cases().get(case_name)
        own = wording.quality_kind(case.report.quality_column) if case else None
        kinds = [kind for kind in (own, *_RESULT_KINDS) if kind]
        metrics: dict[str, Any] = {"curve": list(self._curve(kinds))}
        if epochs := len(self.named("EPOCH_END")):
            metrics["epochs"] = epochs
        return metrics | (self._finished_metrics(finished[0], kinds) if finished else {})

    def _finished_metrics(self, event: _Event, kinds: list[str]) -> dict[str, Any]:
        metrics: dict[str, Any] = {}
        used = set()
        for name, keys in _KEYS.items():
            key = next((key for key in keys if key in event.value), None)
            if key is None:
                continue
            used.add(key)
            value = _number(event.value[key])
            if value is None or (name in _COUNTS and not value.is_integer()):
                self._refuse(event, key, "not a number, or negative")
            else:
                metrics[name] = int(value) if name in _COUNTS else value
                self._add_source(event, key, f"metrics.{name}", event.value[key])
        if key := event.result_key("final_", kinds):
            used.add(key)
            value = _fraction(event.value[key])
            if value is None:
                self._refuse(event, key, "not a result")
            else:
                metrics["quality"] = value
                self._add_source(event, key, "metrics.quality", event.value[key])
        self.remarks += [f"{key}: {value}" for key, value in event.value.items() if key not in used]
        return metrics

    def _curve(self, kinds: list[str]) -> Iterator[EvaluationPoint]:
        started = next((event.time_s for event in self.named("TRAIN_START")), None)
        epoch = 0
        last: dict[str, Any] = {}
        for event in self.events:
            if event.name in ("STEP_END", "EVALUATE", "EPOCH_BEGIN", "EPOCH_END"):
                last |= event.value
            if event.name == "EPOCH_END":
                epoch += 1
            if event.name != "EVALUATE":
                continue
            key = event.result_key("eval_", kinds)
            value = _fraction(event.value[key]) if key else None
            step, samples = _number(last.get("global_steps")), _number(last.get("num_trained_samples"))
            if value is None or step is None or samples is None or started is None or event.time_s is None:
                if event.value:
                    self._refuse(event, key or "event", "no result with its step, samples and time")
                continue
            written = _number(last.get("epoch"))
            self._add_source(event, key or "", "metrics.curve", event.value)
            yield EvaluationPoint(
                epoch=int(written) if written is not None else epoch,
                step=int(step),
                value=value,
                elapsed_s=event.time_s - started,
                samples=int(samples),
            )

    def _add_source(self, event: _Event, key: str, field: str, value: object) -> None:
        self.sources.append(ImportSource.at(Located(str(value), event.place(key)), self._name, field))

    def _refuse(self, event: _Event, key: str, reason: str) -> None:
        text = Located(one_line(event.text)[:200], event.place(key))
        self.not_understood.append(NotUnderstood.at(text, self._name, reason))


def _event(line: str, number: int) -> _Event | None:
    match = _EVENT.search(line)
    if not match:
        return None
    try:
        # Another process may have written to the same line after the event.
        content, _ = json.JSONDecoder().raw_decode(match[1])
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("event"), str):
        return None
    value, metadata = content.get("value"), content.get("metadata")
    time_ms = _number(metadata.get("time_ms")) if isinstance(metadata, dict) else None
    return _Event(
        name=content["event"],
        value=value if isinstance(value, dict) else {},
        time_s=None if time_ms is None else time_ms / 1000,
        line=number,
        text=line,
    )


def _read(path: Path) -> tuple[str, SourceFile]:
    try:
        content = read_bounded(path, MAX_LOG_BYTES)
    except OSError as error:
        hint = f"name a log; of a large one, keep its lines with {_MARK}: grep -F"
        raise DocumentError(f"cannot read {path}: {error.strerror}", hint=hint) from error
    # Many libraries write to this log. An invalid character must not make the events unreadable.
    text = content.decode("utf-8", errors="replace")
    return text, SourceFile(name=path.name, sha256=hashlib.sha256(content).hexdigest())


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


def _identify(
    path: Path, key: re.Match[str] | None, log: _Log, vendor: str | None, model: str | None, topology: Topology | None
) -> tuple[str, str, Topology]:
    """Return vendor, case and topology: the given ones, or those of the log's first event and its directories."""
    submitted = next((event.value for event in log.named("SUBMIT_INFO")), {})
    vendor = vendor or _text(submitted.get("vendor"))
    model = model or _text(submitted.get("model")) or (key[1] if key else None)
    topology = topology or (Topology(nnodes=int(key[4]), nproc_per_node=int(key[5])) if key else _count_processes(path))
    if vendor is None:
        raise DocumentError(f"{path} does not name its vendor", hint="give it with --vendor NAME")
    if model is None:
        raise DocumentError(f"{path} does not name its model", hint="give the case with --case NAME")
    if topology is None:
        raise DocumentError(f"{path} does not give the number of cards", hint="give it with --topology 1x8")
    case = find_case_by_model(model)
    return vendor, case.name if case else slug(model), topology


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

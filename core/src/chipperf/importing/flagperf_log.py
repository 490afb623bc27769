"""Importing the logs of a FlagPerf run: events from ``rank0.out.log``, telemetry from ``*_monitor.log`` files.

The values keep FlagPerf's definitions: ``p_core`` is timed without waiting for the device, and samples are counted as
in the code of each model. docs/report.md lists the definitions.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from chipperf.documents import wording
from chipperf.documents.document_identity import installed_cases
from chipperf.documents.markdown import Located, Place
from chipperf.errors import DocumentError
from chipperf.importing.imported import (
    Import,
    ImportedRecord,
    ImportSource,
    NotUnderstood,
    SourceFile,
    imported_record,
)
from chipperf.importing.log_lines import (
    Log,
    LogEvent,
    Stated,
    attempt_run_id,
    number,
    read_events,
    read_log,
    require_identity,
    split_attempts,
    text_or_none,
)
from chipperf.importing.monitor_log import read_monitor_log
from chipperf.languages import ENGLISH, in_language
from chipperf.records.convergence import lower_is_better, meets_target
from chipperf.records.plausibility import check_record
from chipperf.records.schema import UNKNOWN, UNKNOWN_NAME, EvaluationPoint, Failure, Missing, Status, Topology
from chipperf.run.events import LOG_MARK

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from chipperf.cases.base import Case
    from chipperf.documents.card_names import CardNames
    from chipperf.records.schema import Record

MARK: Final = LOG_MARK
"""What precedes an event in a line of FlagPerf's log."""

_CASE_KEY: Final = re.compile(r"([\w.-]+):([\w.-]+):([\w.-]+):(\d{1,4}):(\d{1,4}):\d+")
# One of FlagPerf's cases misspells throughput, and its unit is samples, images or tokens.
_THROUGHPUT: Final = r"thro?u\w{0,3}put\s*\(\w+\)_"
_KEYS: Final[Mapping[str, re.Pattern[str]]] = {
    "e2e_time_s": re.compile("e2e_time"),
    "p_whole": re.compile(f"{_THROUGHPUT}raw"),
    "p_train": re.compile(f"{_THROUGHPUT}no_eval"),
    "p_core": re.compile(f"{_THROUGHPUT}pure_compute"),
    "train_seconds": re.compile("raw_train_time|train_time"),
    "train_samples": re.compile("num_trained_samples"),
    "steps": re.compile("global_steps"),
}
_COUNTS: Final = ("train_samples", "steps")
_WITHOUT_A_FIELD: Final = re.compile(
    r"converged|init_time|train_no_eval_time|pure_training_computing_time|(?:training|effective)_\w+_per_second"
)
_CHECKS: Final = ("memory", "order", "times")
"""The checks of a record whose values a log has."""

_DAY_S: Final = 24 * 3600
"""Most that clocks of two time zones differ, rounded up."""

_PROGRESS: Final = ("STEP_END", "EVALUATE", "EPOCH_BEGIN", "EPOCH_END")


def import_flagperf_log(log: Log, stated: Stated, names: CardNames) -> Import:
    """Return a record for each attempt of a FlagPerf run; a :class:`DocumentError` says why there is none.

    The log is that of the main process. Monitor logs in the same directory are read too, unless there are several
    attempts. Vendor, case and topology are by default those in the log and its directories; without one there is no
    record.
    """
    path = log.path
    events, no_events = read_events(log, MARK, "event")
    if not events:
        raise DocumentError(
            f"{path} has no event of FlagPerf's log", hint=f"its lines start with {MARK}; try rank0.out.log"
        )
    key = _case_key(path)
    vendor, case, topology = _identify(path, key, events, stated)
    card = {"row_label": key[3], "card_short_name": key[3]} if key else {"row_label": UNKNOWN}
    results = _Results(events, installed_cases().get(case))
    attempts = split_attempts(events, begin="INIT_START", start="TRAIN_START")
    monitors = _Monitors(path.parent, events, several=len(attempts) > 1)
    records: list[ImportedRecord] = []
    not_understood: list[NotUnderstood] = []
    for index, attempt_events in enumerate(attempts, start=1):
        attempt = _FlagPerfAttempt(attempt_events, path.name, results)
        metrics = {**attempt.metrics(), **monitors.metrics}
        number_of = f"attempt {index} of {len(attempts)}"
        found = imported_record(
            run_id=attempt_run_id(log, index, len(attempts)),
            vendor=vendor,
            case=case,
            topology=topology,
            names=names,
            metrics_definition="flagperf",
            values={
                "case": {"metric": results.metric},
                "metrics": metrics,
                "status": attempt.status(),
                "precision": {"requested": stated.precision or UNKNOWN_NAME},
                "environment": card,
                "remarks": [*([number_of] if len(attempts) > 1 else ()), *attempt.remarks],
            },
            sources=[*attempt.sources, *monitors.sources],
        )
        doubts = attempt.doubts(found.record)
        records.append(found.with_remarks(doubts, path.name))
        not_understood += attempt.not_understood
        not_understood += [NotUnderstood.at(doubt, path.name, f"implausible: {doubt.text}") for doubt in doubts]
    return Import(
        files=(log.file, *monitors.files),
        records=tuple(records),
        not_understood=(*not_understood, *monitors.not_understood, *no_events),
    )


class _Results:
    """The kind of result that a log's evaluations have, and whether they are percentages: one answer for all of them.

    The accuracy of a case that writes it in percent is logged in percent as ``acc1``. Otherwise, the largest result of
    the log decides: a fraction is at most 1.
    """

    def __init__(self, events: Sequence[LogEvent], case: Case | None) -> None:
        logged = [(name, value) for event in events for name, value in _results_of(event)]
        kinds = {name: wording.quality_kind(name) for name, _ in logged}
        own = wording.quality_kind(case.report.quality_column) if case else None
        # Beside another result, a loss is none.
        found = (kind for kind in kinds.values() if kind and own in (None, kind))
        self._kind = min(found, key=lambda kind: kind == "loss", default=None)
        self._is_fraction = wording.is_fraction(self._kind)
        names = [name for name, kind in kinds.items() if kind == self._kind]
        known = case is not None and case.report.quality_as_percent and "acc1" in names
        values = (number(value) for name, value in logged if name in names)
        self._is_percent = known or max((value for value in values if value is not None), default=0) > 1
        self.metric = case.metric if case else wording.metric_name(names[0] if self._kind else "") or UNKNOWN_NAME

    def keys(self, event: LogEvent, prefix: str) -> list[str]:
        """Return the keys of the event's result, usually one."""
        names = (name for name, _ in _results_of(event, prefix) if wording.quality_kind(name) == self._kind)
        return [f"{prefix}{name}" for name in names] if self._kind else []

    def value(self, logged: object) -> float | None:
        """Return a logged result: a fraction, or the number of another metric."""
        value = number(logged)
        if value is None or not self._is_fraction:
            return value
        # In binary, 68.6 / 100 is not 0.686.
        fraction = float(Decimal(repr(value)) / 100) if self._is_percent else value
        return fraction if fraction <= 1 else None


def _results_of(event: LogEvent, *prefixes: str) -> Iterator[tuple[str, object]]:
    """Yield name and value of the results in an event, except of the accuracy among five guesses."""
    for key, value in event.values.items():
        prefix = next((each for each in prefixes or ("eval_", "final_") if key.startswith(each)), None)
        if prefix and 5 not in wording.ranks(key):
            yield key.removeprefix(prefix), value


class _Monitors:
    """Telemetry and memory from the monitor log in a directory.

    It does not tell which of several attempts ran, and of several logs, none tells which is right.
    """

    def __init__(self, directory: Path, events: Sequence[LogEvent], *, several: bool) -> None:
        self.files: list[SourceFile] = []
        self.metrics: dict[str, Any] = {}
        self.sources: list[ImportSource] = []
        self.not_understood: list[NotUnderstood] = []
        logs = [read_log(path) for path in sorted(directory.glob("*_monitor.log"))]
        found = [(log, read) for log in logs if (read := read_monitor_log(log.text, log.path.name))]
        names = ", ".join(log.path.name for log, _ in found)
        times = [event.time_s for event in events if event.time_s is not None]
        for log, read in found:
            if several:
                self.metrics = _without_monitor(f"{names} is of several attempts")
                continue
            self.files.append(log.file)
            if len(found) > 1:
                fault = f"several monitor logs: {names}"
            elif times and not (read.first_s < max(times) + _DAY_S and read.last_s > min(times) - _DAY_S):
                fault = "it is of another day than the run"
            else:
                self.metrics = {"power": read.power, "memory": read.memory}
                if read.peak_place:
                    peak = Located(str(read.memory), read.peak_place)
                    self.sources.append(ImportSource.at(peak, log.path.name, "metrics.memory"))
                self.not_understood += [
                    NotUnderstood.at(each, log.path.name, "no reading of a device") for each in read.not_understood
                ]
                continue
            self.metrics = _without_monitor(fault)
            self.not_understood.append(
                NotUnderstood.at(Located(log.path.name, read.peak_place or Place(1, 1)), log.path.name, fault)
            )


def _without_monitor(reason: str) -> dict[str, Any]:
    return dict.fromkeys(("power", "memory"), Missing(missing="unknown", reason=reason))


class _FlagPerfAttempt:
    """The events of one attempt, and the values in them with their places."""

    def __init__(self, events: Sequence[LogEvent], file: str, results: _Results) -> None:
        self._events = events
        self._file = file
        self._results = results
        self.sources: list[ImportSource] = []
        self.remarks: list[str] = []
        self.not_understood: list[NotUnderstood] = []

    def _named(self, name: str) -> list[LogEvent]:
        return [event for event in self._events if event.name == name]

    def status(self) -> Status:
        if self._named("FINISHED"):
            return Status(state="completed")
        message = "the log has no FINISHED event of it"
        return Status(state="interrupted", failure=Failure(failure_class="unfinished", message=message))

    def metrics(self) -> dict[str, Any]:
        finished = self._named("FINISHED")
        for event in finished[1:]:
            self._refuse(event, "event", "a second FINISHED event, from the main process of another machine")
        metrics: dict[str, Any] = {"curve": list(self._curve())}
        if epochs := len(self._named("EPOCH_END")):
            metrics["epochs"] = epochs
        return metrics | (self._finished_metrics(finished[0]) if finished else {})

    def doubts(self, record: Record) -> list[Located]:
        """Return what the values of a finished run contradict."""
        finished = self._named("FINISHED")[:1]
        texts = [in_language(found.text, ENGLISH) for found in check_record(record) if found.check in _CHECKS]
        quality, target = record.metrics.quality, record.case.target
        for event in finished:
            is_known = not isinstance(quality, Missing) and not isinstance(target, Missing)
            lower = lower_is_better(record.case)
            if event.values.get("converged") is True and is_known and not meets_target(quality, target, lower=lower):
                side = "above" if lower else "below"
                texts.append(f"converged: True, but the result {quality} is {side} the case's target {target}")
        return [finished[0].located(text, "FINISHED") for text in texts]

    def _finished_metrics(self, event: LogEvent) -> dict[str, Any]:
        metrics: dict[str, Any] = {}
        names = dict.fromkeys(self._results.keys(event, "final_"), "quality")
        for name, spelling in _KEYS.items():
            names.update((key, name) for key in event.values if spelling.fullmatch(key))
        for key, logged in event.values.items():
            field = names.get(key)
            value, fault = None, ""
            if field is None:
                fault = "" if _is_known_without_a_field(key) else f"the key {key!r} is unknown"
            elif difference := _difference(event, [each for each in names if names[each] == field]):
                fault = difference
            elif field == "quality" and field not in metrics:
                value, fault = self._results.value(logged), "not a result"
            elif field not in metrics:
                value, fault = number(logged), "not a number, or negative"
                if value is not None and field in _COUNTS:
                    value = int(value) if value.is_integer() else None
            if field and value is not None:
                metrics[field] = value
                self.sources.append(event.source(self._file, f"metrics.{field}", logged, key))
                continue
            self.remarks.append(f"{key}: {logged}")
            if fault:
                self._refuse(event, key, fault)
                if field:
                    metrics[field] = Missing(missing="unknown", reason=fault)
        return metrics

    def _curve(self) -> Iterator[EvaluationPoint]:
        started = next((event.time_s for event in self._named("TRAIN_START")), None)
        epoch = 0
        last: dict[str, Any] = {}
        for event in self._events:
            if event.name in _PROGRESS:
                last |= event.values
            if event.name == "EPOCH_END":
                epoch += 1
            if event.name != "EVALUATE":
                continue
            keys = self._results.keys(event, "eval_")
            key = keys[0] if keys and not _difference(event, keys) else None
            value = self._results.value(event.values[key]) if key else None
            step = number(last.get("global_steps"))
            elapsed_s = None if started is None or event.time_s is None else event.time_s - started
            if key is None or value is None or step is None or elapsed_s is None or elapsed_s < 0:
                if event.values:
                    self._refuse(event, key or "event", "no result with its step and time")
                continue
            written = number(last.get("epoch"))
            self.sources.append(event.source(self._file, "metrics.curve", event.values, key))
            yield EvaluationPoint(
                epoch=int(written) if written is not None else epoch,
                step=int(step),
                value=value,
                elapsed_s=elapsed_s,
                samples=UNKNOWN,
            )

    def _refuse(self, event: LogEvent, key: str, reason: str) -> None:
        self.not_understood.append(event.refusal(self._file, key, reason))


def _is_known_without_a_field(key: str) -> bool:
    """Return whether FlagPerf's cases log this key, and a record has no field for it."""
    is_other_result = key.startswith(("final_", "best_")) and wording.quality_kind(key.partition("_")[2])
    return bool(_WITHOUT_A_FIELD.fullmatch(key) or is_other_result)


def _difference(event: LogEvent, keys: Sequence[str]) -> str:
    """Return how the values of keys with one meaning differ, empty if they do not."""
    logged = [event.values[key] for key in keys]
    if all(value == logged[0] for value in logged):
        return ""
    return f"one value, logged differently: {', '.join(f'{key} {event.values[key]}' for key in keys)}"


def _identify(
    path: Path, key: re.Match[str] | None, events: Sequence[LogEvent], stated: Stated
) -> tuple[str, str, Topology]:
    """Return vendor, case and topology: the stated ones, or those of the log's first event and its directories."""
    submitted = next((event.values for event in events if event.name == "SUBMIT_INFO"), {})
    vendor = stated.vendor or text_or_none(submitted.get("vendor"))
    model = stated.case or text_or_none(submitted.get("model")) or (key[1] if key else None)
    in_key = Topology(nnodes=int(key[4]), nproc_per_node=int(key[5])) if key else _count_processes(path)
    return require_identity(path, vendor, model, stated.topology or in_key)


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

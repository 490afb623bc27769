"""Importing logs of MLPerf training: their ``:::MLLOG`` lines, under MLPerf's definitions.

MLPerf measures the time from ``run_start`` to ``run_stop``, in which a run reaches MLPerf's own target. Its records
share no table with others.
"""

from __future__ import annotations

import math
import re
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from chipperf.errors import DocumentError
from chipperf.importing.imported import Import, ImportedRecord, ImportSource, NotUnderstood, imported_record
from chipperf.importing.log_lines import (
    Log,
    LogEvent,
    Stated,
    attempt_run_id,
    number,
    read_events,
    require_identity,
    split_attempts,
    text_or_none,
)
from chipperf.records.schema import UNKNOWN, UNKNOWN_NAME, Failure, Missing, Status, TimeToTarget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chipperf.documents.card_names import CardNames

MARK: Final = ":::MLLOG"
"""What precedes an event in a line of MLPerf's log."""

_PHASES: Final = ("init", "run", "epoch", "block", "eval", "staging")
_TIMES: Final = frozenset(f"{phase}_{edge}" for phase in _PHASES for edge in ("start", "stop"))
_WITHOUT_A_FIELD: Final = ("cache_clear", "weights_initialization", "train_samples", "eval_samples")
_SETTINGS: Final = ("opt_", "lars_", "model_", "data_", "max_", "min_", "num_", "gradient_", "start_")
_SUBMISSION: Final = "submission_"
_RESULT: Final = "eval_accuracy"
_TARGETS: Final = ("target_accuracy", "quality_target")
_NO_FRACTIONS: Final = re.compile(r"gpt|llama|flux|stable_diffusion|rnnt|gnmt|transformer")
"""Benchmarks whose ``eval_accuracy`` is no fraction that is to be high: a loss, distance, error rate or score."""
_LEAST_TRAINING_S: Final = 1
_BATCH: Final = "global_batch_size"


def import_mlperf_log(log: Log, stated: Stated, names: CardNames) -> Import:
    """Return a record for each run in a log of MLPerf training; a :class:`DocumentError` says why there is none.

    The vendor is by default the one that the log's organization or platform names, and the case the benchmark. The log
    does not contain the topology.
    """
    events, no_events = read_events(log, MARK, "key")
    if not any(event.name == "run_start" for event in events):
        raise DocumentError(f"{log.path} has no run_start of MLPerf's log", hint="name the log of a whole run")
    submitted = {event.name: text_or_none(event.value) for event in events if event.name.startswith(_SUBMISSION)}
    owners = [names.find(submitted.get(f"{_SUBMISSION}{key}") or "") for key in ("org", "platform")]
    vendors = {name.vendor for name in chain(*owners)}
    vendor, case, topology = require_identity(
        log.path,
        stated.vendor or (vendors.pop() if len(vendors) == 1 else None),
        stated.case or submitted.get(f"{_SUBMISSION}benchmark"),
        stated.topology,
    )
    benchmark = submitted.get(f"{_SUBMISSION}benchmark") or case
    attempts = split_attempts(events, begin="init_start", start="run_start")
    records: list[ImportedRecord] = []
    not_understood: list[NotUnderstood] = []
    earliest_s = 0.0
    for index, attempt_events in enumerate(attempts, start=1):
        attempt = _MLPerfRun(
            attempt_events, log.path.name, earliest_s, has_fraction=not _NO_FRACTIONS.search(benchmark.casefold())
        )
        records.append(
            imported_record(
                run_id=attempt_run_id(log, index, len(attempts)),
                vendor=vendor,
                case=case,
                topology=topology,
                names=names,
                metrics_definition="mlperf",
                values={
                    # The result and the target are MLPerf's, also of a case that is installed.
                    "case": {"version": UNKNOWN_NAME, "metric": _RESULT, "target": attempt.target},
                    "status": attempt.status(),
                    "precision": {"requested": stated.precision or UNKNOWN_NAME},
                    **attempt.values(),
                },
                sources=attempt.sources,
            )
        )
        not_understood += attempt.not_understood
        earliest_s = max([earliest_s, *(event.time_s for event in attempt_events if event.time_s is not None)])
    return Import(files=(log.file,), records=tuple(records), not_understood=(*not_understood, *no_events))


class _MLPerfRun:
    """The events of one run, and the values in them with their places.

    The run does not start before ``earliest_s``. An event counts once, between ``run_start`` and ``run_stop``; of
    several that contradict each other none counts.
    """

    def __init__(self, events: Sequence[LogEvent], file: str, earliest_s: float, *, has_fraction: bool) -> None:
        self._events = events
        self._file = file
        self._earliest_s = earliest_s
        self._has_fraction = has_fraction
        self.sources: list[ImportSource] = []
        self.not_understood: list[NotUnderstood] = []
        self._start = next(event for event in events if event.name == "run_start")
        self._stops = [event for event in self._named("run_stop") if self._is_after_start(event)]
        for event in self._stops[1:]:
            self._refuse(event, f"a second run_stop; the first is in line {self._stops[0].line}")
        self._results = [event for event in self._named(_RESULT) if self._is_result(event)]
        self.target = self._find_target()

    def _named(self, *names: str) -> list[LogEvent]:
        return [event for event in self._events if event.name in names]

    def _is_after_start(self, event: LogEvent) -> bool:
        if event.line > self._start.line:
            return True
        self._refuse(event, f"{event.name} before run_start")
        return False

    def _is_result(self, event: LogEvent) -> bool:
        if not self._is_after_start(event):
            return False
        value, marks = number(event.value), (self._start, event, *self._stops[:1])
        times = [each.time_s for each in marks if each.time_s is not None]
        if self._stops and event.line > self._stops[0].line:
            reason = f"{_RESULT} after run_stop"
        elif times != sorted(times):
            reason = "its time is outside the run"
        elif value is None or (self._has_fraction and value > 1):
            reason = "not a result from 0 to 1"
        else:
            return True
        self._refuse(event, reason)
        return False

    def _find_target(self) -> float | Missing:
        """Return the target that the log states, if the benchmark's results are fractions."""
        stated = self._named(*_TARGETS) if self._has_fraction else []
        values = {number(event.value) for event in stated}
        value = values.pop() if len(values) == 1 else None
        if value is not None and value <= 1:
            self.sources.append(stated[0].source(self._file, "case.target", value, stated[0].name))
            return value
        for event in stated:
            self._refuse(event, "not one target from 0 to 1")
        return UNKNOWN

    def status(self) -> Status:
        if not self._stops:
            failure = Failure(failure_class="unfinished", message="the log has no run_stop of it")
            return Status(state="interrupted", failure=failure)
        for said in (stop.metadata.get("status") for stop in self._stops):
            if said != "success":
                failure = Failure(failure_class="aborted", message=f"its run_stop has status {said!r}")
                return Status(state="failed", failure=failure)
        return Status(state="completed")

    def values(self) -> dict[str, Any]:
        """Return the values of the record by field; everything else is a remark, or not understood."""
        settings: dict[str, Any] = {}
        hyperparameters: dict[str, Any] = {"values": settings}
        remarks: list[str] = []
        found: dict[str, Any] = {"hyperparameters": hyperparameters, "metrics": self._metrics(), "remarks": remarks}
        unknown: set[str] = set()
        for event in self._events:
            key, value = event.name, event.value
            if key == "seed" and isinstance(value, int) and not isinstance(value, bool):
                found["seed"] = value
                self._add_source(event, "seed")
            elif key == _BATCH and isinstance(value, int) and not isinstance(value, bool) and value >= 1:
                hyperparameters["global_batch_size"] = value
                self._add_source(event, "hyperparameters.global_batch_size")
            elif key.startswith(_SETTINGS) and _is_setting(value):
                settings[key] = value
                self._add_source(event, f"hyperparameters.values.{key}")
            elif key not in _TIMES:
                remarks.append(f"{key}: {value}" + (f" {dict(event.metadata)}" if key == _RESULT else ""))
                if key not in (*_WITHOUT_A_FIELD, *_TARGETS, _RESULT, *unknown) and not key.startswith(_SUBMISSION):
                    unknown.add(key)
                    self._refuse(event, f"the key {key!r} is unknown")
        return found

    def _metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = {}
        end = self._stops[0].line if self._stops else math.inf
        # An earlier result is not that of the run.
        last = [event for event in self._named(_RESULT) if self._start.line < event.line < end][-1:]
        result = last[0] if last and last[0] in self._results else None
        if result:
            metrics["quality"] = number(result.value)
            self._add_source(result, "metrics.quality")
        elif last:
            metrics["quality"] = Missing(missing="unknown", reason=f"the last {_RESULT} is not understood")
        if not self._stops:
            return metrics
        stop, seconds = self._stops[0], self._seconds()
        metrics["train_seconds"] = seconds
        if isinstance(seconds, Missing):
            return metrics
        self._add_source(stop, "metrics.train_seconds")
        epoch = number(result.metadata.get("epoch_num")) if result else None
        if stop.metadata.get("status") != "success" or epoch is None:
            return metrics
        if isinstance(self.target, float) and metrics["quality"] < self.target:
            reason = f"status 'success', and its last result {metrics['quality']:g} is below the target {self.target:g}"
            self._refuse(stop, reason)
            metrics["time_to_target"] = Missing(missing="unknown", reason=reason)
            return metrics
        metrics["time_to_target"] = TimeToTarget(seconds=seconds, epoch=epoch)
        self._add_source(stop, "metrics.time_to_target")
        return metrics

    def _seconds(self) -> float | Missing:
        """Return the time of the run, which needs one start and one stop, both with a time."""
        start, stop = self._start, self._stops[0]
        if len(self._stops) > 1:
            return Missing(missing="unknown", reason=f"the log has {len(self._stops)} run_stop of it")
        times = (start.time_s, stop.time_s)
        if times[0] is None or times[1] is None:
            reason = "time_ms of run_start or run_stop is no time in milliseconds since 1970"
        elif times[0] < self._earliest_s:
            reason = "its run_start is earlier than the run before it ends"
        elif times[1] < times[0]:
            reason = "run_stop is earlier than run_start"
        elif times[1] - times[0] < _LEAST_TRAINING_S and self._named("epoch_start", "epoch_stop", _RESULT):
            reason = f"epochs within {times[1] - times[0]:g} s: time_ms is not in milliseconds"
        else:
            return times[1] - times[0]
        self._refuse(stop, reason)
        return Missing(missing="unknown", reason=reason)

    def _refuse(self, event: LogEvent, reason: str) -> None:
        self.not_understood.append(event.refusal(self._file, event.name, reason))

    def _add_source(self, event: LogEvent, field: str) -> None:
        self.sources.append(event.source(self._file, field, event.value, event.name))


def _is_setting(value: object) -> bool:
    return isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))

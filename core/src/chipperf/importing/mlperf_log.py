"""Importing logs of MLPerf training: their ``:::MLLOG`` lines, under MLPerf's definitions.

MLPerf measures the time from ``run_start`` to ``run_stop``, in which a run reaches MLPerf's own target. Its records
share no table with others.
"""

from __future__ import annotations

import math
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
from chipperf.records.schema import UNKNOWN, UNKNOWN_NAME, Failure, Status, TimeToTarget

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
_BATCH: Final = "global_batch_size"


def import_mlperf_log(log: Log, stated: Stated, names: CardNames) -> Import:
    """Return a record for each run in a log of MLPerf training; a :class:`DocumentError` says why there is none.

    The vendor is by default the one that the log's organization or platform names, and the case the benchmark. The log
    does not tell the topology.
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
    attempts = split_attempts(events, begin="init_start", start="run_start")
    records: list[ImportedRecord] = []
    not_understood: list[NotUnderstood] = []
    for index, attempt_events in enumerate(attempts, start=1):
        attempt = _MLPerfRun(attempt_events, log.path.name)
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
                    "case": {"version": UNKNOWN_NAME, "metric": _RESULT, "target": UNKNOWN},
                    "status": attempt.status(),
                    "precision": {"requested": stated.precision or UNKNOWN_NAME},
                    **attempt.values(),
                },
                sources=attempt.sources,
            )
        )
        not_understood += attempt.not_understood
    return Import(files=(log.file,), records=tuple(records), not_understood=(*not_understood, *no_events))


class _MLPerfRun:
    """The events of one run, and the values in them with their places."""

    def __init__(self, events: Sequence[LogEvent], file: str) -> None:
        self._events = events
        self._file = file
        self._last = {event.name: event for event in events}
        self.sources: list[ImportSource] = []
        self.not_understood: list[NotUnderstood] = []

    def status(self) -> Status:
        stop = self._last.get("run_stop")
        if stop is None:
            failure = Failure(failure_class="unfinished", message="the log has no run_stop of it")
            return Status(state="interrupted", failure=failure)
        if stop.metadata.get("status") == "success":
            return Status(state="completed")
        failure = Failure(failure_class="aborted", message=f"its run_stop has status {stop.metadata.get('status')!r}")
        return Status(state="failed", failure=failure)

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
                if key not in (*_WITHOUT_A_FIELD, _RESULT, *unknown) and not key.startswith(_SUBMISSION):
                    unknown.add(key)
                    self.not_understood.append(event.refusal(self._file, key, f"the key {key!r} is unknown"))
        return found

    def _metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = {}
        start, stop, result = (self._last.get(key) for key in ("run_start", "run_stop", _RESULT))
        if result and (value := number(result.value)) is not None:
            metrics["quality"] = value
            self._add_source(result, "metrics.quality")
        if start and stop and start.time_s is not None and stop.time_s is not None:
            if stop.time_s < start.time_s:
                reason = "it is before run_start"
                self.not_understood.append(stop.refusal(self._file, stop.name, reason))
                return metrics
            metrics["train_seconds"] = stop.time_s - start.time_s
            self._add_source(stop, "metrics.train_seconds")
            epoch = number(result.metadata.get("epoch_num")) if result else None
            if stop.metadata.get("status") == "success" and epoch is not None:
                metrics["time_to_target"] = TimeToTarget(seconds=metrics["train_seconds"], epoch=epoch)
                self._add_source(stop, "metrics.time_to_target")
        return metrics

    def _add_source(self, event: LogEvent, field: str) -> None:
        self.sources.append(event.source(self._file, field, event.value, event.name))


def _is_setting(value: object) -> bool:
    return isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))

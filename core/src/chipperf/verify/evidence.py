"""What a run's events, telemetry and logs say about its record."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from chipperf.cases.recorded_settings import check_with_case
from chipperf.cases.registry import find_case
from chipperf.errors import PerfError
from chipperf.records.consistency import Relation, first_contradictions
from chipperf.records.schema import Missing, Power, Throughput
from chipperf.run.directory import RunDirectory
from chipperf.run.events import window_value
from chipperf.run.telemetry_process import read_telemetry, summarize

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from chipperf.records.schema import Record

_TRAIN: Final = "metrics.p_train.windows"
_CORE: Final = "metrics.p_core.windows"
_SERIES: Final = {"WINDOW_STOP": _TRAIN, "EVAL_ACCURACY": "metrics.curve", "CORE_WINDOW_STOP": _CORE}
"""Events of which all count, and the fields of the record that have them."""

_WITNESSED: Final = Power.model_fields.keys() - {"used_peak_bytes"}
"""Values of the telemetry. The used memory depends on the memory in use before the run, which only the plan has."""


@dataclass(slots=True, kw_only=True)
class Examination:
    """Contradictions in a record or with its evidence; notes on missing evidence and on disturbed measurements."""

    contradictions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def examine(record: Record, directory: Path) -> Examination:
    """Check a record on its own, and against the files of its run in ``directory`` as far as they are there."""
    found, run = Examination(), RunDirectory(directory)
    case = None
    with suppress(PerfError):
        case = find_case(record.case.name)
    for finding in check_with_case(record, case):
        # On a busy machine, what is measured later can be slower, though nobody edited it.
        (found.notes if finding.check == "order" else found.contradictions).append(str(finding.text))
    if record.kind != "imported" and record.status.state not in ("running", "killed"):
        there = run.evidence()
        _check_files(record, there, found)
        if record.status.state == "completed":
            _check_content(record, run, there, found)
    return found


def _check_files(record: Record, there: Mapping[str, str], found: Examination) -> None:
    if isinstance(record.evidence, Missing):
        found.notes.append("the record has no checksums of its events, telemetry and logs")
        return
    for name, digest in record.evidence.items():
        if name not in there:
            found.notes.append(f"{name} is not there")
        elif there[name] != digest:
            found.contradictions.append(f"{name} was changed after the run ended")
    found.contradictions += (f"{name} does not belong to the run" for name in there.keys() - record.evidence.keys())


def _check_content(record: Record, run: RunDirectory, there: Mapping[str, str], found: Examination) -> None:
    if run.events.name not in there:
        found.notes.append("without events, nothing witnesses windows, evaluations and the run's end")
    else:
        events, faults = _Events(), []
        for line in run.events.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                events.add(**json.loads(line))
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                faults.append(error)
        # A session that was killed may have left half a line.
        if len(faults) > len(record.interruptions):
            found.contradictions.append(f"events.jsonl is not an event log: {faults[0]}")
            return
        found.contradictions += map(str, first_contradictions(events.relations(record)))
        if isinstance(record.metrics.p_core, Throughput) and not events.series[_CORE]:
            found.notes.append("without events of the core pass, nothing witnesses p_core")
    found.contradictions += map(str, first_contradictions(_telemetry(record, run, there)))


def _telemetry(record: Record, run: RunDirectory, there: Mapping[str, str]) -> Iterator[Relation]:
    """Compare the telemetry of every machine; that of the only machine is the record's."""
    powers = [node.power for node in record.nodes] or [record.metrics.power]
    for node_rank, power in enumerate(powers):
        file = run.telemetry(node_rank)
        if isinstance(power, Power) and file.name in there:
            implied = summarize(read_telemetry(file), {})
            for name in sorted(_WITNESSED):
                said = None if isinstance(implied, Missing) else getattr(implied, name)
                yield Relation(f"metrics.power.{name}", getattr(power, name), file.name, said)


class _Events:
    """The last value of each event, and the series of those that count, by the field of the record and the step."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.series: dict[str, dict[int, Any]] = {field: {} for field in _SERIES.values()}
        self._resumed_at = 0

    def add(self, event: str, value: Any, metadata: dict[str, Any]) -> None:
        """Add the next event. A session repeats what followed the checkpoint that it began with."""
        self.values[event] = value
        if event == "RUN_RESUME":
            self._resumed_at = metadata["step"]
        elif event == "RUN_START":
            for known in self.series.values():
                for step in [step for step in known if step > self._resumed_at]:
                    del known[step]
            self._resumed_at = 0
        elif event in _SERIES:
            self.series[_SERIES[event]][metadata["step"]] = value

    def relations(self, record: Record) -> Iterator[Relation]:
        """Yield what the events say of a completed run's record."""
        metrics, hyperparameters, dataset = record.metrics, record.hyperparameters, record.dataset
        where = "events.jsonl"
        for name, event, value in (
            ("status.state", "RUN_STOP", "success"),
            ("seed", "SEED", record.seed),
            ("hyperparameters.global_batch_size", "GLOBAL_BATCH_SIZE", hyperparameters.global_batch_size),
            ("hyperparameters.values.lr", "OPT_BASE_LEARNING_RATE", hyperparameters.values.get("lr")),
            ("dataset.train_samples", "TRAIN_SAMPLES", dataset.train_samples),
            ("dataset.eval_samples", "EVAL_SAMPLES", dataset.eval_samples),
        ):
            yield Relation(name, value, where, self.values.get(event, "nothing"))
        results = {point.step: None if isinstance(point.value, Missing) else point.value for point in metrics.curve}
        stated: dict[str, dict[int, Any]] = {"metrics.curve": results}
        if isinstance(metrics.p_train, Throughput):
            windows = (*metrics.p_train.windows, *metrics.restart_windows)
            stated[_TRAIN] = {each.first_step + each.steps - 1: window_value(each) for each in windows}
        if isinstance(metrics.p_core, Throughput) and self.series[_CORE]:
            core = enumerate(metrics.p_core.windows)
            stated[_CORE] = {each.first_step + index: window_value(each) for index, each in core}
        for name, said in stated.items():
            witnessed = self.series[name]
            for step in sorted(said.keys() | witnessed.keys()):
                # Numbers in JSON are exact.
                yield Relation(name, str(said.get(step)), f"{where} at step {step}", str(witnessed.get(step)))

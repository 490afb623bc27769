"""What a run's events, telemetry and logs say about its record."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from chipperf.cases.recorded_settings import check_with_case, missing_settings
from chipperf.cases.registry import find_case
from chipperf.errors import PerfError, RecordError
from chipperf.importing.imported import SOURCES_FILE, Sources
from chipperf.records.consistency import ORDER_SLACK, Relation, first_contradictions
from chipperf.records.event_metrics import MAX_BYTES, counted_events
from chipperf.records.files import read_bounded, read_model
from chipperf.records.machine_limits import limits_of_run, read_limits
from chipperf.records.part_digests import part_digests
from chipperf.records.schema import (
    LIMITS_NAME,
    MINIMUM_WINDOWS,
    EvaluationPoint,
    LimitsOfRun,
    Missing,
    Power,
    Throughput,
)
from chipperf.records.store import stored_digest
from chipperf.run.directory import RunDirectory
from chipperf.run.events import LOG_MARK, window_value
from chipperf.run.telemetry_process import read_telemetry, summarize

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from chipperf.records.event_metrics import LoggedEvent
    from chipperf.records.schema import Record, Window

_CORE_EVENT: Final = "CORE_WINDOW_STOP"

_WAITING_S: Final = 60.0
"""Most that ranks wait for each other outside of training: they have met before, and have built their models."""

_WITNESSED: Final = Power.model_fields.keys() - {"used_peak_bytes"}
"""Values of the telemetry. The used memory depends on the memory in use before the run, which only the plan has."""


@dataclass(slots=True, kw_only=True)
class Examination:
    """Contradictions in a record or with its evidence; notes on missing evidence and on disturbed measurements.

    ``lacks_evidence`` is true for a measured run that completed if the events of the run, which tell its results, are
    not there.
    """

    contradictions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lacks_evidence: bool = False


def examine(record: Record, directory: Path) -> Examination:
    """Check a record on its own, and against the files of its run that exist in ``directory``."""
    found, of_files = Examination(), examine_evidence(record, directory)
    case = None
    with suppress(PerfError):
        case = find_case(record.case.name)
    if record.kind != "imported" and (case is None or case.version != record.case.version):
        what = f"case {record.case.name} {record.case.version}"
        found.notes.append(f"without {what}, which is not installed, nothing confirms settings and dataset")
    if absent := missing_settings(record, case):
        found.notes.append(str(absent))
    for finding in check_with_case(record, case):
        # On a busy machine, what is measured later can be slower, though nobody edited it.
        (found.notes if finding.check == "order" else found.contradictions).append(str(finding.text))
    return replace(
        of_files,
        contradictions=[*map(_on_one_line, found.contradictions), *of_files.contradictions],
        notes=[*found.notes, *of_files.notes],
    )


def examine_evidence(record: Record, directory: Path | None) -> Examination:
    """Check a record only against the files of its run that exist in ``directory``; ``None`` if there are none."""
    found = Examination(lacks_evidence=record.kind == "measured" and record.status.state == "completed")
    if directory is None:
        return found
    run = RunDirectory(directory)
    if record.kind == "imported":
        _check_import(run, found)
    elif record.status.state not in ("running", "killed"):
        there = run.evidence()
        _check_files(record, run, there, found)
        if record.status.state == "completed":
            found.lacks_evidence &= run.events.name not in there
            _check_content(record, run, there, found)
    found.contradictions = [*map(_on_one_line, found.contradictions)]
    return found


def _on_one_line(text: str) -> str:
    """Return a text as one line: of several, one could look like a line of the command's own."""
    return text.replace("\n", "\\n")


def _check_import(run: RunDirectory, found: Examination) -> None:
    file = run.path / SOURCES_FILE
    if not file.exists():
        found.notes.append(f"without {SOURCES_FILE}, nothing confirms what was imported")
        return
    try:
        imported = read_model(Sources, file, hint="import the document again")
        if imported.record_sha256 not in (None, stored_digest(run.path)):
            found.contradictions.append(
                f"{run.record.name} was changed after the import: {SOURCES_FILE} has another checksum"
            )
    except RecordError as error:
        found.contradictions.append(f"{SOURCES_FILE} are no sources: {error.message}")


def _check_files(record: Record, run: RunDirectory, there: Mapping[str, str], found: Examination) -> None:
    if isinstance(record.evidence, Missing):
        found.notes.append("the record has no checksums of its events, telemetry and logs")
        return
    written = {
        run.events.name: record.status.state == "completed",
        run.telemetry(0).name: isinstance(record.metrics.power, Power),
        LIMITS_NAME: isinstance(record.machine_limits, LimitsOfRun),
    }
    lacking = [name for name, is_written in written.items() if is_written and name not in record.evidence]
    found.contradictions += (f"the record has no checksum of {name}, which the run wrote" for name in lacking)
    for name, digest in record.evidence.items():
        if name not in there:
            found.notes.append(f"{name} is not there")
        elif there[name] != digest:
            found.contradictions.append(f"{name} was changed after the run ended")
    found.contradictions += (f"{name} does not belong to the run" for name in there.keys() - record.evidence.keys())


def _check_content(record: Record, run: RunDirectory, there: Mapping[str, str], found: Examination) -> None:
    if run.events.name not in there:
        found.notes.append("without events, nothing confirms windows, evaluations and the run's end")
    else:
        try:
            events, faults = counted_events(run.events)
        except OSError as error:
            found.contradictions.append(f"{run.events.name} cannot be read: {error.strerror}")
            return
        # A session that was killed may have left half a line.
        if len(faults) > len(record.interruptions):
            found.contradictions.append(f"events.jsonl is not an event log: {faults[0]}")
            return
        found.contradictions += map(str, first_contradictions(_events(record, events)))
        found.contradictions += _changed_parts(record, run, events)
        found.contradictions += _events_of_the_log(record, run)
        if isinstance(record.metrics.p_core, Throughput) and not any(each.event == _CORE_EVENT for each in events):
            found.notes.append("without events of the core pass, nothing confirms p_core")
    # Of withheld cards, no limits can be told.
    if isinstance(record.machine_limits, LimitsOfRun) and record.environment.cards:
        if LIMITS_NAME not in there:
            found.notes.append(f"without {LIMITS_NAME}, nothing confirms machine_limits")
        else:
            try:
                found.contradictions += map(str, first_contradictions(_limits(record, run.path / LIMITS_NAME)))
            except RecordError as error:
                found.contradictions.append(f"{LIMITS_NAME} are no limits: {error.message}")
    powers = [node.power for node in record.nodes] or [record.metrics.power]
    for node_rank, power in enumerate(powers):
        file = run.telemetry(node_rank)
        if file.name in there:
            try:
                found.contradictions += map(str, first_contradictions(_telemetry(record, power, file)))
            except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
                if isinstance(power, Power):
                    found.contradictions.append(f"{file.name} is not telemetry: {type(error).__name__}")
        elif isinstance(power, Power):
            found.notes.append(f"without {file.name}, nothing confirms metrics.power")


def _changed_parts(record: Record, run: RunDirectory, events: Sequence[LoggedEvent]) -> Iterator[str]:
    """Yield the parts of the record that are not those whose digests the last event has, if it has any."""
    told = next((each.metadata.get("record") for each in reversed(events) if each.event == "RUN_STOP"), None)
    if not isinstance(told, dict):
        return
    with suppress(OSError, ValueError, LookupError, TypeError):
        digests = part_digests(run.record.read_bytes())
        # A field that is withheld has no value, and a warning that tells it is gone.
        withheld = [f"{each.field}.".replace("[", ".") for each in record.withheld]
        withheld += ["$.warnings."] if withheld else []
        for name in told:
            path = f"$.{name}."
            is_withheld = any(path.startswith(field) or field.startswith(path) for field in withheld)
            if not is_withheld and digests.get(name) != told[name]:
                yield f"{name} was changed after the run ended: events.jsonl has another checksum of it"


def _events_of_the_log(record: Record, run: RunDirectory) -> Iterator[str]:
    """Yield an event of the main rank's log that is not among the events, which the log repeats."""
    with suppress(OSError):
        lines = set(_lines(run.events))
        logged = (line.partition(LOG_MARK)[2].strip() for line in _lines(run.log(0)) if LOG_MARK in line)
        # Lines are equal as they were written; only an edited or a broken one has to be parsed.
        others = [event for line in logged if line not in lines and (event := _canonical(line)) is not None]
        known = set(map(_canonical, lines)) if others else set()
        unknown = [event for event in others if event not in known]
        # A session that was killed may have written its last event to the log only.
        if len(unknown) > len(record.interruptions):
            yield f"{run.log(0).name} has an event that events.jsonl does not have: {unknown[0]}"


def _lines(file: Path) -> list[str]:
    return read_bounded(file, MAX_BYTES).decode(errors="replace").split("\n")


def _canonical(line: str) -> str | None:
    """Return an event in one spelling, or ``None`` for a line that other output broke."""
    try:
        return json.dumps(json.loads(line), sort_keys=True)
    except (ValueError, RecursionError):
        return None


def _limits(record: Record, file: Path) -> Iterator[Relation]:
    """Compare the limits in the run's directory with what its record says of them."""
    implied = limits_of_run(file, read_limits(file), record)
    for name in implied.model_fields_set:
        said = getattr(record.machine_limits, name)
        yield Relation(f"machine_limits.{name}", said, file.name, getattr(implied, name))


def _telemetry(record: Record, power: Power | Missing, file: Path) -> Iterator[Relation]:
    """Compare the telemetry of a machine, and its marks of training, with what its record says of them."""
    readings = read_telemetry(file)
    implied = summarize(readings, {})
    marks = [(each["mark"], each["time_s"]) for each in readings if "mark" in each]
    train_s = record.metrics.train_seconds
    if [name for name, _ in marks] == ["start", "stop"] and isinstance(train_s, float):
        marked_s = marks[1][1] - marks[0][1]
        # Between the marks, ranks also wait for each other before the first step and after the last.
        longest_s = train_s * (1 + ORDER_SLACK) + _WAITING_S
        yield Relation("metrics.train_seconds", train_s, f"{file.name}: marks", marked_s, ORDER_SLACK, True)
        yield Relation(f"{file.name}: marks", marked_s, "metrics.train_seconds", longest_s, 0, True)
    pairs: dict[str, tuple[Any, Any]] = {"metrics.power": (power, implied)}
    if isinstance(power, Power) and isinstance(implied, Power):
        pairs = {f"metrics.power.{name}": (getattr(power, name), getattr(implied, name)) for name in sorted(_WITNESSED)}
    for name, (said, witnessed) in pairs.items():
        yield Relation(name, _presence(said), file.name, _presence(witnessed))


def _presence(value: Any) -> Any:
    """Return a value, or a word for one that is missing and could be known, or for one of many numbers."""
    if isinstance(value, Missing):
        return value if value.missing == "withheld" else "nothing"
    return "measured" if isinstance(value, Power | Throughput) else value


def _events(record: Record, events: Sequence[LoggedEvent]) -> Iterator[Relation]:
    """Yield what the events say of a completed run's record: the last value of each, or of some the value by step."""
    metrics, hyperparameters, dataset = record.metrics, record.hyperparameters, record.dataset
    where, last = "events.jsonl", {each.event: each.value for each in events}
    for name, event, value in (
        ("status.state", "RUN_STOP", "success"),
        ("seed", "SEED", record.seed),
        ("hyperparameters.global_batch_size", "GLOBAL_BATCH_SIZE", hyperparameters.global_batch_size),
        ("hyperparameters.values.lr", "OPT_BASE_LEARNING_RATE", hyperparameters.values.get("lr")),
        ("dataset.train_samples", "TRAIN_SAMPLES", dataset.train_samples),
        ("dataset.eval_samples", "EVAL_SAMPLES", dataset.eval_samples),
    ):
        yield Relation(name, value, where, last.get(event, "nothing"))
    # Events of another run may have been put before these: what precedes a start without a checkpoint does not count.
    starts = sum(each.event == "RUN_START" for each in events)
    yield Relation(f"RUN_START in {where}", starts, "interruptions", len(record.interruptions) + 1, 0, True)
    clock_ns = {each.event: each.metadata.get("monotonic_ns") for each in events}
    init_s = next((span.start_s for span in metrics.spans if span.name == "init"), None)
    began_ns, stopped_ns = clock_ns.get("INIT_START"), clock_ns.get("RUN_STOP")
    if init_s is not None and isinstance(began_ns, int) and isinstance(stopped_ns, int) and not record.interruptions:
        end_s = init_s + (stopped_ns - began_ns) / 1e9
        yield Relation(f"RUN_STOP in {where} (s)", end_s, "metrics.e2e_time_s", metrics.e2e_time_s, ORDER_SLACK, True)
    if record.interruptions:
        lasted_s = sum(map(_lasted_s, _sessions(events)))
        yield Relation(
            f"sessions in {where} (s)", lasted_s, "metrics.e2e_time_s", metrics.e2e_time_s, ORDER_SLACK, True
        )
    series: list[tuple[str, str, dict[int, Any]]] = [
        ("metrics.curve", "EVAL_ACCURACY", {point.step: point for point in metrics.curve})
    ]
    if isinstance(metrics.p_train, Throughput):
        windows = (*metrics.p_train.windows, *metrics.restart_windows)
        by_step = {each.first_step + each.steps - 1: each for each in windows}
        series.append(("metrics.p_train.windows", "WINDOW_STOP", by_step))
    if isinstance(metrics.p_core, Throughput) and _CORE_EVENT in last:
        by_step = {each.first_step + index: each for index, each in enumerate(metrics.p_core.windows)}
        series.append(("metrics.p_core.windows", _CORE_EVENT, by_step))
    for name, event, stated in series:
        witnessed = {each.step: each for each in events if each.event == event}
        for step in sorted(stated.keys() | witnessed.keys()):
            part, seen, place = stated.get(step), witnessed.get(step), f"{where} at step {step}"
            # Numbers in JSON are exact.
            yield Relation(name, str(_event_value(part)), place, str(seen.value if seen else None))
            if part and seen:
                facts = part.model_dump() | {"kind": "restart" if part in metrics.restart_windows else "measured"}
                for fact in sorted(seen.metadata.keys() & facts.keys()):
                    yield Relation(f"{name}.{fact}", facts[fact], place, seen.metadata[fact])
    for name, event in (("p_train", "WINDOW_STOP"), ("p_core", _CORE_EVENT)):
        kinds = [each.metadata.get("kind", "measured") for each in events if each.event == event]
        if kinds.count("measured") >= MINIMUM_WINDOWS:
            yield Relation(f"metrics.{name}", _presence(getattr(metrics, name)), where, "measured")


def _sessions(events: Sequence[LoggedEvent]) -> list[list[LoggedEvent]]:
    begins = [place for place, each in enumerate(events) if each.event == "INIT_START"]
    return [list(events[begin:end]) for begin, end in pairwise([*begins, len(events)])]


def _lasted_s(session: Sequence[LoggedEvent]) -> float:
    """Return the time between the first and the last event of a session, on the clock of its machine."""
    clock_ns = [ns for each in session if isinstance(ns := each.metadata.get("monotonic_ns"), int)]
    return (max(clock_ns) - min(clock_ns)) / 1e9 if clock_ns else 0.0


def _event_value(part: Window | EvaluationPoint | None) -> object:
    """Return the value of the event of a window or an evaluation."""
    if isinstance(part, EvaluationPoint):
        return None if isinstance(part.value, Missing) else part.value
    return window_value(part) if part else None

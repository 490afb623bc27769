"""The events of a run's log that count, and the measurements in them of a run whose main rank wrote no results."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AliasPath, BaseModel, ConfigDict, Field, ValidationError

from chipperf.errors import first_fault
from chipperf.records.convergence import best_quality, lower_is_better, meets_target
from chipperf.records.files import read_bounded
from chipperf.records.schema import MINIMUM_WINDOWS, EvaluationPoint, Missing, Record, Throughput, TimeToTarget, Window

MAX_BYTES: Final = 256 * 2**20
"""Largest size of an event log, or of a log that repeats it; one of a million windows is smaller."""

MOST_FAULTS: Final = 1000
"""Lines of a log without an entry after which nothing more is read; a session that was killed leaves one."""


class LoggedEvent(BaseModel):
    """A line of ``events.jsonl``; ``step`` is 0 for events without one."""

    model_config = ConfigDict(extra="forbid")

    event: str
    value: Any
    metadata: dict[str, Any]
    step: Annotated[int, Field(validation_alias=AliasPath("metadata", "step"))] = 0


def counted_events(file: Path) -> tuple[list[LoggedEvent], list[str]]:
    """Return the events that count, and the faults of other lines.

    What an earlier session did after the checkpoint that the next one began with is lost, and done again.

    Raises:
        OSError: The file cannot be read.
    """
    counted: list[LoggedEvent] = []
    faults: list[str] = []
    resumed_step = 0
    content = read_bounded(file, MAX_BYTES).decode(errors="replace")
    # Not splitlines(): texts in JSON may have other line separators.
    for line in content.removesuffix("\n").split("\n"):
        try:
            event = LoggedEvent.model_validate_json(line)
        except ValidationError as error:
            faults.append(first_fault(error))
            if len(faults) > MOST_FAULTS:
                break
            continue
        if event.event == "RUN_RESUME":
            resumed_step = event.value if isinstance(event.value, int) else 0
        elif event.event == "RUN_START":
            counted = [each for each in counted if each.step <= resumed_step]
            resumed_step = 0
        counted.append(event)
    return counted, faults


def window_figures(windows: Sequence[Window], minimum: int = MINIMUM_WINDOWS) -> dict[str, float] | None:
    """Return the figures of a throughput from its windows, by field, or ``None`` for too few windows.

    The cross-check ``mean_of_totals`` is total samples over total time, not an average of rates.
    """
    # In an edited record, windows may have any time.
    rates, total_s = [each.samples_per_s for each in windows if each.seconds > 0], sum(each.seconds for each in windows)
    if len(rates) < minimum or total_s <= 0:
        return None
    first, _, third = statistics.quantiles(rates, n=4, method="inclusive")
    mean = sum(each.samples for each in windows) / total_s
    return {"median": statistics.median(rates), "mean_of_totals": mean, "iqr": third - first}


def throughput(windows: Sequence[Window]) -> Throughput | None:
    """Return the median throughput of windows with its spread, or ``None`` for too few windows."""
    figures = window_figures(windows)
    return None if figures is None else Throughput(**figures, windows=list(windows))


def measured_in_events(record: Record, events: Path) -> Record:
    """Return the record with the windows and evaluations of an event log, where it has any."""
    windows: dict[str, list[Window]] = {"measured": [], "restart": []}
    curve: list[EvaluationPoint] = []
    with suppress(OSError):
        for event in counted_events(events)[0]:
            value, facts = event.value, event.metadata
            # Events of earlier versions have fewer facts.
            with suppress(ValueError, KeyError, TypeError):
                if event.event == "WINDOW_STOP":
                    first_step, steps = facts["first_step"], event.step - facts["first_step"] + 1
                    window = Window(epoch=facts["epoch"], first_step=first_step, steps=steps, **value)
                    windows[facts["kind"]].append(window)
                elif event.event == "EVAL_ACCURACY":
                    given = {key: facts[key] for key in ("epoch", "step", "elapsed_s", "samples", "details")}
                    undefined = Missing(missing="not_applicable", reason="the result was not defined")
                    curve.append(EvaluationPoint(value=undefined if value is None else value, **given))
    if not any(windows.values()) and not curve:
        return record
    found: dict[str, Any] = {"curve": curve, "restart_windows": windows["restart"]}
    if measured := throughput(windows["measured"]):
        found["p_train"] = measured
    lower = lower_is_better(record.case)
    if curve:
        found |= {"quality": curve[-1].value, "best_quality": best_quality(curve, lower=lower)}
    target = record.case.target
    met = [point for point in curve if meets_target(point.value, target, lower=lower)]
    if met:
        found["time_to_target"] = TimeToTarget(seconds=met[0].elapsed_s, epoch=met[0].epoch)
    return record.model_copy(update={"metrics": record.metrics.model_copy(update=found)})

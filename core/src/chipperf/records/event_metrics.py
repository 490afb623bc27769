"""The measurements of a run whose main rank ended without writing its results, from the events that it wrote."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from chipperf.records.convergence import meets_target
from chipperf.records.schema import MINIMUM_WINDOWS, EvaluationPoint, Missing, Record, Throughput, TimeToTarget, Window


def throughput(windows: Sequence[Window]) -> Throughput | None:
    """Return the median throughput with its interquartile range, or ``None`` for too few windows.

    The cross-check ``mean_of_totals`` is total samples over total time, not an average of rates.
    """
    if len(windows) < MINIMUM_WINDOWS:
        return None
    rates = sorted(window.samples_per_s for window in windows)
    first, _, third = statistics.quantiles(rates, n=4, method="inclusive")
    return Throughput(
        median=statistics.median(rates),
        iqr=third - first,
        mean_of_totals=sum(window.samples for window in windows) / sum(window.seconds for window in windows),
        windows=list(windows),
    )


def measured_in_events(record: Record, events: Path) -> Record:
    """Return the record with the windows and evaluations of an event log, where it has any."""
    windows: list[tuple[str, Window]] = []
    curve: list[EvaluationPoint] = []
    resumed_step = 0
    with suppress(OSError):
        for line in events.read_text(encoding="utf-8").splitlines():
            # Events of earlier versions have fewer facts, and the last one may be cut off.
            with suppress(ValueError, KeyError, TypeError):
                event = json.loads(line)
                name, value, facts = event["event"], event["value"], event["metadata"]
                if name in ("INIT_START", "RUN_RESUME"):
                    resumed_step = value or 0
                elif name == "RUN_START":
                    # What an earlier session did after its checkpoint is lost, and done again.
                    windows = [(kind, each) for kind, each in windows if each.first_step <= resumed_step]
                    curve = [point for point in curve if point.step <= resumed_step]
                elif name == "WINDOW_STOP":
                    first_step, steps = facts["first_step"], facts["step"] - facts["first_step"] + 1
                    window = Window(epoch=facts["epoch"], first_step=first_step, steps=steps, **value)
                    windows.append((facts["kind"], window))
                elif name == "EVAL_ACCURACY":
                    given = {key: facts[key] for key in ("epoch", "step", "elapsed_s", "samples", "details")}
                    undefined = Missing(missing="not_applicable", reason="the result was not defined")
                    curve.append(EvaluationPoint(value=undefined if value is None else value, **given))
    if not windows and not curve:
        return record
    found: dict[str, Any] = {"curve": curve, "restart_windows": [each for kind, each in windows if kind == "restart"]}
    if measured := throughput([each for kind, each in windows if kind == "measured"]):
        found["p_train"] = measured
    if curve:
        values = [point.value for point in curve if not isinstance(point.value, Missing)]
        found |= {"quality": curve[-1].value, "best_quality": max(values, default=curve[-1].value)}
    target = record.case.target
    met = [point for point in curve if meets_target(point.value, target)]
    if met:
        found["time_to_target"] = TimeToTarget(seconds=met[0].elapsed_s, epoch=met[0].epoch)
    return record.model_copy(update={"metrics": record.metrics.model_copy(update=found)})

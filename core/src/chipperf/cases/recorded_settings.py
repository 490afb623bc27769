"""Comparing the settings in a run's record with those of the installed case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chipperf.languages import phrase
from chipperf.records.consistency import Relation, plain_name
from chipperf.records.plausibility import check_record
from chipperf.records.schema import Missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.cases.base import Case
    from chipperf.languages import Phrase
    from chipperf.records.plausibility import Implausibility
    from chipperf.records.schema import Record

_FLOPS_TOLERANCE: Final = 0.05


def check_with_case(record: Record, case: Case | None) -> tuple[Implausibility, ...]:
    """Return the contradictions in a completed run, also those with the installed case, if there is one."""
    return check_record(record, relations_to_case(record, case))


def relations_to_case(record: Record, case: Case | None) -> Iterator[Relation]:
    """Yield what the installed case, in the version of the run, says of the run's settings and dataset."""
    if case is None or record.kind == "imported" or record.case.version != case.version:
        return
    values, changes, dataset = record.hyperparameters.values, record.hyperparameters.changes, record.dataset
    base, preset, reference = case.base.model_dump(), case.presets.get(record.case.preset), case.data.reference
    what = f"case {case.name} {case.version}"
    yield Relation("case.metric", record.case.metric, what, case.metric)
    if record.case.preset == "full":
        # Other numbers of classes change it a little, and torch may not know an operator of the vendor's.
        flops, at_most = record.metrics.forward_flops, case.forward_flops
        yield Relation("metrics.forward_flops", flops, what, at_most, _FLOPS_TOLERANCE, is_limit=True)
    yield Relation("case.preset", record.case.preset, what, ", ".join(case.presets) if preset is None else None)
    if plain_name(dataset.name) == plain_name(reference.name):
        yield Relation("dataset.train_samples", dataset.train_samples, "dataset.name", reference.train_samples)
        yield Relation("dataset.eval_samples", dataset.eval_samples, "dataset.name", reference.eval_samples)
        yield Relation("case.target", record.case.target, "hyperparameters.values.target", values.get("target"))
    if preset is None:
        return
    changed = {} if isinstance(changes, Missing) else {change.key: change for change in changes}
    if not isinstance(changes, Missing):
        yield Relation("hyperparameters.changes", len(changes), "their keys", len(changed))
    for key in sorted(base.keys() & values.keys()):
        name, change = f"hyperparameters.values.{key}", changed.get(key)
        if change:
            yield Relation(f"changes.{key}.base", change.base, what, base[key])
        elif not isinstance(changes, Missing):
            yield Relation(name, values[key], what, base[key])
        if case.base.role(key) == "locked" or (change and change.origin == "preset"):
            yield Relation(name, values[key], f"preset {record.case.preset}", preset.get(key, base[key]))


def missing_settings(record: Record, case: Case | None) -> Phrase | None:
    """Return which settings a completed run does not state though they define the case's task, or ``None``.

    Every record of a case's version has them; other settings came with versions of chipperf.
    Without them, nothing distinguishes a run of the case from one with a smaller model or a shorter schedule.
    """
    if case is None or record.kind == "imported" or record.case.version != case.version:
        return None
    values = record.hyperparameters.values
    absent = [key for key in case.base.model_dump() if key not in values and case.base.role(key) == "locked"]
    if not absent or record.status.state != "completed":
        return None
    return phrase("the record does not state %(settings)s", settings=", ".join(sorted(absent)))

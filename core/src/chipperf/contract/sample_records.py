"""Sample records of runs, and sample ranks and device names, for checks that need no device."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args, get_origin

from pydantic import BaseModel

from chipperf.plugin.types import EnvironmentSettings, Rank, VendorInfo
from chipperf.records import schema
from chipperf.run.planned_record import vendor_record

if TYPE_CHECKING:
    from chipperf.cases.base import Case
    from chipperf.cases.config import Resolved
    from chipperf.plugin.session import Session

M = TypeVar("M", bound=BaseModel)

RANKS: Final = (Rank(), Rank(world_size=8, local_world_size=8), Rank(world_size=16, local_world_size=8))
"""Rank 0 of each reported topology: 1x1, 1x8 and 2x8."""

_NOT_RUN: Final = schema.Missing(missing="not_run")


def device_names(info: VendorInfo) -> tuple[str, ...]:
    """Return the device names to call hooks with: "" for an unknown device, and each known product."""
    return ("", *(device.name for device in info.known_devices))


def full_record(session: Session, case: Case, rank: Rank, resolved: Resolved) -> schema.Record:
    """Return the record of a run in which every value was measured. ``rank`` determines the topology."""
    info, values = session.vendor_info(), resolved.values
    card = info.known_devices[0].name if info.known_devices else "specimen device"
    short_name = info.short_name(card)
    variables = session.environment(rank, EnvironmentSettings(case=case.name, precision="fp32"))
    return _specimen(
        schema.Record,
        kind="measured",
        created_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
        status=schema.Status(state="completed"),
        vendor=vendor_record(session),
        case=schema.CaseRecord(
            name=case.name, version=case.version, preset="full", metric=case.metric, target=values.target
        ),
        topology=schema.Topology(nnodes=rank.node_count, nproc_per_node=rank.local_world_size),
        precision=_specimen(schema.PrecisionRecord, requested="fp32", effective="fp32", autocast_dtype=None),
        hyperparameters=schema.HyperparametersRecord(
            values=values.model_dump(),
            changes=list(resolved.changes),
            notes=list(resolved.notes),
            global_batch_size=values.batch_size * rank.world_size,
        ),
        dataset=_specimen(schema.Dataset, name=case.data.reference.name),
        environment=_specimen(
            schema.Environment, card_title=f"{card} specimen", card_short_name=short_name, row_label=short_name
        ),
        knobs=[
            schema.KnobRecord(name=each.name, value=each.value, reason=each.reason, origin="vendor")
            for each in variables
        ],
        metrics=_specimen(schema.Metrics, quality=values.target, best_quality=values.target),
        warnings=["specimen warning"],
        evidence=schema.UNKNOWN,
    )


def empty_record(session: Session, case: Case, rank: Rank, resolved: Resolved) -> schema.Record:
    """Return the record of a completed run in which every optional value is missing."""
    full = full_record(session, case, rank, resolved)
    changes = {
        "run_id": "specimen-empty",
        "case": full.case.model_copy(update={"target": _NOT_RUN}),
        "precision": full.precision.model_copy(
            update={"effective": schema.UNKNOWN, "measured_matmul": _NOT_RUN, "measured_convolution": _NOT_RUN}
        ),
        "hyperparameters": full.hyperparameters.model_copy(
            update={"changes": [], "notes": [], "global_batch_size": schema.UNKNOWN}
        ),
        "seed": schema.UNKNOWN,
        "dataset": schema.Dataset(name=case.base.dataset, fingerprint_method="", is_sample=False),
        "loader": _NOT_RUN,
        "environment": schema.Environment(),
        "knobs": [],
        "metrics": schema.Metrics.model_validate(schema.all_missing(schema.Metrics, _NOT_RUN)),
        "warnings": [],
    }
    return full.model_copy(update=changes)


def _specimen(model: type[M], **known: Any) -> M:
    """Return a model with the known values, and with a value for every other field that has none by default."""
    unknown = {
        name: _value(name, field.annotation)
        for name, field in model.model_fields.items()
        if name not in known and (field.is_required() or isinstance(field.default, schema.Missing))
    }
    return model.model_validate({**unknown, **known})


def _value(name: str, annotation: Any) -> Any:
    """Return a value of a field's type; of several types, the first, because a missing value comes last."""
    kinds = get_args(annotation)
    if kinds:
        value = _value(name, kinds[0])
        return [value] if get_origin(annotation) is list else value
    if issubclass(annotation, BaseModel):
        return _specimen(annotation)
    return {str: f"specimen {name}", int: 1000, float: 1.0, bool: False}[annotation]

"""Sample records of runs, and samples of all that hooks without a device are asked, for checks that need none."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from itertools import product
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args, get_origin
from zlib import crc32

from pydantic import BaseModel

from chipperf.cases.registry import case_names
from chipperf.plugin.types import EnvironmentSettings, EnvironmentVariable, Rank, VendorInfo
from chipperf.precisions import PRECISIONS
from chipperf.records import schema
from chipperf.run.planned_record import vendor_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from chipperf.cases.base import Case
    from chipperf.cases.config import Resolved
    from chipperf.plugin.session import Session

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

RANKS: Final = (Rank(), Rank(world_size=8, local_world_size=8), Rank(world_size=16, local_world_size=8))
"""Rank 0 of each reported topology: 1x1, 1x8 and 2x8."""

JOBS: Final = (
    *RANKS,
    *(replace(rank, rank=rank.world_size - 1, local_rank=7, node_rank=rank.node_count - 1) for rank in RANKS[1:]),
    Rank(world_size=2, local_world_size=2),
    Rank(world_size=24, local_world_size=8),
    Rank(world_size=1024, local_world_size=8),
)
"""Rank 0 and the last rank of the reported topologies, and rank 0 of others that a user may choose."""

_OTHER_CARD: Final = "Contract Specimen 64G"
"""The name of a card that no vendor makes."""

_NOT_RUN: Final = schema.Missing(missing="not_run")


def device_names(info: VendorInfo) -> tuple[str, ...]:
    """Return the device names to call hooks with: "" if it is unknown, that of a card of nobody, and known products."""
    return ("", _OTHER_CARD, *(device.name for device in info.known_devices))


def is_known(device_name: str) -> bool:
    """Return whether one of the :func:`device_names` is the name of a product."""
    return device_name not in ("", _OTHER_CARD)


def environments(session: Session, *, backwards: bool = False) -> Iterator[tuple[str, tuple[EnvironmentVariable, ...]]]:
    """Yield the environment for each case, precision and rank, with a phrase for the situation."""
    order = _backwards if backwards else iter
    for case, precision, deterministic, rank in order(product(_cases(), PRECISIONS, (False, True), JOBS)):
        settings = EnvironmentSettings(case=case, precision=precision, deterministic=deterministic)
        kind = "deterministic " if deterministic else ""
        yield f"{kind}{case} in {precision}, {_of_job(rank)}", session.environment(rank, settings)


def constant_answers(session: Session, *, backwards: bool = False) -> Iterator[tuple[str, object]]:
    """Yield what depends on no machine, each with the call: the vendor's info, overrides and peaks."""
    order = _backwards if backwards else iter
    info = session.vendor_info()
    # The order of a set differs between processes.
    yield "perf_vendor_info", replace(info, capabilities=tuple(sorted(info.capabilities)))  # type: ignore[arg-type]
    for case, rank, device_name in order(product(_cases(), JOBS, device_names(info))):
        call = f"perf_case_overrides of {case} on {device_name or 'an unknown device'}, {_of_job(rank)}"
        yield call, session.case_overrides(case, rank, device_name)
    for device_name, precision in order(product(device_names(info), PRECISIONS)):
        yield (
            f"perf_peak_flops of {device_name or 'an unknown device'} in {precision}",
            session.peak_flops(device_name, precision),
        )


def data_answers(session: Session, *, backwards: bool = False) -> Iterator[tuple[str, object]]:
    """Yield every answer of the hooks that need no device, each with the call.

    If ``backwards``, each hook is asked for the last case, rank and device first: an answer that was kept for other
    arguments is then another one.
    """
    yield from constant_answers(session, backwards=backwards)
    for situation, variables in environments(session, backwards=backwards):
        yield f"perf_environment of {situation}", variables
    yield "perf_tool_commands", session.tool_commands()


def _cases() -> tuple[str, ...]:
    """Return the names of the cases, and one that no plugin knows: packages bring cases of their own."""
    return (*case_names(), "case_of_another_package")


def _backwards(items: Iterable[T]) -> Iterator[T]:
    return reversed(list(items))


def _of_job(rank: Rank) -> str:
    return f"rank {rank.rank} on {rank.topology}"


def full_record(session: Session, case: Case, rank: Rank, resolved: Resolved, number: int = 0) -> schema.Record:
    """Return the record of a run in which every value was measured. ``rank`` determines the topology.

    All numbers in it differ, and differ from those of a record with another ``number``.
    """
    info, values = session.vendor_info(), resolved.values
    card = info.known_devices[0].name if info.known_devices else "specimen device"
    short_name = info.short_name(card)
    variables = session.environment(rank, EnvironmentSettings(case=case.name, precision="fp32"))
    return _specimen(
        schema.Record,
        number,
        kind="measured",
        created_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
        status=schema.Status(state="completed"),
        vendor=vendor_record(session),
        case=schema.CaseRecord(
            name=case.name,
            version=case.version,
            preset="full",
            metric=case.metric,
            target=values.target,
            lower_is_better=case.lower_is_better,
        ),
        topology=schema.Topology(nnodes=rank.node_count, nproc_per_node=rank.local_world_size),
        precision=_specimen(schema.PrecisionRecord, number, requested="fp32", effective="fp32", autocast_dtype=None),
        hyperparameters=schema.HyperparametersRecord(
            values=values.model_dump(),
            changes=list(resolved.changes),
            notes=list(resolved.notes),
            samples_per_item=values.samples_per_item,
            global_batch_size=values.global_batch_size(rank.world_size),
        ),
        dataset=_specimen(schema.Dataset, number, name=case.data.reference.name),
        environment=_specimen(
            schema.Environment,
            number,
            card_title=f"{card} specimen",
            card_short_name=short_name,
            row_label=short_name,
        ),
        knobs=[
            schema.KnobRecord(name=each.name, value=each.value, reason=each.reason, origin="vendor")
            for each in variables
        ],
        metrics=_specimen(schema.Metrics, number, quality=values.target - number / 1000, best_quality=values.target),
        warnings=["specimen warning"],
        evidence=schema.UNKNOWN,
        machine_limits=_specimen(
            schema.LimitsOfRun,
            number,
            sha256=f"{number:064x}",
            created_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
            # Above what the other numbers of the run need.
            products_flops_per_s=1e9 + number,
            peak_flops_per_s=2e9 + number,
            bus_bytes_per_s=1e12 + number,
        ),
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
        "machine_limits": _NOT_RUN,
    }
    return full.model_copy(update=changes)


def _specimen(model: type[M], number: int, place: str = "", **known: Any) -> M:
    """Return a model with the known values, and with a value for every other field that has none by default."""
    unknown = {
        name: _value(f"{place}.{name}", field.annotation, number)
        for name, field in model.model_fields.items()
        if name not in known and (field.is_required() or isinstance(field.default, schema.Missing))
    }
    return model.model_validate({**unknown, **known})


def _value(place: str, annotation: Any, number: int) -> Any:
    """Return a value of a field's type; of several types, the first, because a missing value comes last."""
    kinds = get_args(annotation)
    if kinds:
        value = _value(place, kinds[0], number)
        return [value] if get_origin(annotation) is list else value
    if issubclass(annotation, BaseModel):
        return _specimen(annotation, number, place)
    distinct = 300 + crc32(place.encode()) % 500 + number
    # Eighths of a GiB, so that a size in another unit is another number.
    whole = distinct * 2**27 if place.endswith("_bytes") else distinct
    return {str: f"specimen {place.rpartition('.')[2]}", int: whole, float: distinct + 0.25, bool: False}[annotation]

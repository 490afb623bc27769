"""Sample records of runs, and sample ranks and device names, for checks that need no device."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

import chipperf
from chipperf.plugin.types import EnvironmentSettings, Rank
from chipperf.records import schema
from chipperf.run.planned_record import vendor_record

if TYPE_CHECKING:
    from chipperf.cases.base import Case
    from chipperf.cases.config import Resolved
    from chipperf.plugin.session import Session
    from chipperf.plugin.types import VendorInfo

RANKS: Final = (Rank(), Rank(world_size=8, local_world_size=8), Rank(world_size=16, local_world_size=8))
"""Rank 0 of each reported topology: 1x1, 1x8 and 2x8."""

_GIB: Final = 2**30
_NOT_RUN: Final = schema.Missing(missing="not_run")
_ENVIRONMENT_TEXTS: Final = (
    *("machine", "cpu", "network", "os", "kernel", "driver", "container", "framework", "compiler", "dependencies"),
    *("python", "torch", "sdk", "collectives"),
)


def device_names(info: VendorInfo) -> tuple[str, ...]:
    """Return the device names to call hooks with: "" for an unknown device, and each known product."""
    return ("", *(device.name for device in info.known_devices))


def full_record(session: Session, case: Case, rank: Rank, resolved: Resolved) -> schema.Record:
    """Return the record of a run in which every value was measured. ``rank`` determines the topology."""
    info, values = session.vendor_info(), resolved.values
    card = info.known_devices[0].name if info.known_devices else "specimen device"
    variables = session.environment(rank, EnvironmentSettings(case=case.name, precision="fp32"))
    return schema.Record(
        kind="measured",
        run_id="specimen-full",
        chipperf_version=chipperf.__version__,
        created_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
        status=schema.Status(state="completed"),
        vendor=vendor_record(session),
        case=schema.CaseRecord(
            name=case.name, version=case.version, preset="full", metric=case.metric, target=values.target
        ),
        topology=schema.Topology(nnodes=rank.node_count, nproc_per_node=rank.local_world_size),
        precision=schema.PrecisionRecord(
            requested="fp32",
            effective="fp32",
            measured_matmul="fp32",
            measured_convolution="fp32",
            autocast_dtype=None,
            grad_scaler=False,
        ),
        hyperparameters=schema.HyperparametersRecord(
            values=values.model_dump(),
            changes=list(resolved.changes),
            notes=list(resolved.notes),
            global_batch_size=values.batch_size * rank.world_size,
        ),
        limits=schema.Limits(),
        seed=values.seed,
        dataset=schema.Dataset(
            name=case.data.reference.name,
            version="1",
            fingerprint="0123456789abcdef",
            fingerprint_method="sha256 of names and sizes",
            train_samples=100_000,
            eval_samples=5_000,
            classes=100,
            is_sample=False,
        ),
        loader=schema.Loader(
            workers=4,
            prefetch_factor=2,
            pin_memory=True,
            persistent_workers=True,
            start_method="fork",
            decoder="specimen decoder",
            resize="specimen resize",
        ),
        environment=schema.Environment.model_validate(
            {
                **{name: f"specimen {name}" for name in _ENVIRONMENT_TEXTS},
                "cpu_cores": 64,
                "memory_bytes": 512 * _GIB,
                "card_title": f"{card} specimen",
                "card_short_name": info.short_name(card),
                "row_label": info.short_name(card),
            }
        ),
        knobs=[
            schema.KnobRecord(name=each.name, value=each.value, reason=each.reason, origin="vendor")
            for each in variables
        ],
        metrics=_metrics(quality=values.target),
        warnings=["specimen warning"],
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


def _metrics(*, quality: float) -> schema.Metrics:
    return schema.Metrics(
        e2e_time_s=1100.0,
        p_whole=900.0,
        p_train=_throughput(950.0),
        p_core=_throughput(1000.0),
        data_stall=0.05,
        quality=quality,
        best_quality=quality,
        time_to_target=schema.TimeToTarget(seconds=990.0, epoch=9),
        memory=schema.Memory(
            allocated_peak_bytes=19 * _GIB,
            reserved_peak_bytes=20 * _GIB,
            device_peak_bytes=21 * _GIB,
            total_bytes=32 * _GIB,
            allocator_source="specimen allocator",
            device_source="specimen management library",
        ),
        power=schema.Power(
            samples=1000,
            mean_w=100.0,
            max_w=150.0,
            energy_j=100_000.0,
            mean_temperature_c=50.0,
            max_temperature_c=60.0,
            mean_utilization_percent=90.0,
            used_peak_bytes=21 * _GIB,
            source="specimen management library",
        ),
        train_samples=1_000_000,
        train_seconds=1000.0,
        epochs=10.0,
        steps=10_000,
        spans=[schema.Span(name="train", start_s=50.0, seconds=1000.0)],
    )


def _throughput(median: float) -> schema.Throughput:
    window = schema.Window(epoch=0, first_step=0, steps=50, samples=round(10 * median), seconds=10.0)
    return schema.Throughput(median=median, iqr=1.5, mean_of_totals=median, windows=[window])

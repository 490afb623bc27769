"""Sample records of runs, and sample ranks and device names, for checks that need no device."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

import chipperf
from chipperf.plugin.types import EnvironmentSettings, Rank
from chipperf.records.schema import (
    UNKNOWN,
    CaseRecord,
    Dataset,
    Environment,
    HyperparametersRecord,
    KnobRecord,
    Limits,
    Loader,
    Memory,
    Metrics,
    Missing,
    Power,
    PrecisionRecord,
    Record,
    Span,
    Status,
    Throughput,
    TimeToTarget,
    Topology,
    Window,
    all_missing,
)
from chipperf.run.planned_record import vendor_record

if TYPE_CHECKING:
    from chipperf.cases.base import Case
    from chipperf.cases.config import Resolved
    from chipperf.plugin.session import Session
    from chipperf.plugin.types import VendorInfo

RANKS: Final = (Rank(), Rank(world_size=8, local_world_size=8), Rank(world_size=16, local_world_size=8))
"""Rank 0 of each reported topology: 1x1, 1x8 and 2x8."""

_GIB: Final = 2**30
_CREATED_AT: Final = datetime(2026, 1, 1, tzinfo=timezone.utc)
_NOT_RUN: Final = Missing(missing="not_run")


def device_names(info: VendorInfo) -> tuple[str, ...]:
    """Return the device names to call hooks with: "" for an unknown device, and each known product."""
    return ("", *(device.name for device in info.known_devices))


def full_record(session: Session, case: Case, rank: Rank, resolved: Resolved) -> Record:
    """Return the record of a run in which every value was measured.

    Args:
        session: The bound vendor.
        case: The case that ran.
        rank: A process of the job. It determines the topology.
        resolved: Hyperparameters of the run.
    """
    info = session.vendor_info()
    name = info.known_devices[0].name if info.known_devices else "specimen device"
    variables = session.environment(rank, EnvironmentSettings(case=case.name, precision="fp32"))
    return Record(
        kind="measured",
        run_id="specimen-full",
        chipperf_version=chipperf.__version__,
        created_at=_CREATED_AT,
        status=Status(state="completed"),
        vendor=vendor_record(session),
        case=_case(case, target=resolved.values.target),
        topology=_topology(rank),
        precision=PrecisionRecord(
            requested="fp32",
            effective="fp32",
            measured_matmul="fp32",
            measured_convolution="fp32",
            autocast_dtype=None,
            grad_scaler=False,
        ),
        hyperparameters=HyperparametersRecord(
            values=resolved.values.model_dump(),
            changes=list(resolved.changes),
            notes=list(resolved.notes),
            global_batch_size=resolved.values.batch_size * rank.world_size,
        ),
        limits=Limits(),
        seed=resolved.values.seed,
        dataset=Dataset(
            name=case.data.reference.name,
            version="1",
            fingerprint="0123456789abcdef",
            fingerprint_method="sha256 of names and sizes",
            train_samples=100_000,
            eval_samples=5_000,
            classes=100,
            is_sample=False,
        ),
        loader=Loader(
            workers=4,
            prefetch_factor=2,
            pin_memory=True,
            persistent_workers=True,
            start_method="fork",
            decoder="specimen decoder",
            resize="specimen resize",
        ),
        environment=_environment(name, short_name=info.short_name(name)),
        knobs=[KnobRecord(name=each.name, value=each.value, reason=each.reason, origin="vendor") for each in variables],
        metrics=_metrics(quality=resolved.values.target),
        warnings=["specimen warning"],
    )


def empty_record(session: Session, case: Case, rank: Rank, resolved: Resolved) -> Record:
    """Return the record of a completed run in which every optional value is missing.

    Args:
        session: The bound vendor.
        case: The case that ran.
        rank: A process of the job. It determines the topology.
        resolved: Hyperparameters of the run.
    """
    full = full_record(session, case, rank, resolved)
    changes = {
        "run_id": "specimen-empty",
        "case": _case(case, target=_NOT_RUN),
        "precision": PrecisionRecord(
            requested="fp32",
            effective=UNKNOWN,
            measured_matmul=_NOT_RUN,
            measured_convolution=_NOT_RUN,
            autocast_dtype=None,
            grad_scaler=False,
        ),
        "hyperparameters": full.hyperparameters.model_copy(
            update={"changes": [], "notes": [], "global_batch_size": UNKNOWN}
        ),
        "seed": UNKNOWN,
        "dataset": Dataset(name=case.base.dataset, fingerprint_method="", is_sample=False),
        "loader": _NOT_RUN,
        "environment": Environment(),
        "knobs": [],
        "metrics": Metrics.model_validate(all_missing(Metrics, _NOT_RUN)),
        "warnings": [],
    }
    return full.model_copy(update=changes)


def _case(case: Case, *, target: float | Missing) -> CaseRecord:
    return CaseRecord(name=case.name, version=case.version, preset="full", metric=case.metric, target=target)


def _topology(rank: Rank) -> Topology:
    return Topology(nnodes=rank.node_count, nproc_per_node=rank.local_world_size)


def _environment(card: str, *, short_name: str) -> Environment:
    return Environment(
        machine="specimen machine",
        cpu="specimen processor",
        cpu_cores=64,
        memory_bytes=512 * _GIB,
        card_title=f"{card} specimen",
        card_short_name=short_name,
        row_label=short_name,
        network="specimen network",
        os="specimen os",
        kernel="specimen kernel",
        driver="specimen driver",
        container="specimen image",
        framework="specimen framework",
        compiler="specimen compiler",
        dependencies="specimen dependencies",
        python="specimen python",
        torch="specimen torch",
        sdk="specimen sdk",
        collectives="specimen collectives",
    )


def _metrics(*, quality: float) -> Metrics:
    return Metrics(
        e2e_time_s=1100.0,
        p_whole=900.0,
        p_train=_throughput(950.0),
        p_core=_throughput(1000.0),
        data_stall=0.05,
        quality=quality,
        best_quality=quality,
        time_to_target=TimeToTarget(seconds=990.0, epoch=9),
        memory=Memory(
            allocated_peak_bytes=19 * _GIB,
            reserved_peak_bytes=20 * _GIB,
            device_peak_bytes=21 * _GIB,
            total_bytes=32 * _GIB,
            allocator_source="specimen allocator",
            device_source="specimen management library",
        ),
        power=Power(
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
        spans=[Span(name="train", start_s=50.0, seconds=1000.0)],
    )


def _throughput(median: float) -> Throughput:
    window = Window(epoch=0, first_step=0, steps=50, samples=round(10 * median), seconds=10.0)
    return Throughput(median=median, iqr=1.5, mean_of_totals=median, windows=[window])

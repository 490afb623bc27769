"""A record from what is known so far: when the run is planned, and when a rank has results."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import chipperf
from chipperf.records import environment as machine
from chipperf.records.schema import (
    Case,
    Dataset,
    Distribution,
    Environment,
    Metrics,
    Missing,
    PrecisionRecord,
    Record,
    Status,
    Titles,
    Vendor,
)

if TYPE_CHECKING:
    from chipperf.launch.plan import RunPlan
    from chipperf.session import Session
    from chipperf.types import Title

_PENDING = Missing(missing="not_run", reason="the run did not come this far")


def planned_record(plan: RunPlan, session: Session, *, metric: str) -> Record:
    """Return the record of a run that has not begun: everything decided, nothing measured."""
    info = session.vendor_info()
    return Record(
        kind="simulated" if session.simulated else "measured",
        run_id=plan.run_id,
        chipperf_version=chipperf.__version__,
        created_at=plan.created_at,
        status=Status(state="running"),
        vendor=Vendor(
            name=info.name,
            title=_titles(info.title),
            report_title=_titles(info.report_title),
            device_type=info.device_type,
            api_version=info.api_version,
            plugin=Distribution(name=session.entry.distribution, version=session.entry.version),
        ),
        case=Case(name=plan.case, version=plan.case_version, preset=plan.preset, metric=metric, target=_PENDING),
        topology=plan.topology,
        precision=PrecisionRecord(requested=plan.precision, effective=_PENDING, autocast_dtype=None, grad_scaler=False),
        hyperparameters=plan.hyperparameters,
        limits=plan.limits,
        seed=int(plan.hyperparameters.values["seed"]),
        dataset=Dataset(
            name=plan.data_root.name,
            version=_PENDING,
            fingerprint=_PENDING,
            fingerprint_method="",
            train_samples=_PENDING,
            eval_samples=_PENDING,
            classes=_PENDING,
            is_sample=False,
        ),
        loader=_PENDING,
        environment=_machine_environment(plan),
        knobs=[],
        metrics=empty_metrics(_PENDING),
        warnings=list(plan.warnings),
    )


def empty_metrics(missing: Missing) -> Metrics:
    """Return metrics that are all missing for the same reason."""
    return Metrics(
        e2e_time_s=missing,
        p_whole=missing,
        p_train=missing,
        p_core=missing,
        data_stall=missing,
        data_wait=missing,
        step_breakdown=missing,
        quality=missing,
        best_quality=missing,
        time_to_target=missing,
        projected_train_seconds=missing,
        memory=missing,
        power=missing,
        train_samples=missing,
        train_seconds=missing,
        epochs=missing,
        steps=missing,
        spans=[],
        curve=[],
    )


def _machine_environment(plan: RunPlan) -> Environment:
    facts = Environment(
        machine=machine.read_machine(),
        cpu=machine.read_cpu(),
        cpu_cores=machine.read_cores(),
        memory_bytes=machine.read_memory_bytes(),
        card_title=_PENDING,
        card_short_name=_PENDING,
        row_label=_PENDING,
        cards=[],
        network=machine.read_network(),
        os=machine.read_os(),
        kernel=platform.release(),
        driver=_PENDING,
        container=machine.read_container(),
        framework=_PENDING,
        compiler=_PENDING,
        dependencies=_PENDING,
        python=platform.python_version(),
        torch=_PENDING,
        sdk=_PENDING,
        collectives=_PENDING,
        distributions=machine.read_distributions(),
    )
    return facts.model_copy(update={**plan.stated_environment, "stated": sorted(plan.stated_environment)})


def _titles(title: Title) -> Titles:
    return Titles(zh=title.zh, en=title.en)

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
    from chipperf.plugin.session import Session
    from chipperf.plugin.types import Title
    from chipperf.run.plan import RunPlan

_PENDING = Missing(missing="not_run", reason="the run did not come this far")


def planned_record(plan: RunPlan, session: Session, *, metric: str) -> Record:
    """Return the record of a run that has not begun: everything decided, nothing measured."""
    return Record(
        kind="simulated" if session.simulated else "measured",
        run_id=plan.run_id,
        chipperf_version=chipperf.__version__,
        created_at=plan.created_at,
        status=Status(state="running"),
        vendor=vendor_record(session),
        case=Case(name=plan.case, version=plan.case_version, preset=plan.preset, metric=metric, target=_PENDING),
        topology=plan.topology,
        precision=PrecisionRecord(requested=plan.precision, effective=_PENDING, autocast_dtype=None, grad_scaler=False),
        hyperparameters=plan.hyperparameters,
        limits=plan.limits,
        seed=int(plan.hyperparameters.values["seed"]),
        dataset=empty_dataset(plan.data_root.name, _PENDING),
        loader=_PENDING,
        environment=_machine_environment(plan),
        knobs=[],
        metrics=empty_metrics(_PENDING),
        warnings=list(plan.warnings),
    )


def vendor_record(session: Session) -> Vendor:
    """Return what a record says of the vendor and the plugin that ran."""
    info, entry = session.vendor_info(), session.entry
    return Vendor(
        name=info.name,
        title=titles(info.title),
        report_title=titles(info.report_title),
        device_type=info.device_type,
        api_version=info.api_version,
        plugin=Distribution(name=entry.distribution, version=entry.version),
    )


def titles(title: Title) -> Titles:
    """Return what a record says of a title."""
    return Titles(zh=title.zh, en=title.en)


def empty_dataset(name: str, missing: Missing) -> Dataset:
    """Return a dataset of which all but the name is missing for the same reason."""
    return Dataset(
        name=name,
        version=missing,
        fingerprint=missing,
        fingerprint_method="",
        train_samples=missing,
        eval_samples=missing,
        classes=missing,
        is_sample=False,
    )


def empty_facts(missing: Missing) -> dict[str, Missing]:
    """Return every fact of an environment, by its name, as missing for the same reason; not its lists."""
    return {name: missing for name in Environment.model_fields if name not in ("stated", "cards", "distributions")}


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

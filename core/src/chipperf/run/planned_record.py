"""The record of a planned run, and empty values for records."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any, Final, TypeVar

import chipperf
from chipperf.data.dataset_identity import read_manifest
from chipperf.languages import in_language
from chipperf.records import environment as machine
from chipperf.records.schema import (
    NOT_REACHED,
    UNKNOWN_NAME,
    Card,
    CaseRecord,
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
    all_missing,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pydantic import BaseModel

    from chipperf.plugin.session import Session
    from chipperf.plugin.types import DeviceInfo, Title
    from chipperf.run.plan import RunPlan

M = TypeVar("M", bound="BaseModel")

UNTOLD: Final = Missing(missing="unknown", reason="the vendor's stack does not tell")


def planned_record(plan: RunPlan, session: Session, *, metric: str, lower_is_better: bool = False) -> Record:
    """Return the record of a run that has not started. It has all settings and no measurements."""
    return Record(
        kind="simulated" if session.simulated else "measured",
        run_id=plan.run_id,
        chipperf_version=chipperf.__version__,
        created_at=plan.created_at,
        status=Status(state="running"),
        vendor=vendor_record(session),
        case=CaseRecord(
            name=plan.case,
            version=plan.case_version,
            preset=plan.preset,
            metric=metric,
            target=NOT_REACHED,
            lower_is_better=lower_is_better,
        ),
        topology=plan.topology,
        precision=PrecisionRecord(
            requested=plan.precision, effective=NOT_REACHED, autocast_dtype=None, grad_scaler=False
        ),
        hyperparameters=plan.hyperparameters,
        limits=plan.limits,
        seed=int(plan.hyperparameters.values["seed"]),
        dataset=_not_reached(Dataset, **_announced(plan.data_root), fingerprint_method=""),
        loader=NOT_REACHED,
        environment=machine_environment(plan.stated_environment),
        knobs=[],
        metrics=_not_reached(Metrics),
        warnings=list(plan.warnings),
    )


def _announced(root: Path) -> dict[str, Any]:
    """Return what is known of a dataset before its files are read: what the manifest of a sample says."""
    manifest = read_manifest(root) or {}
    is_sample = isinstance(manifest.get("name"), str) and isinstance(manifest.get("version"), str)
    named = {key: manifest[key] for key in ("name", "version")} if is_sample else {"name": UNKNOWN_NAME}
    return {**named, "is_sample": is_sample}


def vendor_record(session: Session) -> Vendor:
    """Return the vendor and the plugin for a record."""
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
    return Titles(zh=in_language(title, "zh"), en=title.en)


def card_record(rank: int, info: DeviceInfo) -> Card:
    """Return what a record says of a rank's device."""
    return Card(
        rank=rank,
        name=info.name,
        uuid=info.uuid or UNTOLD,
        pci_bus_id=info.pci_bus_id or UNTOLD,
        total_bytes=UNTOLD if info.total_bytes is None else info.total_bytes,
        part=info.part,
    )


def machine_environment(stated: Mapping[str, str]) -> Environment:
    """Return what is known of this machine without its devices, with what the user stated."""
    facts = _not_reached(
        Environment,
        machine=machine.read_machine(),
        cpu=machine.read_cpu(),
        cpu_cores=machine.read_cores(),
        memory_bytes=machine.read_memory_bytes(),
        network=machine.read_network(),
        os=machine.read_os(),
        kernel=platform.release(),
        container=machine.read_container(),
        python=platform.python_version(),
        distributions=machine.read_distributions(),
    )
    return facts.model_copy(update={**stated, "stated": sorted(stated)})


def _not_reached(model: type[M], **known: Any) -> M:
    return model.model_validate({**all_missing(model, NOT_REACHED), **known})

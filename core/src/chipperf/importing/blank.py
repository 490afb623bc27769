"""A record with only vendor, case and topology, to be filled by an import."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import chipperf
from chipperf.documents.document_identity import installed_cases
from chipperf.plugin.types import API_VERSION
from chipperf.records.schema import (
    UNKNOWN,
    UNKNOWN_NAME,
    CaseRecord,
    Dataset,
    Distribution,
    Environment,
    HyperparametersRecord,
    Limits,
    Metrics,
    PrecisionRecord,
    Record,
    Status,
    Titles,
    Topology,
    Vendor,
    all_missing,
)
from chipperf.run.planned_record import titles

if TYPE_CHECKING:
    from chipperf.documents.card_names import CardNames
    from chipperf.records.schema import MetricsDefinition


def blank_record(
    *,
    run_id: str,
    vendor: str,
    case: str,
    topology: Topology,
    names: CardNames,
    metrics_definition: MetricsDefinition,
) -> Record:
    """Return an imported record in which all other values are unknown.

    Args:
        run_id: Name of the record.
        vendor: The vendor's name. Its plugin need not be installed.
        case: The case's name. The case need not be installed.
        topology: Machines and cards.
        names: Names of vendors.
        metrics_definition: Definition of the metrics that the values will follow.
    """
    return Record(
        metrics_definition=metrics_definition,
        kind="imported",
        run_id=run_id,
        chipperf_version=chipperf.__version__,
        created_at=datetime.now(timezone.utc).replace(microsecond=0),
        status=Status(state="completed"),
        vendor=_vendor(vendor, names),
        case=_case(case),
        topology=topology,
        precision=PrecisionRecord(requested=UNKNOWN_NAME, effective=UNKNOWN, autocast_dtype=None, grad_scaler=False),
        hyperparameters=HyperparametersRecord(values={}, changes=UNKNOWN, global_batch_size=UNKNOWN),
        limits=Limits(),
        seed=UNKNOWN,
        dataset=Dataset(name=UNKNOWN_NAME, fingerprint_method="", is_sample=False),
        loader=UNKNOWN,
        environment=Environment(),
        knobs=[],
        metrics=Metrics.model_validate(all_missing(Metrics, UNKNOWN)),
    )


def _vendor(name: str, names: CardNames) -> Vendor:
    info = names.info(name)
    title = next(iter(names.titles(name)), name)
    plain = Titles(zh=title, en=title)
    return Vendor(
        name=name,
        title=titles(info.title) if info else plain,
        report_title=titles(info.report_title) if info else plain,
        device_type=info.device_type if info else UNKNOWN_NAME,
        api_version=info.api_version if info else API_VERSION,
        # No plugin ran. The importer wrote the record.
        plugin=Distribution(name="chipperf", version=chipperf.__version__),
    )


def _case(name: str) -> CaseRecord:
    case = installed_cases().get(name)
    if case is None:
        return CaseRecord(name=name, version=UNKNOWN_NAME, preset="full", metric=UNKNOWN_NAME, target=UNKNOWN)
    return CaseRecord(name=name, version=case.version, preset="full", metric=case.metric, target=case.base.target)

"""Importing a log: of FlagPerf, or of MLPerf training, by the mark of its lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chipperf.importing import flagperf_log, mlperf_log
from chipperf.importing.log_lines import Stated, read_log

if TYPE_CHECKING:
    from pathlib import Path

    from chipperf.documents.card_names import CardNames
    from chipperf.importing.imported import Import
    from chipperf.records.schema import Topology


def import_log(
    path: Path,
    *,
    names: CardNames,
    vendor: str | None = None,
    case: str | None = None,
    topology: Topology | None = None,
    precision: str | None = None,
) -> Import:
    """Return the records of a log. A :class:`DocumentError` says why there are none.

    A log with FlagPerf's events is FlagPerf's, also where a library wrote MLPerf's lines into it.
    """
    log = read_log(path)
    is_mlperf = mlperf_log.MARK in log.text and flagperf_log.MARK not in log.text
    import_one = mlperf_log.import_mlperf_log if is_mlperf else flagperf_log.import_flagperf_log
    return import_one(log, Stated(vendor=vendor, case=case, topology=topology, precision=precision), names)

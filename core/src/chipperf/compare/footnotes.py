"""Footnotes of a comparison: facts that may explain a ratio or weaken it.

Runs that cannot be compared are refused earlier, see :func:`~chipperf.report.comparability.require_comparable`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final

from chipperf.cases.recorded_settings import relations_to_case
from chipperf.errors import PluginError
from chipperf.plugin import installed
from chipperf.plugin.probe_process import ask
from chipperf.plugin.types import PeakFlops
from chipperf.records.limit_shares import Peak
from chipperf.records.memory_peak import peak_source
from chipperf.records.plausibility import check_record, check_scaling
from chipperf.records.repeats import ENOUGH_REPEATS
from chipperf.records.schema import UNKNOWN, Missing, Power
from chipperf.report.comparability import length, setting_text
from chipperf.verify.evidence import examine_evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from chipperf.cases.base import Case
    from chipperf.compare.sides import Side
    from chipperf.records.schema import Record, Setting

    PeakOf = Callable[[Record], Peak | None]

_ENOUGH_READINGS: Final = 60

DOUBTS: Final = ("implausible: ", "no evidence: ")
"""How footnotes begin that say why a record may not be what was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footnote:
    """A footnote and its columns, counted from 1."""

    text: str
    columns: tuple[int, ...]


def footnotes(columns: Sequence[Side], case: Case, peak_of: PeakOf) -> tuple[Footnote, ...]:
    """Return every footnote on comparable columns, each once. ``peak_of`` returns the peak rate of a run's device."""
    found: dict[str, list[int]] = {}
    for place, column in enumerate(columns, start=1):
        texts = (_origin(column), _differences(column, columns[0]), _coarse_energy(column))
        for text in chain(*texts, _implausible(column, case, peak_of), _evidence(column)):
            found.setdefault(text, []).append(place)
    places = {id(column.first): place for place, column in enumerate(columns, start=1)}
    for record, finding in check_scaling([column.first for column in columns]):
        found.setdefault(f"implausible: {finding.text}", []).append(places[id(record)])
    for place, other, text in _shared_runs(columns):
        found.setdefault(text, []).extend((place, other))
    return tuple(Footnote(text=text, columns=tuple(dict.fromkeys(places))) for text, places in found.items())


def _origin(column: Side) -> Iterator[str]:
    record = column.first
    if record.kind == "imported":
        yield f"imported from {column.source or record.run_id}; chipperf did not measure it"
        if record.metrics_definition == "flagperf":
            yield "throughputs, times and memory follow FlagPerf's definitions, see docs/metrics.md"
        elif record.metrics_definition == "mlperf":
            yield "times and results follow MLPerf's definitions, see docs/metrics.md"
        if column.not_understood:
            yield f"{column.not_understood} texts of {column.source} were not understood: perf report import lists them"
    elif record.kind == "simulated":
        yield "simulated: no device ran"
    for part in dict.fromkeys(card.part for each in column.records for card in each.environment.cards if card.part):
        yield f"on a part of a card ({part}), whose figures are not those of a whole card"
    if record.status.state != "completed":
        failure = record.status.failure
        yield f"the run did not complete: {failure.failure_class if failure else record.status.state}"
    if len(column.records) < column.planned:
        completed = len(column.records) if record.status.state == "completed" else 0
        yield f"{completed} of {column.planned} repeats completed; the others are left out"
    if column.planned > 1 and len(column.records) < ENOUGH_REPEATS:
        yield f"fewer than {ENOUGH_REPEATS} repeats say nothing about the spread"


def _differences(column: Side, first: Side) -> Iterator[str]:
    """Yield the differences from the first column, and the conditions that are not stated and may differ."""
    unknown = []
    for (name, value), (_, base) in zip(_conditions(column.first), _conditions(first.first), strict=True):
        if isinstance(value, Missing):
            unknown.append(name)
        elif not isinstance(base, Missing) and value != base:
            yield f"{name} {setting_text(value)}, in column 1 {setting_text(base)}"
    if unknown:
        yield f"not stated, so perhaps not the same: {', '.join(unknown)}"


def _conditions(record: Record) -> Iterator[tuple[str, Setting | Missing | None]]:
    dataset, limits = record.dataset, record.limits
    silent = UNKNOWN if record.kind == "imported" else None
    yield "preset", silent or record.case.preset
    yield "global batch", record.hyperparameters.global_batch_size
    yield "epochs trained", record.metrics.epochs
    yield "epochs planned", record.hyperparameters.values.get("epochs", UNKNOWN)
    yield "length", silent or length(limits)
    yield "requested precision", record.precision.requested
    yield "effective precision", record.precision.effective
    yield "dataset version", dataset.version
    yield "dataset fingerprint", dataset.fingerprint
    yield "samples evaluated", dataset.eval_samples
    memory = record.metrics.memory
    yield "mem_peak read from", memory if isinstance(memory, Missing) else peak_source(memory)


def _coarse_energy(column: Side) -> Iterator[str]:
    for record in column.records:
        power = record.metrics.power
        if isinstance(power, Power) and not isinstance(power.energy_j, Missing) and power.samples < _ENOUGH_READINGS:
            yield f"energy from {power.samples} readings of each device; fewer than {_ENOUGH_READINGS} are coarse"
            return


def _implausible(column: Side, case: Case, peak_of: PeakOf) -> Iterator[str]:
    for record in column.records:
        as_defined = record.case.preset == "full" and record.case.version == case.version
        flops = case.forward_flops if as_defined else None
        peak = peak_of(record) if flops else None
        for finding in check_record(record, relations_to_case(record, case), forward_flops=flops, peak=peak):
            run = f" (run {record.run_id})" if len(column.records) > 1 else ""
            yield f"implausible: {finding.text}{run}"


def _evidence(column: Side) -> Iterator[str]:
    """Yield what the files of the runs say against their records, and which have none."""
    # A row of a document has no file.
    for record, file in zip(column.records, column.files, strict=False):
        examined = examine_evidence(record, file if file.is_dir() else file.parent)
        run = f" (run {record.run_id})" if len(column.records) > 1 else ""
        yield from (f"implausible: {text}{run}" for text in examined.contradictions)
        if examined.lacks_evidence:
            yield f"no evidence: no events of the run are beside its record, so nothing confirms it{run}"


def _shared_runs(columns: Sequence[Side]) -> Iterator[tuple[int, int, str]]:
    """Yield pairs of columns that share a run and are not independent."""
    owners: dict[str, int] = {}
    for place, column in enumerate(columns, start=1):
        for record in column.records:
            owner = owners.setdefault(record.run_id, place)
            if owner != place:
                yield owner, place, f"run {record.run_id} is in both columns, so their interval is too narrow"


def installed_peak(record: Record) -> Peak | None:
    """Return the peak of a run's device at its effective precision, or ``None`` if no installed plugin knows it.

    This asks the plugin of the run's vendor.
    """
    effective, card = record.precision.effective, record.environment.card_title
    names = [each.name for each in record.environment.cards] or ([] if isinstance(card, Missing) else [card])
    if isinstance(effective, Missing) or len(set(names)) != 1:
        return None
    try:
        entry = installed.find_vendor(record.vendor.name)
        peak: PeakFlops | None = ask(entry, "peak_flops", PeakFlops | None, names[0], effective)
    except PluginError:
        # `perf plugins` shows the fault of the plugin.
        return None
    return None if peak is None else Peak(flops_per_s=peak.flops_per_s, source=peak.source)

"""Measured limits of a machine, ``limits.json``, and how they are found for a run.

Rates are :class:`~chipperf.records.schema.Throughput`; their "samples" are floating-point operations of products, and
bytes of everything else. ``docs/limits.md`` defines them.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, get_args

from pydantic import AfterValidator, AwareDatetime, Field, FiniteFloat

from chipperf.errors import RecordError
from chipperf.languages import phrase
from chipperf.records.consistency import differing_from_windows
from chipperf.records.event_metrics import window_figures
from chipperf.records.files import read_bounded, read_model, write_atomically
from chipperf.records.schema import (
    LIMITS_NAME,
    Card,
    Environment,
    LimitsOfRun,
    Missing,
    Number,
    Sha256,
    StrictModel,
    Text,
    Throughput,
    Topology,
    Vendor,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from chipperf.languages import Phrase
    from chipperf.records.schema import Record

HostLink = Literal["h2d_pinned", "d2h_pinned", "h2d_pageable", "d2h_pageable"]
MemoryOperation = Literal["copy", "add"]

HOST_LINKS: Final[tuple[HostLink, ...]] = get_args(HostLink)
MEMORY_OPERATIONS: Final[tuple[MemoryOperation, ...]] = get_args(MemoryOperation)


def _measured(throughput: Throughput) -> Throughput:
    figures = window_figures(throughput.windows)
    if figures is None or figures["median"] <= 0 or any(differing_from_windows(throughput)):
        raise ValueError("it is not the rate of its windows")
    return throughput


Measured = Annotated[Throughput, AfterValidator(_measured)]
Rate = Measured | Missing

VARYING: Final = 0.1
"""Interquartile range, as a fraction of the median, from which a limit is said to vary."""

SAME_DAY: Final = timedelta(days=1)
"""Most time between the limits of a run and its start."""

_ABOVE: Final = 3
"""Directories above a run's that may hold limits: its suite's, with the directory of a configuration between."""


class ProductLimit(StrictModel):
    """Rate of the fastest matrix product of a sweep, in FLOP/s, and its shape: rows, columns, and what is summed.

    ``arithmetic`` was read off the results of this product. ``peak_flops_per_s`` is that of the data sheet.
    """

    effective: str
    arithmetic: Text
    shape: tuple[int, int, int] | Missing
    rate: Rate
    peak_flops_per_s: Number
    peak_source: str = ""


class CardLimits(StrictModel):
    """Limits of one card: products by precision, its memory by operation, and its link to the host by direction."""

    card: Card
    products: dict[str, ProductLimit] = {}
    memory: dict[MemoryOperation, Rate] = {}
    host_link: dict[HostLink, Rate] = {}

    def rates(self) -> Iterator[tuple[str, Rate]]:
        """Yield the name and value of every limit."""
        yield from ((f"products {name}", each.rate) for name, each in self.products.items())
        yield from ((f"memory {name}", rate) for name, rate in self.memory.items())
        yield from ((f"host link {name}", rate) for name, rate in self.host_link.items())


class AllReduceLimit(StrictModel):
    """Bus bandwidth of an all-reduce of one size, by nccl-tests' definition."""

    size_bytes: Annotated[int, Field(ge=1)]
    rate: Measured


class AllReduceLimits(StrictModel):
    """Bus bandwidth by size, over the ranks of one machine."""

    ranks: Annotated[int, Field(ge=2)]
    sizes: Annotated[list[AllReduceLimit], Field(min_length=1)]

    @property
    def best(self) -> AllReduceLimit:
        """The size with the highest bandwidth."""
        return max(self.sizes, key=lambda each: each.rate.median)


class MachineLimits(StrictModel):
    """Content of ``limits.json``.

    ``host`` is the digest of what identifies this boot of the machine, without its name. ``evidence`` has the SHA-256
    of the logs.
    """

    limits_version: Literal[1] = 1
    kind: Literal["measured", "simulated"]
    limits_id: str
    chipperf_version: str
    created_at: AwareDatetime
    seconds: FiniteFloat
    vendor: Vendor
    host: Sha256
    environment: Environment
    cards: Annotated[list[CardLimits], Field(min_length=1)]
    all_reduce: AllReduceLimits | Missing
    warnings: list[str] = []
    evidence: dict[str, Sha256] = {}


def limits_text(limits: MachineLimits) -> str:
    """Return the content of the file."""
    return limits.model_dump_json(indent=2) + "\n"


def read_limits(path: Path) -> MachineLimits:
    """Return the limits in a directory or file; a :class:`RecordError` says where they are wrong."""
    file = path / LIMITS_NAME if path.is_dir() else path
    return read_model(MachineLimits, file, hint="'perf limits --out DIR' writes them into a directory")


def slowest_cards(limits: MachineLimits) -> dict[str, tuple[CardLimits, float]]:
    """Return the slowest card of each limit that several cards have, and its rate as a fraction of the median."""
    found: dict[str, list[tuple[float, CardLimits]]] = {}
    for card in limits.cards:
        for name, rate in card.rates():
            if isinstance(rate, Throughput):
                found.setdefault(name, []).append((rate.median, card))
    slowest = {}
    for name, each in found.items():
        if len(each) > 1:
            least, card = min(each, key=lambda pair: pair[0])
            slowest[name] = (card, least / statistics.median(pair[0] for pair in each))
    return slowest


def implausible_limits(limits: MachineLimits) -> Iterator[Phrase]:
    """Yield the products that are faster than their data sheet allows."""
    for card in limits.cards:
        for precision, product in card.products.items():
            if text := above_peak(product.rate, product.peak_flops_per_s, product.peak_source, precision):
                yield text


def above_peak(rate: Throughput | Number, peak: Number, source: str, precision: str) -> Phrase | None:
    """Return that measured products are faster than the data sheet's peak, or ``None`` if they are not."""
    measured = rate.median if isinstance(rate, Throughput) else rate
    if isinstance(measured, Missing) or isinstance(peak, Missing) or measured <= peak:
        return None
    return phrase(
        "the measured limit of %(precision)s products, %(rate)s TFLOP/s, is above the peak (%(peak)s TFLOP/s, "
        "%(source)s)",
        precision=precision,
        rate=f"{measured / 1e12:g}",
        peak=f"{peak / 1e12:g}",
        source=source,
    )


def find_limits(directory: Path, record: Record, host: str) -> tuple[Path, LimitsOfRun] | None:
    """Return the newest limits of a run's machine, cards and day, and what they say of it; ``None`` without any.

    They are looked for in directories ``limits*`` beside the run's ``directory`` and beside the directories above it.
    ``host`` is the digest of this machine.
    """
    found: list[tuple[Path, LimitsOfRun]] = []
    for above in list(directory.resolve().parents)[:_ABOVE]:
        for file in above.glob(f"limits*/{LIMITS_NAME}"):
            with suppress(RecordError):
                limits = read_limits(file)
                is_of_day = abs(record.created_at - limits.created_at) <= SAME_DAY
                if limits.host == host and is_of_day and (of_run := limits_of_run(file, limits, record)).matches:
                    found.append((file, of_run))
    return max(found, key=lambda each: (each[1].created_at, each[0]), default=None)


def take_limits(directory: Path, record: Record, host: str) -> LimitsOfRun | Missing:
    """Copy the limits that :func:`find_limits` finds into a run's directory, and return what they say of the run."""
    if record.topology.nnodes > 1:
        return Missing(missing="not_applicable", reason="limits are those of one machine")
    try:
        found = find_limits(directory, record, host)
        if found is None:
            return record.machine_limits
        file, limits = found
        write_atomically(directory / LIMITS_NAME, read_bounded(file))
        return limits
    except (OSError, RecordError) as error:
        # They must not cost the run's record.
        return Missing(missing="failed", reason=str(error))


def limits_of_run(file: Path, limits: MachineLimits, record: Record) -> LimitsOfRun:
    """Return what limits say of a run: those of its cards together, at its effective precision."""
    cards = _cards_of(limits, record)
    products = [card.products.get(record.precision.requested) for card in cards]
    shown = Missing(missing="not_run", reason=f"no limit of {record.precision.requested} for every card of the run")
    same = [each for each in products if each is not None and each.effective == record.precision.effective]
    is_whole = bool(cards) and len(same) == len(cards)
    rates = [each.rate.median if isinstance(each.rate, Throughput) else each.rate for each in same]
    return LimitsOfRun(
        limits_id=limits.limits_id,
        sha256=hashlib.sha256(read_bounded(file)).hexdigest(),
        created_at=limits.created_at,
        cards=len(cards),
        products_flops_per_s=_total(rates) if is_whole else shown,
        peak_flops_per_s=_total([each.peak_flops_per_s for each in same]) if is_whole else shown,
        peak_source=same[0].peak_source if is_whole else "",
        bus_bytes_per_s=_bus(limits, record.topology),
    )


def _bus(limits: MachineLimits, topology: Topology) -> Number:
    if topology.world_size == 1:
        return Missing(missing="not_applicable", reason="one process exchanges nothing")
    if isinstance(limits.all_reduce, Missing):
        return limits.all_reduce
    if limits.all_reduce.ranks != topology.world_size:
        return Missing(missing="not_run", reason=f"the all-reduce was measured over {limits.all_reduce.ranks} ranks")
    return limits.all_reduce.best.rate.median


def _total(values: Iterable[Number]) -> Number:
    """Return the sum, or the first value that is missing."""
    known = list(values)
    missing = next((value for value in known if isinstance(value, Missing)), None)
    return missing or sum(value for value in known if not isinstance(value, Missing))


def _cards_of(limits: MachineLimits, record: Record) -> list[CardLimits]:
    """Return the limits of a run's cards; empty if the run was on others, or the vendor or its software is another."""
    here, there = limits.environment, record.environment
    is_same = (limits.kind, limits.vendor, _stack(here)) == (record.kind, record.vendor, _stack(there))
    own = {_identity(each.card, limits.vendor): each for each in limits.cards}
    wanted = {_identity(card, record.vendor) for card in there.cards}
    return [own[key] for key in sorted(wanted)] if is_same and wanted <= own.keys() else []


def _stack(environment: Environment) -> list[str]:
    return [text for text in (environment.driver, environment.torch) if isinstance(text, str)]


def _identity(card: Card, vendor: Vendor) -> str:
    """Return what tells a card from the others of its machine. All ranks on a CPU share it."""
    known = [each for each in (card.uuid, card.pci_bus_id) if isinstance(each, str)]
    place = "" if vendor.device_type == "cpu" else str(card.rank)
    return json.dumps([*known[:1], card.part]) if known else json.dumps([card.name, place])

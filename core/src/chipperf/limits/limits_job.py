"""Measuring the limits of this machine: the jobs of ranks, and the record of what they found."""

from __future__ import annotations

import secrets
import time
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

import chipperf
from chipperf.errors import PluginError, RecordError, TrainingError, UsageError
from chipperf.launch.local import run_session
from chipperf.launch.rank_processes import StopSignals
from chipperf.launch.sequence import require_torch
from chipperf.limits.limits_plan import LimitsPlan, Measurement, RankLimits, result_file
from chipperf.plugin.session import bind
from chipperf.plugin.types import DeviceInfo
from chipperf.precisions import PRECISIONS, runnable_precisions
from chipperf.records.files import read_model, write_atomically
from chipperf.records.machine_limits import (
    HOST_LINKS,
    MEMORY_OPERATIONS,
    VARYING,
    AllReduceLimits,
    CardLimits,
    MachineLimits,
    ProductLimit,
    implausible_limits,
    limits_text,
)
from chipperf.records.process_files import host_digest
from chipperf.records.schema import LIMITS_NAME, UNKNOWN, Missing, Throughput, Topology
from chipperf.run.device_check import DEFAULT_TIMEOUT_S
from chipperf.run.directory import RunDirectory, writing_to
from chipperf.run.planned_record import card_record, machine_environment, vendor_record
from chipperf.run.programs import program
from chipperf.run.ranks import require_free_cards
from chipperf.run.telemetry_process import read_idle_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from chipperf.plugin.selection import Selection
    from chipperf.plugin.session import Session
    from chipperf.records.schema import Card, Environment, Status

WORKER_COMMAND: Final = tuple(program("chipperf.limits.limits_environment"))

CPU_RANKS: Final = 2
"""Ranks of an all-reduce on a CPU, which all of them share."""

_STOPPED: Final = "the measurements were stopped by a signal"
_OF_STACK: Final = ("framework", "torch", "driver", "sdk", "collectives")
_OF_CARDS: Final[tuple[Measurement, ...]] = ("products", "memory", "host_link")


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsJob:
    """What is to be measured: the cards of a vendor, and an all-reduce over ``ranks``; with one, there is none."""

    selection: Selection
    session: Session
    ranks: int
    device_check: bool

    @property
    def plans(self) -> dict[str, LimitsPlan]:
        """The jobs by the names of their directories. On a CPU, its ranks' threads would halve every other limit."""
        on_cpu = self.session.vendor_info().device_type == "cpu"
        all_reduce: tuple[Measurement, ...] = ("all_reduce",) if self.ranks > 1 else ()
        if not on_cpu:
            return {"cards": self._plan(self.ranks, _OF_CARDS + all_reduce)}
        return {"cards": self._plan(1, _OF_CARDS)} | (
            {"all-reduce": self._plan(self.ranks, all_reduce)} if all_reduce else {}
        )

    def _plan(self, ranks: int, measurements: tuple[Measurement, ...]) -> LimitsPlan:
        info = self.session.vendor_info()
        checks = self.device_check and info.device_type != "cpu"
        return LimitsPlan(
            vendor=self.selection.entry.name,
            precisions=runnable_precisions(info.capabilities),
            measurements=measurements,
            topology=Topology(nnodes=1, nproc_per_node=ranks),
            device_check_timeout_s=DEFAULT_TIMEOUT_S if checks else None,
        )


def plan_limits(selection: Selection, *, ranks: int | None, device_check: bool) -> LimitsJob:
    """Plan the measurements on a vendor's cards: ``ranks`` of them, or all; a busy card is a :class:`DeviceError`."""
    session = bind(selection.entry)
    info, devices = session.vendor_info(), selection.probe.devices
    default = CPU_RANKS if info.device_type == "cpu" else len(devices)
    job = LimitsJob(selection=selection, session=session, ranks=ranks or default, device_check=device_check)
    if device_check:
        require_free_cards(info, devices, read_idle_memory(session, devices), job.ranks)
    return job


def measure_limits(
    job: LimitsJob, out: Path, *, showing: Callable[[Path], AbstractContextManager[None]] = lambda path: nullcontext()
) -> MachineLimits:
    """Measure, write the record to ``out``, and return it. ``showing`` shows a progress file while a block runs.

    Raises:
        UsageError: ``out`` is not empty or cannot be written.
        TrainingError: A signal stopped the measurements; the earlier measurements are kept.
        PluginError: Not a single limit of a card could be measured.
    """
    require_torch()
    started_s, created_at = time.monotonic(), datetime.now(timezone.utc)
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise UsageError(f"{out} is not empty", hint="choose another --out; limits are never overwritten")
    results: dict[Measurement, dict[int, RankLimits]] = {}
    faults: dict[Measurement, str] = {}
    is_stopped = False
    for name, plan in job.plans.items():
        if is_stopped:
            results |= dict.fromkeys(plan.measurements, {})
            faults |= dict.fromkeys(plan.measurements, _STOPPED)
            continue
        status = _run(plan, RunDirectory(out / name), showing)
        is_stopped = status.state == "interrupted"
        found = _results(out / name, plan)
        fault = status.failure.message if status.failure else "it was not measured"
        for measurement in plan.measurements:
            results[measurement], faults[measurement] = found, fault
    limits = _Findings(job, results, faults).record(created_at, time.monotonic() - started_s, _logs(out))
    if not any(isinstance(rate, Throughput) for card in limits.cards for _, rate in card.rates()):
        raise PluginError(f"{job.selection.entry}: no limit could be measured: {faults['products']}", hint=f"see {out}")
    write_atomically(out / LIMITS_NAME, limits_text(limits))
    if is_stopped:
        raise TrainingError(f"{_STOPPED}: {out} has the earlier measurements", hint="measure again, with another --out")
    return limits


def _run(plan: LimitsPlan, directory: RunDirectory, showing: Callable[[Path], AbstractContextManager[None]]) -> Status:
    """Run one job in a directory of its own, and return how it ended."""
    directory.create()
    write_atomically(directory.plan, plan.model_dump_json(indent=2) + "\n")
    try:
        with StopSignals() as signals, showing(directory.progress):
            signals.interrupts = False
            return run_session(plan, directory, signals, None, WORKER_COMMAND).status
    finally:
        directory.release_reserve()


def _results(directory: Path, plan: LimitsPlan) -> dict[int, RankLimits]:
    """Return what the ranks left, by rank; a rank that came to nothing left nothing."""
    found = {}
    for rank in range(plan.topology.world_size):
        with suppress(RecordError):
            found[rank] = read_model(RankLimits, result_file(directory, rank), hint="measure again")
    return found


def _logs(out: Path) -> dict[str, str]:
    """Return the SHA-256 of the jobs' logs, by path."""
    return {
        f"{part.name}/{name}": digest
        for part in sorted(path for path in out.iterdir() if path.is_dir())
        for name, digest in RunDirectory(part).evidence().items()
    }


@dataclass(frozen=True, slots=True)
class _Findings:
    """What the ranks found, and why there is nothing of some measurements."""

    job: LimitsJob
    results: Mapping[Measurement, Mapping[int, RankLimits]]
    faults: Mapping[Measurement, str]

    def record(self, created_at: datetime, seconds: float, logs: dict[str, str]) -> MachineLimits:
        """Return the record."""
        session = self.job.session
        now = f"{created_at:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        cards = [self._card(rank) for rank in range(self.job.plans["cards"].topology.world_size)]
        limits = MachineLimits(
            kind="simulated" if session.simulated else "measured",
            limits_id=f"limits-{self.job.selection.entry.name}-{now}",
            chipperf_version=chipperf.__version__,
            created_at=created_at,
            seconds=seconds,
            vendor=vendor_record(session),
            host=host_digest(),
            environment=self._environment([card.card for card in cards]),
            cards=cards,
            all_reduce=self._all_reduce(),
            evidence=logs,
        )
        return limits.model_copy(update={"warnings": list(_warnings(limits))})

    def _card(self, rank: int) -> CardLimits:
        """Return the limits of a card; what is not there is a missing value with the reason."""
        failed = Missing(missing="failed", reason=self.faults["products"])
        probed = self.job.selection.probe.devices[rank]
        found = self.results["products"].get(rank)
        card = found.card if found else CardLimits(card=card_record(rank, DeviceInfo(**asdict(probed))))
        nothing = {
            name: ProductLimit(
                effective=PRECISIONS[name].arithmetic,
                arithmetic=failed,
                shape=failed,
                rate=failed,
                peak_flops_per_s=failed,
            )
            for name in self.job.plans["cards"].precisions
        }
        return CardLimits(
            card=card.card,
            products=nothing | card.products,
            memory={name: card.memory.get(name, failed) for name in MEMORY_OPERATIONS},
            host_link={name: card.host_link.get(name, failed) for name in HOST_LINKS},
        )

    def _all_reduce(self) -> AllReduceLimits | Missing:
        if "all_reduce" not in self.results:
            return Missing(missing="not_applicable", reason="one rank exchanges nothing")
        main = self.results["all_reduce"].get(0)
        return (main and main.all_reduce) or Missing(missing="failed", reason=self.faults["all_reduce"])

    def _environment(self, cards: list[Card]) -> Environment:
        found = next(iter(self.results["products"].values()), None)
        of_stack = {name: getattr(found, name, None) or UNKNOWN for name in _OF_STACK}
        short_name = self.job.session.vendor_info().short_name(cards[0].name)
        names = {"card_title": cards[0].name, "card_short_name": short_name, "row_label": short_name}
        return machine_environment({}).model_copy(update={"cards": cards, **names, **of_stack})


def _warnings(limits: MachineLimits) -> Iterator[str]:
    """Yield what is doubtful about limits: products above their data sheet, and rates that vary."""
    yield from (f"implausible: {text}" for text in implausible_limits(limits))
    for card in limits.cards:
        for name, rate in card.rates():
            if isinstance(rate, Throughput) and rate.iqr > VARYING * rate.median:
                yield (
                    f"card {card.card.rank}, {name}: the windows vary by {rate.iqr / rate.median:.0%} "
                    "of their median; something else may be using the machine"
                )

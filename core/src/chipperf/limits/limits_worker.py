"""The measuring program of one rank; :mod:`chipperf.limits.limits_environment` prepares its environment.

A measurement that fails becomes a missing value with its reason, and the next one begins. What was measured is on disk
after each of them, so that a crash costs only what follows.
"""

from __future__ import annotations

import faulthandler
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf.limits.limits_plan import LimitsPlan, Measurement, RankLimits, result_file
from chipperf.plugin.installed import find_vendor
from chipperf.plugin.session import bind
from chipperf.precisions import PRECISIONS
from chipperf.records.files import read_model, write_atomically
from chipperf.records.machine_limits import HOST_LINKS, MEMORY_OPERATIONS, CardLimits, ProductLimit
from chipperf.records.schema import Missing
from chipperf.run.directory import RunDirectory
from chipperf.run.failure import DUMP_SIGNAL, describe, report_failure
from chipperf.run.lifeline import end_with_launcher
from chipperf.run.planned_record import UNTOLD, card_record
from chipperf.run.progress import FINISHED, ProgressFile
from chipperf.run.ranks import rank_from_environment, require_distinct_cards
from chipperf.train.worker import end_process

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    import torch

    from chipperf.plugin.session import Session
    from chipperf.plugin.types import Rank
    from chipperf.precisions import Precision
    from chipperf.run.collectives import Collectives

    T = TypeVar("T")


def main(run_directory: Path) -> None:
    """Measure what the plan in ``run_directory`` asks for."""
    faulthandler.enable()
    faulthandler.register(DUMP_SIGNAL, all_threads=True)
    end_with_launcher()
    directory, rank = RunDirectory(run_directory), rank_from_environment()
    with report_failure(directory, rank.rank):
        plan = read_model(LimitsPlan, directory.plan, hint="measure again: perf limits")
        session = bind(find_vendor(plan.vendor))
        runtime = session.load_runtime()

        from chipperf.run.collectives import Collectives
        from chipperf.train.preparation import join_process_group

        device = session.device_init(rank)
        try:
            join_process_group(session, rank, device)
            collectives = Collectives(rank, device)
            devices = collectives.gather(session.device_info(device))
            require_distinct_cards(devices, rank.local_world_size, device.type)
            found = RankLimits(
                card=CardLimits(card=card_record(rank.rank, devices[rank.rank])),
                **{name: getattr(runtime, name) for name in ("torch", "driver", "sdk", "collectives")},
                framework=runtime.framework or f"pytorch-{runtime.torch}",
            )
            progress = ProgressFile(directory.progress if rank.is_main else None, rank.world_size)
            _RankMeasurements(plan, session, rank, device, collectives, progress, directory, found).carry_out()
            progress.phase(FINISHED)
        finally:
            # The process group ends with the process, as that of a training rank.
            session.device_teardown(device)


class _RankMeasurements:
    """One rank's measurements, in step with the other ranks'."""

    def __init__(
        self,
        plan: LimitsPlan,
        session: Session,
        rank: Rank,
        device: torch.device,
        collectives: Collectives,
        progress: ProgressFile,
        directory: RunDirectory,
        found: RankLimits,
    ) -> None:
        from chipperf.limits.measurement import Clock

        self._plan, self._session, self._rank, self._device = plan, session, rank, device
        self._collectives, self._progress, self._directory = collectives, progress, directory
        self._found = found
        self._clock = Clock(lambda: session.synchronize(device))
        self._total_bytes = session.device_info(device).total_bytes

    def carry_out(self) -> None:
        """Measure everything in the plan's order."""
        methods: dict[Measurement, Callable[[], None]] = {
            "products": self._products,
            "memory": self._memory,
            "host_link": self._host_link,
            "all_reduce": self._all_reduce,
        }
        self._keep()
        for measurement in self._plan.measurements:
            methods[measurement]()

    def _keep(self) -> None:
        write_atomically(result_file(self._directory.path, self._rank.rank), self._found.model_dump_json(indent=1))

    def _card(self, **changes: object) -> None:
        self._found = self._found.model_copy(update={"card": self._found.card.model_copy(update=changes)})
        self._keep()

    def _begin(self, what: str) -> None:
        """Let all ranks begin together, so that every card is measured while the others work too."""
        self._progress.phase(what)
        self._collectives.barrier()

    def _products(self) -> None:
        products: dict[str, ProductLimit] = {}
        for precision in self._plan.precisions:
            self._begin(f"products {precision}")
            products[precision] = self._product(precision)
            self._card(products=products)

    def _product(self, precision: Precision) -> ProductLimit:
        from chipperf.limits.measurement import best_product, is_narrower

        effective = PRECISIONS[precision].arithmetic
        try:
            policy = self._session.precision(precision, self._device)
            effective = policy.effective
            info = self._session.device_info(self._device)
            sheet = None if info.part else self._session.peak_flops(info.name, effective)
            best = best_product(self._device, policy, self._total_bytes, self._clock)
        except Exception as error:
            failed = self._failed(error)
            return ProductLimit(
                effective=effective, arithmetic=failed, shape=failed, rate=failed, peak_flops_per_s=failed
            )
        wrong = Missing(missing="failed", reason=f"the product was computed in {best.rounding.name}")
        return ProductLimit(
            effective=effective,
            arithmetic=best.rounding.name,
            shape=best.shape,
            rate=wrong if is_narrower(best.rounding, precision) else best.rate,
            peak_flops_per_s=sheet.flops_per_s if sheet else UNTOLD,
            peak_source=sheet.source if sheet else "",
        )

    def _memory(self) -> None:
        from chipperf.limits.measurement import memory_rates

        self._begin("memory")
        rates = self._attempt(lambda: memory_rates(self._device, self._total_bytes, self._clock))
        self._card(memory=dict.fromkeys(MEMORY_OPERATIONS, rates) if isinstance(rates, Missing) else rates)

    def _host_link(self) -> None:
        """Measure one card after another: cards share the way to the host."""
        from chipperf.limits.measurement import host_link_rate

        if self._device.type == "cpu":
            same = Missing(missing="not_applicable", reason="the device is the host")
            self._card(host_link=dict.fromkeys(HOST_LINKS, same))
            return
        for turn in range(self._rank.world_size):
            self._begin(f"host link of card {turn}")
            if turn == self._rank.rank:
                rates = {
                    link: self._attempt(partial(host_link_rate, self._device, self._total_bytes, link, self._clock))
                    for link in HOST_LINKS
                }
                self._card(host_link=rates)

    def _all_reduce(self) -> None:
        """A rank that fails here ends the job: the others would wait for it without end."""
        from chipperf.limits.measurement import all_reduce_rates

        self._begin("all-reduce")
        ranks = self._rank.world_size
        rates = all_reduce_rates(self._device, self._collectives, ranks, self._clock)
        self._found = self._found.model_copy(update={"all_reduce": rates})
        self._keep()

    def _attempt(self, measure: Callable[[], T]) -> T | Missing:
        try:
            return measure()
        except Exception as error:
            return self._failed(error)

    def _failed(self, error: Exception) -> Missing:
        return Missing(missing="failed", reason=describe(error, self._rank.rank).message)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    end_process()

"""The job that measures limits, with ranks that are programs of a few lines in place of measurements."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.errors import DeviceError, PluginError, TrainingError, UsageError
from chipperf.limits import limits_job
from chipperf.limits.limits_job import CPU_RANKS, LimitsJob, measure_limits, plan_limits
from chipperf.plugin import installed
from chipperf.plugin.selection import Selection, select_vendor
from chipperf.plugin.session import bind
from chipperf.plugin.types import ProbedDevice, ProbeResult
from chipperf.records.machine_limits import read_limits
from chipperf.records.process_files import host_digest
from chipperf.records.schema import Missing

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = """
import os, pathlib, sys, json
from chipperf.limits.limits_plan import LimitsPlan, RankLimits, result_file
from chipperf.plugin.types import DeviceInfo
from chipperf.records.event_metrics import throughput
from chipperf.records.machine_limits import AllReduceLimit, AllReduceLimits, CardLimits, ProductLimit
from chipperf.records.schema import UNKNOWN, Window
from chipperf.run.planned_record import card_record

place, rank = pathlib.Path(sys.argv[1]), int(os.environ["RANK"])
plan = LimitsPlan.model_validate_json((place / "plan.json").read_bytes())

def rate(value, vary=0):
    seconds = [1.0, 1.0, 1.0 + vary, 1.0 + vary, 1.0]
    return throughput([Window(epoch=1, first_step=1, steps=1, samples=value, seconds=each) for each in seconds])

def keep(card, all_reduce=None):
    found = RankLimits(
        card=card, all_reduce=all_reduce, framework="torch", torch="2", driver="1.2", sdk=None, collectives=None
    )
    result_file(place, rank).write_text(found.model_dump_json())

card = CardLimits(card=card_record(rank, DeviceInfo(index=rank, name="card", total_bytes=1024)))
if "products" in plan.measurements:
    product = ProductLimit(
        effective="fp32", arithmetic="fp32", shape=(2, 2, 2), rate=rate(8), peak_flops_per_s=PEAK, peak_source="sheet"
    )
    card = card.model_copy(update={"products": {"fp32": product}})
    keep(card)
    MIDDLE
    card = card.model_copy(update={"memory": {"copy": rate(100, VARY), "add": rate(90)}})
    keep(card)
if "all_reduce" in plan.measurements:
    BUS
    sizes = [AllReduceLimit(size_bytes=1024 * each, rate=rate(each)) for each in (1, 4, 2)]
    keep(card, AllReduceLimits(ranks=plan.topology.world_size, sizes=sizes))
(place / "progress.json").write_text('{"phase": "finished"}')
"""


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Callable[..., LimitsJob]:
    """Plans limits of the CPU whose ranks do what the test says; these are fakes."""

    def make(middle: str = "", bus: str = "", peak: str = "UNKNOWN", vary: float = 0) -> LimitsJob:
        program = PROGRAM.replace("MIDDLE", middle).replace("BUS", bus).replace("PEAK", peak)
        command = (sys.executable, "-c", program.replace("VARY", str(vary)))
        monkeypatch.setattr(limits_job, "WORKER_COMMAND", command)
        return plan_limits(select_vendor("cpu"), ranks=None, device_check=True)

    return make


def test_record_has_what_the_ranks_found(job: Callable[..., LimitsJob], tmp_path: Path) -> None:
    limits = measure_limits(job(), tmp_path / "limits")

    assert read_limits(tmp_path / "limits") == limits
    (card,) = limits.cards
    assert (card.products["fp32"].rate.median, card.memory["copy"].median) == (8, 100)
    assert (limits.all_reduce.ranks, limits.all_reduce.best.size_bytes) == (CPU_RANKS, 4096)
    assert (limits.host, limits.environment.driver, limits.environment.torch) == (host_digest(), "1.2", "2")
    # The fake measured no other precision, and no link to the host.
    assert isinstance(card.products["bf16"].rate, Missing)
    assert all(isinstance(rate, Missing) for rate in card.host_link.values())
    assert limits.warnings == []


def test_crash_costs_only_what_follows(job: Callable[..., LimitsJob], tmp_path: Path) -> None:
    limits = measure_limits(job(middle="os.kill(os.getpid(), 9)"), tmp_path / "limits")

    (card,) = limits.cards
    assert card.products["fp32"].rate.median == 8
    assert card.memory["copy"].missing == "failed"
    assert "SIGKILL" in card.memory["copy"].reason
    assert limits.all_reduce.best.rate.median == 4


def test_failed_all_reduce_leaves_the_cards(job: Callable[..., LimitsJob], tmp_path: Path) -> None:
    limits = measure_limits(job(bus="sys.exit(3)"), tmp_path / "limits")

    assert limits.all_reduce.missing == "failed"
    assert "exited with code 3" in limits.all_reduce.reason
    assert limits.cards[0].memory["add"].median == 90


def test_what_was_measured_before_a_signal_stays(job: Callable[..., LimitsJob], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="stopped by a signal"):
        measure_limits(job(middle="import time; os.kill(os.getppid(), 15); time.sleep(60)"), tmp_path / "limits")

    limits = read_limits(tmp_path / "limits")
    assert limits.cards[0].products["fp32"].rate.median == 8
    assert limits.cards[0].memory["copy"].missing == "failed"
    assert limits.all_reduce.reason == "the measurements were stopped by a signal"


def test_nothing_measured_is_an_error(
    job: Callable[..., LimitsJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = job()
    monkeypatch.setattr(limits_job, "WORKER_COMMAND", (sys.executable, "-c", "raise SystemExit(5)"))

    with pytest.raises(PluginError, match="exited with code 5"):
        measure_limits(planned, tmp_path / "limits")

    assert not (tmp_path / "limits" / "limits.json").exists()


def test_limits_are_never_overwritten(job: Callable[..., LimitsJob], tmp_path: Path) -> None:
    (tmp_path / "limits.json").write_text("{}")

    with pytest.raises(UsageError, match="is not empty"):
        measure_limits(job(), tmp_path)


@pytest.mark.parametrize(
    ("options", "warning"),
    [({"peak": "5.0"}, "implausible: the measured limit"), ({"vary": 1.0}, "card 0, memory copy: the windows vary")],
    ids=["above the data sheet", "varying"],
)
def test_doubtful_limits_have_a_warning(
    options: dict[str, Any], warning: str, job: Callable[..., LimitsJob], tmp_path: Path
) -> None:
    (found,) = measure_limits(job(**options), tmp_path / "limits").warnings

    assert warning in found


def cards(count: int, monkeypatch: pytest.MonkeyPatch, device_type: str = "acme") -> Selection:
    """A vendor with cards that are not here; the CPU's plugin stands in for its."""
    entry = installed.find_vendor("cpu")
    devices = tuple(ProbedDevice(index=each, name="A1", uuid=str(each), total_bytes=2**36) for each in range(count))
    info = bind(entry).vendor_info()
    told = SimpleNamespace(name="acme", device_type=device_type, capabilities=info.capabilities, visible_devices_env=())
    session = SimpleNamespace(vendor_info=lambda: told, simulated=False, entry=entry)
    monkeypatch.setattr(limits_job, "bind", lambda entry: session)
    monkeypatch.setattr(limits_job, "read_idle_memory", lambda session, devices: {"1": 2**35})
    return Selection(entry=entry, origin="option", probe=ProbeResult(available=True, reason="", devices=devices))


def test_busy_card_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="is in use: 32.0 GiB"):
        plan_limits(cards(2, monkeypatch), ranks=None, device_check=True)

    assert plan_limits(cards(2, monkeypatch), ranks=1, device_check=True).ranks == 1


def test_all_cards_are_measured_in_one_job(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = plan_limits(cards(4, monkeypatch), ranks=None, device_check=False).plans

    assert {name: plan.topology.world_size for name, plan in plans.items()} == {"cards": 4}
    assert plans["cards"].measurements == ("products", "memory", "host_link", "all_reduce")


def test_single_card_has_no_all_reduce(monkeypatch: pytest.MonkeyPatch) -> None:
    (plan,) = plan_limits(cards(1, monkeypatch), ranks=None, device_check=False).plans.values()

    assert "all_reduce" not in plan.measurements


@pytest.mark.slow  # Measures for half a minute what a user would.
def test_limits_of_the_cpu(perf: Any, tmp_path: Path) -> None:
    completed = perf("limits", "--vendor", "cpu", "--out", tmp_path / "limits")

    assert completed.returncode == 0, completed.stderr
    limits = read_limits(tmp_path / "limits")
    (card,) = limits.cards
    assert {name: product.arithmetic for name, product in card.products.items()} == {"fp32": "fp32", "bf16": "bf16"}
    assert all(rate.median > 0 for name, rate in card.rates() if not name.startswith("host"))
    assert {rate.missing for rate in card.host_link.values()} == {"not_applicable"}
    assert limits.all_reduce.ranks == CPU_RANKS
    assert set(limits.evidence) == {"cards/logs/rank0.log", "all-reduce/logs/rank0.log", "all-reduce/logs/rank1.log"}
    shown = perf("limits", "--show", tmp_path / "limits")
    assert "products fp32" in shown.stdout
    assert "all-reduce 1024 B" in shown.stdout

"""Which limits belong to a run, and what a run is told of them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.errors import RecordError
from chipperf.languages import LANGUAGES, in_language
from chipperf.records.machine_limits import (
    MachineLimits,
    find_limits,
    implausible_limits,
    limits_of_run,
    limits_text,
    read_limits,
    slowest_cards,
    take_limits,
)
from chipperf.records.plausibility import check_record
from chipperf.records.schema import LimitsOfRun, Missing, Record
from factory import make_record
from limits_factory import CREATED, HOST, card, limits_of_card, make_limits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UNTOLD = {"missing": "unknown"}
IDLE = {"epoch": 1, "first_step": 1, "steps": 1, "samples": 0, "seconds": 1.0}


def make_run(cards: list[dict[str, Any]] | None = None, **changes: Any) -> Record:
    shown = [card(rank) for rank in range(8)] if cards is None else cards
    measured = {"metrics__forward_flops": 8e9, "metrics__gradient_bytes": 10**8}
    return make_record(environment__cards=shown, **{**measured, **changes})


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(limits: MachineLimits, name: str = "limits-1") -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "limits.json").write_text(limits_text(limits))
        return tmp_path / name / "limits.json"

    return write


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The directory of a run in a suite."""
    directory = tmp_path / "suite" / "configuration" / "repeat-1"
    directory.mkdir(parents=True)
    return directory


def test_run_has_the_limits_of_all_its_cards_together(write: Callable[..., Path]) -> None:
    limits = make_limits()

    found = limits_of_run(write(limits), limits, make_run())

    assert found.cards == 8
    assert found.products_flops_per_s == pytest.approx(8 * 100e12)
    assert found.peak_flops_per_s == pytest.approx(8 * 128e12)
    assert found.bus_bytes_per_s == pytest.approx(200e9)


def test_run_on_some_cards_has_the_limits_of_these(write: Callable[..., Path]) -> None:
    limits = make_limits(cards=[limits_of_card(rank, (rank + 1) * 1e12) for rank in range(8)])

    found = limits_of_run(write(limits), limits, make_run([card(2), card(5)]))

    assert found.products_flops_per_s == pytest.approx(3e12 + 6e12)


def test_ranks_on_one_processor_share_its_limit(write: Callable[..., Path]) -> None:
    vendor = {**make_record().vendor.model_dump(), "device_type": "cpu"}
    processor = card(0, name="CPU", uuid=UNTOLD, pci_bus_id=UNTOLD)
    limits = make_limits(1, vendor=vendor, cards=[limits_of_card(0, card=processor)], all_reduce=UNTOLD)
    run = make_run([processor, {**processor, "rank": 1}], vendor=vendor)

    assert limits_of_run(write(limits), limits, run).products_flops_per_s == pytest.approx(100e12)


@pytest.mark.parametrize(
    "other",
    [
        {"host": "b" * 64},
        {"created_at": CREATED - timedelta(days=2)},
        {"cards": [limits_of_card(0, card=card(0, uuid="A1-other"))]},
        {"kind": "simulated"},
        {"environment": {**make_record().environment.model_dump(mode="json"), "driver": "9"}},
    ],
    ids=["machine", "day", "cards", "kind", "driver"],
)
def test_limits_of_another(other: dict[str, Any], write: Callable[..., Path], run: Path) -> None:
    write(make_limits(**other))

    assert find_limits(run, make_run(), HOST) is None


def test_newest_limits_above_the_run_are_taken(write: Callable[..., Path], run: Path) -> None:
    write(make_limits(created_at=CREATED - timedelta(hours=1)), "limits-1")
    newest = write(make_limits(), "limits-2")
    (run.parent / "limits-broken").mkdir()
    (run.parent / "limits-broken" / "limits.json").write_text("{")

    taken = take_limits(run, make_run(), HOST)

    assert isinstance(taken, LimitsOfRun)
    assert (run / "limits.json").read_bytes() == newest.read_bytes()
    assert taken == limits_of_run(run / "limits.json", read_limits(run), make_run())


def test_limits_are_those_of_one_machine(write: Callable[..., Path], run: Path) -> None:
    write(make_limits())

    taken = take_limits(run, make_run(topology={"nnodes": 2, "nproc_per_node": 4}), HOST)

    assert isinstance(taken, Missing)
    assert taken.missing == "not_applicable"


def test_product_at_another_precision_is_no_limit(write: Callable[..., Path]) -> None:
    limits = make_limits()
    precision = {**make_run().precision.model_dump(), "effective": "tf32"}

    found = limits_of_run(write(limits), limits, make_run(precision=precision))

    assert isinstance(found.products_flops_per_s, Missing)


def test_failed_limit_is_missing_with_its_reason(write: Callable[..., Path]) -> None:
    broken = limits_of_card(3)
    broken["products"]["fp32"]["rate"] = {"missing": "failed", "reason": "out of memory"}
    limits = make_limits(cards=[limits_of_card(0), broken])

    found = limits_of_run(write(limits), limits, make_run([card(0), card(3)]))

    assert found.products_flops_per_s == Missing(missing="failed", reason="out of memory")


def test_slowest_card_is_named_with_its_distance() -> None:
    limits = make_limits(3, cards=[limits_of_card(rank, rate) for rank, rate in enumerate((100e12, 80e12, 100e12))])

    found, share = slowest_cards(limits)["products fp32"]

    assert (found.card.rank, share) == (1, pytest.approx(0.8))


def test_limit_above_the_data_sheet_is_implausible(write: Callable[..., Path]) -> None:
    limits = make_limits(1, cards=[limits_of_card(0, 130e12)], all_reduce=UNTOLD)
    run = make_run([card(0)])
    beside = run.model_copy(update={"machine_limits": limits_of_run(write(limits), limits, run)})

    (text,) = implausible_limits(limits)

    assert "130 TFLOP/s, is above the peak (128 TFLOP/s, data sheet)" in str(text)
    found = [finding for finding in check_record(beside) if finding.check == "limits"]
    assert [str(each.text) for each in found] == [str(text)]
    assert all("130" in in_language(text, language) for language in LANGUAGES)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"metrics__forward_flops": 6e10}, "p_core uses 105% of the machine's measured products"),
        ({"metrics__gradient_bytes": 10**10}, "p_core uses 159% of the machine's measured bus bandwidth"),
        ({}, ""),
    ],
    ids=["products", "bus", "neither"],
)
def test_run_above_its_limit_is_implausible(changes: dict[str, Any], text: str, write: Callable[..., Path]) -> None:
    limits = make_limits()
    run = make_run(**changes)
    beside = run.model_copy(update={"machine_limits": limits_of_run(write(limits), limits, run)})

    found = [str(finding.text) for finding in check_record(beside) if finding.check == "limits"]

    assert found == ([text] if text else [])


def test_limits_of_another_day_are_implausible(write: Callable[..., Path]) -> None:
    run = make_run()
    for days, is_found in ((0.9, False), (1.1, True)):
        limits = make_limits(created_at=run.created_at - timedelta(days=days))
        beside = run.model_copy(update={"machine_limits": limits_of_run(write(limits, f"{days}"), limits, run)})

        found = [str(finding.text) for finding in check_record(beside) if finding.check == "limits"]

        assert found == (["the limits limits-acme-1 are of another day than the run"] if is_found else [])


@pytest.mark.parametrize(
    "edit",
    [
        lambda limits: limits["cards"][0]["products"]["fp32"]["rate"].update(median=50e12),
        lambda limits: limits["cards"][0]["products"]["fp32"]["rate"].update(windows=[]),
        lambda limits: limits["all_reduce"]["sizes"][0]["rate"].update(median=400e9),
        lambda limits: limits["all_reduce"]["sizes"][0].update(
            rate={**dict.fromkeys(("median", "iqr", "mean_of_totals"), 0.0), "windows": [IDLE] * 5}
        ),
        lambda limits: limits.update(created_at="2026-01-01T10:00:00"),
    ],
    ids=["another median", "no windows", "another bus", "nothing done", "no time zone"],
)
def test_edited_limits_are_refused_and_cost_no_run_its_record(
    edit: Callable[[dict[str, Any]], None], write: Callable[..., Path], run: Path
) -> None:
    file = write(make_limits())
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))

    with pytest.raises(RecordError):
        read_limits(file)
    taken = take_limits(run, make_run(), HOST)
    assert isinstance(taken, Missing)
    assert taken.missing == "not_run"


def test_key_that_occurs_twice_is_refused(write: Callable[..., Path]) -> None:
    file = write(make_limits())
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content)[:-1] + ', "host": "x"}')

    with pytest.raises(Exception, match="host"):
        read_limits(file)

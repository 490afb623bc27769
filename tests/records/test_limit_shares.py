"""Shares of a machine's limits, computed by hand."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from chipperf.records.limit_shares import bus_bytes, share_of_bus, share_of_peak, share_of_products
from chipperf.records.schema import LimitsOfRun, Missing, Record
from factory import make_record, throughput

FAILED = Missing(missing="failed", reason="no kernel")


def run(**changes: Any) -> Record:
    """A run of 1000 samples/s with 2 GFLOP forward and 80 MB of gradients, in batches of 100 on 4 ranks."""
    known = {
        "topology": {"nnodes": 1, "nproc_per_node": 4},
        "metrics__p_core": throughput(1000.0),
        "metrics__forward_flops": 2e9,
        "metrics__gradient_bytes": 80_000_000,
        "hyperparameters__global_batch_size": 100,
    }
    limits = {
        "products_flops_per_s": 24e12,
        "peak_flops_per_s": 60e12,
        "bus_bytes_per_s": 12e9,
        **{key: changes.pop(key) for key in list(changes) if key.endswith("_per_s")},
    }
    found = LimitsOfRun(
        limits_id="limits-1", sha256="0" * 64, created_at=datetime(2026, 1, 1, tzinfo=timezone.utc), cards=4, **limits
    )
    return make_record(**{**known, **changes}).model_copy(update={"machine_limits": found})


def test_products_and_peak_are_three_forward_passes() -> None:
    # 1000 samples/s x 2 GFLOP x 3 = 6 TFLOP/s.
    assert share_of_products(run()) == pytest.approx(0.25)
    assert share_of_peak(run()) == pytest.approx(0.1)


def test_bus_is_that_of_nccl_tests() -> None:
    # 10 steps/s x 80 MB x 2 x 3/4 = 1.2 GB/s.
    assert share_of_bus(run()) == pytest.approx(0.1)


@pytest.mark.parametrize(("ranks", "bytes_each"), [(2, 1000.0), (4, 1500.0), (8, 1750.0)])
def test_bus_bytes_by_hand(ranks: int, bytes_each: float) -> None:
    assert bus_bytes(1000, ranks) == bytes_each


@pytest.mark.parametrize(
    ("share", "changes"),
    [
        (share_of_products, {"products_flops_per_s": FAILED}),
        (share_of_peak, {"peak_flops_per_s": FAILED}),
        (share_of_bus, {"bus_bytes_per_s": FAILED}),
        (share_of_products, {"metrics__p_core": FAILED.model_dump()}),
        (share_of_products, {"metrics__forward_flops": FAILED.model_dump()}),
        (share_of_bus, {"metrics__gradient_bytes": FAILED.model_dump()}),
    ],
)
def test_what_lacks_makes_the_share_missing(share: Any, changes: dict[str, Any]) -> None:
    assert share(run(**changes)) == FAILED


@pytest.mark.parametrize(
    ("share", "changes"),
    [
        (share_of_products, {"products_flops_per_s": 0.0}),
        (share_of_products, {"products_flops_per_s": -24e12}),
        (share_of_products, {"products_flops_per_s": 1e-300, "metrics__forward_flops": 1e300}),
        (share_of_bus, {"hyperparameters__global_batch_size": 0}),
        (share_of_bus, {"hyperparameters__global_batch_size": -100}),
        (share_of_bus, {"bus_bytes_per_s": -1.0}),
    ],
)
def test_what_cannot_be_gives_no_share(share: Any, changes: dict[str, Any]) -> None:
    assert share(run(**changes)).missing == "failed"


def test_without_limits_there_is_no_share() -> None:
    assert isinstance(share_of_products(make_record()), Missing)

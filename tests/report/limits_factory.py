"""Measured limits, made up for tests."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from chipperf.records.machine_limits import MachineLimits
from factory import make_record, throughput

HOST = "a" * 64
CREATED = datetime(2026, 1, 1, 10, 0, tzinfo=timezone.utc)


def card(rank: int, **changes: Any) -> dict[str, Any]:
    known = {"name": "ACME A1", "uuid": f"A1-{rank}", "pci_bus_id": f"0000:0{rank}:00.0", "total_bytes": 2**36}
    return {"rank": rank, **known, **changes}


def limits_of_card(rank: int, flops_per_s: float = 100e12, **changes: Any) -> dict[str, Any]:
    product = {
        "effective": "fp32",
        "arithmetic": "fp32",
        "shape": [4096, 4096, 4096],
        "rate": throughput(flops_per_s),
        "peak_flops_per_s": 128e12,
        "peak_source": "data sheet",
    }
    return {"card": card(rank), "products": {"fp32": product}, **changes}


def make_limits(count: int = 8, **changes: Any) -> MachineLimits:
    record = make_record().model_dump(mode="json")
    content = {
        "kind": "measured",
        "limits_id": "limits-acme-1",
        "chipperf_version": "0.1.0",
        "created_at": CREATED,
        "seconds": 60.0,
        "vendor": record["vendor"],
        "host": HOST,
        "environment": record["environment"],
        "cards": [limits_of_card(rank) for rank in range(count)],
        "all_reduce": {"ranks": count, "sizes": [{"size_bytes": 2**20, "rate": throughput(200e9)}]},
    }
    return MachineLimits.model_validate({**content, **changes})

"""Records for the pictures of the web pages: the measured example, and simulated runs of vendors that do not exist."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chipperf.records.schema import Record
from chipperf.records.store import read_record, record_text

if TYPE_CHECKING:
    from collections.abc import Iterator

MEASURED = Path(__file__).with_name("examples") / "detr-cpu" / "record.json"
GIB = 2**30
EPOCHS = 90
IMAGES = 1_281_167
UNKNOWN = {"missing": "unknown", "reason": "simulated"}


def write_records(directory: Path) -> None:
    """Write a directory of runs.

    Args:
        directory: Where each run gets a directory of its own.
    """
    for record in (read_record(MEASURED), *simulated_records()):
        (directory / record.run_id).mkdir(parents=True)
        (directory / record.run_id / "record.json").write_text(record_text(record), encoding="utf-8")


def simulated_records() -> Iterator[Record]:
    """Yield runs of two cases on the cards of three vendors; every one says that it is simulated."""
    cards = (("acme", "A1", 64, 9200.0), ("birch", "B200", 96, 12400.0), ("cobalt", "C7", 32, 6100.0))
    for case, speed, target, final in (("resnet50", 1.0, 0.755, 0.7581), ("mobilenetv2", 2.1, 0.70, 0.7012)):
        for place, (vendor, card, memory_gib, rate) in enumerate(cards):
            for nnodes, precision in ((1, "fp32"), (1, "amp"), (2, "amp")):
                factor = speed * (1.0 if precision == "fp32" else 1.9) * (1 if nnodes == 1 else 1.93)
                yield Record.model_validate(
                    _run(
                        *(vendor, card, memory_gib, case, target, nnodes, precision, rate * factor),
                        final=final - 0.0052 * place + 0.0004 * nnodes,
                        slowness=5.0 + 3.0 * place + nnodes,
                        failed=(vendor, case, nnodes) == ("cobalt", "mobilenetv2", 2),
                    )
                )


def _run(
    vendor: str,
    card: str,
    memory_gib: int,
    case: str,
    target: float,
    nnodes: int,
    precision: str,
    rate: float,
    *,
    final: float,
    slowness: float,
    failed: bool,
) -> dict[str, Any]:
    record: dict[str, Any] = read_record(MEASURED).model_dump(mode="json")
    seconds = EPOCHS * IMAGES / rate
    curve = [
        {
            "epoch": epoch,
            "step": epoch * 1250,
            "value": round(_accuracy(epoch, final, slowness), 5),
            "elapsed_s": seconds * epoch / EPOCHS,
            "samples": 50_000,
        }
        for epoch in range(3, EPOCHS + 1, 3)
    ]
    reached = next((point for point in curve if point["value"] >= target), None)
    windows = [
        {
            "epoch": step // 1250 + 1,
            "first_step": step,
            "steps": 50,
            "samples": 51_200,
            "seconds": 51_200 / (rate * (1 + 0.01 * math.sin(step))),
        }
        for step in range(10, EPOCHS * 1250, 2500)
    ]
    state = {"state": "completed"}
    if failed:
        failure = {"failure_class": "device_lost", "message": "a card fell off the bus", "rank": 11}
        state = {"state": "failed", "failure": failure}
    return record | {
        "kind": "simulated",
        "run_id": f"simulated-{case}-{vendor}-{nnodes}x8-{precision}",
        "status": state,
        "vendor": record["vendor"]
        | {
            "name": vendor,
            "title": {"zh": vendor, "en": vendor.title()},
            "plugin": {"name": f"chipperf-{vendor}", "version": "0.0"},
        },
        "case": {"name": case, "version": "1.0", "preset": "full", "metric": "top1", "target": target},
        "limits": {},
        "topology": {"nnodes": nnodes, "nproc_per_node": 8},
        "precision": record["precision"]
        | {
            "requested": precision,
            "effective": precision,
            "measured_matmul": precision,
            "measured_convolution": precision,
        },
        "hyperparameters": {
            "values": {"batch_size": 128, "lr": 0.4},
            "changes": [
                {"key": "batch_size", "base": 32, "value": 128, "origin": "vendor", "reason": "fills the card"}
            ],
            "global_batch_size": 1024 * nnodes,
        },
        "dataset": record["dataset"]
        | {
            "name": "ImageNet2012",
            "version": "1",
            "fingerprint": "5" * 64,
            "train_samples": IMAGES,
            "eval_samples": 50_000,
            "classes": 1000,
            "is_sample": False,
        },
        "environment": record["environment"]
        | {
            "machine": "simulated server",
            "cpu": "simulated CPU",
            "card_title": f"{card} {memory_gib}G",
            "card_short_name": card,
            "row_label": card,
            "cards": [],
        },
        "knobs": [],
        "warnings": [],
        "metrics": record["metrics"]
        | {
            "e2e_time_s": seconds * 1.02,
            "p_whole": rate,
            "p_train": _throughput(rate * 1.03, windows),
            "p_core": _throughput(rate * 1.07, windows[:5]),
            "quality": final,
            "best_quality": final,
            "time_to_target": {"seconds": reached["elapsed_s"], "epoch": reached["epoch"]}
            if reached
            else {"missing": "failed", "reason": f"not reached: best {final:.4f} in epoch {EPOCHS}, target {target}"},
            "memory": {
                "allocated_peak_bytes": int(memory_gib * GIB * 0.55),
                "reserved_peak_bytes": int(memory_gib * GIB * 0.6),
                "device_peak_bytes": int(memory_gib * GIB * 0.63),
                "total_bytes": memory_gib * GIB,
                "allocator_source": "simulated",
                "device_source": "simulated",
            },
            "power": UNKNOWN,
            "data_wait": UNKNOWN,
            "step_breakdown": UNKNOWN,
            "train_samples": EPOCHS * IMAGES,
            "train_seconds": seconds,
            "epochs": EPOCHS,
            "steps": EPOCHS * 1250,
            "spans": [{"name": "train", "start_s": 20.0, "seconds": seconds}],
            "curve": curve,
            "rank_steps": [],
        },
    }


def _accuracy(epoch: int, final: float, slowness: float) -> float:
    drops = sum(0.055 for boundary in (30, 60, 80) if epoch > boundary)
    return min(final, (final - 0.165) * (1 - math.exp(-epoch / slowness)) + drops)


def _throughput(rate: float, windows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"median": rate, "iqr": rate * 0.008, "mean_of_totals": rate, "windows": windows}

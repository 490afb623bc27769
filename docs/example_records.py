"""Records for the pictures of the web pages: the measured example, and simulated runs of vendors that do not exist."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chipperf.cases.registry import find_case
from chipperf.precisions import PRECISIONS
from chipperf.records.event_metrics import window_figures
from chipperf.records.schema import Record, Window
from chipperf.records.store import read_record, record_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.precisions import Precision

MEASURED = Path(__file__).with_name("examples") / "detr-cpu" / "record.json"
GIB = 2**30
IMAGES = 1_281_167
EVALUATED = 50_000
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
    for case, speed, final in (("resnet50", 1.0, 0.7581), ("mobilenetv2", 2.1, 0.6872)):
        for place, (vendor, card, memory_gib, rate) in enumerate(cards):
            configurations: tuple[tuple[int, Precision], ...] = ((1, "fp32"), (1, "amp"), (2, "amp"))
            for nnodes, precision in configurations:
                factor = speed * (1.0 if precision == "fp32" else 1.9) * (1 if nnodes == 1 else 1.93)
                yield Record.model_validate(
                    _run(
                        *(vendor, card, memory_gib, case, nnodes, precision, rate * factor),
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
    nnodes: int,
    precision: Precision,
    rate: float,
    *,
    final: float,
    slowness: float,
    failed: bool,
) -> dict[str, Any]:
    record: dict[str, Any] = read_record(MEASURED).model_dump(mode="json")
    base = find_case(case).base.model_dump()
    changed = {"batch_size": 128, "lr": 0.4}
    target, most = base["target"], base["epochs"]
    batch = 1024 * nnodes
    epoch_steps = IMAGES // batch
    accuracies = {
        epoch: round(_accuracy(epoch, final, slowness) * EVALUATED) / EVALUATED for epoch in range(1, most + 1)
    }
    # A run ends where it reaches its target.
    reached = next((epoch for epoch, accuracy in accuracies.items() if accuracy >= target), None)
    epochs = reached or most
    steps = epochs * epoch_steps
    seconds = steps * batch / rate
    curve = [
        {
            "epoch": epoch,
            "step": epoch * epoch_steps,
            "value": accuracy,
            "elapsed_s": seconds * epoch / epochs,
            "samples": EVALUATED,
        }
        for epoch, accuracy in accuracies.items()
        if epoch <= epochs
    ]
    warm_up = base["measure_warmup_steps"]
    stretches = [(1, warm_up + 1, epoch_steps - warm_up)]
    stretches += [(epoch, 1 + (epoch - 1) * epoch_steps, epoch_steps) for epoch in range(2, epochs + 1)]
    p_train = _throughput(rate * 1.03, batch, stretches)
    p_core = _throughput(rate * 1.07, batch, [(epochs, steps + 1, base["measure_core_steps"])] * 5)
    reasons = {"batch_size": "fills the card", "lr": "for the larger batch"}
    state: dict[str, Any] = {"state": "completed"}
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
        "seed": base["seed"],
        "topology": {"nnodes": nnodes, "nproc_per_node": 8},
        "precision": record["precision"]
        | {
            "requested": precision,
            "effective": precision,
            "measured_matmul": precision,
            "measured_convolution": precision,
            "autocast_dtype": PRECISIONS[precision].autocast_type,
        },
        "hyperparameters": {
            "values": base | changed,
            "changes": [
                {"key": key, "base": base[key], "value": value, "origin": "vendor", "reason": reasons[key]}
                for key, value in changed.items()
            ],
            "global_batch_size": batch,
        },
        "dataset": record["dataset"]
        | {
            "name": "ImageNet2012",
            "version": "1",
            "fingerprint": "5" * 64,
            "fingerprint_method": "simulated",
            "train_samples": IMAGES,
            "eval_samples": EVALUATED,
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
            "cards": [
                {
                    "rank": rank,
                    "name": f"{card} {memory_gib}G",
                    "uuid": UNKNOWN,
                    "pci_bus_id": UNKNOWN,
                    "total_bytes": memory_gib * GIB,
                }
                for rank in range(8 * nnodes)
            ],
        },
        "knobs": [{"name": "OMP_NUM_THREADS", "value": "1", "reason": "simulated", "origin": "core"}],
        "warnings": [],
        "metrics": record["metrics"]
        | {
            "e2e_time_s": seconds * 1.02,
            "p_whole": rate,
            "p_train": p_train,
            "p_core": p_core,
            "data_stall": 1 - p_train["median"] / p_core["median"],
            "quality": curve[-1]["value"],
            "best_quality": max(accuracies[epoch] for epoch in range(1, epochs + 1)),
            "time_to_target": {"seconds": seconds, "epoch": reached}
            if reached
            else {"missing": "failed", "reason": f"not reached: best {final:.4f} in epoch {most}, target {target}"},
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
            "train_samples": steps * batch,
            "train_seconds": seconds,
            "epochs": epochs,
            "steps": steps,
            "spans": [{"name": "train", "start_s": 20.0, "seconds": seconds}],
            "curve": curve,
            "rank_steps": [],
        },
    }


def _accuracy(epoch: int, final: float, slowness: float) -> float:
    drops = sum(0.055 for boundary in (30, 60, 80) if epoch > boundary)
    return min(final, (final - 0.165) * (1 - math.exp(-epoch / slowness)) + drops)


def _throughput(rate: float, batch: int, stretches: list[tuple[int, int, int]]) -> dict[str, Any]:
    """Return a throughput from its windows: epoch, first step and number of steps of each."""
    windows = [
        Window(
            epoch=epoch,
            first_step=first_step,
            steps=steps,
            samples=steps * batch,
            seconds=steps * batch / (rate * (1 + 0.01 * math.sin(place))),
        )
        for place, (epoch, first_step, steps) in enumerate(stretches)
    ]
    return (window_figures(windows) or {}) | {"windows": [window.model_dump(mode="json") for window in windows]}

"""Records for tests: a complete measured one, of which a test changes what it is about."""

from __future__ import annotations

import copy
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any
from zlib import crc32

from chipperf.records.schema import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

GIB = 2**30

UNKNOWN = {"missing": "unknown"}
NOT_APPLICABLE = {"missing": "not_applicable"}

_WINDOW = {"epoch": 0, "first_step": 10, "steps": 50, "samples": 12_800}
"""A window that :func:`make_record` moves and lengthens, so that the windows of a run have its steps."""


def throughput(middle: float, *, spread: float = 0.0) -> dict[str, Any]:
    """Return a throughput of five windows around ``middle``, the outer ones off by ``spread`` of it."""
    return throughput_of([middle * (1 + spread * offset) for offset in (-1, -0.5, 0, 0.5, 1)], iqr=middle * spread)


def throughput_of(rates: Sequence[float], *, iqr: float) -> dict[str, Any]:
    """Return a throughput of windows with these rates."""
    windows = [{**_WINDOW, "seconds": 12_800 / rate} for rate in rates]
    mean = len(rates) / sum(1 / rate for rate in rates)
    if not iqr and len(rates) > 1:
        first, _, third = quantiles(rates, n=4, method="inclusive")
        iqr = third - first
    return {"median": median(rates), "iqr": iqr, "mean_of_totals": mean, "windows": windows}


_MEASURED: dict[str, Any] = {
    "kind": "measured",
    "run_id": "20260101-120000-resnet50-ab12",
    "chipperf_version": "0.1.0",
    "created_at": "2026-01-01T12:00:00Z",
    "status": {"state": "completed"},
    "vendor": {
        "name": "acme",
        "title": {"zh": "艾克米", "en": "ACME"},
        "report_title": {"zh": "艾克米 A1 配置与运行信息参考", "en": "ACME A1 configuration and results"},
        "device_type": "acme",
        "api_version": "1.0",
        "plugin": {"name": "chipperf-acme", "version": "2.3.4"},
    },
    "case": {"name": "resnet50", "version": "1.0", "preset": "full", "metric": "top1", "target": 0.755},
    "topology": {"nnodes": 1, "nproc_per_node": 8},
    "precision": {"requested": "fp32", "effective": "fp32", "autocast_dtype": None, "grad_scaler": False},
    "hyperparameters": {"values": {"batch_size": 32, "lr": 0.1}, "changes": [], "global_batch_size": 256},
    "limits": {},
    "seed": 42,
    "dataset": {
        "name": "imagenet2012",
        "version": "1",
        "fingerprint": "0123456789abcdef",
        "fingerprint_method": "sha256 of names and sizes",
        "train_samples": 1_281_167,
        "eval_samples": 50_000,
        "classes": 1000,
        "is_sample": False,
    },
    "loader": {
        "workers": 4,
        "start_method": "fork",
        "prefetch_factor": 2,
        "pin_memory": True,
        "persistent_workers": True,
        "decoder": "simplejpeg",
        "resize": "antialiased uint8",
    },
    "environment": {
        "machine": "ACME Server 8",
        "cpu": "ACME CPU",
        "cpu_cores": 64,
        "memory_bytes": 512 * GIB,
        "card_title": "ACME A1 64G",
        "card_short_name": "A1",
        "row_label": "A1",
        "network": "InfiniBand, 200 Gb/s",
        "os": "Ubuntu 22.04",
        "kernel": "5.15.0-1",
        "driver": "1.2.3",
        "container": "acme/torch:2.7",
        "framework": "torch 2.7.0+acme",
        "dependencies": "torchvision 0.22.0",
        "python": "3.11.7",
        "torch": "2.7.0",
        "sdk": "ACME SDK 9",
        "collectives": "acl 3",
        "distributions": [{"name": "torch", "version": "2.7.0"}],
    },
    "knobs": [{"name": "ACME_TF32", "value": "0", "reason": "IEEE fp32 as requested", "origin": "vendor"}],
    "metrics": {
        "e2e_time_s": 28_661.4,
        "p_whole": 4475.0,
        "p_train": throughput(4586.25),
        "p_core": throughput(4659.0),
        "data_stall": 0.0156,
        "data_wait": UNKNOWN,
        "step_breakdown": UNKNOWN,
        "quality": 0.7561,
        "best_quality": 0.7561,
        "time_to_target": {"seconds": 27_000.5, "epoch": 97},
        "memory": {
            "allocated_peak_bytes": 19 * GIB,
            "reserved_peak_bytes": 20 * GIB,
            "device_peak_bytes": 21 * GIB,
            "total_bytes": 64 * GIB,
            "allocator_source": "acme allocator",
            "device_source": "acme-smi",
        },
        "power": UNKNOWN,
        "train_samples": 128_116_700,
        "train_seconds": 28_600.0,
        "epochs": 100,
        "steps": 500_400,
        "spans": [],
    },
}


def make_record(**changes: Any) -> Record:
    """Return a complete measured record with ``changes``; ``metrics__quality=0.7`` changes a nested field."""
    data = copy.deepcopy(_MEASURED)
    for path, value in changes.items():
        *parents, field = path.split("__")
        target = data
        for parent in parents:
            target = target[parent]
        target[field] = value
    _complete(data, changes)
    if changes and "run_id" not in changes:
        # Two records of one run do not differ.
        data["run_id"] = f"run-{crc32(repr(data).encode()):08x}"
    return Record.model_validate(data)


def _complete(data: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Set what follows from other values, unless it is among the changes."""
    metrics, environment, ranks = data["metrics"], data["environment"], data["topology"]
    ranks = ranks["nnodes"] * ranks["nproc_per_node"]
    if "environment__cards" not in changes and isinstance(environment["card_title"], str):
        card = {"name": environment["card_title"], "uuid": UNKNOWN, "pci_bus_id": UNKNOWN, "total_bytes": UNKNOWN}
        environment["cards"] = [{**card, "rank": rank} for rank in range(ranks)]
    train, core, steps = metrics["p_train"], metrics["p_core"], metrics["steps"]
    steps = steps if isinstance(steps, int) else 500_400
    for measured, first, length in ((train, 11, max(1, (steps - 10) // 5)), (core, steps + 1, 10)):
        windows = measured["windows"] if isinstance(measured, dict) and "windows" in measured else []
        for index, window in enumerate(windows):
            if (window["first_step"], window["steps"]) == (10, 50):
                rate = window["samples"] / window["seconds"]
                number = first + index * length if measured is train else first
                window |= {"first_step": number, "steps": length, "samples": length * 256}
                window["seconds"] = length * 256 / rate
    if "metrics__spans" not in changes:
        metrics["spans"] = list(_spans(metrics))
    if "metrics__data_stall" not in changes and all(
        isinstance(each, dict) and "median" in each for each in (train, core)
    ):
        metrics["data_stall"] = 1 - train["median"] / core["median"] if core["median"] else 0.0


def _spans(metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the spans that every run has, as long as its times and its core pass say."""
    train_s, e2e_s, core = metrics["train_seconds"], metrics["e2e_time_s"], metrics["p_core"]
    windows = core["windows"] if isinstance(core, dict) and "windows" in core else []
    spans = {"launch": (0.0, 5.0), "init": (5.0, 15.0)}
    if isinstance(train_s, int | float):
        spans["train"] = (20.0, train_s)
    if windows:
        spans["core_pass"] = (0.0, sum(window["seconds"] for window in windows))
    end_s = max(start_s + seconds for start_s, seconds in spans.values())
    spans["teardown"] = (end_s, max(0.0, e2e_s - end_s) if isinstance(e2e_s, int | float) else 0.0)
    for name, (start_s, seconds) in spans.items():
        yield {"name": name, "start_s": start_s, "seconds": seconds}

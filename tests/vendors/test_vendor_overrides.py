"""Every row of FlagPerf's vendor configurations, typed here from the facts and not taken from the plugins."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from chipperf import CaseOverrides, Rank
from chipperf.plugin.vendor_files import read_case_configs

CLASSIFICATION_KEYS = {
    "batch_size",
    "eval_batch_size",
    "lr",
    "seed",
    "accumulate_steps",
    "warmup_epochs",
    "workers",
}
FREE_KEYS = {
    "resnet50": CLASSIFICATION_KEYS,
    "mobilenetv2": CLASSIFICATION_KEYS,
    "detr": {"batch_size", "eval_batch_size", "lr"},
}
TOPOLOGIES = ("1x1", "1x8", "2x8")


def row(batch_size: int, eval_batch_size: int, **others: float) -> dict[str, float]:
    return {"batch_size": batch_size, "eval_batch_size": eval_batch_size, **others}


ROWS: dict[tuple[str, str, str], dict[str, float]] = {
    ("kunlunxin", "resnet50", "1x1"): row(256, 256, lr=0.8),
    ("kunlunxin", "resnet50", "1x8"): row(32, 32, lr=0.1, seed=23333),
    ("kunlunxin", "resnet50", "2x8"): row(64, 64, lr=0.8),
    ("kunlunxin", "mobilenetv2", "1x1"): row(256, 128, lr=0.1, accumulate_steps=1),
    ("kunlunxin", "mobilenetv2", "1x8"): row(256, 256, lr=0.36, accumulate_steps=1),
    ("kunlunxin", "mobilenetv2", "2x8"): row(256, 256, lr=0.72, accumulate_steps=1),
    ("kunlunxin", "detr", "1x1"): row(8, 8),
    ("kunlunxin", "detr", "1x8"): row(8, 8),
    ("kunlunxin", "detr", "2x8"): row(4, 4),
    ("metax", "resnet50", "1x1"): row(256, 256, lr=0.8),
    ("metax", "resnet50", "1x8"): row(128, 128, lr=0.4),
    ("metax", "resnet50", "2x8"): row(256, 256, lr=0.8),
    ("metax", "mobilenetv2", "1x1"): row(704, 704, lr=0.72),
    ("metax", "mobilenetv2", "1x8"): row(704, 704, lr=0.72),
    ("metax", "mobilenetv2", "2x8"): row(640, 640, lr=0.72),
    ("metax", "detr", "1x1"): row(8, 8),
    ("metax", "detr", "1x8"): row(8, 8),
    ("metax", "detr", "2x8"): row(8, 8),
    ("nvidia", "resnet50", "1x1"): row(256, 256, lr=0.8),
    ("nvidia", "resnet50", "1x8"): row(32, 32, lr=0.1),
    ("nvidia", "resnet50", "2x8"): row(256, 256, lr=0.8),
    ("nvidia", "mobilenetv2", "1x1"): row(256, 128, lr=0.36),
    ("nvidia", "mobilenetv2", "1x8"): row(32, 32),
    ("nvidia", "mobilenetv2", "2x8"): {},
    ("nvidia", "detr", "1x1"): row(8, 8),
    ("nvidia", "detr", "1x8"): row(8, 8),
    ("nvidia", "detr", "2x8"): row(8, 8),
}


def overrides_of(vendor: str, case: str, topology: str) -> CaseOverrides:
    nodes, devices = map(int, topology.split("x"))
    rank = Rank(world_size=nodes * devices, local_world_size=devices)
    result = importlib.import_module(f"chipperf_{vendor}.plugin").perf_case_overrides(case=case, rank=rank)
    assert isinstance(result, CaseOverrides)
    return result


@pytest.mark.parametrize(("vendor", "case", "topology"), ROWS)
def test_row_is_flagperfs(vendor: str, case: str, topology: str) -> None:
    result = overrides_of(vendor, case, topology)
    values = {override.key: override.value for override in result.overrides}
    assert values == ROWS[vendor, case, topology]
    assert len(values) == len(result.overrides)
    assert values.keys() <= FREE_KEYS[case]
    assert all(override.reason.strip() for override in result.overrides)


@pytest.mark.parametrize("vendor", ["kunlunxin", "metax", "nvidia"])
def test_plugin_has_no_row_beyond_the_table(vendor: str) -> None:
    package = Path(importlib.import_module(f"chipperf_{vendor}").__file__ or "").parent
    rows = read_case_configs(package / "configs.toml").rows
    assert {(vendor, case, topology) for case, topology, _ in rows} == {key for key in ROWS if key[0] == vendor}


@pytest.mark.parametrize("vendor", ["kunlunxin", "metax", "nvidia"])
@pytest.mark.parametrize(("case", "topology"), [("resnet50", "1x4"), ("detr", "4x8"), ("some_case", "1x8")])
def test_topology_without_a_row_gets_no_values_and_a_note(vendor: str, case: str, topology: str) -> None:
    result = overrides_of(vendor, case, topology)
    assert result.overrides == ()
    assert [f"{case} on {topology}: the case's base values apply" in note for note in result.notes] == [True]


@pytest.mark.parametrize(
    ("vendor", "case", "topology", "fragment"),
    [
        ("kunlunxin", "resnet50", "1x1", "learning_rate=0.8, a key it never reads"),
        ("kunlunxin", "resnet50", "1x8", "learning_rate=0.1, a key it never reads"),
        ("kunlunxin", "resnet50", "1x8", "max_samples_termination=133116700"),
        ("kunlunxin", "resnet50", "1x1", "XDNN_CONV_GEMM_DTYPE=int16"),
        ("kunlunxin", "resnet50", "1x8", "XDNN_CONV_GEMM_DTYPE=int16"),
        ("kunlunxin", "resnet50", "2x8", "XDNN_CONV_GEMM_DTYPE=int16"),
        ("kunlunxin", "mobilenetv2", "1x1", "warmup=0.1, lr_decay_ratio=0.1 and lr_decay_iters=4338"),
        ("kunlunxin", "detr", "2x8", "README publishes this row with batch_size 8"),
        ("metax", "resnet50", "1x1", "--max-epochs 6"),
        ("metax", "mobilenetv2", "1x1", "--max-epochs 10"),
        ("metax", "mobilenetv2", "2x8", "--max-epochs 100"),
        ("nvidia", "mobilenetv2", "1x1", "batch_size 512 and lr 0.72"),
        ("nvidia", "mobilenetv2", "2x8", "no NVIDIA configuration of mobilenetv2 on 2x8"),
        *(("metax", case, topology, "METAX_USE_TF32=1") for case in FREE_KEYS for topology in TOPOLOGIES),
    ],
)
def test_departure_from_flagperf_is_noted(vendor: str, case: str, topology: str, fragment: str) -> None:
    assert fragment in " ".join(overrides_of(vendor, case, topology).notes)

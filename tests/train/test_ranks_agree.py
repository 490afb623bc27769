"""What all ranks of a run must have alike, because a record says it once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from chipperf.errors import UsageError
from chipperf.plugin.types import Knob, RuntimeInfo
from chipperf.records.schema import Dataset
from chipperf.train.rank_training import compare_ranks, of_another_model

DATA = Dataset(
    name="images", fingerprint="0a1b", fingerprint_method="", train_samples=9, eval_samples=3, is_sample=False
)
KNOBS = (Knob(name="NCCL_ALGO", value="Ring", reason=""), Knob(name="CUDA_VISIBLE_DEVICES", value="0", reason=""))


def rank(
    data: Dataset = DATA, plugin: str = "1.0", torch: str = "2.8", knobs: tuple[Knob, ...] = KNOBS
) -> tuple[Any, RuntimeInfo]:
    entry = SimpleNamespace(distribution="perf-acme", version=plugin)
    context = SimpleNamespace(session=SimpleNamespace(entry=entry), workload=SimpleNamespace(dataset=data))
    return context, RuntimeInfo(torch=torch, driver="5.0", knobs=knobs)


def compare(other: tuple[Any, RuntimeInfo]) -> list[str]:
    """Compare two ranks, the first of which is the usual one."""
    told: list[Any] = []

    def gather(item: Any) -> list[Any]:
        told.append(item)
        return list(told)

    for context, runtime in (rank(), other):
        context.collectives = SimpleNamespace(gather=gather)
        warnings = compare_ranks(context, runtime)
    return warnings


def test_ranks_that_are_alike_are_no_matter() -> None:
    elsewhere = (KNOBS[0], Knob(name="CUDA_VISIBLE_DEVICES", value="1", reason=""))

    assert compare(rank(knobs=elsewhere)) == []


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        (rank(data=DATA.model_copy(update={"fingerprint": "ffff"})), "dataset images .*, ffff instead of .*, 0a1b"),
        (rank(data=DATA.model_copy(update={"eval_samples": 2})), "2 for evaluation"),
        (rank(torch="2.7"), "torch 2.7 instead of 2.8"),
        (rank(plugin="0.9"), "perf-acme 0.9 instead of 1.0"),
    ],
    ids=["content", "size", "torch", "plugin"],
)
def test_other_data_or_software_on_a_machine_is_an_error(other: tuple[Any, RuntimeInfo], fault: str) -> None:
    with pytest.raises(UsageError, match=f"rank 1 has .*{fault}"):
        compare(other)


def test_other_settings_on_a_machine_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    [warning] = compare(rank(knobs=()))

    assert warning == "rank 1 had other settings than rank 0, and this record: NCCL_ALGO None instead of Ring"


@pytest.mark.parametrize(
    ("changes", "where"), [(["", "a momentum", ""], " on rank 1"), (["a momentum"] * 2, ""), (["", ""], None)]
)
def test_another_model_is_told_whichever_rank_has_it(changes: list[str], where: str | None) -> None:
    context: Any = SimpleNamespace(collectives=SimpleNamespace(gather=lambda _: changes))

    warnings = of_another_model(context, "a hook changed it", changes[0])

    told = f"the results are of another model: a hook changed it{where}: a momentum"
    assert warnings == ([] if where is None else [told])

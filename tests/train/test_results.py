"""What a record says once is checked in a later session; a slow rank is named with its card."""

from types import SimpleNamespace

import pytest
from chipperf.errors import UsageError
from chipperf.plugin.torch_helpers import precision_policy
from chipperf.records.schema import Card, EvaluationPoint, Missing, RankStep
from chipperf.records.store import read_record
from chipperf.train.effective_precision import Rounding
from chipperf.train.results import (
    _facts,
    _precision,
    _require_same,
    _why_no_time_to_target,
    add_measured,
    straggler_warnings,
)


def steps(*seconds, waits=None):
    waits = waits or [0.001] * len(seconds)
    return [
        RankStep(rank=rank, step_s=step_s, data_wait_s=wait_s, card=f"A1 U{rank}")
        for rank, (step_s, wait_s) in enumerate(zip(seconds, waits, strict=True))
    ]


def test_slow_card_is_named():
    [warning] = straggler_warnings(steps(0.1, 0.1, 0.15, 0.1))

    assert warning == "straggler: rank 2 on A1 U2 takes 1.50 times as long as the others for its own part of a step"


def test_slow_loader_is_named():
    [warning] = straggler_warnings(steps(0.1, 0.1, waits=[0.05, 0.01]))

    assert "rank 0 on A1 U0 takes 5.00 times as long as the others for waiting for data" in warning


@pytest.mark.parametrize(
    "alike",
    [
        [],
        steps(0.1),
        steps(0.1, 0.109),
        steps(0.1, 0.1, waits=[0.0001, 0.001]),
        steps(0.1, 0.1, waits=[Missing(missing="not_run"), 0.1]),
    ],
)
def test_ranks_that_are_alike_are_not(alike):
    assert straggler_warnings(alike) == []


def on(record, card="A1", **dataset):
    cards = [Card(rank=0, name=card, uuid="u-1", pci_bus_id=Missing(missing="unknown"), total_bytes=2**30)]
    environment = record.environment.model_copy(update={"cards": cards})
    parts = {"environment": environment, "dataset": record.dataset.model_copy(update=dataset)}
    return record.model_copy(update=parts)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"card": "A2"}, "the run was started on A1, and here is A2"),
        ({"fingerprint": "ff"}, "the run was started on another dataset: .*ee; here is .*ff"),
        (
            {"train_samples": 144},
            "started on another dataset: .* 3000 samples for training, .*; here is .* 144 samples",
        ),
    ],
)
def test_other_devices_and_data_are_refused(planned, other, message):
    before = {"card": "A1", "fingerprint": "ee", "train_samples": 3000}

    _require_same(on(planned, **before), on(planned, **before, name="moved"))
    with pytest.raises(UsageError, match=message):
        _require_same(on(planned, **before), on(planned, **{**before, **other}))


def test_facts_of_a_record_are_told_apart_by_name(planned):
    before, now = _facts(on(planned)), _facts(on(planned, card="A2"))

    assert {name for name in before if before[name] != now[name]} == {"card of rank 0"}


FP32, TF32, BF16 = Rounding(23, True), Rounding(10, True), Rounding(7, True)


@pytest.mark.parametrize(
    ("before", "after", "recorded", "warned"),
    [
        (FP32, FP32, "fp32", None),
        (FP32, BF16, "bf16", "fp32 declared, but training computes in bf16 at its end: linear layer, forward"),
        (BF16, FP32, "bf16", None),
        (TF32, BF16, "bf16", "in bf16 at its end"),
    ],
)
def test_a_precision_that_changes_during_training_is_told(planned, tmp_path, before, after, recorded, warned):
    """The warning about what was measured first stands in the record already."""
    policy = precision_policy("fp32")
    first = {"linear layer, forward": before, "3x3 convolution, forward": FP32}
    path = tmp_path / "record.json"

    def write(record):
        path.write_text(record.model_dump_json(), encoding="utf-8")

    write(planned.model_copy(update={"precision": _precision(policy, first)}))
    context = SimpleNamespace(precision=policy, directory=SimpleNamespace(record=path, write_record=write))
    warnings = add_measured(context, first, {**first, "linear layer, forward": after})
    precision = read_record(path).precision
    assert (precision.measured_matmul, precision.measured_convolution) == (recorded, "fp32")
    assert precision.measured_products == {"linear layer, forward": recorded, "3x3 convolution, forward": "fp32"}
    assert [warned in warning for warning in warnings] == ([True] if warned else [])


@pytest.mark.parametrize(
    ("lower", "target", "text"),
    [(False, 0.755, "best 16.50% in epoch 0.012, target 75.50%"), (True, 0.1, "best 0.165 in epoch 0.012, target 0.1")],
)
def test_target_that_was_not_met_is_written_as_the_quality_is_everywhere(lower, target, text):
    context = SimpleNamespace(
        target=target, lower_is_better=lower, plan=SimpleNamespace(limits=SimpleNamespace(budget_s=None))
    )
    point = EvaluationPoint(step=1, epoch=1 / 83, elapsed_s=1.0, value=0.165, samples=10)
    state = SimpleNamespace(curve=[point], ended_by_budget=False)

    assert _why_no_time_to_target(context, state).reason == f"not reached: {text}"

"""The table of precisions agrees with itself, and everything that lists precisions reads it."""

from __future__ import annotations

from typing import get_args

import pytest
from chipperf import Capability
from chipperf.errors import UsageError
from chipperf.precisions import (
    ARITHMETICS,
    DEFAULT_PRECISION,
    PRECISIONS,
    Precision,
    precision_of,
    precisions_by_capability,
    runnable_precisions,
)
from chipperf.visible import either


def test_annotation_and_table_name_the_same_precisions() -> None:
    assert get_args(Precision) == tuple(PRECISIONS)


@pytest.mark.parametrize("name", PRECISIONS)
def test_definition_refers_to_what_exists(name: Precision) -> None:
    means = PRECISIONS[name]
    assert means.arithmetic in ARITHMETICS
    assert means.capability is None or Capability(means.capability)
    assert means.description.strip()


def test_every_vendor_runs_the_default_and_nothing_else_runs_without_a_capability() -> None:
    assert [name for name, means in PRECISIONS.items() if means.capability is None] == [DEFAULT_PRECISION]
    assert runnable_precisions(()) == (DEFAULT_PRECISION,)


def test_gradients_are_scaled_for_fp32_parameters_only() -> None:
    scaled = [means for means in PRECISIONS.values() if means.scales_gradients]
    assert scaled
    assert all(means.parameter_type is None and means.autocast_type == "float16" for means in scaled)


def test_arithmetics_are_told_apart_by_width_and_range() -> None:
    assert len({(a.fraction_bits, a.largest >= 2.0**17) for a in ARITHMETICS.values()}) == len(ARITHMETICS)


def test_narrower_arithmetic_has_no_narrower_bound() -> None:
    bounds = [(arithmetic.loss.value, arithmetic.gradient.value) for arithmetic in ARITHMETICS.values()]
    assert bounds == sorted(bounds)
    assert all(bound.justification for a in ARITHMETICS.values() for bound in (a.loss, a.gradient))


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({Capability.BF16}, ("fp32", "bf16")),
        ({Capability.FP16, Capability.UUID}, ("fp32", "amp", "fp16")),
        ({Capability.BF16, Capability.FP16, Capability.TF32}, ("fp32", "tf32", "amp", "fp16", "bf16")),
    ],
)
def test_capabilities_say_what_runs(capabilities: set[Capability], expected: tuple[str, ...]) -> None:
    assert runnable_precisions(capabilities) == expected


def test_capability_stands_for_its_precisions() -> None:
    assert precisions_by_capability() == {"bf16": ("bf16",), "fp16": ("amp", "fp16"), "tf32": ("tf32",)}


def test_name_is_checked_and_the_nearest_one_suggested() -> None:
    assert precision_of("bf16") == "bf16"
    with pytest.raises(UsageError, match=r"unknown precision 'bf61' \(did you mean 'bf16'\?\)") as caught:
        precision_of("bf61")
    assert caught.value.hint == "precisions: fp32, tf32, amp, fp16, bf16"


@pytest.mark.parametrize(("names", "text"), [(["a"], "a"), (["a", "b"], "a or b"), (["a", "b", "c"], "a, b or c")])
def test_choice_is_written_as_in_a_sentence(names: list[str], text: str) -> None:
    assert either(names) == text

"""The arithmetic of products is read off their results, whatever was declared."""

import math
from contextlib import nullcontext

import pytest
import torch
from chipperf.train.effective_precision import classify, measure_effective_precision

CPU = torch.device("cpu", 0)


def keeping(bits):
    """Return a product that rounds every value to ``bits`` bits behind the point, as a floating-point unit does."""

    def product(values):
        steps = [2.0 ** (math.floor(math.log2(value)) - bits) for value in values]
        return [round(value / step) * step for value, step in zip(values, steps, strict=True)]

    return product


def fp16(values):
    return [value if value < 65504 else math.inf for value in keeping(10)(values)]


def int16(values):
    """Quantise with one scale per tensor, as ``XDNN_CONV_GEMM_DTYPE=int16`` does."""
    step = max(values) / 32767
    return [round(value / step) * step for value in values]


@pytest.mark.parametrize(
    ("product", "name"),
    [
        (keeping(23), "fp32"),
        (keeping(20), "fp32"),
        (keeping(10), "tf32"),
        (keeping(7), "bf16"),
        (keeping(12), "reduced (12 bits)"),
        (keeping(3), "reduced (3 bits)"),
        (fp16, "fp16"),
        (int16, "fixed point"),
    ],
)
def test_a_product_is_classified_by_what_it_keeps(product, name):
    assert classify(product) == name


@pytest.mark.parametrize(
    ("dtype", "name"), [(None, "fp32"), (torch.bfloat16, "bf16"), (torch.float16, "fp16")], ids=str
)
def test_autocast_on_the_cpu_is_seen_in_both_kinds_of_product(dtype, name):
    def autocast():
        return nullcontext() if dtype is None else torch.autocast("cpu", dtype=dtype)

    measured = measure_effective_precision(CPU, autocast)
    assert (measured.matmul, measured.convolution) == (name, name)


def test_half_precision_weights_are_seen_without_autocast():
    measured = measure_effective_precision(CPU, nullcontext, torch.float16)
    assert (measured.matmul, measured.convolution) == ("fp16", "fp16")


def test_fp32_that_is_really_bf16_is_detected(monkeypatch):
    multiply = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b: multiply(a.bfloat16(), b.bfloat16()).float())
    measured = measure_effective_precision(CPU, nullcontext)
    assert (measured.matmul, measured.convolution) == ("bf16", "fp32")

"""The arithmetic of products is read off their results, whatever was declared."""

import math
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from chipperf.precisions import ARITHMETICS
from chipperf.train.effective_precision import (
    FAR_APART,
    THIRDS,
    Rounding,
    classify,
    measure_effective_precision,
    measure_exchange,
    narrowest,
)
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

CPU = torch.device("cpu", 0)


def arithmetics(measured):
    return narrowest(measured, convolutions=False), narrowest(measured, convolutions=True)


def keeping(bits):
    """Return a product that rounds every value to ``bits`` bits behind the point, as a floating-point unit does."""

    def product(values):
        steps = [2.0 ** (math.floor(math.log2(value)) - bits) for value in values]
        return [round(value / step) * step for value, step in zip(values, steps, strict=True)]

    return product


def cutting(bits):
    """Return a product that drops the bits behind the last, as a unit without rounding does."""

    def product(values):
        steps = [2.0 ** (math.floor(math.log2(value)) - bits) for value in values]
        return [math.floor(value / step) * step for value, step in zip(values, steps, strict=True)]

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
        (cutting(10), "tf32"),
        (keeping(7), "bf16"),
        (cutting(7), "bf16"),
        (keeping(12), "reduced (12 bits)"),
        (keeping(3), "reduced (3 bits)"),
        (fp16, "fp16"),
        (int16, "fixed point"),
        (lambda values: [math.nan for _ in values], "reduced (0 bits, fp16 range)"),
    ],
)
def test_a_product_is_classified_by_what_it_keeps(product, name):
    assert classify(product(THIRDS), product(FAR_APART)).name == name


@pytest.mark.parametrize(
    ("dtype", "name"), [(None, "fp32"), (torch.bfloat16, "bf16"), (torch.float16, "fp16")], ids=str
)
def test_autocast_on_the_cpu_is_seen_in_every_product(dtype, name):
    def autocast():
        return nullcontext() if dtype is None else torch.autocast("cpu", dtype=dtype)

    measured = measure_effective_precision(CPU, autocast)
    assert {seen.name for seen in measured.values()} == {name}
    assert arithmetics(measured) == (name, name)


def test_half_precision_weights_are_seen_without_autocast():
    model = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3), torch.nn.Linear(8, 8)).half()
    measured = measure_effective_precision(CPU, nullcontext, model)
    assert arithmetics(measured) == ("fp16", "fp16")


def test_fp32_that_is_really_bf16_is_detected(monkeypatch):
    multiply = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b: multiply(a.bfloat16(), b.bfloat16()).float())
    measured = measure_effective_precision(CPU, nullcontext)
    assert arithmetics(measured) == ("bf16", "fp32")


class Rounded(torch.autograd.Function):
    """Rounds to bf16 in the forward pass, or in the backward pass."""

    @staticmethod
    def forward(ctx, values, forward, backward):
        ctx.backward_rounds = backward
        return values.bfloat16().float() if forward else values.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.bfloat16().float() if ctx.backward_rounds else gradient, None, None


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("rounded", "passes"),
    [
        ("output", {"forward"}),
        ("input", {"gradient of the input"}),
        ("weight", {"gradient of the weight"}),
    ],
)
@pytest.mark.parametrize("groups", [1, 32])
def test_a_kernel_that_rounds_only_batches_and_one_pass_is_found(monkeypatch, rounded, passes, groups, channels_last):
    """As oneDNN does on a CPU with AMX: one image goes through another kernel."""
    convolve = torch.nn.functional.conv2d

    def conv2d(x, weight, *options):
        is_rounding = len(x) > 1 and weight.shape[2:] == (3, 3) and options[-1] == groups
        if channels_last:
            is_rounding &= x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        if not is_rounding:
            return convolve(x, weight, *options)
        if rounded == "input":
            x = Rounded.apply(x, False, True)
        elif rounded == "weight":
            weight = Rounded.apply(weight, False, True)
        return Rounded.apply(convolve(x, weight, *options), rounded == "output", False)

    monkeypatch.setattr(torch.nn.functional, "conv2d", conv2d)
    layers = [torch.nn.Conv2d(32, 32, 3, groups=group) for group in (1, 32)]
    model = torch.nn.Sequential(*layers, torch.nn.Conv2d(32, 64, 1))
    model = model.to(memory_format=torch.channels_last) if channels_last else model
    measured = measure_effective_precision(CPU, nullcontext, model, batch_size=8)
    kind = "3x3 convolution" if groups == 1 else "depthwise 3x3 convolution"
    found = {name for name, seen in measured.items() if seen.name != "fp32"}
    assert found == {f"{kind}, {which}" for which in passes}
    assert arithmetics(measured) == ("fp32", "bf16")
    assert arithmetics(measure_effective_precision(CPU, nullcontext, model, batch_size=1)) == ("fp32", "fp32")


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.Conv2d(3, 8, 7, stride=2, padding=3),
        torch.nn.Conv2d(16, 8, 2, stride=2),
        torch.nn.Conv2d(16, 8, 2),
        torch.nn.Conv2d(16, 32, 3, stride=(1, 2), dilation=2, groups=4),
        torch.nn.Conv2d(4, 8, 3, groups=4),
        torch.nn.Conv2d(1, 2, 3, padding="same"),
        torch.nn.Conv2d(8, 8, 4, dilation=2, padding="same"),
        torch.nn.Conv2d(8, 8, 3, stride=2, padding=5, padding_mode="circular"),
        torch.nn.Conv2d(8, 8, 1, padding=(3, 0), bias=False),
        torch.nn.Linear(1, 2),
    ],
    ids=str,
)
def test_layers_of_every_shape_return_what_was_put_in(layer):
    products = measure_effective_precision(CPU, nullcontext, torch.nn.Sequential(layer), batch_size=3)
    assert {seen.name for seen in products.values()} == {"fp32"}
    assert len(products) == 9


def test_a_model_without_convolutions_has_no_precision_of_them():
    measured = measure_effective_precision(CPU, nullcontext, torch.nn.Linear(3, 1))
    assert arithmetics(measured) == ("fp32", None)


def test_the_narrowest_counts():
    names = ["fixed point", "bf16", "fp16", "tf32", "fp32"]
    roundings = [Rounding(-1, True), Rounding(7, True), Rounding(10, False), Rounding(10, True), Rounding(23, True)]
    assert [rounding.name for rounding in sorted(roundings)] == names
    assert {name for name in names if name in ARITHMETICS} == set(ARITHMETICS)
    assert arithmetics({f"{rounding.bits} convolution": rounding for rounding in roundings[:0:-1]}) == (None, "bf16")


def test_measuring_draws_no_random_number_and_leaves_the_model_alone():
    model = torch.nn.Conv2d(4, 4, 3)
    before, state = model.weight.clone(), torch.get_rng_state()
    measure_effective_precision(CPU, nullcontext, model)
    assert torch.equal(before, model.weight)
    assert model.weight.grad is None
    assert torch.equal(state, torch.get_rng_state())


def has_amx():
    return " amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")


@pytest.mark.skipif(not has_amx(), reason="oneDNN rounds fp32 only on a CPU with AMX")
@pytest.mark.parametrize(
    ("variables", "switch"),
    [
        ({"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}, ""),
        ({"DNNL_DEFAULT_FPMATH_MODE": "BF16"}, ""),
        ({"ONEDNN_DEFAULT_FPMATH_MODE": "ANY"}, ""),
        ({}, "torch.backends.mkldnn.conv.fp32_precision = 'bf16'"),
        ({}, "torch.backends.fp32_precision = 'bf16'"),
    ],
)
def test_what_makes_onednn_round_is_found(variables, switch):
    program = f"""
import torch
from contextlib import nullcontext
from chipperf.train.effective_precision import measure_effective_precision, narrowest
{switch}
print(narrowest(measure_effective_precision(torch.device("cpu"), nullcontext), convolutions=True))
"""
    environment = {**os.environ, **variables}
    process = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "bf16"


def round_input(layer):
    layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].bfloat16().float(),))


def round_output(layer):
    layer.register_forward_hook(lambda *called: called[-1].bfloat16().float())


def compute_in_autocast(layer):
    forward = layer.forward

    def in_autocast(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return forward(x).float()

    layer.forward = in_autocast


@pytest.mark.parametrize("change", [round_input, round_output, compute_in_autocast])
def test_what_is_hooked_to_the_layers_takes_part(change):
    """A product of the same shape, called by itself, would be fp32."""
    layers = [torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.Linear(8, 8)]
    for layer in layers:
        change(layer)
    assert arithmetics(measure_effective_precision(CPU, nullcontext, torch.nn.Sequential(*layers))) == ("bf16", "bf16")


@pytest.mark.parametrize(
    ("model", "name"), [(torch.nn.MultiheadAttention(32, 4), "bf16"), (torch.nn.Linear(8, 8), "fp32")]
)
def test_attention_is_measured_where_the_model_has_it(monkeypatch, model, name):
    attend = torch.nn.functional.scaled_dot_product_attention
    rounded = lambda *inputs: attend(*(each.bfloat16() for each in inputs)).float()  # noqa: E731
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", rounded)
    assert arithmetics(measure_effective_precision(CPU, nullcontext, model)) == (name, None)


@pytest.mark.parametrize(
    ("hook", "name"),
    [(None, "fp32"), (default_hooks.bf16_compress_hook, "bf16"), (default_hooks.fp16_compress_hook, "fp16")],
)
def test_compressed_gradients_are_seen(hook, name):
    def parallel(layer):
        replica = torch.nn.parallel.DistributedDataParallel(layer)
        if hook:
            replica.register_comm_hook(None, hook)
        return replica

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        assert measure_exchange(parallel, CPU).name == name
    finally:
        torch.distributed.destroy_process_group()

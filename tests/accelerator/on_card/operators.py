"""What the simulated cards compute, against the host's results."""

from __future__ import annotations

import copy
import io
import warnings
from typing import TYPE_CHECKING, Any

import acme_runtime
import pytest
import torch
from acme_runtime import backend
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

acme_runtime.load()

CARD = torch.device("acme", 1)
ROUNDING = 1e-5

generator = torch.Generator().manual_seed(7)


def normal(*size: int) -> torch.Tensor:
    return torch.randn(*size, generator=generator)


def below(limit: int, *size: int) -> torch.Tensor:
    return torch.randint(limit, size, generator=generator)


def batch_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, ...]:
    mean, variance = torch.zeros(3, device=x.device), torch.ones(3, device=x.device)
    y = functional.batch_norm(x, mean, variance, weight, bias, training=True)
    return y, mean, variance


def zero_the_positive(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[x > 0] = 0
    return y


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


OPERATORS: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "convolution": (
        lambda x, w, b: functional.conv2d(x, w, b, stride=2, padding=1),
        (normal(2, 3, 9, 9), normal(4, 3, 3, 3), normal(4)),
    ),
    "convolution_channels_last": (
        lambda x, w: functional.conv2d(x.contiguous(memory_format=torch.channels_last), w),
        (normal(2, 3, 9, 9), normal(4, 3, 3, 3).contiguous(memory_format=torch.channels_last)),
    ),
    "depthwise": (lambda x, w: functional.conv2d(x, w, groups=4), (normal(2, 4, 9, 9), normal(4, 1, 3, 3))),
    "transposed_convolution": (
        lambda x, w, b: functional.conv_transpose2d(x, w, b, stride=2),
        (normal(2, 3, 5, 5), normal(3, 4, 3, 3), normal(4)),
    ),
    "batch_norm": (batch_norm, (normal(4, 3, 5, 5), normal(3), normal(3))),
    "layer_norm": (lambda x, w, b: functional.layer_norm(x, (8,), w, b), (normal(4, 3, 8), normal(8), normal(8))),
    "linear": (functional.linear, (normal(2, 4, 7), normal(5, 7), normal(5))),
    "bmm": (torch.bmm, (normal(2, 3, 4), normal(2, 4, 5))),
    "baddbmm": (torch.baddbmm, (normal(2, 3, 5), normal(2, 3, 4), normal(2, 4, 5))),
    "matrix_vector": (torch.mv, (normal(3, 4), normal(4))),
    "attention": (attention, (normal(2, 3, 6, 8), normal(2, 3, 7, 8), normal(2, 3, 7, 8), normal(2, 1, 6, 7) > -1)),
    "embedding": (functional.embedding, (below(5, 2, 3), normal(5, 4))),
    "cross_entropy": (functional.cross_entropy, (normal(6, 5), torch.tensor([0, 1, 2, 3, 4, -100]))),
    "interpolate": (lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear"), (normal(2, 3, 5, 5),)),
    "interpolate_mask": (lambda m: functional.interpolate(m[None].float(), size=(3, 4)).bool(), (normal(2, 8, 8) > 0,)),
    "max_pool": (lambda x: functional.max_pool2d(x, 3, 2, 1), (normal(2, 3, 9, 9),)),
    "adaptive_average_pool": (lambda x: functional.adaptive_avg_pool2d(x, 1), (normal(2, 3, 9, 9),)),
    "cdist": (lambda a, b: torch.cdist(a, b, p=1), (normal(5, 4), normal(6, 4))),
    "not_contiguous": (lambda x: (x.t()[1:] * 2).sum(0).cumsum(0), (normal(5, 6),)),
    "select_by_mask": (lambda x: x[x > 0], (normal(5, 6),)),
    "assign_by_mask": (zero_the_positive, (normal(5, 6),)),
    "select_by_index": (lambda x, i: x[i], (normal(5, 6), torch.tensor([0, 3]))),
    "nonzero": (torch.nonzero, (normal(5, 6) > 0,)),
    "top_k": (lambda x: x.topk(2), (normal(5, 6),)),
    "split_and_cat": (lambda x: torch.cat(x.split([2, 4], 1)[::-1], 1), (normal(5, 6),)),
    "windows": (lambda x: x.unfold(0, 2, 1), (normal(6),)),
    "strided": (lambda x: x.as_strided((2, 2), (1, 3), 1), (normal(3, 3),)),
    "reshaped": (lambda x: x.permute(2, 0, 1).flatten(1), (normal(3, 4, 2),)),
    "casts": (lambda x: (x.double(), x.half(), x.long(), x.view(torch.int32)), (normal(5),)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_results_and_gradients_are_the_hosts(name: str) -> None:
    operator, arguments = OPERATORS[name]
    expected = results_and_gradients(operator, arguments, torch.device("cpu"))
    found = results_and_gradients(operator, arguments, CARD)

    assert {tensor.device for tensor in found} == {CARD}
    torch.testing.assert_close([tensor.cpu() for tensor in found], expected, rtol=ROUNDING, atol=ROUNDING)


def results_and_gradients(
    operator: Callable[..., Any], arguments: tuple[torch.Tensor, ...], device: torch.device
) -> list[torch.Tensor]:
    moved = [x.detach().to(device).requires_grad_(x.is_floating_point()) for x in arguments]
    results = operator(*moved)
    results = list(results) if isinstance(results, tuple) else [results]
    differentiable = [result.float().square().sum() for result in results if result.requires_grad]
    if differentiable:
        torch.stack(differentiable).sum().backward()
    gradients = [x.grad for x in moved if x.grad is not None]
    return [tensor.detach() for tensor in (*results, *gradients)]


@pytest.mark.parametrize("capacity", [0, 2, 9])
def test_result_that_is_too_small_or_too_large_is_resized(capacity: int) -> None:
    x = normal(5).to(CARD)
    values, indices = x.new_empty(capacity), torch.empty(0, dtype=torch.int64, device=CARD)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "An output with one or more elements was resized")
        torch.sort(x, out=(values, indices))
    assert torch.equal(values.cpu(), x.cpu().sort().values)
    assert torch.equal(x[indices], values)
    assert {values.device, indices.device} == {CARD}


@pytest.mark.parametrize(
    ("model", "layout"), [("resnet50", torch.contiguous_format), ("mobilenet_v2", torch.channels_last)]
)
def test_training_gives_the_hosts_weights_and_statistics(model: str, layout: torch.memory_format) -> None:
    expected = trained(model, layout, torch.device("cpu"))
    found = trained(model, layout, CARD)

    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name].cpu(), expected[name]) for name in expected)


def trained(name: str, layout: torch.memory_format, device: torch.device) -> dict[str, torch.Tensor]:
    import torchvision

    torch.manual_seed(3)
    model = torchvision.models.get_model(name, weights=None, num_classes=3)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    images, labels = torch.randn(4, 3, 32, 32), torch.randint(3, (4,))
    model.to(device).to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, fused=True)
    for _ in range(2):
        optimizer.zero_grad()
        outputs = model(images.to(device).contiguous(memory_format=layout))
        functional.cross_entropy(outputs, labels.to(device)).backward()
        optimizer.step()
    state: dict[str, torch.Tensor] = model.state_dict()
    return state


def test_saved_state_loads_on_the_host_and_on_its_card() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).to(CARD)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    for location, device in (("cpu", torch.device("cpu")), (None, CARD)):
        file.seek(0)
        loaded = torch.load(file, map_location=location)
        assert {tensor.device for tensor in loaded.values()} == {device}
        assert all(torch.equal(loaded[name].cpu(), tensor.cpu()) for name, tensor in model.state_dict().items())


def test_copies_and_changes_of_storage_stay_on_the_card() -> None:
    weight = torch.nn.Parameter(normal(2, 3).to(CARD))
    assert copy.deepcopy(weight).device == CARD

    tensor: Any = normal(4).to(CARD)
    tensor.resize_(8)
    assert (tensor.shape, tensor.device) == ((8,), CARD)
    tensor.set_(weight.data)
    assert torch.equal(tensor, weight)
    assert tensor.data_ptr() == weight.data_ptr()


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float16, 10), (torch.bfloat16, 7)])
def test_autocast_computes_products_in_the_format_and_losses_in_fp32(dtype: torch.dtype, bits: int) -> None:
    kept, lost = 1 + 2.0**-bits, 1 + 2.0 ** -(bits + 1)
    values = torch.tensor([[kept, lost]], device=CARD).t()
    with torch.autocast(CARD.type, dtype=dtype):
        product = values @ torch.ones(1, 1, device=CARD)
        convolved = functional.conv2d(values.reshape(1, 1, 2, 1), torch.ones(1, 1, 1, 1, device=CARD))
        loss = functional.cross_entropy(product, torch.zeros(2, dtype=torch.int64, device=CARD))
    assert (product.dtype, convolved.dtype, loss.dtype) == (dtype, dtype, torch.float32)
    for result in (product, convolved):
        assert result.flatten().float()[0].item() == kept
        assert result.flatten().float()[1].item() != lost


def test_tf32_rounds_operands_and_not_sums() -> None:
    kept, lost = 1 + 2.0**-10, 1 + 2.0**-12
    values = torch.tensor([[kept], [lost]], device=CARD)
    ones = torch.ones(1, 1, device=CARD)
    convolve = functional.conv2d

    assert torch.equal((values @ ones).cpu(), torch.tensor([[kept], [lost]]))
    backend.set_allow_tf32(True)
    try:
        assert torch.equal((values @ ones).cpu(), torch.tensor([[kept], [1.0]]))
        assert convolve(values.view(1, 1, 2, 1), ones.view(1, 1, 1, 1)).flatten().tolist() == [kept, 1.0]
        assert torch.addmm(torch.tensor([2.0**-12], device=CARD), ones, ones).item() == lost
    finally:
        backend.set_allow_tf32(False)


def test_gradient_scaler_skips_a_step_with_infinite_gradients() -> None:
    weight = torch.nn.Parameter(torch.ones(2, device=CARD))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = torch.amp.GradScaler(CARD.type)
    for factor, expected in ((float("inf"), [1.0, 1.0]), (0.5, [0.5, 0.5])):
        optimizer.zero_grad()
        scaler.scale((weight * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert weight.tolist() == expected


def test_view_without_a_kernel_is_refused_rather_than_copied() -> None:
    with pytest.raises(NotImplementedError, match="returns a view"):
        torch.view_as_real(torch.zeros(2, dtype=torch.complex64, device=CARD))


def test_shape_error_leaves_the_card_usable() -> None:
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        torch.zeros(2, 3, device=CARD) @ torch.zeros(2, 3, device=CARD)
    assert (torch.ones(2, 3, device=CARD) @ torch.ones(3, 2, device=CARD)).sum().item() == 12


def test_tensors_of_two_cards_do_not_mix() -> None:
    with pytest.raises(RuntimeError, match="same device"):
        torch.zeros(2, device="acme:0") + torch.zeros(2, device="acme:1")


def test_order_of_some_sums_is_left_to_chance_unless_it_was_asked_for() -> None:
    index, weights = below(3, 16), normal(16, 5).to(CARD)

    def gradient() -> list[list[float]]:
        table = torch.ones(3, 5, device=CARD, requires_grad=True)
        (functional.embedding(index.to(CARD), table) * weights).sum().backward()
        assert table.grad is not None
        return table.grad.tolist()

    assert gradient() != gradient()
    torch.ops.acme_driver.let_sums_be_ordered(True)
    torch.use_deterministic_algorithms(True)
    try:
        assert gradient() == gradient()
    finally:
        torch.use_deterministic_algorithms(False)
        torch.ops.acme_driver.let_sums_be_ordered(False)

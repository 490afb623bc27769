"""Operators of the cases, and their errors on a device against float64 on the CPU, forward and backward."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import torch
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from torch import Tensor


_CALLS: Final = 2

_IGNORED: Final = 255
"""Label of pixels that a data set leaves undecided."""

_LENGTH: Final = 128
_HEADS: Final = 4
_DEVIATIONS: Final = 6.0
"""One draw in a billion is farther from its expectation than this many standard deviations."""

_SMALL: Final = 64
"""Divides the inputs of normalizations, whose epsilon matters beside a small variance."""

_MANY: Final = 2**20
"""Terms of a long sum. If one of equal terms after the other is added in fp32, it is off by a percent."""

_ROWS: Final = 70_001
"""Rows of an embedding whose numbers 16 bits do not hold."""

_MANY_HALVES: Final = 2**17
"""Terms of a long sum that fp16 can hold; added in 16 bits, it stops growing long before its end."""


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator with the shapes of its inputs, which have a gradient and are drawn from a normal distribution.

    Attributes:
        terms: Number of values in its longest sum, for the bound of its error.
        role: ``product`` if autocast computes it in 16 bits, ``loss`` if it sums it in fp32 from 16 bits.
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    apply: Callable[..., Tensor]
    terms: int = 1
    role: Literal["product", "loss", "other"] = "other"


class Errors(NamedTuple):
    """Errors of an operator's output and of the gradients of its inputs, and the type of the output.

    An error is the norm of the difference to float64 on the CPU, as a fraction of the norm on the CPU.
    """

    output: float
    gradients: float
    output_type: torch.dtype


def errors_of(
    operator: Operator,
    device: torch.device,
    seed: int,
    context: Callable[[], AbstractContextManager[object]] = nullcontext,
    dtype: torch.dtype = torch.float32,
) -> Errors:
    """Return the errors of an operator that computes in a context, such as autocast, on inputs of a type."""
    generator = torch.Generator().manual_seed(seed)
    calls = [[torch.randn(shape, generator=generator).to(dtype) for shape in operator.shapes] for _ in range(_CALLS)]
    expected = _run(operator, [[tensor.double() for tensor in inputs] for inputs in calls], nullcontext)
    found = _run(operator, [[tensor.to(device) for tensor in inputs] for inputs in calls], context)
    errors = [_error(one.cpu().double(), other) for one, other in zip(found, expected, strict=True)]
    return Errors(max(errors[:_CALLS]), max(errors[_CALLS:]), found[0].dtype)


def _run(
    operator: Operator, calls: Sequence[Sequence[Tensor]], context: Callable[[], AbstractContextManager[object]]
) -> list[Tensor]:
    """Return the output of each call, and the sums of their gradients.

    Between the calls, the inputs change in place, as an optimizer changes weights: what a device keeps of them is
    outdated.
    """
    leaves = [tensor.clone().requires_grad_() for tensor in calls[0]]
    outputs = []
    for number, inputs in enumerate(calls):
        with torch.no_grad():
            for leaf, values in zip(leaves, inputs, strict=True):
                leaf.copy_(values)
        with context():
            output = operator.apply(*leaves)
        # Every element has a different weight, which shows a gradient in the wrong place. With weights equal to the
        # inputs, the gradient of a normalization would be zero.
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(number))
        output.backward(weights.to(output.dtype).to(output.device))
        outputs.append(output.detach())
    return [*outputs, *(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves)]


def _error(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return math.inf
    error = float((found - expected).norm() / expected.norm().clamp(min=torch.finfo(torch.float64).tiny))
    return error if error == error else math.inf


def dropout_faults(device: torch.device, seed: int) -> list[str]:
    """Return what is wrong with dropout on a device: share, scale, gradient, a mask that repeats, or evaluation."""
    torch.manual_seed(seed)
    ones = torch.ones(_HEADS, _LENGTH, _LENGTH, device=device, requires_grad=True)
    # Each value has a key of its own, so that the output shows the weights that were dropped.
    values = torch.eye(_LENGTH).mul(_LENGTH).expand(_HEADS, -1, -1).to(device).requires_grad_()
    alike = torch.zeros(_HEADS, _LENGTH, _LENGTH, device=device)

    def attend(values: Tensor, p: float, training: bool) -> Tensor:
        return functional.scaled_dot_product_attention(alike, alike, values, dropout_p=p if training else 0.0)

    faults = []
    for name, drop, x in (("dropout", functional.dropout, ones), ("attention with dropout", attend, values)):
        for p in (0.1, 0.5):
            faults += [f"{name} with p={p} {fault}" for fault in _dropout_faults(drop, x, p)]
        if not torch.allclose(drop(x, 0.5, False).detach().cpu(), torch.ones(x.shape), rtol=1e-5):
            faults.append(f"{name} changes values in evaluation")
    return faults


def _dropout_faults(drop: Callable[[Tensor, float, bool], Tensor], x: Tensor, p: float) -> Iterator[str]:
    """Yield what is wrong with a function that is linear in ``x``, and whose output is one where nothing is dropped."""
    output, again = (drop(x, p, True) for _ in range(2))
    kept, kept_again = (each.detach().cpu() != 0 for each in (output, again))
    alike = p**2 + (1 - p) ** 2
    neighbors = [
        (float((kept == kept.roll(1, dim)).double().mean()), alike, f"repeats its mask along dimension {dim}: alike in")
        for dim in range(kept.dim())
    ]
    for share, expected, what in (
        (float((~kept).double().mean()), p, "drops a share of"),
        (float((kept == kept_again).double().mean()), alike, "repeats masks: two are alike in"),
        *neighbors,
    ):
        if abs(share - expected) > _DEVIATIONS * math.sqrt(expected * (1 - expected) / x.numel()):
            yield f"{what} {share:.3f}, not {expected:.3f}"
    if not torch.allclose(output.detach().cpu() * (1 - p), kept.float(), rtol=1e-5):
        yield "does not divide by 1 - p what it keeps"
    weights = torch.randn(x.shape).to(x.device)
    (gradient,) = torch.autograd.grad(output, x, weights)
    pairs = ((gradient, x.detach()), (output.detach(), weights))
    sums = [float((one.cpu().double() * other.cpu()).sum()) for one, other in pairs]
    if abs(sums[0] - sums[1]) > 1e-3 * math.sqrt(x.numel()):
        yield "has another mask in its gradient"


def _labels(logits: Tensor) -> Tensor:
    return torch.arange(len(logits), dtype=torch.int64).remainder(logits.shape[1]).to(logits.device)


def _cross_entropy_with_ignored(logits: Tensor) -> Tensor:
    labels = _labels(logits)
    labels[::3] = -100
    return functional.cross_entropy(logits, labels, label_smoothing=0.1)


def _cross_entropy_of_pixels(logits: Tensor, weights: Tensor) -> Tensor:
    labels = torch.arange(logits[:, 0].numel()).view_as(logits[:, 0]).remainder(logits.shape[1]).to(logits.device)
    labels[:, ::3] = _IGNORED
    options: dict[str, Any] = {"weight": weights.detach().abs(), "ignore_index": _IGNORED}
    mean, each = (functional.cross_entropy(logits, labels, reduction=how, **options) for how in ("mean", "none"))
    return torch.cat([mean[None], each.flatten()])


def _padding(length: int, device: torch.device) -> Tensor:
    """Return the padding mask of two sequences, one of full length and one of a third of it. True marks padding."""
    positions = torch.arange(length).to(device)
    return positions[None, :] >= torch.tensor([[length], [length // 3]]).to(device)


def _linear(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    # A runtime that is loaded later may replace torch's functions.
    return functional.linear(rows, weight, bias)


def _masked_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    seen = ~_padding(key.shape[-2], key.device)[:, None, None, :]
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)


def _attention_of_several_heads(tokens: Tensor, into: Tensor, into_bias: Tensor, out: Tensor, bias: Tensor) -> Tensor:
    """Return what :class:`torch.nn.MultiheadAttention` computes, with weights of a usual size."""
    scale, padding = tokens.shape[-1] ** -0.5, _padding(tokens.shape[0], tokens.device)
    attended, _ = functional.multi_head_attention_forward(
        *(tokens, tokens, tokens, tokens.shape[-1], _HEADS, into * scale, into_bias, None, None, False, 0.0),
        *(out * scale, bias),
        key_padding_mask=padding,
        need_weights=False,
    )
    return attended


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


def _different_sizes(wide: Tensor, tall: Tensor, small: Tensor, weight: Tensor) -> Tensor:
    return torch.cat([functional.conv2d(images, weight, padding=1).mean(dim=(2, 3)) for images in (wide, tall, small)])


def _large_maps(maps: Tensor, weight: Tensor) -> Tensor:
    normalized = functional.batch_norm(functional.conv2d(maps, weight, padding=1), None, None, training=True)
    return functional.max_pool2d(normalized.relu(), 3, stride=2, padding=1)


def _normalized_in_evaluation(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    mean = torch.linspace(-1, 1, images.shape[1]).to(images)
    variance = (mean.abs() + 0.5) / _SMALL**2
    return functional.batch_norm(images / _SMALL, mean / _SMALL, variance, weight, bias, training=False)


def _running_statistics(images: Tensor) -> Tensor:
    mean = torch.linspace(-1, 1, images.shape[1]).to(images).detach()
    variance = mean.abs() + 0.5
    normalized = functional.batch_norm(images, mean, variance, training=True, momentum=0.3)
    return torch.cat([mean, variance]) + normalized.sum() * 0


def _frozen_normalization(images: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    scale = (weight * (variance.square() + 1e-5).rsqrt())[:, None, None]
    return images * scale + (bias - mean)[:, None, None] * scale


def _boxes(numbers: Tensor) -> Tensor:
    corner = numbers[:, :2].sigmoid()
    return torch.cat([corner, corner + numbers[:, 2:].sigmoid() + 0.1], dim=1)


def _dice_loss(logits: Tensor) -> Tensor:
    probabilities = logits.sigmoid()
    actual = _labels(logits)[:, None].remainder(2).expand_as(logits).to(probabilities.dtype)
    overlap = 2 * (probabilities * actual).sum(dim=1)
    return 1 - (overlap + 1) / (probabilities.sum(dim=1) + actual.sum(dim=1) + 1)


def _focal_loss(logits: Tensor) -> Tensor:
    actual = _labels(logits)[:, None].remainder(2).expand_as(logits).to(logits.dtype)
    losses: Tensor = sigmoid_focal_loss(logits, actual, reduction="none")
    return losses.mean(dim=1)


def _repeated_rows(length: int, device: torch.device) -> Tensor:
    """Return indices of rows in which some occur often and some never."""
    return torch.arange(4 * length).square().remainder(length).to(device)


def _gathered(rows: Tensor) -> Tensor:
    index = _repeated_rows(len(rows), rows.device)[:, None].expand(-1, rows.shape[1])
    return rows.gather(0, index)


def _scattered(rows: Tensor, others: Tensor) -> Tensor:
    index = torch.arange(0, len(rows), 2).to(rows.device)
    written = rows.scatter(0, index[:, None].expand(-1, rows.shape[1]), others)
    return written.index_add(0, _repeated_rows(len(others), rows.device)[: len(others)], others)


def _counted_positions(rows: Tensor) -> Tensor:
    counts = (~_padding(rows.shape[1], rows.device)).cumsum(dim=1)
    angles = counts.to(rows.dtype) / (counts[:, -1:] + 1e-6) * rows.square()
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2) + rows.cumsum(dim=1).repeat(1, 2)


def _reductions(rows: Tensor) -> Tensor:
    return torch.stack([rows.mean(1), rows.var(1), rows.amax(1), rows.norm(dim=1), rows.sum(1), rows.logsumexp(1)])


def _pointwise(one: Tensor, other: Tensor) -> Tensor:
    chosen = torch.where(one > other, one, other * 2).clamp(-1.5, 1.5)
    return torch.cat([chosen, one.relu() * other, functional.relu6(4 * one), one.sigmoid() / (1 + other.square())])


def _spread(count: int, like: Tensor) -> Tensor:
    """Return values around one, with which a sum of equal signs grows: in 16 bits it would stop growing."""
    return torch.linspace(0.5, 1.5, count, dtype=torch.float64).to(like)


def _long_product(value: Tensor) -> Tensor:
    return (value[:, None] * _spread(_MANY_HALVES, value)) @ torch.full((_MANY_HALVES, 4), 2.0**-9).to(value)


def _long_gradient(weight: Tensor) -> Tensor:
    return functional.linear(_spread(_MANY_HALVES, weight)[:, None] / 2**9, weight)


def _long_statistics(values: Tensor) -> Tensor:
    return _running_statistics(values[:, None, None, None] * _spread(_MANY, values))


def _joined(*tensors: Tensor) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _embeddings(weight: Tensor) -> Tensor:
    rows = _repeated_rows(20, weight.device)
    padded = functional.embedding(rows, weight, padding_idx=4)
    return _joined(padded, functional.embedding(rows, weight, scale_grad_by_freq=True))


def _labels_with_options(logits: Tensor, others: Tensor) -> Tensor:
    weights, labels = _spread(logits.shape[1], logits), _labels(logits)
    chances = others.detach().softmax(dim=1)
    return _joined(
        functional.cross_entropy(logits, labels, weights, label_smoothing=0.2, reduction="none"),
        functional.cross_entropy(logits, labels, weights, ignore_index=1, reduction="sum") / len(logits),
        functional.cross_entropy(logits, chances, label_smoothing=0.1),
        functional.nll_loss(others.log_softmax(dim=1), labels, weights, ignore_index=2),
        functional.kl_div(logits.log_softmax(dim=1), chances.log(), log_target=True, reduction="batchmean"),
        functional.binary_cross_entropy_with_logits(others, chances, weights, pos_weight=3 * weights),
    )


def _distances(one: Tensor, other: Tensor) -> Tensor:
    return _joined(
        functional.smooth_l1_loss(one, other, beta=0.3, reduction="none"),
        functional.huber_loss(one, other, delta=0.7, reduction="none"),
        functional.mse_loss(one, other, reduction="sum") / len(one),
        functional.cosine_similarity(one, other, dim=0, eps=0.1),
        functional.normalize(one, p=1.0, dim=0),
    )


def _pooled(images: Tensor) -> Tensor:
    return _joined(
        functional.max_pool2d(images, 3, stride=2, ceil_mode=True),
        functional.max_pool2d(images, 2, stride=1, dilation=3),
        functional.avg_pool2d(images, 3, stride=2, padding=1),
        functional.avg_pool2d(images, 3, stride=2, padding=1, count_include_pad=False),
        functional.avg_pool2d(images, 3, stride=2, ceil_mode=True, divisor_override=5),
    )


def _resized(images: Tensor) -> Tensor:
    return _joined(
        functional.interpolate(images, size=(19, 11), mode="bilinear", align_corners=True),
        functional.interpolate(images, size=(19, 11), mode="bicubic", align_corners=False),
        functional.interpolate(images, scale_factor=2.0, mode="nearest-exact"),
        functional.pad(images, (1, 2, 3, 1), mode="reflect"),
        functional.pad(images, (1, 2, 3, 1), mode="replicate"),
        functional.pad(images, (1, -2, 3, 1), value=0.5),
    )


def _transposed_convolution(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    options: dict[str, Any] = {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}
    return _joined(
        functional.conv_transpose2d(images, weight, bias, **options),
        functional.conv_transpose2d(images, weight, bias, dilation=2, groups=2),
    )


def _normalized(images: Tensor) -> Tensor:
    return _joined(
        functional.batch_norm(images, None, None, training=True, eps=0.3),
        functional.layer_norm(images, images.shape[1:], eps=0.3),
        functional.group_norm(images, 2, eps=0.3),
        functional.instance_norm(images, eps=0.3),
    )


def _activations(rows: Tensor) -> Tensor:
    return _joined(
        functional.gelu(rows),
        functional.leaky_relu(rows, 0.2),
        functional.elu(rows, alpha=0.6),
        functional.softplus(rows, beta=2.0, threshold=1.0),
        functional.hardtanh(rows, -0.4, 0.8),
        functional.hardswish(rows),
        functional.silu(rows),
        rows.softmax(dim=0),
        rows.log_softmax(dim=0) / rows.shape[0],
    )


def _reductions_with_options(rows: Tensor) -> Tensor:
    return _joined(
        rows - rows.mean(dim=0, keepdim=True),
        rows.std(dim=1, unbiased=False, keepdim=True),
        rows.var(dim=(0, 1), unbiased=True, keepdim=True),
        rows.norm(p=1, dim=0, keepdim=True) / len(rows),
        rows.max(dim=1, keepdim=True).values,
        rows.topk(3, dim=0, largest=False).values,
        rows.sort(dim=1, descending=True).values,
        rows.tril(diagonal=-1),
        rows.triu(diagonal=2),
    )


def _scaled_sums(rows: Tensor, one: Tensor, other: Tensor) -> Tensor:
    index = _repeated_rows(len(rows), rows.device)[: len(rows)]
    return _joined(
        torch.addmm(rows, one, other, beta=0.5, alpha=2.0),
        torch.baddbmm(rows[None], one[None], other[None], beta=0.5, alpha=2.0),
        torch.add(rows, rows.flip(0), alpha=3.0),
        torch.addcmul(rows, rows, rows.flip(1), value=0.3),
        torch.lerp(rows, rows.flip(0), 0.3),
        rows.index_add(0, index, rows, alpha=0.5),
    )


def _biased_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    bias = (query @ key.transpose(-2, -1)).detach().cos()
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)


ARITHMETIC: Final = (
    Operator(
        "3x3 convolution",
        ((4, 64, 14, 14), (64, 64, 3, 3), (64,)),
        lambda images, weight, bias: functional.conv2d(images, weight, bias, padding=1),
        terms=784,
        role="product",
    ),
    Operator(
        "strided 1x1 convolution",
        ((4, 64, 14, 14), (128, 64, 1, 1)),
        lambda images, weight: functional.conv2d(images, weight, stride=2),
        terms=196,
        role="product",
    ),
    Operator(
        "strided 7x7 convolution",
        ((4, 3, 28, 28), (16, 3, 7, 7)),
        lambda images, weight: functional.conv2d(images, weight, stride=2, padding=3),
        terms=784,
        role="product",
    ),
    Operator(
        "dilated convolution",
        ((2, 16, 14, 14), (16, 16, 3, 3)),
        lambda images, weight: functional.conv2d(images, weight, padding=2, dilation=2),
        terms=392,
        role="product",
    ),
    Operator(
        "grouped convolution",
        ((2, 32, 14, 14), (32, 8, 3, 3)),
        lambda images, weight: functional.conv2d(images, weight, padding=1, groups=4),
        terms=392,
        role="product",
    ),
    Operator(
        "depthwise convolution",
        ((4, 96, 14, 14), (96, 1, 3, 3)),
        lambda images, weight: functional.conv2d(images, weight, stride=2, padding=1, groups=96),
        terms=196,
        role="product",
    ),
    Operator("linear layer", ((64, 512), (256, 512), (256,)), _linear, terms=512, role="product"),
    Operator("large linear layer", ((16, 256), (2048, 256), (2048,)), _linear, terms=2048, role="product"),
    Operator(
        "matrix product",
        ((3, 50, 96), (96, 64)),
        lambda one, other: torch.matmul(one, other),
        terms=150,
        role="product",
    ),
    Operator(
        "batched matrix product",
        ((8, 50, 96), (8, 96, 64)),
        lambda one, other: torch.bmm(one, other),
        terms=96,
        role="product",
    ),
    Operator(
        "product by einsum",
        ((2, 30, 4, 16), (2, 40, 4, 16)),
        lambda query, key: torch.einsum("bqnc,bsnc->bqns", query, key),
        terms=40,
        role="product",
    ),
    Operator(
        "attention",
        ((2, 8, 100, 32), (2, 8, 120, 32), (2, 8, 120, 32)),
        lambda query, key, value: functional.scaled_dot_product_attention(query, key, value),
        terms=120,
        role="product",
    ),
    Operator(
        "attention to earlier tokens",
        ((2, 4, 60, 32), (2, 4, 60, 32), (2, 4, 60, 32)),
        lambda query, key, value: functional.scaled_dot_product_attention(query, key, value, is_causal=True),
        terms=60,
        role="product",
    ),
    Operator(
        "attention of several heads",
        ((12, 2, 64), (192, 64), (192,), (64, 64), (64,)),
        _attention_of_several_heads,
        terms=256,
        role="product",
    ),
    Operator(
        "batch normalization",
        ((8, 32, 14, 14), (32,), (32,)),
        lambda images, weight, bias: functional.batch_norm(images / _SMALL, None, None, weight, bias, training=True),
        terms=1568,
    ),
    Operator("batch normalization in evaluation", ((8, 32, 7, 7), (32,), (32,)), _normalized_in_evaluation, terms=392),
    Operator("running statistics of batch normalization", ((8, 32, 7, 7),), _running_statistics, terms=392),
    Operator("frozen normalization", ((8, 32, 7, 7), *[(32,)] * 4), _frozen_normalization, terms=392),
    Operator(
        "layer normalization",
        ((4, 50, 256), (256,), (256,)),
        lambda tokens, weight, bias: functional.layer_norm(tokens / _SMALL, (256,), weight, bias),
        terms=256,
    ),
    Operator(
        "group normalization",
        ((4, 32, 9, 9), (32,), (32,)),
        lambda images, weight, bias: functional.group_norm(images / _SMALL, 8, weight, bias),
        terms=324,
    ),
    Operator(
        "embedding",
        ((20, 16),),
        lambda weight: functional.embedding(_repeated_rows(20, weight.device), weight),
        terms=16,
    ),
    Operator(
        "maximum pooling", ((2, 8, 15, 15),), lambda images: functional.max_pool2d(images, 3, stride=2, padding=1)
    ),
    Operator(
        "average pooling", ((2, 8, 9, 9),), lambda images: functional.adaptive_avg_pool2d(images, (2, 1)), terms=45
    ),
    Operator(
        "images resized to the nearest pixels",
        ((2, 8, 5, 7),),
        lambda images: functional.interpolate(images, size=(12, 14), mode="nearest"),
        terms=6,
    ),
    Operator("softmax", ((64, 100),), lambda logits: logits.softmax(dim=-1), terms=100),
    Operator(
        "cross entropy",
        ((1024, 10),),
        lambda logits: functional.cross_entropy(logits, _labels(logits)),
        terms=1024,
        role="loss",
    ),
    Operator(
        "cross entropy of each row",
        ((64, 10),),
        lambda logits: functional.cross_entropy(logits, _labels(logits), reduction="none"),
        terms=10,
    ),
    Operator("L1 loss", ((64, 4), (64, 4)), lambda one, other: functional.l1_loss(one, other), terms=256),
    Operator(
        "generalized IoU of boxes",
        ((64, 4), (64, 4)),
        lambda one, other: generalized_box_iou_loss(_boxes(one), _boxes(other)),
        terms=16,
    ),
    Operator("focal loss", ((8, 200),), _focal_loss, terms=200),
    Operator("dice loss", ((8, 200),), _dice_loss, terms=200),
    Operator("rows gathered repeatedly", ((20, 16),), _gathered, terms=16),
    Operator("rows scattered and added", ((20, 16), (10, 16)), _scattered, terms=10),
    Operator(
        "rows selected repeatedly",
        ((20, 16),),
        lambda rows: rows[_repeated_rows(20, rows.device)] + rows.index_select(0, _repeated_rows(20, rows.device)),
        terms=32,
    ),
    Operator("counted positions", ((2, 40),), _counted_positions, terms=40),
    Operator("reductions", ((20, 300),), _reductions, terms=300),
    Operator("pointwise functions", ((40, 30), (40, 30)), _pointwise),
    Operator("GELU by tanh", ((40, 30),), lambda rows: functional.gelu(rows, approximate="tanh")),
    Operator("long sum", ((3,),), lambda values: values[:, None].expand(-1, _MANY).sum(1), terms=_MANY),
    Operator("long mean", ((1,),), lambda value: value.expand(_MANY).mean(), terms=_MANY),
    Operator("statistics of a long batch", ((2,),), _long_statistics, terms=_MANY),
    Operator("long matrix product", ((4,),), _long_product, terms=_MANY_HALVES, role="product"),
    Operator("long gradient of a weight", ((4, 1),), _long_gradient, terms=_MANY_HALVES, role="product"),
)
"""Operators that the cases train with, and sums over many values."""

FORMS: Final = (
    Operator("int64 labels, some ignored", ((64, 10),), _cross_entropy_with_ignored),
    Operator("int64 labels of pixels, some ignored", ((2, 5, 12, 9), (5,)), _cross_entropy_of_pixels, terms=216),
    Operator(
        "a strided view of images",
        ((2, 16, 20, 21), (16, 16, 3, 3)),
        lambda images, weight: functional.conv2d(images[:, :, ::2, 1:], weight, padding=1),
        terms=400,
    ),
    Operator(
        "transposed features",
        ((48, 32), (24, 48)),
        lambda features, weight: functional.linear(features.transpose(0, 1), weight),
        terms=48,
    ),
    Operator(
        "expanded and permuted features",
        ((1, 5, 7),),
        lambda features: features.expand(6, -1, -1).permute(2, 0, 1).reshape(-1, 6) * 3,
    ),
    Operator(
        "channels-last images and weights",
        ((2, 16, 12, 12), (16, 16, 3, 3)),
        lambda images, weight: functional.conv2d(_channels_last(images), _channels_last(weight), padding=1),
        terms=288,
    ),
    Operator(
        "channels-last images",
        ((2, 16, 13, 13), (16, 16, 3, 3)),
        lambda images, weight: functional.conv2d(_channels_last(images), weight, stride=2),
        terms=144,
    ),
    Operator(
        "images of different sizes in turn",
        ((1, 8, 17, 64), (1, 8, 47, 33), (1, 8, 1, 3), (8, 8, 3, 3)),
        _different_sizes,
        terms=1551,
    ),
    Operator(
        "images resized to an odd size",
        ((2, 8, 12, 16),),
        lambda images: functional.interpolate(images, size=(19, 31), mode="bilinear", align_corners=False),
        terms=16,
    ),
    Operator(
        "attention with a padding mask",
        ((2, 4, 30, 16), (2, 4, 40, 16), (2, 4, 40, 16)),
        _masked_attention,
        terms=40,
    ),
    Operator(
        "padded tokens overwritten",
        ((2, 12, 8),),
        lambda tokens: tokens.masked_fill(_padding(tokens.shape[1], tokens.device)[:, :, None], 0.5),
    ),
    Operator(
        "tokens selected by a mask",
        ((2, 12, 8),),
        lambda tokens: tokens[~_padding(tokens.shape[1], tokens.device)] * 2,
    ),
)
"""Operators with the forms of input that occur in the cases: dtypes, layouts, sizes and masks."""

OPTIONS: Final = (
    Operator("embedding with a padding row, or by frequency", ((20, 16),), _embeddings, terms=16),
    Operator("losses with weights, ignored and smooth labels", ((64, 10), (64, 10)), _labels_with_options, terms=640),
    Operator("distances with a threshold", ((64, 10), (64, 10)), _distances, terms=640),
    Operator("pooling with ceilings, dilation and divisors", ((2, 4, 14, 12),), _pooled, terms=9),
    Operator("images resized by aligned corners, or padded", ((2, 4, 8, 9),), _resized, terms=36),
    Operator("transposed convolution", ((2, 4, 9, 9), (4, 3, 3, 3), (6,)), _transposed_convolution, terms=1000),
    Operator("normalization with a large epsilon", ((4, 8, 7, 7),), _normalized, terms=392),
    Operator("activations with parameters", ((40, 30),), _activations, terms=40),
    Operator("reductions that keep dimensions", ((20, 30),), _reductions_with_options, terms=600),
    Operator("scaled sums", ((20, 30), (20, 8), (8, 30)), _scaled_sums, terms=30),
    Operator("attention with a bias", ((2, 4, 30, 16), (2, 4, 30, 16), (2, 4, 30, 16)), _biased_attention, 30),
)
"""Operators with arguments that change their meaning, as cases of other packages may give them."""

LARGE: Final = (
    Operator(
        "large maps resized to the nearest pixels",
        ((4, 4, 100, 167),),
        lambda maps: functional.interpolate(maps, size=(200, 334), mode="nearest"),
        terms=4,
    ),
    # Four pixels for one: otherwise their positions are rounded, the more the larger the map is.
    Operator(
        "a map resized to a large image",
        ((1, 1, 200, 334),),
        lambda maps: functional.interpolate(maps, size=(800, 1336), mode="bilinear", align_corners=False),
        terms=64,
    ),
    Operator("large feature maps", ((1, 4, 400, 667), (4, 4, 3, 3)), _large_maps, terms=266_800),
    Operator(
        "embedding of many rows",
        ((_ROWS, 4),),
        lambda weight: functional.embedding(_repeated_rows(_ROWS, weight.device), weight),
        terms=16,
    ),
)
"""Operators on a million pixels, as the cases have them at full size, and on as many rows as a vocabulary has."""

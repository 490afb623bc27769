"""Operators of the cases, and their error on a device against float64 on the CPU, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator with the shapes of its inputs, which have a gradient and are drawn from a normal distribution."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    apply: Callable[..., Tensor]


def largest_error(operator: Operator, device: torch.device, seed: int) -> float:
    """Return the largest error among an operator's output and the gradients of its inputs.

    An error is the norm of the difference to float64 on the CPU, as a fraction of the norm on the CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(shape, generator=generator) for shape in operator.shapes]
    expected = _run(operator, [tensor.double() for tensor in inputs], seed)
    found = _run(operator, [tensor.to(device) for tensor in inputs], seed)
    return max(_error(one.cpu().double(), other) for one, other in zip(found, expected, strict=True))


def _run(operator: Operator, inputs: Sequence[Tensor], seed: int) -> list[Tensor]:
    leaves = [tensor.requires_grad_() for tensor in inputs]
    output = operator.apply(*leaves)
    # Every element has a different weight, which shows a gradient in the wrong place. With weights equal to the inputs,
    # the gradient of a normalization would be zero.
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed + 1))
    output.backward(weights.to(output.dtype).to(output.device))
    return [output.detach(), *(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves)]


def _error(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    error = float((found - expected).norm() / expected.norm().clamp(min=torch.finfo(torch.float64).tiny))
    return error if error == error else float("inf")


def _labels(logits: Tensor) -> Tensor:
    return torch.arange(len(logits), dtype=torch.int64).remainder(logits.shape[1]).to(logits.device)


def _cross_entropy_with_ignored(logits: Tensor) -> Tensor:
    labels = _labels(logits)
    labels[::3] = -100
    return functional.cross_entropy(logits, labels, label_smoothing=0.1)


def _padding(length: int, device: torch.device) -> Tensor:
    """Return the padding mask of two sequences, one of full length and one of a third of it. True marks padding."""
    positions = torch.arange(length).to(device)
    return positions[None, :] >= torch.tensor([[length], [length // 3]]).to(device)


def _masked_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    seen = ~_padding(key.shape[-2], key.device)[:, None, None, :]
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


def _different_sizes(wide: Tensor, tall: Tensor, small: Tensor, weight: Tensor) -> Tensor:
    return torch.cat([functional.conv2d(images, weight, padding=1).mean(dim=(2, 3)) for images in (wide, tall, small)])


ARITHMETIC: Final = (
    Operator(
        "3x3 convolution",
        ((4, 64, 14, 14), (64, 64, 3, 3), (64,)),
        lambda images, weight, bias: functional.conv2d(images, weight, bias, padding=1),
    ),
    Operator(
        "strided 1x1 convolution",
        ((4, 64, 14, 14), (128, 64, 1, 1)),
        lambda images, weight: functional.conv2d(images, weight, stride=2),
    ),
    Operator(
        "depthwise convolution",
        ((4, 96, 14, 14), (96, 1, 3, 3)),
        lambda images, weight: functional.conv2d(images, weight, stride=2, padding=1, groups=96),
    ),
    Operator(
        "batch normalization",
        ((8, 32, 14, 14), (32,), (32,)),
        lambda images, weight, bias: functional.batch_norm(images, None, None, weight, bias, training=True),
    ),
    Operator(
        "layer normalization",
        ((4, 50, 256), (256,), (256,)),
        lambda tokens, weight, bias: functional.layer_norm(tokens, (256,), weight, bias),
    ),
    Operator("linear layer", ((64, 512), (256, 512), (256,)), functional.linear),
    Operator(
        "attention",
        ((2, 8, 100, 32), (2, 8, 120, 32), (2, 8, 120, 32)),
        lambda query, key, value: functional.scaled_dot_product_attention(query, key, value),
    ),
    Operator("cross entropy", ((64, 100),), lambda logits: functional.cross_entropy(logits, _labels(logits))),
)
"""Operators that take most of the time in the cases."""

FORMS: Final = (
    Operator("int64 labels, some ignored", ((64, 10),), _cross_entropy_with_ignored),
    Operator(
        "a strided view of images",
        ((2, 16, 20, 21), (16, 16, 3, 3)),
        lambda images, weight: functional.conv2d(images[:, :, ::2, 1:], weight, padding=1),
    ),
    Operator(
        "transposed features",
        ((48, 32), (24, 48)),
        lambda features, weight: functional.linear(features.transpose(0, 1), weight),
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
    ),
    Operator(
        "channels-last images",
        ((2, 16, 13, 13), (16, 16, 3, 3)),
        lambda images, weight: functional.conv2d(_channels_last(images), weight, stride=2),
    ),
    Operator(
        "images of different sizes in turn",
        ((1, 8, 17, 64), (1, 8, 47, 33), (1, 8, 1, 3), (8, 8, 3, 3)),
        _different_sizes,
    ),
    Operator(
        "images resized to an odd size",
        ((2, 8, 12, 16),),
        lambda images: functional.interpolate(images, size=(19, 31), mode="bilinear", align_corners=False),
    ),
    Operator("attention with a padding mask", ((2, 4, 30, 16), (2, 4, 40, 16), (2, 4, 40, 16)), _masked_attention),
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

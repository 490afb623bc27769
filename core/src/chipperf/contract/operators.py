"""Operators of the cases, and their error on a device against float64 on the CPU, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """An operator with the shapes of its inputs.

    Attributes:
        name: Name in messages.
        shapes: Shapes of the inputs that have a gradient. The inputs are drawn from a normal distribution.
        apply: Computes the output from the inputs, on their device.
    """

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


def _batch_norm(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.batch_norm(images, None, None, weight, bias, training=True)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value)


def _labels(count: int, classes: int, device: torch.device) -> Tensor:
    return torch.arange(count, dtype=torch.int64).remainder(classes).to(device)


def _cross_entropy(logits: Tensor) -> Tensor:
    return functional.cross_entropy(logits, _labels(len(logits), logits.shape[1], logits.device))


def _cross_entropy_with_ignored(logits: Tensor) -> Tensor:
    labels = _labels(len(logits), logits.shape[1], logits.device)
    labels[::3] = -100
    return functional.cross_entropy(logits, labels, label_smoothing=0.1)


def _padding(length: int, device: torch.device) -> Tensor:
    """Return the padding mask of two sequences, one of full length and one of a third of it. True marks padding."""
    positions = torch.arange(length).to(device)
    return positions[None, :] >= torch.tensor([[length], [length // 3]]).to(device)


def _masked_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    seen = ~_padding(key.shape[-2], key.device)[:, None, None, :]
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)


def _masked_fill(tokens: Tensor) -> Tensor:
    return tokens.masked_fill(_padding(tokens.shape[1], tokens.device)[:, :, None], 0.5)


def _select_by_mask(tokens: Tensor) -> Tensor:
    return tokens[~_padding(tokens.shape[1], tokens.device)] * 2


def _every_other_row(images: Tensor, weight: Tensor) -> Tensor:
    return functional.conv2d(images[:, :, ::2, 1:], weight, padding=1)


def _transposed_linear(features: Tensor, weight: Tensor) -> Tensor:
    return functional.linear(features.transpose(0, 1), weight)


def _expanded(features: Tensor) -> Tensor:
    return features.expand(6, -1, -1).permute(2, 0, 1).reshape(-1, 6) * 3


def _channels_last(images: Tensor, weight: Tensor) -> Tensor:
    as_last = torch.channels_last
    return functional.conv2d(
        images.contiguous(memory_format=as_last), weight.contiguous(memory_format=as_last), padding=1
    )


def _channels_last_input_only(images: Tensor, weight: Tensor) -> Tensor:
    return functional.conv2d(images.contiguous(memory_format=torch.channels_last), weight, stride=2)


def _resized(images: Tensor) -> Tensor:
    return functional.interpolate(images, size=(19, 31), mode="bilinear", align_corners=False)


def _different_sizes(wide: Tensor, tall: Tensor, small: Tensor, weight: Tensor) -> Tensor:
    found = [functional.conv2d(images, weight, padding=1).mean(dim=(2, 3)) for images in (wide, tall, small)]
    return torch.cat(found)


ARITHMETIC: Final = (
    Operator(
        name="3x3 convolution",
        shapes=((4, 64, 14, 14), (64, 64, 3, 3), (64,)),
        apply=lambda images, weight, bias: functional.conv2d(images, weight, bias, padding=1),
    ),
    Operator(
        name="strided 1x1 convolution",
        shapes=((4, 64, 14, 14), (128, 64, 1, 1)),
        apply=lambda images, weight: functional.conv2d(images, weight, stride=2),
    ),
    Operator(
        name="depthwise convolution",
        shapes=((4, 96, 14, 14), (96, 1, 3, 3)),
        apply=lambda images, weight: functional.conv2d(images, weight, stride=2, padding=1, groups=96),
    ),
    Operator(name="batch normalization", shapes=((8, 32, 14, 14), (32,), (32,)), apply=_batch_norm),
    Operator(
        name="layer normalization",
        shapes=((4, 50, 256), (256,), (256,)),
        apply=lambda tokens, weight, bias: functional.layer_norm(tokens, (256,), weight, bias),
    ),
    Operator(name="linear layer", shapes=((64, 512), (256, 512), (256,)), apply=functional.linear),
    Operator(name="attention", shapes=((2, 8, 100, 32), (2, 8, 120, 32), (2, 8, 120, 32)), apply=_attention),
    Operator(name="cross entropy", shapes=((64, 100),), apply=_cross_entropy),
)
"""Operators that take most of the time in the cases."""

FORMS: Final = (
    Operator(name="int64 labels, some ignored", shapes=((64, 10),), apply=_cross_entropy_with_ignored),
    Operator(name="a strided view of images", shapes=((2, 16, 20, 21), (16, 16, 3, 3)), apply=_every_other_row),
    Operator(name="transposed features", shapes=((48, 32), (24, 48)), apply=_transposed_linear),
    Operator(name="expanded and permuted features", shapes=((1, 5, 7),), apply=_expanded),
    Operator(name="channels-last images and weights", shapes=((2, 16, 12, 12), (16, 16, 3, 3)), apply=_channels_last),
    Operator(name="channels-last images", shapes=((2, 16, 13, 13), (16, 16, 3, 3)), apply=_channels_last_input_only),
    Operator(
        name="images of different sizes in turn",
        shapes=((1, 8, 17, 64), (1, 8, 47, 33), (1, 8, 1, 3), (8, 8, 3, 3)),
        apply=_different_sizes,
    ),
    Operator(name="images resized to an odd size", shapes=((2, 8, 12, 16),), apply=_resized),
    Operator(
        name="attention with a padding mask",
        shapes=((2, 4, 30, 16), (2, 4, 40, 16), (2, 4, 40, 16)),
        apply=_masked_attention,
    ),
    Operator(name="padded tokens overwritten", shapes=((2, 12, 8),), apply=_masked_fill),
    Operator(name="tokens selected by a mask", shapes=((2, 12, 8),), apply=_select_by_mask),
)
"""Operators with the forms of input that occur in the cases: dtypes, layouts, sizes and masks."""

"""Detection of the arithmetic in which training computes its products, from their results.

Which kernel computes a product, and so how it rounds, depends on the operator, its shape, layout and direction. So
this calls the model's own layers, with all that is hooked to them, on the batch of training: of each kind the smallest
and the largest, on small images to be quick. Values that are multiplied with one come back as the compute unit rounded
them, in the output and in both gradients. The formats are in :data:`chipperf.precisions.ARITHMETICS`.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.func import functional_call

from chipperf.precisions import ARITHMETICS
from chipperf.train.preparation import memory_format_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

# Binary 1.0101... and 1.1010...: one is a third of the last kept bit away from what is kept, rounded or cut off.
THIRDS = (4 / 3, 5 / 3)
# A value beyond fp16's range and one far below it, which fixed point loses.
FAR_APART = (2.0**17, 2.0**-10)

# Winograd and blocked kernels lose a few fp32 bits to rounding, but always fewer than a narrower format.
_FP32_AT_LEAST = 17
_FIXED_POINT = -1

_EXTENT = 7
# Products of scalars in one pass, above which the batch is made smaller.
_MULTIPLICATIONS = 2**25


@dataclass(frozen=True, slots=True, order=True)
class Rounding:
    """What a product keeps: bits after the binary point, and values beyond fp16's range. Narrower ones sort first."""

    bits: int
    has_range: bool

    @property
    def name(self) -> str:
        """Name of the arithmetic, for example ``fp32`` or ``tf32``."""
        if self.bits == _FIXED_POINT:
            return "fixed point"
        if self.bits >= _FP32_AT_LEAST:
            return "fp32"
        for name, arithmetic in ARITHMETICS.items():
            if arithmetic.fraction_bits == self.bits and (arithmetic.largest >= FAR_APART[0]) == self.has_range:
                return name
        return f"reduced ({self.bits} bits)" if self.has_range else f"reduced ({self.bits} bits, fp16 range)"


class _Product(NamedTuple):
    """A product. ``ends`` are the first and the last output in each dimension of images, each with its pixel."""

    name: str
    function: Callable[..., torch.Tensor]
    weight: torch.Tensor
    input_shape: tuple[int, ...]
    ends: tuple[tuple[tuple[int, int], tuple[int, int]], ...] = ()


def standard_layers() -> nn.Module:
    """Return a model with the products of the usual cases."""
    convolutions = [nn.Conv2d(64, 64, size, groups=groups) for size, groups in ((3, 1), (1, 1), (3, 64))]
    return nn.Sequential(*convolutions, nn.Linear(64, 64))


def measure_effective_precision(
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
    model: nn.Module | None = None,
    batch_size: int = 16,
) -> dict[str, Rounding]:
    """Return the rounding of each product of a prepared model, or of :func:`standard_layers`, in each pass.

    A key is for example ``3x3 convolution, gradient of the weight``.
    """
    model = model or standard_layers()
    layout = memory_format_of(model)
    found: dict[str, Rounding] = {}
    for product in _products(model, batch_size):
        thirds, far_apart = (_passes(product, values, device, autocast, layout) for values in (THIRDS, FAR_APART))
        for which, seen in thirds.items():
            name, rounding = f"{product.name}, {which}", classify(seen, far_apart[which])
            found[name] = min(rounding, found.get(name, rounding))
    return found


def product_rounding(device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int]) -> Rounding:
    """Return the narrowest rounding of one product of matrices of a type, and of its gradients.

    ``shape`` are rows, columns, and the numbers that are summed.
    """
    rows, columns, inner = shape
    weight = torch.zeros(columns, inner, dtype=dtype)
    product = _Product("matrix product", lambda x, w: torch.mm(x, w.t()), weight, (rows, inner))
    layout = torch.contiguous_format
    thirds, far_apart = (_passes(product, each, device, nullcontext, layout) for each in (THIRDS, FAR_APART))
    return min(classify(seen, far_apart[which]) for which, seen in thirds.items())


class _Weighted(nn.Module):
    """A layer whose gradient is its input, without a product of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return (values * self.weight).sum()


def measure_exchange(parallel: Callable[[nn.Module], nn.Module], device: torch.device) -> Rounding:
    """Return the rounding of fp32 gradients that the ranks exchange; ``parallel`` makes a layer exchange them."""
    seen = []
    for values in (THIRDS, FAR_APART):
        layer = _Weighted().to(device)
        # Without a reference to it, DDP ends before the backward pass and exchanges nothing.
        exchanging = parallel(layer)
        exchanging(torch.tensor(values).to(device)).backward()
        gradient: Any = layer.weight.grad
        seen.append(_read(gradient, [(0,), (1,)]))
    return classify(*seen)


def narrowest(products: Mapping[str, Rounding], *, convolutions: bool) -> str | None:
    """Return the narrowest arithmetic of convolutions or of matrix products; ``None`` without any."""
    found = [seen for name, seen in products.items() if ("convolution" in name) == convolutions]
    return min(found).name if found else None


def classify(thirds: Sequence[float], far_apart: Sequence[float]) -> Rounding:
    """Return the rounding of a product that made these of :data:`THIRDS` and :data:`FAR_APART`."""
    largest, smallest = far_apart
    if smallest == 0 and largest == FAR_APART[0]:
        return Rounding(_FIXED_POINT, True)
    error = min(abs(seen - value) for value, seen in zip(THIRDS, thirds, strict=True))
    bits = round(-math.log2(3 * max(error, 2.0**-25))) if math.isfinite(sum(thirds)) else 0
    return Rounding(max(0, min(bits, 23)), abs(largest / FAR_APART[0] - 1) < 0.5)


def _products(model: nn.Module, batch_size: int) -> Iterator[_Product]:
    kinds: dict[object, list[Any]] = {}
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and len(layer.weight) > 1:
            kind = [getattr(layer, name, None) for name in ("kernel_size", "stride", "dilation")]
            kinds.setdefault((*kind, _groups(layer)), []).append(layer)
    # Attention multiplies without a layer.
    square, shape = next(model.parameters()).new_zeros(128, 128), (max(4, batch_size), 128)
    yield _Product("matrix product", lambda x, w: torch.mm(x, w.t()), square, shape)
    yield _Product("batched matrix product", lambda x, w: torch.bmm(x[None], w.t()[None])[0], square, shape)
    if any("Attention" in type(layer).__name__ for layer in model.modules()):
        yield _Product("attention", lambda x, w: torch.mm(_attend(x), w.t()), square, shape)
    for layers in kinds.values():
        for choose in (min, max):
            layer = choose(layers, key=lambda layer: layer.weight.numel())
            if isinstance(layer, nn.Linear):
                shape = (max(4, batch_size), layer.in_features)
                yield _Product("linear layer", _called(layer), layer.weight, shape)
            else:
                yield _convolution(layer, batch_size)


def _called(layer: nn.Module) -> Callable[..., torch.Tensor]:
    """Return what calls a layer with another weight and with a bias of zero, which hides no product."""

    def call(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        others = {name: torch.zeros_like(each) for name, each in layer.named_parameters() if name != "weight"}
        result: torch.Tensor = functional_call(layer, {**others, "weight": weight}, (x,))
        return result

    return call


def _attend(rows: torch.Tensor) -> torch.Tensor:
    """Return each row as the mean of sixteen equal ones: attention to keys that are all alike."""
    values = rows[:, None, None].expand(-1, 1, 16, -1)
    alike = torch.zeros_like(values)
    return nn.functional.scaled_dot_product_attention(alike, alike, values)[:, 0, 0]


def _groups(layer: Any) -> str:
    groups = getattr(layer, "groups", 1)
    return "" if groups == 1 else "depthwise " if groups == layer.in_channels else "grouped "


def _convolution(layer: nn.Conv2d, batch_size: int) -> _Product:
    # Depthwise convolutions move more than they multiply.
    positions = _MULTIPLICATIONS // max(layer.weight.numel(), 64 * layer.in_channels)
    images = min(batch_size, max(2, positions // _EXTENT**2))
    extent, ends = [], []
    for size, step, stride, padding in zip(
        layer.kernel_size, layer.dilation, layer.stride, _leading_padding(layer), strict=True
    ):
        offset = size // 2 * step - padding
        first = max(0, -(offset // stride))
        last = first + _EXTENT - 1
        ends.append(((first, first * stride + offset), (last, last * stride + offset)))
        extent.append(max(ends[-1][1][1] + 1, last * stride + step * (size - 1) + 1 - 2 * padding))
    name = f"{_groups(layer)}{'x'.join(map(str, layer.kernel_size))} convolution"
    return _Product(name, _called(layer), layer.weight, (images, layer.in_channels, *extent), tuple(ends))


def _leading_padding(layer: nn.Conv2d) -> tuple[int, ...]:
    if layer.padding == "same":
        return tuple(step * (size - 1) // 2 for size, step in zip(layer.kernel_size, layer.dilation, strict=True))
    return (0, 0) if isinstance(layer.padding, str) else layer.padding


def _passes(
    product: _Product,
    values: Sequence[float],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
    layout: torch.memory_format,
) -> dict[str, list[float]]:
    """Return two values as they come back from the output and from both gradients.

    At two places, the input has the values for outputs 0 and 1, and the gradient of the output is 1. At two others, the
    gradient has the values, for output 0. The weight is 1 from each output's first channel.
    """
    _, function, of_training, shape, ends = product
    last, group = shape[0] - 1, of_training.shape[0] * of_training.shape[1] // shape[1]
    corners = [(0, 0, 0), (last, 1, 1), (0, 0, 1), (last, 1, 0)] if ends else [(0,), (last,), (1,), (2,)]
    x, weight = torch.zeros(shape), torch.zeros_like(of_training, device="cpu", requires_grad=False)
    taps = [(output, 0, *(size // 2 for size in weight.shape[2:])) for output in (0, 1)]
    targets, sources = [], []
    for output, (row, *corner) in zip((0, 1, 0, 0), corners, strict=True):
        at = [end[which] for end, which in zip(ends, corner, strict=True)]
        targets.append((row, output, *(made for made, _ in at)))
        sources.append((row, output // group * weight.shape[1], *(pixel for _, pixel in at)))
    for source, tap, value in zip(sources, taps, values, strict=False):
        x[source], weight[tap] = value, 1
    if ends:
        x = x.contiguous(memory_format=layout)
    x, weight = x.to(device, weight.dtype).requires_grad_(), weight.to(device).requires_grad_()
    with torch.enable_grad():
        with autocast():
            seen = function(x, weight)
        gradient = torch.zeros_like(seen, device="cpu", requires_grad=False)
        for target, value in zip(targets, (1, 1, *values), strict=True):
            gradient[target] = value
        given = gradient.to(device)
        # To check a gradient that is an argument, torch imports sympy, which takes a second.
        seen.register_hook(lambda _: given)
        of_input, of_weight = torch.autograd.grad(seen.sum(), (x, weight))
    return {
        "forward": _read(seen, targets[:2]),
        "gradient of the input": _read(of_input, sources[2:]),
        "gradient of the weight": _read(of_weight, taps),
    }


def _read(tensor: torch.Tensor, places: Sequence[tuple[int, ...]]) -> list[float]:
    host = tensor.detach().float().cpu()
    return [float(host[place]) for place in places]

"""Detection of the arithmetic in which training computes its products, from their results.

Which kernel computes a product, and so how it rounds, depends on the operator, its shape, layout and direction. So
this measures the model's own layers on the batch of training: of each kind the smallest and the largest, on small
images to be quick. Values that are multiplied with one come back as the compute unit rounded them, in the output and in
both gradients. The formats are in :data:`chipperf.precisions.ARITHMETICS`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from chipperf.precisions import ARITHMETICS
from chipperf.train.preparation import memory_format_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

# Binary 1.0101... and 1.1010...: one is a third of the last kept bit away from what is kept, rounded or cut off.
_THIRDS = (4 / 3, 5 / 3)
# A value beyond fp16's range and one far below it, which fixed point loses.
_FAR_APART = (2.0**17, 2.0**-10)

# Winograd and blocked kernels lose a few fp32 bits to rounding, but always fewer than a narrower format.
_FP32_AT_LEAST = 17
_FIXED_POINT = -1

_EXTENTS = (4, 14)
_MULTIPLICATIONS = 2**25
"""Products of scalars in one pass, above which the images are made smaller, then the batch."""

_PASSES = ("forward", "gradient of the input", "gradient of the weight")


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
            if arithmetic.fraction_bits == self.bits and (arithmetic.largest >= _FAR_APART[0]) == self.has_range:
                return name
        return f"reduced ({self.bits} bits)" if self.has_range else f"reduced ({self.bits} bits, fp16 range)"


@dataclass(frozen=True, slots=True)
class EffectivePrecision:
    """Rounding of each product in each pass, for example of ``3x3 convolution, gradient of the weight``."""

    products: Mapping[str, Rounding]

    @property
    def matmul(self) -> str | None:
        """The narrowest arithmetic of matrix products."""
        return self._narrowest(is_convolution=False)

    @property
    def convolution(self) -> str | None:
        """The narrowest arithmetic of convolutions; ``None`` without one."""
        return self._narrowest(is_convolution=True)

    def _narrowest(self, *, is_convolution: bool) -> str | None:
        found = [seen for name, seen in self.products.items() if ("convolution" in name) == is_convolution]
        return min(found).name if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Product:
    """A product of an input and a weight, with four places of the output and of the input that contributes to each."""

    name: str
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    input_shape: Sequence[int]
    weight: torch.Tensor
    places: Sequence[tuple[int, ...]]
    stride: Sequence[int] = ()
    groups: int = 1


def standard_layers() -> nn.Module:
    """Return a model with the products of the usual cases."""
    convolutions = [nn.Conv2d(64, 64, size, groups=groups) for size, groups in ((3, 1), (1, 1), (3, 64))]
    return nn.Sequential(*convolutions, nn.Linear(64, 64))


def measure_effective_precision(
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
    model: nn.Module | None = None,
    batch_size: int = 16,
) -> EffectivePrecision:
    """Return the arithmetic in which a prepared model trains; without one, of :func:`standard_layers`."""
    model = model or standard_layers()
    layout = memory_format_of(model)
    found: dict[str, Rounding] = {}
    for product in _products(model, batch_size):
        thirds, far_apart = (_passes(product, values, device, autocast, layout) for values in (_THIRDS, _FAR_APART))
        for which, seen in zip(_PASSES, map(_rounding, thirds, far_apart), strict=True):
            name = f"{product.name}, {which}"
            found[name] = min(seen, found.get(name, seen))
    return EffectivePrecision(found)


def narrowest(measured: Iterable[EffectivePrecision]) -> EffectivePrecision:
    """Return the narrowest rounding of each product on several devices."""
    first, *others = measured
    return EffectivePrecision(
        {name: min([seen, *(other.products[name] for other in others)]) for name, seen in first.products.items()}
    )


def classify(product: Callable[[Sequence[float]], Sequence[float]]) -> Rounding:
    """Return the rounding of a product, which takes two values and returns them as the unit rounded them."""
    return _rounding(product(_THIRDS), product(_FAR_APART))


def _rounding(thirds: Sequence[float], far_apart: Sequence[float]) -> Rounding:
    largest, smallest = far_apart
    if smallest == 0 and largest == _FAR_APART[0]:
        return Rounding(_FIXED_POINT, True)
    errors = [abs(seen - value) for value, seen in zip(_THIRDS, thirds, strict=True)]
    bits = round(-math.log2(3 * max(min(errors), 2.0**-25))) if all(map(math.isfinite, errors)) else 0
    return Rounding(max(0, min(bits, 23)), abs(largest / _FAR_APART[0] - 1) < 0.5)


def _products(model: nn.Module, batch_size: int) -> Iterator[_Product]:
    kinds: dict[tuple[object, ...], list[Any]] = {}
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.out_channels > 1:
            is_depthwise = 1 < layer.groups == layer.in_channels
            kind = (layer.kernel_size, layer.stride, layer.dilation, layer.groups > 1, is_depthwise)
            kinds.setdefault(kind, []).append(layer)
        elif isinstance(layer, nn.Linear) and layer.out_features > 1:
            kinds.setdefault(("linear",), []).append(layer)
    layers = [choose(of_kind, key=_weight_count) for of_kind in kinds.values() for choose in (min, max)]
    rows = max(4, batch_size)
    # Attention multiplies without a layer.
    square = layers[0].weight.new_zeros(128, 128) if layers else torch.zeros(128, 128)
    yield _matrix_product("matrix product", lambda x, w: torch.mm(x, w.t()), square, rows)
    yield _matrix_product("batched matrix product", lambda x, w: torch.bmm(x[None], w.t()[None])[0], square, rows)
    for layer in dict.fromkeys(layers):
        if isinstance(layer, nn.Linear):
            yield _matrix_product("linear layer", nn.functional.linear, layer.weight, rows)
        else:
            yield _convolution(layer, batch_size)


def _weight_count(layer: Any) -> int:
    return int(layer.weight.numel())


def _matrix_product(name: str, function: Callable[..., torch.Tensor], weight: torch.Tensor, rows: int) -> _Product:
    places = [(0,), (rows - 1,), (1,), (2,)]
    return _Product(
        name=name, function=function, input_shape=(rows, weight.shape[1]), weight=weight.detach(), places=places
    )


def _convolution(layer: nn.Conv2d, batch_size: int) -> _Product:
    # Depthwise convolutions move more than they multiply.
    positions = _MULTIPLICATIONS // max(layer.weight.numel(), 64 * layer.in_channels)
    extent = min(max(math.isqrt(positions // batch_size), _EXTENTS[0]), _EXTENTS[1])
    images = min(batch_size, max(2, positions // extent**2))
    far = extent - 1
    kind = "" if layer.groups == 1 else "depthwise " if layer.groups == layer.in_channels else "grouped "
    padding = [size // 2 * step for size, step in zip(layer.kernel_size, layer.dilation, strict=True)]
    options: dict[str, Any] = {"stride": layer.stride, "dilation": layer.dilation, "groups": layer.groups}
    return _Product(
        name=f"{kind}{'x'.join(map(str, layer.kernel_size))} convolution",
        function=partial(nn.functional.conv2d, padding=padding, **options),
        input_shape=(images, layer.in_channels, *(far * step + 1 for step in layer.stride)),
        weight=layer.weight.detach(),
        places=[(0, 0, 0), (images - 1, far, far), (0, 0, far), (images - 1, far, 0)],
        stride=layer.stride,
        groups=layer.groups,
    )


def _passes(
    product: _Product,
    values: Sequence[float],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
    layout: torch.memory_format,
) -> tuple[list[float], list[float], list[float]]:
    """Return two values as they come back from the output, the gradient of the input and that of the weight.

    The first two places of the input have the values, for outputs 0 and 1; the gradient of the output is 1 there, and
    has the values at the other two places, for output 0. The weight is 1 from each output's first channel.
    """
    outputs = product.weight.shape[0] // product.groups
    x = torch.zeros(product.input_shape)
    weight = torch.zeros_like(product.weight, device="cpu")
    taps = [(output, 0, *(size // 2 for size in weight.shape[2:])) for output in (0, 1)]
    sources = [
        (row, output // outputs * weight.shape[1], *(i * step for i, step in zip(place, product.stride, strict=True)))
        for output, (row, *place) in zip((0, 1, 0, 0), product.places, strict=True)
    ]
    targets = [(row, output, *place) for output, (row, *place) in zip((0, 1, 0, 0), product.places, strict=True)]
    for source, tap, value in zip(sources, taps, values, strict=False):
        x[source], weight[tap] = value, 1
    x = x.contiguous(memory_format=layout) if x.dim() == 4 else x
    x, weight = x.to(device, weight.dtype).requires_grad_(), weight.to(device).requires_grad_()
    with torch.enable_grad():
        with autocast():
            seen = product.function(x, weight)
        gradient = torch.zeros_like(seen, device="cpu")
        for target, value in zip(targets, (1, 1, *values), strict=True):
            gradient[target] = value
        found = (seen, *torch.autograd.grad(seen, (x, weight), gradient.to(device)))
    indices = (targets[:2], sources[2:], taps)
    hosts = [tensor.detach().float().cpu() for tensor in found]
    forward, of_input, of_weight = (
        [float(host[index]) for index in places] for host, places in zip(hosts, indices, strict=True)
    )
    return forward, of_input, of_weight

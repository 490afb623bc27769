"""NVIDIA's products by the name NVML and torch report, with the peak rates of their data sheets.

A product without a data sheet that states its rates has none here: its peak is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from chipperf import KnownDevice, PeakFlops

if TYPE_CHECKING:
    from collections.abc import Mapping

_GIB = 2**30
_TERA = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSheet:
    """Peak rates of a product.

    Attributes:
        title: The document, and how its figures were read.
        tflops: Dense rate in 1e12 FLOP/s by effective precision. ``fp32`` is the rate outside of tensor cores.
    """

    title: str
    tflops: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A GPU as it is sold; ``memory_gib`` is the capacity in its name or data sheet."""

    name: str
    short_name: str
    memory_gib: int
    data_sheet: DataSheet | None = None


def _data_sheet(title: str, *, half: float, fp32: float | None = None, tf32: float | None = None) -> DataSheet:
    """Return a data sheet of a GPU that computes bf16, which came with TF32, as fast as fp16."""
    rates = {"fp32": fp32, "tf32": tf32, "fp16": half, "bf16": None if tf32 is None else half}
    return DataSheet(title=title, tflops=MappingProxyType({k: v for k, v in rates.items() if v is not None}))


_A100 = _data_sheet("NVIDIA A100 data sheet, June 2021", fp32=19.5, tf32=156, half=312)
_H100 = "NVIDIA H100 data sheet, {}: half of the figures with sparsity"
_H200 = "NVIDIA H200 data sheet, {}: half of the figures with sparsity"
_H100_SXM = _data_sheet(_H100.format("SXM"), fp32=67, tf32=989 / 2, half=1979 / 2)
_H100_PCIE = _data_sheet(_H100.format("PCIe"), fp32=51, tf32=756 / 2, half=1513 / 2)
_H100_NVL = _data_sheet(_H100.format("NVL"), fp32=60, tf32=835 / 2, half=1671 / 2)
_H200_SXM = _data_sheet(_H200.format("SXM"), fp32=67, tf32=989 / 2, half=1979 / 2)
_H200_NVL = _data_sheet(_H200.format("NVL"), fp32=60, tf32=835 / 2, half=1671 / 2)
# Editions of this data sheet give different rates for fp32 (75 and 80), so it is left out.
_B200 = _data_sheet(
    "NVIDIA HGX B200 data sheet, one GPU: half of the figures with sparsity", tf32=2200 / 2, half=4500 / 2
)
_V100_SXM2 = _data_sheet("NVIDIA V100 data sheet, January 2020, SXM2", fp32=15.7, half=125)
_V100_PCIE = _data_sheet("NVIDIA V100 data sheet, January 2020, PCIe", fp32=14, half=112)
_V100S = _data_sheet("NVIDIA V100 data sheet, January 2020, V100S PCIe", fp32=16.4, half=130)
_T4 = _data_sheet("NVIDIA T4 data sheet, mixed precision", fp32=8.1, half=65)
_L40S = _data_sheet("NVIDIA L40S data sheet, without sparsity", fp32=91.6, tf32=183, half=362.05)
_RTX_4090 = _data_sheet(
    "NVIDIA Ada GPU architecture white paper 2.02, GeForce RTX 4090: dense, fp32 accumulation",
    fp32=82.6,
    tf32=82.6,
    half=165.2,
)

PRODUCTS: Final = (
    Product(name="NVIDIA A100-SXM4-40GB", short_name="A100", memory_gib=40, data_sheet=_A100),
    Product(name="NVIDIA A100-PCIE-40GB", short_name="A100", memory_gib=40, data_sheet=_A100),
    Product(name="NVIDIA A100-SXM4-80GB", short_name="A100-80G", memory_gib=80, data_sheet=_A100),
    Product(name="NVIDIA A100 80GB PCIe", short_name="A100-80G", memory_gib=80, data_sheet=_A100),
    Product(name="NVIDIA A800-SXM4-80GB", short_name="A800", memory_gib=80),
    Product(name="NVIDIA A800 80GB PCIe", short_name="A800", memory_gib=80),
    Product(name="NVIDIA H100 80GB HBM3", short_name="H100", memory_gib=80, data_sheet=_H100_SXM),
    Product(name="NVIDIA H100 PCIe", short_name="H100-PCIe", memory_gib=80, data_sheet=_H100_PCIE),
    Product(name="NVIDIA H100 NVL", short_name="H100-NVL", memory_gib=94, data_sheet=_H100_NVL),
    Product(name="NVIDIA H800", short_name="H800", memory_gib=80),
    Product(name="NVIDIA H200", short_name="H200", memory_gib=141, data_sheet=_H200_SXM),
    Product(name="NVIDIA H200 NVL", short_name="H200-NVL", memory_gib=141, data_sheet=_H200_NVL),
    Product(name="NVIDIA H20", short_name="H20", memory_gib=96),
    Product(name="NVIDIA B200", short_name="B200", memory_gib=180, data_sheet=_B200),
    Product(name="Tesla V100-SXM2-16GB", short_name="V100", memory_gib=16, data_sheet=_V100_SXM2),
    Product(name="Tesla V100-SXM2-32GB", short_name="V100-32G", memory_gib=32, data_sheet=_V100_SXM2),
    Product(name="Tesla V100-PCIE-16GB", short_name="V100-PCIe", memory_gib=16, data_sheet=_V100_PCIE),
    Product(name="Tesla V100-PCIE-32GB", short_name="V100-PCIe-32G", memory_gib=32, data_sheet=_V100_PCIE),
    Product(name="Tesla V100S-PCIE-32GB", short_name="V100S", memory_gib=32, data_sheet=_V100S),
    Product(name="Tesla T4", short_name="T4", memory_gib=16, data_sheet=_T4),
    Product(name="NVIDIA L40S", short_name="L40S", memory_gib=48, data_sheet=_L40S),
    Product(name="NVIDIA GeForce RTX 4090", short_name="RTX4090", memory_gib=24, data_sheet=_RTX_4090),
)
"""What the plugin knows by name; any other GPU of NVIDIA trains as well, under the name it reports."""


def known_devices() -> tuple[KnownDevice, ...]:
    """Return the products as core's type."""
    return tuple(
        KnownDevice(name=product.name, short_name=product.short_name, memory_bytes=product.memory_gib * _GIB)
        for product in PRODUCTS
    )


def peak_flops(device_name: str, precision: str) -> PeakFlops | None:
    """Return the dense peak of a whole GPU, or ``None`` if no data sheet states it.

    Args:
        device_name: Name as NVML reports it. A MIG instance has a name of its own, and no peak.
        precision: Effective precision.
    """
    for product in PRODUCTS:
        if product.name == device_name and product.data_sheet and precision in product.data_sheet.tflops:
            rate = product.data_sheet.tflops[precision] * _TERA
            return PeakFlops(flops_per_s=rate, source=product.data_sheet.title)
    return None

"""Peak rates, typed here from the data sheets."""

from __future__ import annotations

import pytest
from chipperf_nvidia.plugin import perf_peak_flops, perf_vendor_info

SHEETS: dict[str, dict[str, float]] = {
    "NVIDIA A100-SXM4-40GB": {"fp32": 19.5, "tf32": 156, "fp16": 312, "bf16": 312},
    "NVIDIA A100 80GB PCIe": {"fp32": 19.5, "tf32": 156, "fp16": 312, "bf16": 312},
    "NVIDIA H100 80GB HBM3": {"fp32": 67, "tf32": 494.5, "fp16": 989.5, "bf16": 989.5},
    "NVIDIA H100 PCIe": {"fp32": 51, "tf32": 378, "fp16": 756.5, "bf16": 756.5},
    "NVIDIA H200": {"fp32": 67, "tf32": 494.5, "fp16": 989.5, "bf16": 989.5},
    "NVIDIA B200": {"tf32": 1100, "fp16": 2250, "bf16": 2250},
    "Tesla V100-SXM2-32GB": {"fp32": 15.7, "fp16": 125},
    "Tesla T4": {"fp32": 8.1, "fp16": 65},
    "NVIDIA L40S": {"fp32": 91.6, "tf32": 183, "fp16": 362.05, "bf16": 362.05},
    "NVIDIA GeForce RTX 4090": {"fp32": 82.6, "tf32": 82.6, "fp16": 165.2, "bf16": 165.2},
}


@pytest.mark.parametrize("name", SHEETS)
def test_peak_is_the_data_sheets_dense_rate(name: str) -> None:
    for precision in ("fp32", "tf32", "fp16", "bf16"):
        peak = perf_peak_flops(name, precision)
        assert (peak and peak.flops_per_s / 1e12) == (
            pytest.approx(SHEETS[name][precision]) if precision in SHEETS[name] else None
        )
        assert peak is None or peak.source.startswith("NVIDIA ")


@pytest.mark.parametrize(
    "name", ["NVIDIA H20", "NVIDIA H200 MIG 1g.18gb", "NVIDIA GeForce RTX 4090 D", "GPU", "MetaX C500", ""]
)
def test_peak_without_a_data_sheet_is_unknown(name: str) -> None:
    assert perf_peak_flops(name, "bf16") is None


def test_rates_are_dense_and_ordered() -> None:
    for device in perf_vendor_info().known_devices:
        peaks = {precision: perf_peak_flops(device.name, precision) for precision in ("fp32", "tf32", "fp16", "bf16")}
        rates = {precision: peak.flops_per_s for precision, peak in peaks.items() if peak}
        known = [rates[precision] for precision in ("fp32", "tf32", "fp16") if precision in rates]
        assert known == sorted(known), device.name
        assert rates.get("bf16", rates.get("fp16")) == rates.get("fp16")
        assert all("sparsity" in peak.source for peak in peaks.values() if peak and "half" in peak.source)

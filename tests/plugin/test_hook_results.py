"""Types and units of hook results."""

import chipperf
import pytest
import torch
from chipperf.plugin.hook_results import describe_mismatch

TITLE = chipperf.Title(zh="测试", en="Test")


def vendor_info(**changes):
    return chipperf.VendorInfo(
        **{"name": "acme", "title": TITLE, "report_title": TITLE, "device_type": "cpu", **changes}
    )


@pytest.mark.parametrize(
    "value",
    [
        vendor_info(capabilities=frozenset({chipperf.Capability.BF16})),
        chipperf.EnvironmentVariable(name="ACME", value="", reason="unset it"),
        chipperf.TelemetrySample(source="smi", power_w=61, utilization_percent=0.0, temperature_c=-3.5),
        chipperf.MemoryStats(source="smi", used_bytes=0),
        chipperf.LoaderOptions(start_method="spawn", workers_per_rank=0),
        chipperf.RuntimeInfo(torch=torch.__version__),
        chipperf.CaseOverride(key="nesterov", value=True, reason="why"),
    ],
)
def test_good_results_pass(value):
    assert describe_mismatch(value, type(value)) is None


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (vendor_info(device_type=" "), "whose device_type is blank"),
        (vendor_info(title="ACME"), "whose title is 'ACME' (str) instead of Title"),
        (vendor_info(title=chipperf.Title(zh="", en="x")), "whose title.zh is blank"),
        (vendor_info(capabilities={"bf16"}), "whose capabilities is set instead of frozenset of Capability"),
        (vendor_info(capabilities=frozenset({"bf16"})), "whose capabilities[0] is 'bf16' (str) instead of Capability"),
        (vendor_info(visible_devices_env=["A"]), "whose visible_devices_env is list instead of tuple of str"),
        (vendor_info(visible_devices_env=("A", 3)), "whose visible_devices_env[1] is 3 (int) instead of str"),
        (
            vendor_info(known_devices=(chipperf.KnownDevice(name="A1", short_name="A1", memory_bytes=0),)),
            "whose known_devices[0].memory_bytes is 0, outside 1 to inf",
        ),
        (chipperf.TelemetrySample(source="smi", power_w=-1.0), "whose power_w is -1.0, outside 0 to inf"),
        (chipperf.TelemetrySample(source="smi", power_w=float("nan")), "whose power_w is nan"),
        (chipperf.TelemetrySample(source="smi", power_w=float("inf")), "whose power_w is inf"),
        (chipperf.CaseOverride(key="lr", value=float("nan"), reason="r"), "whose value is nan"),
        (chipperf.TelemetrySample(source="smi", utilization_percent=101), "is 101, outside 0 to 100"),
        (chipperf.TelemetrySample(source="smi", temperature_c=311.0), "is 311.0, outside -100 to 200"),
        (chipperf.PeakFlops(flops_per_s=0.0, source="x"), "whose flops_per_s is 0.0, outside 1 to inf"),
        (chipperf.LoaderOptions(start_method="thread"), "instead of 'fork' or 'spawn' or 'forkserver'"),
        (chipperf.LoaderOptions(pin_memory=1), "whose pin_memory is 1 (int) instead of bool"),
        (chipperf.DeviceInfo(index=-1, name="A1"), "whose index is -1, outside 0 to inf"),
        (chipperf.DeviceInfo(index=0, name="A1", uuid=""), "whose uuid is blank"),
        (
            chipperf.CaseOverride(key="k", value=None, reason="r"),
            "value is None instead of bool or int or float or str",
        ),
        (
            chipperf.PrecisionPolicy(requested="fp12", effective="fp12"),
            "whose requested is 'fp12' (str) instead of 'fp32'",
        ),
    ],
)
def test_bad_results_name_field_value_and_expectation(value, fault):
    found = describe_mismatch(value, type(value))

    assert found is not None
    assert found.startswith(f"a {type(value).__name__} whose ")
    assert fault in found

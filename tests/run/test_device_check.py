"""A device must finish a kernel with the right result, in bounded time, before a worker starts."""

import os

import pytest
from chipperf.errors import DeviceError
from chipperf.run.device_check import check_device, inspect_device

PLUGIN = """
import time
from chipperf import DeviceInfo, Title, VendorInfo, hookimpl
from chipperf.vendors import cpu
from chipperf.vendors.cpu import *

@hookimpl
def perf_vendor_info():
    title = Title(zh="艾克米", en="ACME")
    capabilities = cpu.perf_vendor_info().capabilities
    return VendorInfo(name="acme", title=title, report_title=title, device_type="cpu", capabilities=capabilities)

@hookimpl
def perf_device_info(device):
    return DeviceInfo(index=0, name="ACME A1", uuid="ACME-7")
"""


@pytest.fixture
def acme(distributions):
    """Install a plugin that is the CPU reference with changes; return the environment that finds it."""

    def install(changes=""):
        (distributions.root / "acme_plugin.py").write_text(PLUGIN + changes)
        distributions.add("chipperf-acme", "[chipperf.vendors]\nacme = acme_plugin\n")
        return os.environ | {"PYTHONPATH": str(distributions.root)}

    return install


def test_a_device_that_computes_passes_and_is_named(acme):
    inspection = inspect_device("acme", acme(), 60)
    assert (inspection.fault, inspection.card) == (None, "ACME A1 ACME-7")
    assert inspection.runtime["torch"]


@pytest.mark.slow  # it waits for the check to give up, which must leave time to import torch
def test_a_device_that_never_finishes_is_named_and_does_not_block(acme):
    hanging = "\n@hookimpl\ndef perf_synchronize(device):\n    time.sleep(600)\n"
    with pytest.raises(DeviceError, match=r"ACME A1 ACME-7 does not compute: .* did not finish within 20 s"):
        check_device("acme", 3, acme(hanging), 20)


def test_a_stack_that_never_loads_is_told_by_its_rank(acme):
    hanging = "\n@hookimpl\ndef perf_load_runtime():\n    time.sleep(600)\n"
    with pytest.raises(DeviceError, match="the device of local rank 3 does not compute"):
        check_device("acme", 3, acme(hanging), 2)


def test_what_the_plugin_advises_is_passed_on(acme):
    refusing = """
@hookimpl
def perf_load_runtime():
    from chipperf import PluginError
    raise PluginError("torch 2 is not ACME's", hint="install ACME's torch")
"""
    with pytest.raises(DeviceError, match="torch 2 is not ACME's") as caught:
        check_device("acme", 3, acme(refusing), 60)
    assert caught.value.hint == "install ACME's torch"


def test_a_wrong_product_is_found(acme):
    wrong = """
@hookimpl
def perf_load_runtime():
    import torch
    multiply = torch.Tensor.__matmul__

    def multiply_wrongly(left, right):
        product = multiply(left, right)
        return product.clamp(max=8) if product.is_floating_point() else product

    torch.Tensor.__matmul__ = multiply_wrongly
    return cpu.perf_load_runtime()
"""
    inspection = inspect_device("acme", acme(wrong), 60)
    assert inspection.fault == "a product of small integers is wrong"


def test_a_stack_that_ends_the_process_is_a_fault(acme):
    crashing = "\n@hookimpl\ndef perf_load_runtime():\n    import os\n    os._exit(3)\n"
    assert "ended with status 3" in inspect_device("acme", acme(crashing), 60).fault

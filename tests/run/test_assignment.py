"""Every rank has a card to itself, or there is no run."""

import pytest
from chipperf.errors import DeviceError
from chipperf.plugin.types import DeviceInfo, ProbedDevice, Title, VendorInfo
from chipperf.run.ranks import require_distinct_cards, require_free_cards

GIB = 2**30


def vendor(device_type="acme", variables=("ACME_VISIBLE", "CUDA_VISIBLE_DEVICES")):
    title = Title(zh="艾克米", en="Acme")
    return VendorInfo(
        name="acme", title=title, report_title=title, device_type=device_type, visible_devices_env=variables
    )


def probed(count):
    return [
        ProbedDevice(index=index, name="A1", uuid=f"U{index}", pci_bus_id=None, total_bytes=64 * GIB)
        for index in range(count)
    ]


def device(uuid=None, bus=None, index=0):
    return DeviceInfo(index=index, name="A1", uuid=uuid, pci_bus_id=bus, total_bytes=None)


@pytest.mark.parametrize(
    ("processes", "idle", "environment"),
    [
        (2, {}, {}),
        (2, {"U0": 600 * 2**20, "U1": 3 * GIB}, {}),
        (1, {"U1": 60 * GIB}, {}),
        (0, {"U0": 60 * GIB}, {}),
        (2, {}, {"ACME_VISIBLE": "0,1", "CUDA_VISIBLE_DEVICES": "0,1"}),
        (2, {}, {"ACME_VISIBLE": "0,1"}),
    ],
)
def test_free_cards_are_taken(processes, idle, environment):
    require_free_cards(vendor(), probed(2), idle, processes, environment)


@pytest.mark.parametrize(
    ("processes", "idle", "environment", "fault"),
    [
        (3, {}, {}, "3 processes need one card each, and acme has 2 on this machine"),
        (2, {"U1": 30 * GIB}, {}, "A1 U1 is in use: 30.0 GiB of its memory before training begins"),
        (
            2,
            {},
            {"ACME_VISIBLE": "0,1", "CUDA_VISIBLE_DEVICES": "2,3"},
            "ACME_VISIBLE=0,1, CUDA_VISIBLE_DEVICES=2,3 choose different cards",
        ),
    ],
)
def test_other_cards_are_refused(processes, idle, environment, fault):
    with pytest.raises(DeviceError, match=fault) as caught:
        require_free_cards(vendor(), probed(2), idle, processes, environment)

    assert caught.value.hint


def test_processes_on_a_cpu_share_it():
    require_free_cards(vendor("cpu"), probed(1), {"U0": 63 * GIB}, 8, {})
    require_distinct_cards([device("same")] * 4, 2, "cpu")


@pytest.mark.parametrize(
    "devices",
    [
        [device("a"), device("b"), device("c"), device("d")],
        [device(bus="1"), device(bus="2"), device(bus="1"), device(bus="2")],
        [device(index=0), device(index=1), device(index=0), device(index=1)],
    ],
)
def test_a_card_for_every_rank_of_two_machines(devices):
    require_distinct_cards(devices, 2, "acme")


@pytest.mark.parametrize(
    ("devices", "fault"),
    [
        ([device("a"), device("b"), device("c"), device("a")], "ranks 0 and 3 use the same card: A1 a"),
        ([device(bus="1"), device(bus="1")], "ranks 0 and 1 use the same card: A1 1"),
        ([device(), device()], "ranks 0 and 1 use the same card: A1 #0"),
    ],
)
def test_two_ranks_on_a_card_are_named(devices, fault):
    with pytest.raises(DeviceError, match=fault):
        require_distinct_cards(devices, 2, "acme")

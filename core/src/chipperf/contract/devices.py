"""Functions on devices that several checks share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chipperf.contract.check import NotRun, require
from chipperf.errors import PluginError
from chipperf.plugin.probe_process import probe_vendor
from chipperf.plugin.types import Capability, Rank

if TYPE_CHECKING:
    import torch

    from chipperf.contract.plugin_under_test import PluginUnderTest
    from chipperf.plugin.types import ProbedDevice

_SIZE: Final = 64


def probed_devices(subject: PluginUnderTest) -> tuple[ProbedDevice, ...]:
    """Return the devices that the probe finds. The probe runs in its own process, as under a launcher.

    Raises:
        NotRun: The probe fails.
    """
    try:
        return probe_vendor(subject.entry).devices
    except PluginError as error:
        raise NotRun(f"the probe fails, see B1: {error.message}") from error


def ranks_share_device(subject: PluginUnderTest) -> bool:
    """Return whether all ranks may use the same device: the host, if it is the only device."""
    return Capability.UNIFIED_MEMORY in subject.info.capabilities and len(probed_devices(subject)) == 1


def local_ranks(count: int, *, node_rank: int = 0) -> list[Rank]:
    """Return the ranks of one machine with ``count`` processes. With ``node_rank=1`` it is the second of two."""
    return [
        Rank(
            rank=node_rank * count + index,
            local_rank=index,
            world_size=(node_rank + 1) * count,
            local_world_size=count,
            node_rank=node_rank,
        )
        for index in range(count)
    ]


def two_devices(subject: PluginUnderTest) -> tuple[torch.device, torch.device]:
    """Initialize two devices in this process and leave the first one current.

    Raises:
        NotRun: There are fewer than two.
    """
    count = len(probed_devices(subject))
    if count < 2:
        raise NotRun(f"the check needs 2 devices, this machine has {count}")
    first_rank, second_rank = local_ranks(2)
    first = subject.device
    second = subject.session.device_init(second_rank)
    subject.session.device_init(first_rank)
    return first, second


def require_computes(subject: PluginUnderTest, device: torch.device, situation: str) -> None:
    """Check that a matrix product on the device is right.

    Args:
        subject: The plugin.
        device: An initialized device.
        situation: What happened before, for example "after a teardown".
    """
    import torch

    # The sums of these small integers stay below 256, so they are exact in every floating-point format.
    integers = torch.arange(_SIZE * _SIZE).reshape(_SIZE, _SIZE).remainder(3) - 1
    operand = integers.float().to(device)
    product = torch.mm(operand, operand.T)
    subject.session.synchronize(device)
    require(
        torch.equal(product.cpu().long(), integers @ integers.T),
        f"{situation}, a product of small integers on {device} is wrong: the device must stay usable",
    )

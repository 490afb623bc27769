"""What several checks do with devices: initialise those of a machine, and see that one computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chipperf.contract.check import NotRun, require
from chipperf.errors import PluginError
from chipperf.plugin.probe import probe_vendor
from chipperf.plugin.types import Capability, Rank

if TYPE_CHECKING:
    import torch

    from chipperf.contract.subject import Subject
    from chipperf.plugin.types import ProbedDevice

_SIZE: Final = 64


def probed_devices(subject: Subject) -> tuple[ProbedDevice, ...]:
    """Return the devices that the probe finds, asked in a process of its own as a launcher does.

    Raises:
        NotRun: The probe fails.
    """
    try:
        return probe_vendor(subject.entry).devices
    except PluginError as error:
        raise NotRun(f"the probe fails, see B1: {error.message}") from error


def ranks_share_device(subject: Subject) -> bool:
    """Tell whether all ranks may use one device: the host itself, which is there once and has the host's memory."""
    return Capability.UNIFIED_MEMORY in subject.info.capabilities and len(probed_devices(subject)) == 1


def local_ranks(count: int, *, node_rank: int = 0) -> list[Rank]:
    """Return the ranks of one machine with ``count`` processes, one of two such machines if ``node_rank`` is 1."""
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


def two_devices(subject: Subject) -> tuple[torch.device, torch.device]:
    """Initialise two devices in this process and leave the first one current.

    Raises:
        NotRun: There is only one.
    """
    count = len(probed_devices(subject))
    if count < 2:
        raise NotRun(f"it takes 2 devices, and {count} is here")
    first_rank, second_rank = local_ranks(2)
    first = subject.device
    second = subject.session.device_init(second_rank)
    subject.session.device_init(first_rank)
    return first, second


def require_computes(subject: Subject, device: torch.device, situation: str) -> None:
    """Fail unless a product on the device comes out right.

    Args:
        subject: The plugin.
        device: An initialised device.
        situation: What was done before, as in "after a teardown".
    """
    import torch

    # Small integers whose sums stay below 256 are exact in every format a unit may use.
    integers = torch.arange(_SIZE * _SIZE).reshape(_SIZE, _SIZE).remainder(3) - 1
    operand = integers.float().to(device)
    product = torch.mm(operand, operand.T)
    subject.session.synchronize(device)
    require(
        torch.equal(product.cpu().long(), integers @ integers.T),
        f"{situation}, a product of small integers on {device} is wrong: the device must stay usable",
    )

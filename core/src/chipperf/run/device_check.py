"""Checking, within a time limit, that a device finishes a kernel with the right result.

A broken card may answer every query but never finish a kernel. A training process on such a card hangs in a call that
cannot be interrupted. The first kernel therefore runs in a child process, which can be abandoned.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chipperf.errors import DeviceError, PerfError
from chipperf.hardware import run_tool
from chipperf.plugin.installed import find_vendor
from chipperf.plugin.session import bind
from chipperf.run.programs import program
from chipperf.run.ranks import describe_card, rank_from_environment

DEFAULT_TIMEOUT_S = 180.0
"""The first use of a device loads libraries and compiles kernels, which takes minutes on some stacks."""

_SIZE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """The report of a child process on a device: its name and identity, empty if it was not initialized, and its stack.

    ``fault`` says why the device does not compute; ``None`` if it does. ``hint`` is what to do, if the plugin says it.
    """

    card: str
    runtime: Mapping[str, str | None]
    fault: str | None
    hint: str | None = None


def check_device(vendor: str, local_rank: int, environment: Mapping[str, str], timeout_s: float) -> None:
    """Compute on the rank's device, see :func:`inspect_device`; a :class:`DeviceError` names a card that fails."""
    inspection = inspect_device(vendor, environment, timeout_s)
    if inspection.fault is not None:
        raise DeviceError(
            f"{inspection.card or f'the device of local rank {local_rank}'} does not compute: {inspection.fault}",
            hint=inspection.hint
            or "check the card and its driver, or exclude it with the vendor's visible-devices variable; "
            "--no-device-check trains without this check",
        )


def inspect_device(vendor: str, environment: Mapping[str, str], timeout_s: float) -> Inspection:
    """Load a vendor's stack and compute on its device, in a child process with a time limit.

    ``environment`` is the worker's, with the launcher's and the vendor's variables.
    """
    output = run_tool([*program("chipperf.run.device_check"), vendor], timeout_s=timeout_s, environment=environment)
    facts: dict[str, Any] = {}
    for line in output.stdout.splitlines():
        if line.startswith('{"device_check"'):
            facts |= json.loads(line)["device_check"]
    fault = facts.get("fault", output.problem or "it ended silently")
    return Inspection(
        card=facts.get("card", ""),
        runtime=facts.get("runtime", {}),
        fault=None if facts.get("passed") else fault,
        hint=facts.get("hint"),
    )


def main(vendor: str) -> None:
    """Initialize this rank's device, multiply two small integer matrices, and print the result of the check."""
    try:
        rank = rank_from_environment()
        session = bind(find_vendor(vendor))
        runtime = session.load_runtime()
        versions = {name: getattr(runtime, name) for name in ("torch", "framework", "driver", "sdk", "collectives")}
        _report(runtime=versions)

        import torch

        device = session.device_init(rank)
        _report(card=describe_card(session.device_info(device)))
        # The sums of these small integers stay below 256, so they are exact in every floating-point format.
        integers = torch.arange(_SIZE * _SIZE).reshape(_SIZE, _SIZE).remainder(3) - 1
        operand = integers.float().to(device)
        product = operand @ operand.T
        session.synchronize(device)
        if not torch.equal(product.cpu().long(), integers @ integers.T):
            _report(fault="a product of small integers is wrong")
            return
        _report(passed=True)
        session.device_teardown(device)
    except PerfError as error:
        _report(fault=error.message, hint=error.hint)


def _report(**facts: object) -> None:
    print(json.dumps({"device_check": facts}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

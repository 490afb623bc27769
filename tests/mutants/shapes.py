"""Good plugins of other shapes than the simulated accelerator's own: they fail no check."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import psutil
from acme_stack import PLUGIN_SOURCE

from mutants.mutant import Change, Mutant

if TYPE_CHECKING:
    from collections.abc import Sequence

_SOURCE: Final = PLUGIN_SOURCE.read_text(encoding="utf-8")
_HOOKS: Final = {text.group(1): text.group() for text in re.finditer(r"@hookimpl\ndef (\w+)\(.*?\n\n\n", _SOURCE, re.S)}
_CAPABILITIES: Final = re.findall(r"^ +Capability\.(\w+),$", _SOURCE, re.M)

_HOST_BYTES: Final = psutil.virtual_memory().total

_COUNTERS: Final = """        allocated_bytes=_torch_acme().memory_allocated(device),
        peak_allocated_bytes=_torch_acme().max_memory_allocated(device),
        reserved_bytes=_torch_acme().memory_reserved(device),
        peak_reserved_bytes=_torch_acme().max_memory_reserved(device),
"""

_BESIDE_ANOTHER: Final = ("M6", "T5")
_OF_TWO_RANKS: Final = ("P2", "P3", "P4", "P5", "P7", "P8", "P11", "P12", "S5")
"""Checks that one card is not enough for."""

_TOTALS: Final = (
    ("card.pci_bus_id, total_bytes=card.total_bytes", "card.pci_bus_id"),
    ("        total_bytes=properties.total_bytes,\n", ""),
    ("        used_bytes=total_bytes - free_bytes,\n        total_bytes=total_bytes,\n", ""),
)
"""What the capacity and the use of the whole card are given in, and the same without them."""

_MODULES: Final = {
    "memory": ("perf_memory_query", "perf_memory_reset_peak"),
    "training": ("perf_seed", "perf_precision", "perf_prepare_model", "perf_distributed_setup"),
}

_NOISE: Final = """
    import logging
    import os
    import sys
    import warnings

    print("acme: simulated cards, not for sale")
    print("acme: the driver is newer than the runtime", file=sys.stderr)
    os.write(1, b"[accl] version 1.0.3\\n")
    os.write(2, b"[accl] no fabric found\\n")
    logger = logging.getLogger("acme_sdk")
    logger.addHandler(logging.StreamHandler())
    logger.warning("the driver is newer than the runtime")
    warnings.warn("acme: this name goes away in version 3", DeprecationWarning, stacklevel=2)
"""

_QUERY: Final = "    free_bytes, total_bytes = _torch_acme().mem_get_info(device)\n"

_BY_TORCH_ACCELERATOR: Final = {
    "perf_device_info": '''@hookimpl
def perf_device_info(device: torch.device) -> DeviceInfo:
    """Ask the management library for the card."""
    import acme_runtime

    card = acme_runtime.cards()[device.index]
    return DeviceInfo(index=card.index, name=card.name, uuid=card.uuid, total_bytes=card.total_bytes)


''',
    "perf_synchronize": '''@hookimpl
def perf_synchronize(device: torch.device) -> None:
    """Wait for all streams of the card."""
    import torch

    torch.accelerator.synchronize(device)


''',
    "perf_memory_query": '''@hookimpl
def perf_memory_query(device: torch.device) -> MemoryStats:
    """Read the allocator's statistics; what other processes use is not known."""
    import acme_runtime
    import torch

    stats = torch.accelerator.memory_stats(device)
    return MemoryStats(
        source="torch.accelerator, capacity by acme_runtime",
        allocated_bytes=stats["allocated_bytes.all.current"],
        peak_allocated_bytes=stats["allocated_bytes.all.peak"],
        reserved_bytes=stats["reserved_bytes.all.current"],
        peak_reserved_bytes=stats["reserved_bytes.all.peak"],
        total_bytes=acme_runtime.cards()[device.index].total_bytes,
    )


''',
    "perf_memory_reset_peak": '''@hookimpl
def perf_memory_reset_peak(device: torch.device) -> None:
    """Reset the allocator's peaks."""
    import torch

    torch.accelerator.reset_peak_memory_stats(device)


''',
    "perf_seed": '''@hookimpl
def perf_seed(seed: int, device: torch.device, deterministic: bool) -> None:
    """Seed all generators that torch knows."""
    import torch

    torch.manual_seed(seed)
    set_determinism(deterministic)


''',
    "perf_precision": '''@hookimpl
def perf_precision(requested: Precision, device: torch.device) -> PrecisionPolicy:
    """Run every precision but TF32."""
    require_precision(requested, _INFO.capabilities, who="the Acme A1")
    return precision_policy(requested)


''',
    "perf_device_teardown": '''@hookimpl
def perf_device_teardown(device: torch.device) -> None:
    """Put the switches back and free cached memory."""
    import torch

    restore_switches()
    torch.accelerator.empty_cache()


''',
}


def _without(*hooks: str, capabilities: Sequence[str] = ()) -> tuple[Change, ...]:
    """Leave hooks out, and take capabilities back."""
    declared = [Change(old=f"            Capability.{name},\n", new="") for name in capabilities]
    return (*declared, *(Change(old=_HOOKS[hook], new="") for hook in hooks))


def _in_modules() -> list[Change]:
    """Move hooks to modules of their own, from which the module of the entry point imports them."""
    head, _, _ = _SOURCE.partition("@hookimpl")
    helper = _SOURCE[_SOURCE.index("def _torch_acme") :]
    changes = []
    for module, hooks in _MODULES.items():
        text = head + "".join(_HOOKS[hook] for hook in hooks) + helper
        imported = f"from chipperf_acme.hooks.{module} import {', '.join(hooks)}\n"
        changes += [
            Change(file=f"chipperf_acme/hooks/{module}.py", new=text),
            Change(old="from chipperf.torchtools import (\n", new=f"{imported}from chipperf.torchtools import (\n"),
            *_without(*hooks),
        ]
    return [Change(file="chipperf_acme/hooks/__init__.py", new='"""Hooks by area."""\n'), *changes]


MUTANTS = [
    Mutant(
        name="shape_without_telemetry",
        kills=(),
        changes=_without("perf_telemetry", capabilities=("TELEMETRY",)),
    ),
    Mutant(name="shape_of_fp32_only", kills=(), changes=_without(capabilities=("BF16", "FP16", "TF32"))),
    Mutant(
        name="shape_of_one_card_of_several_possible",
        kills=(),
        changes=(),
        environment={"ACME_CARDS": "1"},
        not_run=(*_BESIDE_ANOTHER, *_OF_TWO_RANKS),
    ),
    Mutant(
        name="shape_of_three_cards_and_a_core_for_each",
        kills=(),
        changes=(
            Change(
                old="    if not settings.deterministic:\n        return (threads,)\n",
                new='    core = EnvironmentVariable(name="ACME_CORES", value=str(rank.local_rank), reason=reason)\n'
                "    if not settings.deterministic:\n        return (threads, core)\n",
            ),
            Change(old="    return (threads, Env", new="    return (threads, core, Env"),
        ),
        environment={"ACME_CARDS": "3"},
    ),
    Mutant(
        name="shape_of_one_visible_card",
        kills=(),
        changes=(),
        environment={"ACME_VISIBLE_CARDS": "1"},
        not_run=(*_BESIDE_ANOTHER, *_OF_TWO_RANKS),
    ),
    Mutant(
        name="shape_of_unified_memory",
        kills=(),
        changes=(
            *_without(capabilities=("MULTI_DEVICE",)),
            Change(
                old="            Capability.UUID,\n",
                new="            Capability.UNIFIED_MEMORY,\n            Capability.UUID,\n",
            ),
            Change(
                old=_QUERY,
                new="    import psutil\n\n    host = psutil.virtual_memory()\n"
                "    free_bytes, total_bytes = host.available, host.total\n",
            ),
        ),
        environment={"ACME_CARDS": "1", "ACME_MEMORY_BYTES": str(_HOST_BYTES)},
        not_run=_OF_TWO_RANKS,
    ),
    Mutant(
        name="shape_without_capacity",
        kills=(),
        changes=tuple(Change(old=old, new=new) for old, new in _TOTALS),
    ),
    Mutant(
        name="shape_without_uuid",
        kills=(),
        changes=(
            *_without(capabilities=("UUID",)),
            Change(old="name=card.name, uuid=card.uuid, pci_bus_id=card.pci_bus_id,", new="name=card.name,"),
            Change(old="        uuid=properties.uuid,\n        pci_bus_id=properties.pci_bus_id,\n", new=""),
            Change(
                old="    if device.uuid is None:\n"
                '        raise DeviceError(f"{device.name} has no UUID to find it by")\n',
                new="    uuid = acme_runtime.cards()[device.index].uuid\n",
            ),
            Change(old="acme_runtime.telemetry(device.uuid)", new="acme_runtime.telemetry(uuid)"),
        ),
    ),
    Mutant(
        name="shape_of_card_wide_memory",
        kills=(),
        changes=(*_without(capabilities=("MEMORY_RESERVED",)), Change(old=_COUNTERS, new="")),
    ),
    Mutant(
        name="shape_of_memory_with_cache",
        kills=(),
        changes=(
            *_without(capabilities=("MEMORY_RESERVED",)),
            Change(
                old=_COUNTERS,
                new="        allocated_bytes=_torch_acme().memory_reserved(device),\n"
                "        peak_allocated_bytes=_torch_acme().max_memory_reserved(device),\n",
            ),
        ),
    ),
    Mutant(
        name="shape_of_few_sensors",
        kills=(),
        changes=(
            Change(old="        power_w=readings.power_w,\n", new=""),
            Change(old="        utilization_percent=readings.utilization_percent,\n", new=""),
            Change(old="        memory_used_bytes=readings.memory_used_bytes,\n", new=""),
        ),
    ),
    Mutant(
        name="shape_of_generic_streams",
        kills=(),
        changes=(
            Change(
                old="    _torch_acme().synchronize(device)\n",
                new="    import torch\n\n    torch.accelerator.synchronize(device)\n",
            ),
            Change(
                old='    """Do nothing: every operator is queued when it is called."""\n',
                new='    """Let the next step wait for work on a stream of its own."""\n'
                "    import torch\n\n"
                "    side = torch.Stream(device)\n"
                "    torch.accelerator.current_stream(device).wait_stream(side)\n",
            ),
        ),
    ),
    Mutant(
        name="shape_by_torch_accelerator",
        kills=(),
        changes=(
            *_without(capabilities=("TF32",)),
            *(Change(old=_HOOKS[hook], new=text) for hook, text in _BY_TORCH_ACCELERATOR.items()),
            Change(old="_torch_acme().device_count()", new="torch.accelerator.device_count()"),
            Change(old="_torch_acme().set_device(device)", new="torch.accelerator.set_device_index(device.index)"),
        ),
    ),
    Mutant(name="shape_of_several_modules", kills=(), changes=tuple(_in_modules())),
    Mutant(
        name="shape_with_chatty_runtime",
        kills=(),
        changes=(
            Change(
                old='    """Load the torch backend and the collective library."""\n',
                new=f'    """Load the torch backend and the collective library."""{_NOISE}\n',
            ),
        ),
    ),
    Mutant(
        name="shape_of_required_hooks",
        kills=(),
        changes=_without(
            *("perf_environment", "perf_distributed_setup", "perf_seed", "perf_precision", "perf_prepare_model"),
            *("perf_loader_options", "perf_case_overrides", "perf_telemetry", "perf_tool_commands"),
            *("perf_peak_flops", "perf_step_end", "perf_device_teardown"),
            capabilities=[name for name in _CAPABILITIES if name not in ("MEMORY_RESERVED", "UUID")],
        ),
    ),
]

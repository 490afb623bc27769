"""Faults of a probe."""

from __future__ import annotations

from mutants.mutant import Change, Mutant

_DOCSTRING = '    """Ask the management library, if it is installed, for the visible cards."""\n'
_NO_DRIVER = '        reason = "the acme driver is not loaded; the card is simulated: set ACME_DRIVER=1"\n'
_CARDS = "        for card in acme_runtime.cards()\n"
_WITHOUT_DRIVER = {"ACME_DRIVER": "0"}


def _in_probe(code: str) -> tuple[Change, ...]:
    return (Change(old=_DOCSTRING, new=_DOCSTRING + code),)


def _without_driver(code: str) -> tuple[Change, ...]:
    return (Change(old=_NO_DRIVER, new=code + _NO_DRIVER),)


MUTANTS = [
    Mutant(
        name="probe_needs_a_tool",
        kills=("B1",),
        changes=_in_probe('    import subprocess\n    subprocess.run(["acme-smi", "-L"], check=True)\n'),
    ),
    Mutant(
        name="probe_hangs_without_tools",
        kills=("B1",),
        changes=_in_probe('    import os, time\n    while not os.environ["PATH"]:\n        time.sleep(1)\n'),
    ),
    Mutant(
        name="probe_crashes_without_tools",
        kills=("B1",),
        changes=_in_probe('    import ctypes, os\n    if not os.environ["PATH"]:\n        ctypes.string_at(0)\n'),
    ),
    Mutant(
        name="probe_takes_too_long",
        kills=("B1",),
        changes=_in_probe('    import os, time\n    if not os.environ["PATH"]:\n        time.sleep(6)\n'),
    ),
    Mutant(
        name="probe_lists_the_home",
        kills=("B1",),
        changes=_in_probe('    import os\n    os.listdir(os.path.expanduser("~"))\n'),
    ),
    Mutant(
        name="probe_needs_the_user",
        kills=("B1",),
        changes=_in_probe('    import os\n    os.environ["USER"]\n'),
        environment={"USER": "somebody"},
    ),
    Mutant(
        name="probe_waits_for_nothing",
        kills=("B1",),
        changes=_in_probe("    import time\n    time.sleep(1.5)\n"),
    ),
    Mutant(
        name="probe_waits_for_a_tool_forever",
        kills=("B1",),
        changes=_in_probe(
            "    import shutil, subprocess\n"
            '    if shutil.which("acme-smi"):\n        subprocess.run(["acme-smi"], capture_output=True)\n'
        ),
    ),
    Mutant(
        name="probe_believes_a_tool",
        kills=("B1",),
        changes=_in_probe(
            "    import shutil, subprocess\n"
            '    if shutil.which("acme-smi"):\n'
            '        subprocess.check_output(["acme-smi"], text=True, timeout=2).splitlines()[0].split(",")[1]\n'
        ),
    ),
    Mutant(
        name="absence_without_a_remedy",
        kills=("B2",),
        changes=(Change(old=_NO_DRIVER, new='        reason = "not available"\n'),),
        environment=_WITHOUT_DRIVER,
    ),
    Mutant(
        name="probe_stumbles_over_a_tool",
        kills=("B1", "B2"),
        changes=_in_probe(
            '    import shutil\n    if shutil.which("sh"):\n        raise ValueError("unknown output")\n'
        ),
    ),
    Mutant(
        name="probe_opens_a_context",
        kills=("B3",),
        changes=(
            *_in_probe('    import os\n    perf_vendor_info.__dict__["owner"] = os.getpid()\n'),
            Change(
                old="    available = _torch_acme().device_count()\n",
                new="""    import os
    if perf_vendor_info.__dict__.get("owner", os.getpid()) != os.getpid():
        raise RuntimeError("the driver cannot be initialized again in a forked process")
    available = _torch_acme().device_count()
""",
            ),
        ),
    ),
    Mutant(
        name="probe_asks_torch_for_cuda",
        kills=("B4",),
        changes=(
            *_without_driver("""        import torch
        if torch.cuda.is_available():
            device = ProbedDevice(index=0, name=_PRODUCT)
            return ProbeResult(available=True, reason="torch has a device", devices=(device,))
"""),
            # Stands in for torch, whose import takes seconds.
            Change(
                file="torch.py",
                new="from types import SimpleNamespace\ncuda = SimpleNamespace(is_available=lambda: False)\n",
                is_installed=False,
            ),
        ),
        environment=_WITHOUT_DRIVER,
    ),
    Mutant(
        name="probe_claims_any_accelerator",
        kills=("B4",),
        changes=_without_driver("""        from chipperf.hardware import find_pci_devices
        cards = [function for function in find_pci_devices() if function.is_display]
        if cards:
            found = tuple(
                ProbedDevice(index=index, name=_PRODUCT, pci_bus_id=card.address) for index, card in enumerate(cards)
            )
            return ProbeResult(available=True, reason="PCI lists display devices", devices=found)
"""),
        environment=_WITHOUT_DRIVER,
    ),
    Mutant(
        name="uuid_made_up",
        kills=("B5",),
        changes=(Change(old="uuid=card.uuid", new='uuid=str(__import__("uuid").uuid4())'),),
    ),
    Mutant(
        name="uuid_of_the_product",
        kills=("B5",),
        changes=(Change(old="uuid=card.uuid", new='uuid="ACME-A1"'),),
    ),
    Mutant(
        name="devices_numbered_from_one",
        kills=("B5",),
        changes=(Change(old="index=card.index", new="index=card.index + 1"),),
    ),
    Mutant(
        name="every_third_probe_finds_nothing",
        kills=("B5",),
        changes=_in_probe(
            "    calls = perf_vendor_info.__dict__\n"
            '    calls["n"] = calls.get("n", 0) + 1\n'
            '    if calls["n"] % 3 == 0:\n'
            '        return ProbeResult(available=False, reason="the acme driver is busy; try again later")\n'
        ),
    ),
    Mutant(
        name="probe_ignores_visible_devices",
        kills=("B6",),
        changes=(
            *_in_probe("    import os\n    choice = os.environ.pop(_VISIBLE_VARIABLE, None)\n"),
            Change(
                old="    if not devices:\n",
                new="    if choice is not None:\n        os.environ[_VISIBLE_VARIABLE] = choice\n    if not devices:\n",
            ),
        ),
    ),
    Mutant(
        name="probe_ignores_visible_order",
        kills=("B6",),
        changes=(
            Change(old=_CARDS, new="        for card in sorted(acme_runtime.cards(), key=lambda card: card.uuid)\n"),
        ),
    ),
    Mutant(
        name="visible_cards_keep_their_numbers",
        kills=("B6",),
        changes=(Change(old="index=card.index", new="index=int(card.uuid[-4:])"),),
    ),
    Mutant(
        name="visible_card_has_the_capacity_of_all",
        kills=("B6",),
        changes=(
            Change(
                old="card.pci_bus_id, total_bytes=card.total_bytes",
                new="card.pci_bus_id, total_bytes=card.total_bytes * 2 // len(acme_runtime.cards())",
            ),
        ),
    ),
    Mutant(
        name="hidden_cards_without_a_remedy",
        kills=("B6",),
        changes=(
            Change(old=' is loaded, but {_VISIBLE_VARIABLE} shows no card; unset it, or list card numbers"', new='"'),
        ),
    ),
    Mutant(
        name="host_claimed_without_a_card",
        kills=("B7",),
        changes=_without_driver("        from chipperf.vendors import cpu\n        return cpu.perf_probe()\n"),
        environment=_WITHOUT_DRIVER,
    ),
    Mutant(
        name="probe_stops_at_a_blank",
        kills=("B6",),
        changes=(
            Change(
                old=_CARDS,
                new='        for card in acme_runtime.cards()[: 1 if " " in _value_of_choice() else None]\n',
            ),
            Change(
                old="@hookimpl\ndef perf_environment",
                new="def _value_of_choice() -> str:\n    import os\n\n"
                '    return os.environ.get(_VISIBLE_VARIABLE, "")\n\n\n@hookimpl\ndef perf_environment',
            ),
        ),
    ),
    Mutant(
        name="index_is_the_number_of_the_board",
        kills=("B6",),
        changes=(Change(old="index=properties.index", new="index=int(properties.uuid[-4:])"),),
    ),
    Mutant(
        name="probe_leaves_out_devices_in_use",
        kills=("D7",),
        changes=(
            Change(
                old=_CARDS,
                new=f"{_CARDS}        if acme_runtime.telemetry(card.uuid).memory_used_bytes < 50 * 2**20\n",
            ),
        ),
    ),
]

"""Kunlunxin's management tool: its recorded outputs, and a fake of it that prints them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fake_machine import FakeMachine

FOLDER = Path(__file__).with_name("fixtures")

P800_BYTES = 103_079_215_104


def recorded(name: str) -> str:
    return (FOLDER / f"{name}.txt").read_text(encoding="utf-8")


def query_of(*devices: tuple[str, str]) -> str:
    """Return ``xpu-smi -q`` of several P800: the recorded one's section for each address and UUID."""
    head, address, section = recorded("xpu-smi-q-p800").partition("XPU 00000000:1C:00.0")
    assert address
    sections = (
        f"XPU {pci_address}{section}".replace("00000000:1C:00.0", pci_address).replace(
            "GPU-00000000-1111-2222-3333-0000000000AB", uuid
        )
        for pci_address, uuid in devices
    )
    return head + "".join(sections)


def add_xpu_smi(machine: FakeMachine, *, busy: Path | None = None, **outputs: str) -> None:
    """Add a tool that answers ``-m``, ``-q``, ``-L`` and no option (``table``) as told, and refuses the rest.

    As long as ``busy`` does not exist, no memory is in use: a number that stands before the total is 0.
    """
    cases = []
    for name, output in outputs.items():
        file = machine.bin / f"{name}.output"
        file.write_text(output, encoding="utf-8")
        option = "''" if name == "table" else f"-{name}"
        cases.append(f"{option}) file={file};;")
    idle = f"[ -e {busy} ] || exec /bin/sed -E 's,[0-9]+ ((/ )?(32768|98304) ),0 \\1,' $file" if busy else ""
    machine.add_tool(
        "xpu-smi",
        script=f"""case "$1" in {" ".join(cases)} *) echo "unknown option $1"; exit 1;; esac
{idle}
/bin/cat $file""",
    )

"""Two "machines": network namespaces that are joined by nothing but a pair of virtual network cards."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


PORT = 29511


@dataclass(frozen=True)
class Machine:
    """A network namespace.

    Attributes:
        namespace: Its name.
        interface: Its network card.
        address: The card's address.
    """

    namespace: str
    interface: str
    address: str

    def command(self, *command: str) -> list[str]:
        """Return the command that runs ``command`` there, in the process itself."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def starts(self, number: int, first: Machine, *command: str) -> list[str]:
        """Return the command that runs ``perf train`` there, as one of two machines."""
        return self.command(*command, "--nnodes", "2", "--node-rank", str(number), "--rdzv", f"{first.address}:{PORT}")

    def pull_the_plug(self) -> None:
        """Let nothing through any more, in either direction, and tell nobody."""
        subprocess.run(self.command("ip", "link", "set", self.interface, "down"), check=True)


@contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Make them.

    Raises:
        PermissionError: That is not possible here.
    """
    if shutil.which("ip") is None:
        raise PermissionError("network namespaces need iproute2")
    tag = f"{os.getpid() % 100000}"
    first, second = (Machine(f"perf{tag}n{n}", f"perf{tag}v{n}", f"10.213.0.{n + 1}") for n in range(2))
    try:
        for machine in (first, second):
            made = subprocess.run(["ip", "netns", "add", machine.namespace], capture_output=True, text=True)
            if made.returncode:
                raise PermissionError(f"network namespaces are not allowed here: {made.stderr.strip()}")
        pair = ["ip", "link", "add", first.interface, "type", "veth", "peer", "name", second.interface]
        joined = subprocess.run(pair, capture_output=True, text=True)
        if joined.returncode:
            raise PermissionError(f"virtual network cards are not allowed here: {joined.stderr.strip()}")
        for machine in (first, second):
            subprocess.run(["ip", "link", "set", machine.interface, "netns", machine.namespace], check=True)
            for change in (
                ["addr", "add", f"{machine.address}/24", "dev", machine.interface],
                ["link", "set", machine.interface, "up"],
                ["link", "set", "lo", "up"],
            ):
                subprocess.run(machine.command("ip", *change), check=True)
        yield first, second
    finally:
        for machine in (first, second):
            subprocess.run(["ip", "netns", "del", machine.namespace], capture_output=True)

"""Facts about the machine and its software, read without torch.

A fact that cannot be read is a :class:`~chipperf.records.schema.Missing`. The user can state it in the configuration
file.
"""

from __future__ import annotations

import os
import platform
from collections import Counter
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path

import psutil

from chipperf.records.schema import CONTAINER_ENGINES, Distribution, Missing

RECORDED_DISTRIBUTIONS = (
    "chipperf",
    "jinja2",
    "numpy",
    "pillow",
    "pluggy",
    "pycocotools",
    "pydantic",
    "scipy",
    "simplejpeg",
    "torch",
    "torchvision",
    "typer",
)
"""Distributions whose versions every record has, in addition to those that start with ``chipperf-``."""

_UNREADABLE = Missing(missing="unknown", reason="the machine does not say")


def read_machine(root: Path = Path("/")) -> str | Missing:
    """Return the machine's model from its firmware tables (SMBIOS as exposed in ``/sys/class/dmi/id``)."""
    folder = root / "sys/class/dmi/id"
    parts = [_read(folder / name) for name in ("sys_vendor", "product_name")]
    return " ".join(part for part in parts if part) or _UNREADABLE


def read_cpu(root: Path = Path("/")) -> str | Missing:
    """Return the processor's model."""
    for line in _read(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return " ".join(value.split())
    return platform.processor() or platform.machine() or _UNREADABLE


def read_os() -> str | Missing:
    """Return the distribution's name and version from ``os-release``."""
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME") or _UNREADABLE
    except OSError:
        return platform.platform(terse=True) or _UNREADABLE


def read_container(root: Path = Path("/")) -> str | Missing:
    """Return the container engine that this process runs in. The image cannot be detected from inside."""
    for engine, mark in CONTAINER_ENGINES.items():
        if (root / mark).exists():
            return engine
    declared = os.environ.get("container")  # noqa: SIM112 - systemd's convention
    return declared or Missing(missing="not_applicable", reason="not in a container")


def read_network(root: Path = Path("/")) -> str | Missing:
    """Return the active InfiniBand or RoCE ports with their rates, or else the fastest Ethernet link."""
    ports = Counter(_read_port(path) for path in (root / "sys/class/infiniband").glob("*/ports/*"))
    del ports[""]
    if ports:
        return " + ".join(f"{count}x {port}" for port, count in sorted(ports.items()))
    # Only hardware has a device. Bridges and the ends of a container's link state meaningless speeds.
    texts = [_read(path.with_name("speed")) for path in (root / "sys/class/net").glob("*/device")]
    speeds_mbit = [int(text) for text in texts if text.isdigit()]
    return f"Ethernet, {max(speeds_mbit) / 1000:g} Gb/s" if speeds_mbit else _UNREADABLE


def read_memory_bytes() -> int:
    """Return the machine's memory."""
    return psutil.virtual_memory().total


def read_cores() -> int | Missing:
    """Return the machine's physical cores."""
    return psutil.cpu_count(logical=False) or _UNREADABLE


def read_distributions() -> list[Distribution]:
    """Return the versions of the distributions that take part in a run."""
    found: dict[str, str] = {}
    for distribution in distributions():
        # The metadata of others may be broken in any way.
        with suppress(Exception):
            name = (distribution.metadata["Name"] or "").lower()
            if name in RECORDED_DISTRIBUTIONS or name.startswith("chipperf-"):
                found.setdefault(name, distribution.version)
    return [Distribution(name=name, version=version) for name, version in sorted(found.items())]


def _read_port(port: Path) -> str:
    """Return the fabric and rate of an RDMA port, or an empty string if it has no link."""
    rate = _read(port / "rate")
    if not rate or "ACTIVE" not in _read(port / "state"):
        return ""
    fabric = "RoCE" if _read(port / "link_layer") == "Ethernet" else "InfiniBand"
    return f"{fabric} {rate}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""

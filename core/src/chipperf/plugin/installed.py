"""The installed plugins: listing them, finding one by name, and importing it.

Listing and finding read only the metadata of entry points and import no plugin.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import EntryPoint, distribution, distributions
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Final

from chipperf.errors import PluginLoadError, VendorSelectionError, did_you_mean

VENDOR_GROUP: Final = "chipperf.vendors"
OBSERVER_GROUP: Final = "chipperf.observers"
CORE_PACKAGE: Final = "chipperf"
"""Name of core's package and of its distribution."""

VENDOR_VARIABLE: Final = "PERF_VENDOR"
"""Environment variable with the vendor's name, used if no option gives one."""

REFERENCE_VENDOR: Final = "cpu"
"""Name of the reference that vendors are compared with. It runs only by name; ``auto`` never chooses it."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginEntry:
    """An installed entry point ``name = value``, with the distribution that provides it: ``value`` is the module."""

    group: str
    name: str
    value: str
    distribution: str
    version: str

    @property
    def source(self) -> str:
        """Distribution and version for error messages."""
        return f"{self.distribution} {self.version}"

    def __str__(self) -> str:
        return f"{self.group.rpartition('.')[2].removesuffix('s')} {self.name!r} ({self.source})"


def vendors() -> tuple[PluginEntry, ...]:
    """Return the installed vendors, ordered by name. A name from two distributions appears twice."""
    return entries(VENDOR_GROUP)


def observers() -> tuple[PluginEntry, ...]:
    """Return the installed observers, ordered by name."""
    return entries(OBSERVER_GROUP)


def find_vendor(name: str) -> PluginEntry:
    """Return the installed vendor ``name``; none or several are a :class:`VendorSelectionError`. Imports nothing."""
    installed = vendors()
    candidates = [entry for entry in installed if entry.name == name]
    if not candidates:
        names = sorted({entry.name for entry in installed})
        raise VendorSelectionError(
            f"no vendor is called {name!r}{did_you_mean(name, names)}; installed: {', '.join(names) or 'none'}",
            hint=f"install the vendor's plugin, or choose another one with --vendor or {VENDOR_VARIABLE}",
        )
    if len(candidates) > 1:
        raise ambiguous_vendor(candidates)
    return candidates[0]


def load_object(entry: PluginEntry) -> object:
    """Import what an entry point names; a :class:`PluginLoadError` says why it fails."""
    remedy = f"repair it with 'pip install --force-reinstall {entry.distribution}', or 'pip uninstall' it"
    try:
        return EntryPoint(entry.name, entry.value, entry.group).load()
    # SystemExit too: a module that exits on import must not end the program without a message.
    except (Exception, SystemExit) as error:
        raise PluginLoadError(
            f"{entry}: importing {entry.value!r} failed: {type(error).__name__}: {error}", hint=remedy
        ) from error


def load(entry: PluginEntry) -> ModuleType:
    """Import the plugin's module; a :class:`PluginLoadError` says why it fails or is none."""
    module = load_object(entry)
    if not isinstance(module, ModuleType):
        raise PluginLoadError(
            f"{entry}: entry point {entry.value!r} names a {type(module).__name__}, not a module",
            hint=f"write '{entry.name} = \"{entry.value.partition(':')[0]}\"' in the plugin's pyproject.toml",
        )
    return module


def normal_name(distribution_name: str) -> str:
    """Return the normalized name of a distribution (PEP 503), which is equal for all spellings that pip accepts."""
    return re.sub(r"[-_.]+", "-", distribution_name).lower()


def package_directory(entry: PluginEntry) -> Path | None:
    """Return the directory of the plugin's top-level package, or of the package of a module of core; imports nothing.

    ``None`` means that the package does not exist, or that the plugin is a module without a package.
    """
    parts = entry.value.partition(":")[0].split(".")
    package = ".".join(parts[:-1]) if parts[0] == CORE_PACKAGE else parts[0]
    spec = find_spec(package)
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))) if locations else None


def ambiguous_vendor(entries: list[PluginEntry]) -> VendorSelectionError:
    """Return the error for a vendor that several distributions provide. The message names them."""
    sources = " and ".join(f"{entry.source} ({entry.value})" for entry in entries)
    return VendorSelectionError(
        f"vendor {entries[0].name!r} is provided more than once: by {sources}",
        hint="uninstall all but one of them with 'pip uninstall'",
    )


def entries(group: str = "") -> tuple[PluginEntry, ...]:
    """Return the entry points of a group, ordered by name; without one, of all groups that are named after core."""
    found: list[PluginEntry] = []
    for name in _providers():
        # The same distribution may be on sys.path twice; distribution() returns the first, as an import would.
        try:
            provider = distribution(name)
            points = [point for point in provider.entry_points if point.group.startswith(CORE_PACKAGE)]
            # Each access reads and parses the file.
            metadata = provider.metadata
            source = {"distribution": metadata["Name"], "version": metadata["Version"]}
        except Exception as error:
            logger.warning("the entry points of %s are ignored: %s: %s", name, type(error).__name__, error)
            continue
        found += [PluginEntry(group=point.group, name=point.name, value=point.value, **source) for point in points]
    wanted = [entry for entry in found if group in ("", entry.group)]
    return tuple(sorted(wanted, key=lambda entry: (entry.name, entry.distribution)))


def unreadable_distributions() -> list[str]:
    """Return the paths of the distributions whose entry points cannot be read."""
    broken = []
    for provider in distributions():
        try:
            _ = provider.entry_points
        except Exception:
            # Its name may be unreadable too.
            broken.append(str(getattr(provider, "_path", provider.locate_file(""))))
    return broken


def _providers() -> set[str]:
    """Return the names of the distributions that mention a group of chipperf. All others may be broken in any way."""
    names = set()
    for provider in distributions():
        with suppress(Exception):
            try:
                text = provider.read_text("entry_points.txt") or ""
            except UnicodeDecodeError as error:
                text = error.object.decode(errors="replace")
            # Parse only metadata that mentions the group, because parsing is slow.
            if f"[{CORE_PACKAGE}" in text:
                names.add(normal_name(provider.metadata["Name"]))
    return names

"""The requirements and files of a plugin's distribution, read from its metadata.

The functions do not import the plugin. They work for installed wheels and for editable installations.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from chipperf.plugin.installed import normal_name

_REQUIREMENT: Final = re.compile(r"\s*(?P<name>[\w.-]+)\s*(\[[^\]]*\])?\s*(?P<rest>[^;]*)(;(?P<marker>.*))?")
_LOWER: Final = re.compile(r"(>=|>|==|~=)\s*\d")
_UPPER: Final = re.compile(r"(<=|<(?!=)|==|~=)\s*\d")
_LICENCE: Final = re.compile(r"(licen[cs]e|copying)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """A distribution that another one requires.

    Attributes:
        name: Its name, in the form of :func:`~chipperf.plugin.installed.normal_name`.
        has_lower_bound: True if the requirement excludes older versions.
        has_upper_bound: True if the requirement excludes later versions.
        optional: True if only an extra requires it.
    """

    name: str
    has_lower_bound: bool
    has_upper_bound: bool
    optional: bool


def requirements(of: Distribution) -> tuple[Requirement, ...]:
    """Return the requirements of a distribution."""
    found = []
    for text in of.requires or ():
        match = _REQUIREMENT.match(text)
        if match:
            found.append(
                Requirement(
                    name=normal_name(match["name"]),
                    has_lower_bound=_LOWER.search(match["rest"]) is not None,
                    has_upper_bound=_UPPER.search(match["rest"]) is not None,
                    optional="extra" in (match["marker"] or ""),
                )
            )
    return tuple(found)


def importable_names(of: Distribution) -> set[str]:
    """Return the top-level modules and packages of a distribution and of everything it requires."""
    names: set[str] = set()
    pending, seen = [of], {normal_name(of.metadata["Name"])}
    while pending:
        current = pending.pop()
        names |= _top_level_names(current)
        for requirement in requirements(current):
            if not requirement.optional and requirement.name not in seen:
                seen.add(requirement.name)
                try:
                    pending.append(distribution(requirement.name))
                except PackageNotFoundError:
                    # This platform or version of Python does not need it.
                    continue
    return names


def license_files(of: Distribution) -> list[Path] | None:
    """Return the license files of a distribution; ``None`` if its installation does not list its files (no RECORD)."""
    if of.files is None:
        return None
    metadata = [file for file in of.files if file.parts[0].endswith(".dist-info")]
    candidates = [Path(str(of.locate_file(file))) for file in metadata if _LICENCE.match(file.name)]
    return [path for path in candidates if path.is_file()]


def _top_level_names(of: Distribution) -> set[str]:
    names = set((of.read_text("top_level.txt") or "").split())
    for file in of.files or ():
        first = file.parts[0]
        if first.endswith(".pth"):
            names |= _names_beside(Path(str(of.locate_file(file))))
        elif not first.startswith(("..", "__pycache__")) and not first.endswith((".dist-info", ".data")):
            names.add(first.partition(".")[0])
    return names or {of.metadata["Name"].replace("-", "_")}


def _names_beside(path_file: Path) -> set[str]:
    """Return the names in the directories that an editable installation adds to the path."""
    lines = path_file.read_text(encoding="utf-8").splitlines() if path_file.is_file() else []
    directories = [Path(line) for line in lines if line and not line.startswith(("import ", "#"))]
    return {entry.name.partition(".")[0] for each in directories if each.is_dir() for entry in each.iterdir()}

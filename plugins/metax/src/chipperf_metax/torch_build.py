"""Which torch is installed: MetaX's builds carry MACA's version behind a plus sign."""

from __future__ import annotations

import re

from chipperf.hardware import distribution_version

# "2.0.0+mc2.18.0.8", and "2.8.0+metax3.5.3.9" since 2025.
_MACA_BUILD = re.compile(r"\+(?:metax|mc)(\d[\d.]*)")


def built_with_maca(torch_version: str) -> str | None:
    """Return the version of MACA that a torch was built with, or ``None`` if it is no build of MetaX's."""
    match = _MACA_BUILD.search(torch_version)
    return match[1].rstrip(".") if match else None


def describe_torch_build() -> str:
    """Say whether the installed torch is MetaX's, from the metadata of its distribution."""
    version = distribution_version("torch")
    if version is None:
        return "torch is not installed here: install MetaX's build to train"
    if built_with_maca(version):
        return f"torch {version}"
    return f"torch {version} is not a MetaX build (+metax or +mc): install MetaX's to train"

"""Versions of Kunlunxin's software, in the forms in which its releases state them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chipperf.hardware import distribution_version


@dataclass(frozen=True, slots=True, kw_only=True)
class StackVersions:
    """Versions of the parts of the stack; ``None`` is unknown."""

    framework: str | None = None
    compiler: str | None = None
    sdk: str | None = None
    collectives: str | None = None


def read_stack_versions(stated: object) -> StackVersions:
    """Read ``torch_xmlir.__version__``.

    Args:
        stated: In XPyTorch a mapping from parts to versions, in the R300's stack a string; ``None`` if missing.
    """
    if isinstance(stated, Mapping):
        parts = {str(part): str(version) for part, version in stated.items() if version}
        return StackVersions(
            framework=_named("XPyTorch", parts.get("XPYTORCH")),
            compiler=_named("XTDK", parts.get("XTDK")),
            sdk=_named("XRE", parts.get("XRE")),
            collectives=_named("XCCL", parts.get("XCCL")),
        )
    return StackVersions(
        framework=_named("xmlir", str(stated) if stated else distribution_version("xmlir")),
        compiler=_named("xacc", distribution_version("xacc")),
    )


def _named(name: str, version: str | None) -> str | None:
    return f"{name} {version}" if version else None

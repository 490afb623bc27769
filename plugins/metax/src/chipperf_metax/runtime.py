"""Versions of MetaX's stack: driver, SDK, torch and collectives."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf import PluginError, RuntimeInfo, hookimpl
from chipperf.hardware import call_bounded, read_text

from chipperf_metax.mx_smi import Query, ask
from chipperf_metax.mx_smi_reports import Report, parse_log, parse_table
from chipperf_metax.mxsml import open_library
from chipperf_metax.probe import built_with_maca
from chipperf_metax.run_settings import default_knobs, environment_knobs

if TYPE_CHECKING:
    from collections.abc import Iterator

_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledVersions:
    """What is installed on the machine; ``None`` is unknown.

    Attributes:
        driver: The kernel-mode driver (KMD), not the tool, which has a version of its own.
        maca: The SDK.
    """

    driver: str | None
    maca: str | None


@hookimpl
def perf_load_runtime() -> RuntimeInfo:
    """Import torch and make sure that it is MetaX's.

    Raises:
        PluginError: It is somebody else's build, which would drive other devices under the same name ``cuda``.
    """
    import torch

    built_with = getattr(torch.version, "maca", None) or built_with_maca(torch.__version__)
    if built_with is None:
        raise PluginError(
            f"torch {torch.__version__} is not a MetaX build",
            hint="install MetaX's torch (+metax or +mc) from its own image or site",
        )
    installed = installed_versions()
    sdk = "MACA" if installed.maca is None else f"MACA {installed.maca}"
    return RuntimeInfo(
        torch=str(torch.__version__),
        driver=installed.driver,
        # The two differ on machines that work, so that a difference is a fact and not a fault.
        sdk=f"{sdk} (torch built with {built_with})",
        collectives=_describe_collectives(),
        framework=f"pytorch-{torch.__version__}",
        knobs=(*default_knobs(), *environment_knobs()),
    )


def installed_versions(root: Path = Path("/")) -> InstalledVersions:
    """Ask the library, then the tool, then the kernel.

    Args:
        root: Directory that holds ``sys``.
    """
    driver = maca = None
    for report in _reports():
        driver, maca = driver or report.driver_version, maca or report.maca_version
        if driver and maca:
            break
    return InstalledVersions(driver=driver or read_text(root / "sys/module/metax/version"), maca=maca)


def _reports() -> Iterator[Report]:
    library = open_library()
    if library:
        with suppress(TimeoutError):
            yield call_bounded(library.report, timeout_s=_TIMEOUT_S)
    for query, parse in ((Query.VERSION, parse_log), (Query.TABLE, parse_table)):
        output = ask(query, timeout_s=_TIMEOUT_S)
        if output.problem is None:
            yield parse(output.stdout)


def _describe_collectives() -> str | None:
    """Name MCCL, which torch knows as nccl, with the version of NCCL's interface that it offers."""
    import torch

    if not (torch.distributed.is_available() and torch.distributed.is_nccl_available()):
        return None
    version: tuple[int, ...] = torch.cuda.nccl.version()
    return f"MCCL (nccl interface {'.'.join(map(str, version))})"

"""Versions of MetaX's stack: driver, SDK, torch and collectives."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf import PluginError, RuntimeInfo, hookimpl
from chipperf.hardware import DeviceReport, call_bounded, read_text

from chipperf_metax.mx_smi import Query, ask, parse_log, parse_table
from chipperf_metax.probe import built_with_maca
from chipperf_metax.run_settings import default_knobs, environment_knobs
from chipperf_metax.telemetry import open_library

if TYPE_CHECKING:
    from collections.abc import Iterator

_TIMEOUT_S = 5.0


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
    driver, maca = installed_versions()
    sdk = "MACA" if maca is None else f"MACA {maca}"
    return RuntimeInfo(
        torch=str(torch.__version__),
        driver=driver,
        # The two differ on machines that work, so that a difference is a fact and not a fault.
        sdk=f"{sdk} (torch built with {built_with})",
        collectives=_describe_collectives(),
        framework=f"pytorch-{torch.__version__}",
        knobs=(*default_knobs(), *environment_knobs()),
    )


def installed_versions(root: Path = Path("/")) -> tuple[str | None, str | None]:
    """Return the versions of the kernel-mode driver and of MACA: by the library, then the tool, then the kernel.

    Args:
        root: Directory that holds ``sys``.
    """
    driver = maca = None
    for report in _reports():
        driver, maca = driver or report.driver_version, maca or report.sdk_version
        if driver and maca:
            break
    return driver or read_text(root / "sys/module/metax/version"), maca


def _reports() -> Iterator[DeviceReport]:
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

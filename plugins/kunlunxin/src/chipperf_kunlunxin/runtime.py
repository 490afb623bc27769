"""Imports Kunlunxin's torch extension and reads the versions of what is then loaded."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from chipperf import PluginError, RuntimeInfo

from chipperf_kunlunxin import machine
from chipperf_kunlunxin.collectives import uses_flagcx
from chipperf_kunlunxin.variables import hazards_in_force, variables_in_force
from chipperf_kunlunxin.versions import read_stack_versions
from chipperf_kunlunxin.xpu_smi import query_devices

if TYPE_CHECKING:
    from collections.abc import Callable

    from chipperf import Knob

logger = logging.getLogger(__name__)


def torch_xmlir() -> Any:
    """Return Kunlunxin's torch extension, imported; it has no types.

    Raises:
        PluginError: It cannot be imported.
    """
    return _import("torch_xmlir", "install Kunlunxin's own build of torch: upstream torch has no Kunlunxin devices")


def load_runtime(
    *, default_backend: str, collectives: str | None = None, knobs: Callable[[], tuple[Knob, ...]] = tuple
) -> RuntimeInfo:
    """Import torch, the extension and the collective backend's module, and warn of variables that do harm.

    Args:
        default_backend: The profile's backend.
        collectives: The profile's collective library, where the stack does not state it.
        knobs: Returns the profile's own knobs, once torch is imported.

    Raises:
        PluginError: A module cannot be imported.
    """
    for hazard in hazards_in_force():
        logger.warning("%s", hazard)
    import torch

    extension = torch_xmlir()
    if uses_flagcx(default_backend):
        _import("flagcx", "install FlagCX, or choose another backend")
    versions = read_stack_versions(getattr(extension, "__version__", None))
    driver = machine.read_driver_version(machine.MACHINE_ROOT) or query_devices(timeout_s=2.0).driver_version
    return RuntimeInfo(
        torch=torch.__version__,
        driver=driver,
        sdk=versions.sdk,
        collectives=versions.collectives or collectives,
        framework=versions.framework,
        compiler=versions.compiler,
        knobs=(*variables_in_force(), *knobs()),
    )


def _import(name: str, remedy: str) -> Any:
    try:
        return importlib.import_module(name)
    # Whatever the vendor's module raises while it is imported, the run cannot go on.
    except Exception as error:
        raise PluginError(f"{name} cannot be imported: {type(error).__name__}: {error}", hint=remedy) from error

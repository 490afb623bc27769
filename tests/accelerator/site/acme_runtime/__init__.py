"""SIMULATED vendor software of the Acme A1, an accelerator that does not exist; for tests only.

It stands for what a vendor installs beside torch: a management library (:mod:`acme_runtime.management`, without torch),
a torch backend (:mod:`acme_runtime.backend`) and a collective library (:mod:`acme_runtime.collectives`).
"""

from __future__ import annotations

from acme_runtime.management import (
    VISIBLE_VARIABLE,
    Card,
    CardNotFound,
    Telemetry,
    cards,
    driver_version,
    telemetry,
)

__all__ = [
    "SDK_VERSION",
    "VISIBLE_VARIABLE",
    "Card",
    "CardNotFound",
    "Telemetry",
    "cards",
    "driver_version",
    "load",
    "telemetry",
]

SDK_VERSION = "2.1.0"

_loaded = False


def load() -> None:
    """Import torch and give it the device type ``acme`` and the collective backend ``accl``; later calls do nothing.

    The compiled backend is the file that ``ACME_LIBRARY`` names.

    Raises:
        RuntimeError: ``ACME_LIBRARY`` names no file.
    """
    global _loaded
    if _loaded:
        return
    from acme_runtime import backend, collectives

    backend.register()
    collectives.register()
    _loaded = True

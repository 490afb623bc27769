"""Exceptions of chipperf, and helpers for their messages."""

from __future__ import annotations

import difflib
import re
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pydantic import ValidationError


DOCUMENTATION = "https://github.com/chipperf/chipperf/blob/main/docs"
"""Address of the directory of the documentation."""


class PerfError(Exception):
    """Base class of all errors that are shown to the user: what happened to whom or where, and as a hint what to do.

    A hint that names a page, such as ``docs/lint.md``, gets the page's address: who installed a wheel has no ``docs``.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint and with_addresses(hint)


class UsageError(PerfError):
    """The command line or one of its values cannot be used."""

    exit_code = 2


class ConfigError(UsageError):
    """A hyperparameter or configuration file is unknown, locked or of the wrong type."""


class PluginError(PerfError):
    """A plugin, or the environment that it needs, has a fault."""

    exit_code = 3


class PluginLoadError(PluginError):
    """A plugin cannot be imported or does not fulfill the hook specification."""


class VendorSelectionError(PluginError):
    """No vendor, or more than one, matches the request."""


class VendorHookError(PluginError):
    """A vendor's hook raised an exception or returned a value of the wrong type."""


class UnsupportedPrecision(PluginError):
    """A vendor cannot run the requested precision."""


class DeviceError(PluginError):
    """A device is missing, out of range or unusable."""


class DataError(PerfError):
    """A dataset directory or one of its files cannot be used."""


class RecordError(PerfError):
    """A run's record cannot be read or written."""


class MissingDataset(DataError, UsageError):
    """The directory of a dataset does not exist, or is none."""


class UnusableRecord(RecordError, UsageError):
    """A record or another file of a run, which the user named, does not exist or cannot be understood."""


class DocumentError(UsageError):
    """A document or log cannot be read, or has no content that chipperf understands."""


class TrainingError(PerfError):
    """Training failed; the record stores ``failure_class``, a stable name such as ``non_finite_loss``."""

    def __init__(self, message: str, *, failure_class: str = "error", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.failure_class = failure_class


class TrainingStopped(BaseException):
    """A signal told this training process to stop; code that handles errors of plugins or data does not catch it.

    ``raised_s`` is its time on the machine's monotonic clock, which tells whether the launcher sent the signal.
    """

    def __init__(self) -> None:
        super().__init__()
        self.raised_s = time.monotonic()


class CheckFailed(PerfError):
    """A check (contract, lint or dataset) found faults."""

    exit_code = 4


class Undecided(PerfError):
    """A check ran, and what was measured does not decide it."""

    exit_code = 5


_VERY_NEAR = 0.8

_PAGE = re.compile(r"(?<![\w/])docs/([\w-]+\.(?:md|json))")


def with_addresses(text: str) -> str:
    """Return a text with the addresses of the pages of the documentation that it names."""
    return _PAGE.sub(rf"{DOCUMENTATION}/\1", text)


def did_you_mean(name: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """Return `` (did you mean 'x'?)`` for the known name nearest to ``name``, or an empty string if none is near.

    People rarely mistype the first letter of a name: a name with another one has to be very near, because a device
    ``xpu`` is not a ``cpu``.
    """
    for nearest in difflib.get_close_matches(name, sorted(known), n=3, cutoff=likeness):
        ratio = difflib.SequenceMatcher(None, nearest, name).ratio()
        if nearest[:1] == name[:1] or ratio >= _VERY_NEAR:
            return f" (did you mean {nearest!r}?)"
    return ""


def first_fault(error: ValidationError) -> str:
    """Return the first fault with its place, for example ``status.state: Field required``."""
    return f"{first_place(error)}: {error.errors(include_url=False, include_input=False)[0]['msg']}"


def first_place(error: ValidationError) -> str:
    """Return the place of the first fault: keys and indices joined by dots, or ``top level``."""
    steps = error.errors(include_url=False, include_input=False)[0]["loc"]
    return ".".join(map(str, steps)) or "top level"


def distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; the ``object_pairs_hook`` of :func:`json.loads`. A key twice is a :class:`ValueError`."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice in an object")
    return content


_TORCH_HINTS = {
    "torch": "a vendor's image has the vendor's own build; elsewhere: pip install 'chipperf[train]'",
    "torchvision": "install the one that the vendor built, or 'pip install --no-deps torchvision==VERSION' with the "
    "version made for this torch: without --no-deps, pip may replace torch",
}
_OTHER_TRAIN_MODULES = ("PIL", "numpy", "pycocotools", "scipy", "simplejpeg")


def missing_package(error: ModuleNotFoundError) -> PluginError | None:
    """Return the error for a package that training needs, or ``None`` for another one. No hint may replace torch."""
    module = error.name or ""
    hint = _TORCH_HINTS.get(module)
    if module in _OTHER_TRAIN_MODULES:
        beside_torch = "pip install 'chipperf[train-notorch]', which leaves torch as it is"
        hint = beside_torch if find_spec("torch") else _TORCH_HINTS["torch"]
    return PluginError(f"{module} is not installed", hint=hint) if hint else None

"""Commands that start programs of chipperf with this interpreter, and how programs end."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_WITHOUT_DIRECTORY = "import runpy, sys; sys.path.remove(''); runpy.run_module({!r}, None, '__main__', True)"


def program(module: str) -> list[str]:
    """Return the command that runs a module as a program.

    The program never imports from the current directory: a user's ``torch/`` or ``statistics.py`` there is not torch.
    """
    if sys.version_info >= (3, 11):
        return [sys.executable, "-P", "-m", module]
    return [sys.executable, "-c", _WITHOUT_DIRECTORY.format(module)]


def is_program(command: Sequence[str], module: str) -> bool:
    """Return whether this is a command of :func:`program`, with the path of any interpreter."""
    options = program(module)[1:]
    return list(command[1 : len(options) + 1]) == options


def describe_exit(code: int) -> str:
    """Return how a program ended as text, empty for code 0; a negative code is the signal that killed it."""
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"exited with code {code}" if code else ""

"""Following a page from its first command to its last, as a reader would, but without the network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from plugin_environment import inheriting_variables

if TYPE_CHECKING:
    from pathlib import Path


def echoed(commands: str) -> list[str]:
    """Return lines of a script that print every command before its output."""
    return [f"echo {'$ ' + command!r}\n{command}" for command in commands.splitlines()]


def follow(script: str, directory: Path, settings: Path) -> dict[str, str]:
    """Run a script and return what each echoed command printed; every one must succeed."""
    variables = {
        **inheriting_variables(settings),
        # The interpreter beside which everything is installed that the packages require.
        "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        # Most of what is installed is never imported.
        "PIP_NO_COMPILE": "1",
        # pip reads this one the wrong way round: 0 means that there is no isolation.
        "PIP_NO_BUILD_ISOLATION": "0",
        "COLUMNS": "160",
    }
    completed = subprocess.run(["bash", "-c", script], cwd=directory, env=variables, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return dict(re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", completed.stdout, re.MULTILINE))

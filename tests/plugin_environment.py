"""A virtual environment into which a plugin is installed as its author would, without the network."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

INHERIT = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
"""Makes what is installed beside the tests importable, after an environment's own packages."""


def inheriting_variables(directory: Path) -> dict[str, str]:
    """Return variables under which every interpreter also finds the packages that are installed beside the tests.

    Args:
        directory: Where to write the module that makes it so.
    """
    (directory / "sitecustomize.py").write_text(INHERIT, encoding="utf-8")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PERF_", "PIP_", "PYTHON"))}
    return {**inherited, "PYTHONPATH": str(directory), "OMP_NUM_THREADS": "1"}


class PluginEnvironment:
    """An environment with the packages that are installed beside the tests, and with plugins of its own.

    Args:
        root: Directory to make it in; must be new.
    """

    def __init__(self, root: Path) -> None:
        venv.create(root / "venv")
        self._python = root / "venv" / "bin" / "python"
        self._variables = inheriting_variables(root)

    def install(self, project: Path, *options: str) -> None:
        """Install a project as it is, for what it requires is there."""
        offline = ("--quiet", "--no-compile", "--no-index", "--no-build-isolation")
        installed = self.run("pip", "install", *offline, *options, str(project))
        assert installed.returncode == 0, installed.stdout + installed.stderr

    def run(self, module: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a module of the environment as a program."""
        command = [str(self._python), "-m", module, *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=self._variables, cwd=cwd)

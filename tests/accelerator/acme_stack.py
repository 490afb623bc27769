"""Lays the simulated accelerator's software out as pip would, for the processes that tests start."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from acme_build import library

RUNTIME_SITE = Path(__file__).with_name("site")
PLUGIN_PROJECT = Path(__file__).with_name("plugin")
PLUGIN_SOURCE = PLUGIN_PROJECT / "src/chipperf_acme/plugin.py"

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


def install_plugin(site: Path) -> Path:
    """Put the good plugin, with its metadata, into a directory that will be on ``PYTHONPATH``.

    Returns:
        The module that holds the hooks, which a test may change.
    """
    project = tomllib.loads((PLUGIN_PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    package = site / "chipperf_acme"
    shutil.copytree(PLUGIN_SOURCE.parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    folder = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    (folder / "licenses").mkdir(parents=True)
    shutil.copy(PLUGIN_PROJECT / "LICENSE", folder / "licenses" / "LICENSE")
    (folder / "METADATA").write_text(_metadata(project), encoding="utf-8")
    (folder / "entry_points.txt").write_text(_entry_points(project), encoding="utf-8")
    files = sorted(path for root in (package, folder) for path in root.rglob("*") if path.is_file())
    record = "".join(f"{path.relative_to(site).as_posix()},,\n" for path in files)
    (folder / "RECORD").write_text(record, encoding="utf-8")
    return package / PLUGIN_SOURCE.name


def environment(site: Path, **changes: str) -> dict[str, str]:
    """Return the variables of a process that has the plugin from ``site``, the runtime, and two visible cards.

    Args:
        site: A directory that :func:`install_plugin` has filled.
        changes: Variables to add or replace.

    Raises:
        acme_build.CompilerMissing: The accelerator cannot be built here.
    """
    inherited = filter(None, [os.environ.get("PYTHONPATH")])
    variables = {
        "ACME_DRIVER": "1",
        "ACME_LIBRARY": str(library()),
        "ACME_STATE": str(site / "acme_state"),
        "OMP_NUM_THREADS": "1",
        "PERF_SIMULATED_STACK": "acme",
        "PYTHONPATH": os.pathsep.join([str(site), str(RUNTIME_SITE), *inherited]),
    }
    # Pytest tells in a variable which test runs: processes with this environment could not serve two tests.
    foreign = ("ACME_", "PERF_", "PYTEST_CURRENT_TEST")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, **variables, **changes}


def _metadata(project: dict[str, Any]) -> str:
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {project['name']}",
        f"Version: {project['version']}",
        f"Summary: {project['description']}",
        f"License-Expression: {project['license']}",
        "License-File: LICENSE",
        f"Requires-Python: {project['requires-python']}",
        *(f"Requires-Dist: {requirement}" for requirement in project["dependencies"]),
    ]
    return "\n".join(lines) + "\n"


def _entry_points(project: dict[str, Any]) -> str:
    groups = project["entry-points"].items()
    return "".join(f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in points.items()) for group, points in groups)

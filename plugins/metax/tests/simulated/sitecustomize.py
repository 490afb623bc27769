"""FAKE: shows the MetaX plugin a fake machine and puts its device on the CPU.

Python imports this when it starts with this folder on its path. ``FAKE_METAX_ROOT`` is a directory that stands for the
machine's file system. What a run in such a process records is no measurement of any GPU.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec


class AfterImport(MetaPathFinder):
    """Changes a module right after it was imported for the first time."""

    def __init__(self, name: str, change: Callable[[Any], None]) -> None:
        self.name = name
        self.change = change

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        loader: Any = spec.loader if spec else None
        if loader is None:
            return None
        execute = loader.exec_module

        def execute_and_change(module: Any) -> None:
            execute(module)
            self.change(module)

        loader.exec_module = execute_and_change
        return spec


def show_fake_machine(plugin: Any) -> None:
    plugin.probe = functools.partial(plugin.probe, Path(os.environ["FAKE_METAX_ROOT"]))


def make_maca_build(torch: Any) -> None:
    import fake_maca

    fake_maca.put_on_the_cpu(torch)


sys.meta_path.insert(0, AfterImport("chipperf_metax.plugin", show_fake_machine))
sys.meta_path.insert(0, AfterImport("torch", make_maca_build))

"""torch's compiler, ``torch._dynamo``, imported by a rank when something is compiled.

With sympy and triton it is 900 modules, a third of the processor time before the first step. Most ranks compile
nothing, and would import it nevertheless, for the sake of (torch 2.1 to 2.14):

* ``torch/_compile.py``, which keeps some functions of optimizers from being compiled when they are first called;
* ``torch/optim/optimizer.py``, which calls ``graph_break`` in every step; outside of compiled code it does nothing;
* ``torchvision/ops/roi_align.py``, which all models of torchvision import, and which takes one function from it;
* ``torch/nn/parallel/distributed.py``, which asks for a setting: whether its gradients are to be reduced in Python.

:func:`defer_compiler` answers these, as far as their private names are still the same. Whatever else is asked of
``torch._dynamo`` or imported from it, by ``torch.compile``, a vendor's plugin or another version of torch, imports it
as it is, and what was answered before is taken back.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

_COMPILER = "torch._dynamo"
_UTILS = f"{_COMPILER}.utils"
_KEPT_ANSWER = "__dynamo_disable"
"""Attribute in which ``torch/_compile.py`` keeps the answer for a function since torch 2.6; before, it asks again."""


def defer_compiler() -> None:
    """Let ``torch._dynamo`` be imported when it is needed, unless it has been imported, or is not there."""
    spec = PathFinder.find_spec(_COMPILER, torch.__path__)
    utils = PathFinder.find_spec(_UTILS, spec.submodule_search_locations) if spec else None
    if spec and utils and _COMPILER not in sys.modules:
        _DeferredImport(spec, utils)


class _Deferred(ModuleType):
    """A module with some ``answers``, until more is asked of it; then it has the attributes of the imported module."""

    def __init__(self, spec: ModuleSpec, imported: Callable[[str], ModuleType], answers: dict[str, Any]) -> None:
        super().__init__(spec.name)
        # The inspect module looks at the files of all modules. In the path nothing is found but by _DeferredImport.
        vars(self).update(__spec__=spec, __loader__=spec.loader, __file__=spec.origin, __path__=[])
        vars(self).update(_imported=imported, **answers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._imported(self.__name__), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._imported(self.__name__), name, value)


class _DeferredImport(MetaPathFinder):
    """The answers in place of ``torch._dynamo``, and its import, which the import of a submodule begins, too."""

    def __init__(self, spec: ModuleSpec, utils: ModuleSpec) -> None:
        self._uncompiled: list[Any] = []
        of_utils = {"get_optimize_ddp_mode": _ddp_mode, "is_compile_supported": self._is_compile_supported}
        answered = _Deferred(utils, self.module, of_utils)
        answers = {"graph_break": _graph_break, "disable": self._disable, "utils": answered}
        vars(torch)["_dynamo"] = sys.modules[_COMPILER] = _Deferred(spec, self.module, answers)
        sys.modules[_UTILS] = answered
        sys.meta_path.insert(0, self)

    def module(self, name: str) -> ModuleType:
        """Return ``torch._dynamo`` or a submodule, imported as it is."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            del sys.modules[_COMPILER], sys.modules[_UTILS], vars(torch)["_dynamo"]
            for function in self._uncompiled:
                vars(function).pop(_KEPT_ANSWER, None)
            importlib.import_module(_COMPILER)
            taken = vars(sys.modules.get("torchvision.ops.roi_align", torch))
            if taken.get("is_compile_supported") == self._is_compile_supported:
                taken["is_compile_supported"] = importlib.import_module(_UTILS).is_compile_supported
        return importlib.import_module(name)

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Import ``torch._dynamo``, if a submodule is to be imported, and return where the submodule is then."""
        if not name.startswith(f"{_COMPILER}."):
            return None
        self.module(_COMPILER)
        return ModuleSpec(name, _Imported(sys.modules[name])) if name in sys.modules else find_spec(name)

    def _disable(self, fn: Any = None, recursive: bool = True, **options: Any) -> Any:
        """Return ``fn`` to ``torch/_compile.py``, from which that can be taken back, and the real answer to others."""
        if self in sys.meta_path and sys._getframe(1).f_globals.get("__name__") == "torch._compile":
            self._uncompiled.append(fn)
            return fn
        return self.module(_COMPILER).disable(fn, recursive, **options)

    def _is_compile_supported(self, device_type: str) -> Any:
        return self.module(_UTILS).is_compile_supported(device_type)


def _graph_break(msg: str = "") -> None:
    """Do nothing: this is not compiled."""


def _ddp_mode() -> str:
    """Return the default: to set another one imports ``torch._dynamo.config``."""
    return "ddp_optimizer"


class _Imported(Loader):
    """Loader of a module that its package has imported: executed a second time, it would be another module."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module."""
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module as it was."""
        module.__spec__ = self._spec

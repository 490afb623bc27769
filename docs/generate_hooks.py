"""Writes docs/hooks.md from the docstrings of the hook specifications: ``python docs/generate_hooks.py``."""

from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf.plugin.hookspecs import ObserverSpecs, VendorSpecs

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = Path(__file__).with_name("hooks.md")

INTRODUCTION = """\
# Hooks

`python docs/generate_hooks.py` makes this page from the docstrings in `chipperf/plugin/hookspecs.py`. Change it there.

A plugin is a module. Its hooks carry the decorator `@hookimpl`. An entry point in the group `chipperf.vendors` names
the module of a vendor, which implements only vendor hooks. An entry point in `chipperf.observers` names the module
of an observer, which implements only observer hooks. [A plugin in five minutes](plugin-guide.md) shows a complete
plugin.

* An implementation takes the arguments of the hook by their names. It may omit arguments that it does not need.
  Defaults, `*args`, wrappers, `tryfirst`, `trylast` and `specname` are refused.
* Importing the module must have no side effects: it does not import torch or change the environment. The hooks import
  torch themselves.
* Several hooks take `rank`, the worker's place in the job; `device`, the `torch.device` that `perf_device_init`
  returned; and `device_name`, the product's name. An observer's `event` is a frozen description of what happened.
* A hook with a result returns exactly the specified type.
* An unknown value is `None`, never 0.
* Field names include the unit: `total_bytes`, `power_w`, `timeout_s`.
"""

VENDOR_INTRODUCTION = """\
## Vendor hooks

A run binds exactly one vendor. A hook is optional unless its text says *required*. The text of an optional hook says
what core does without it.
"""

OBSERVER_INTRODUCTION = """\
## Observer hooks

A run may have several observers, and all of their hooks are optional. Core calls each observer separately with a frozen
event. An observer that raises is disabled for the rest of the run, and the record lists it.
"""


def page() -> str:
    """Return the content of docs/hooks.md."""
    sections = [INTRODUCTION, VENDOR_INTRODUCTION]
    sections += [_section(function) for function in hooks_of(VendorSpecs)]
    sections += [OBSERVER_INTRODUCTION]
    sections += [_section(function) for function in hooks_of(ObserverSpecs)]
    return "\n".join(sections)


def hooks_of(specs: type) -> list[Callable[..., object]]:
    """Return the specifications in a class and its bases, in the order of the source."""
    found = [value for name, value in inspect.getmembers(specs, inspect.isfunction) if name.startswith("perf_")]
    return sorted(found, key=lambda function: function.__code__.co_firstlineno)


def example_of(function: Callable[..., object]) -> str:
    """Return the code of a hook's example, ready to be run as a module."""
    block = re.search(r"^Example:\n((?:    .*\n|\n)+)", f"{inspect.getdoc(function)}\n", re.MULTILINE)
    if block is None:
        raise ValueError(f"{function.__name__} has no example")
    code = textwrap.dedent(block[1]).strip() + "\n"
    return code if "hookimpl\n" in code.partition("@")[0] else f"from chipperf import hookimpl\n\n{code}"


def _section(function: Callable[..., object]) -> str:
    signature = inspect.signature(function)
    text = _markdown(inspect.getdoc(function) or "")
    prose = re.sub(r"^(Example|Args|Returns|Raises):\n(?:    .*\n?|\n)+", "", text, flags=re.MULTILINE).strip()
    annotation = signature.return_annotation
    returns = "Returns nothing." if annotation == "None" else f"Returns `{annotation}`."
    parts = [
        f"### `{function.__name__}({', '.join(list(signature.parameters)[1:])})`",
        prose,
        f"```python\n{example_of(function)}```",
        _list("Arguments", _block(text, "Args")),
        " ".join([returns, *_block(text, "Returns").split()]),
        _list("Raises", _block(text, "Raises")),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown(text: str) -> str:
    without_roles = re.sub(r":(?:class|data|meth|func):`~?([^`]*)`", r"`\1`", text)
    return without_roles.replace("``", "`")


def _block(text: str, heading: str) -> str:
    block = re.search(rf"^{heading}:\n((?:    .*(?:\n|$))+)", text, re.MULTILINE)
    return textwrap.dedent(block[1]).strip() if block else ""


def _list(title: str, block: str) -> str:
    if not block:
        return ""
    items = [" ".join(item.split()) for item in re.split(r"\n(?=\S)", block)]
    return f"{title}:\n\n" + "\n".join(re.sub(r"^(\w+): ", r"* `\1`: ", item) for item in items)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

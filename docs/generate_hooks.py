"""Writes docs/hooks.md from the docstrings of the hook specifications: ``python docs/generate_hooks.py``."""

from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf.plugin.hookspecs import ObserverSpecs, VendorSpecs
from marked_list import prose
from promises import RULES, hooks_of, items_of, prose_of, returned_types, section_of

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = Path(__file__).with_name("hooks.md")

INTRODUCTION = """\
# Hooks

`python docs/generate_hooks.py` makes this page from the docstrings in `chipperf/plugin/hookspecs.py` and `types.py`.
Change it there.

A plugin is a module. Its hooks carry the decorator `@hookimpl`. An entry point in the group `chipperf.vendors` names
the module of a vendor, which implements only vendor hooks. An entry point in `chipperf.observers` names the module
of an observer, which implements only observer hooks. [A plugin in five minutes](plugin-guide.md) shows a complete
plugin.
"""

VENDOR_INTRODUCTION = """\
## Vendor hooks

A run binds exactly one vendor. A hook is optional unless its text says *required*. The text of an optional hook says
what core does without it. The checks of the [contract](contract.md#promises) that hold a plugin to a sentence are in
brackets.

The examples use `torch.accelerator`. Every backend has it from torch 2.6 on, and its memory from 2.9 on; in older
versions, use torch's module for the device type.
"""

TYPES_INTRODUCTION = """\
## Types of the vendor hooks

Every type is a frozen dataclass of `chipperf`, whose fields are given by name; `Capability` is an enumeration.
"""

OBSERVER_INTRODUCTION = """\
## Observer hooks

A run may have several observers, and all of their hooks are optional. Core calls each observer separately with a frozen
event. An observer that raises is disabled for the rest of the run, and the record lists it.
"""


def page() -> str:
    """Return the content of docs/hooks.md."""
    rules = "".join(f"* {rule}\n" for rule in RULES)
    sections = [INTRODUCTION, rules, VENDOR_INTRODUCTION]
    sections += [_section(function) for function in hooks_of(VendorSpecs)]
    sections += [TYPES_INTRODUCTION]
    sections += [_type(each) for each in returned_types()]
    sections += [OBSERVER_INTRODUCTION]
    sections += [_section(function) for function in hooks_of(ObserverSpecs)]
    return "\n".join(sections)


def example_of(function: Callable[..., object]) -> str:
    """Return the code of a hook's example, ready to be run as a module."""
    block = re.search(r"^Example:\n((?:    .*\n|\n)+)", f"{inspect.getdoc(function)}\n", re.MULTILINE)
    if block is None:
        raise ValueError(f"{function.__name__} has no example")
    code = textwrap.dedent(block[1]).strip() + "\n"
    return code if "hookimpl\n" in code.partition("@")[0] else f"from chipperf import hookimpl\n\n{code}"


def _section(function: Callable[..., object]) -> str:
    signature = inspect.signature(function)
    docstring = inspect.getdoc(function) or ""
    annotation = signature.return_annotation
    returns = "Returns nothing." if annotation == "None" else f"Returns `{annotation}`."
    parts = [
        f"### `{function.__name__}({', '.join(list(signature.parameters)[1:])})`",
        prose(prose_of(docstring)),
        f"```python\n{example_of(function)}```",
        _list("Arguments", docstring, "Args"),
        " ".join([returns, *prose(section_of(docstring, "Returns")).split()]),
        _list("Raises", docstring, "Raises"),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _type(each: type) -> str:
    docstring = inspect.getdoc(each) or ""
    parts = [f"### `{each.__name__}`", prose(prose_of(docstring)), _list("Fields", docstring, "Attributes")]
    return "\n\n".join(parts) + "\n"


def _list(title: str, docstring: str, heading: str) -> str:
    items = [re.sub(r"^(\w+): ", r"* `\1`: ", prose(item)) for item in items_of(docstring, heading)]
    return "\n".join([f"{title}:\n", *items]) if items else ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

"""What the docstrings of hooks and types promise, and the checks that hold a plugin to it; prints nothing by itself."""

from __future__ import annotations

import inspect
import re
import textwrap
from dataclasses import dataclass, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from chipperf.plugin import types
from chipperf.plugin.hookspecs import VendorSpecs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IDS = re.compile(r" \[([A-Z][0-9]+(?:, [A-Z][0-9]+)*)\]")
"""The checks behind a promise."""

RULES = (
    "The distribution of a plugin requires a range of versions of `chipperf` [A3], and contains all its files [A14].",
    "Its entry points are in groups that core reads [A1], and its module can be loaded repeatedly [A6].",
    "Importing the module has no side effects [A5], and does not import torch, which its hooks do [A4].",
    "The distribution does not require torch [A3], and no hook changes what other code in the process uses [A5, D10].",
    "A process ends with its own status: no exit handler of a plugin ends it with another one [D6].",
    "A plugin imports only public names of `chipperf` [A13].",
    "An implementation takes the arguments of the hook by their names, and may omit those that it does not need [A7].",
    "Defaults, `*args`, wrappers, `tryfirst`, `trylast` and `specname` are refused [A7, A8].",
    "Core passes `rank`, a worker's place in the job; `device`, as `perf_device_init` returned it; and `device_name`.",
    "Core passes to observers an `event`, a frozen description of what happened.",
    "A hook with a result returns exactly the specified type [A10].",
    "An unknown value is `None`, never 0 [M8, R1].",
    "Field names include the unit: `total_bytes`, `power_w`, `timeout_s` [A10].",
    "A plugin trains as the CPU reference does [N5, N6], also after an error [D9, M9] and in several ranks [P6, P8].",
    "In a job, a hook does on each rank what it does in a single process, and waits for no other rank [P12].",
    "What it trains can be used elsewhere: checkpoints [N7], records [R5] and reports [R6].",
)
"""What is said about plugins as a whole."""

_ABOUT_CORE = ("Core", "Default: ")
"""How sentences begin that promise nothing about a plugin."""


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """One sentence of a docstring, without its checks.

    Attributes:
        of: Name of the hook or type, with the argument or field that the sentence is about.
        is_title: True for the first sentence of a type, which says what it is.
    """

    of: str
    text: str
    checks: tuple[str, ...]
    is_title: bool

    @property
    def needs_check(self) -> bool:
        """True if the sentence is about a plugin."""
        return not self.is_title and not self.text.startswith(_ABOUT_CORE)


def sentences() -> list[Sentence]:
    """Return the sentences about all hooks of a vendor, and about the types that they return."""
    found = [_sentence("all hooks", sentence) for rule in RULES for sentence in _split(rule)]
    found += [sentence for hook in hooks_of(VendorSpecs) for sentence in _sentences_of(hook)]
    return found + [sentence for each in returned_types() for sentence in _sentences_of(each)]


def hooks_of(specs: type) -> list[Callable[..., object]]:
    """Return the specifications in a class and its bases, in the order of the source."""
    found = [value for name, value in inspect.getmembers(specs, inspect.isfunction) if name.startswith("perf_")]
    return sorted(found, key=lambda function: function.__code__.co_firstlineno)


def returned_types() -> list[type]:
    """Return the types that a vendor's hooks return, and those of their fields, in the order of the source."""
    named = {name: value for name, value in vars(types).items() if inspect.isclass(value)}
    waiting: list[Any] = [
        eval(hook.__annotations__["return"], {"torch": _Torch, **vars(types)}) for hook in hooks_of(VendorSpecs)
    ]
    found = set()
    while waiting:
        each = waiting.pop()
        waiting += get_args(each)
        if each in named.values() and each not in found and each.__module__ == types.__name__:
            found.add(each)
            waiting += get_type_hints(each).values() if is_dataclass(each) else ()
    return [each for each in named.values() if each in found]


def fields_of(each: type) -> list[str]:
    """Return the names of a type's fields or members."""
    return [member.name for member in each] if issubclass(each, Enum) else list(each.__dataclass_fields__)  # type: ignore[attr-defined]


class _Torch:
    """Stands for torch, whose own types promise nothing here."""

    device = object

    class nn:
        Module = object


def prose_of(docstring: str) -> str:
    """Return a docstring without its example and its sections."""
    sections = r"^(Example|Args|Attributes|Returns|Raises):\n(?:    .*\n?|\n)+"
    return re.sub(sections, "", docstring, flags=re.MULTILINE).strip()


def section_of(docstring: str, heading: str) -> str:
    """Return the text below a heading, without its indentation."""
    block = re.search(rf"^{heading}:\n((?:    .*(?:\n|$))+)", docstring, re.MULTILINE)
    return textwrap.dedent(block[1]).strip() if block else ""


def items_of(docstring: str, heading: str) -> list[str]:
    """Return the items below a heading, each in one line: a name, a colon and a text."""
    section = section_of(docstring, heading)
    return [" ".join(item.split()) for item in re.split(r"\n(?=\S)", section)] if section else []


def _sentences_of(documented: Any) -> Iterator[Sentence]:
    docstring, of = inspect.getdoc(documented) or "", documented.__name__
    for number, sentence in enumerate(_split(prose_of(docstring))):
        yield _sentence(of, sentence, is_title=inspect.isclass(documented) and number == 0)
    for heading in ("Args", "Attributes", "Raises"):
        for item in items_of(docstring, heading):
            name, _, text = item.partition(": ")
            yield from (_sentence(f"{of}, {name}", sentence) for sentence in _split(text))
    yield from (_sentence(f"{of}, result", sentence) for sentence in _split(section_of(docstring, "Returns")))


def _split(text: str) -> list[str]:
    return [each for each in re.split(r"(?<=\.)\s+(?=[A-Z`*])", " ".join(text.split())) if each]


def _sentence(of: str, text: str, *, is_title: bool = False) -> Sentence:
    checks = [id for ids in IDS.findall(text) for id in ids.split(", ")]
    return Sentence(of=of, text=IDS.sub("", text), checks=tuple(checks), is_title=is_title)

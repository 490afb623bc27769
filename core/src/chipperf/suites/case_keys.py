"""FlagPerf's case keys ``model:framework:hardware:nnodes:nproc:repeat``, as ``test_conf.py`` lists them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from chipperf.errors import ConfigError

_FIELDS = ("model", "framework", "hardware", "nnodes", "nproc", "repeat")
_FRAMEWORK = "pytorch"
_KEY = re.compile(r"""^["']?(?P<key>[^\s"',]+?)["']?(?:\s*[:,\s]\s*["']?(?P<data>/[^"',\s]*)["']?)?\s*,?$""")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseKey:
    """One of FlagPerf's cases.

    Attributes:
        text: The key as written.
        case: Name of the model, which is also the name of the case.
        framework: Framework and its version.
        hardware: The card.
        nnodes: Number of machines.
        nproc: Number of processes on each machine.
        repeats: Number of runs.
        data: The dataset's directory, if the line names one.
    """

    text: str
    case: str
    framework: str
    hardware: str
    nnodes: int
    nproc: int
    repeats: int
    data: Path | None = None

    @property
    def ignored(self) -> tuple[str, ...]:
        """The parts of the key that have no effect here, and what is used instead."""
        return (
            f"hardware {self.hardware!r}: the vendor is chosen by the key vendor, PERF_VENDOR or its devices",
            f"framework {self.framework!r}: the torch that is installed is used",
        )


def parse_case_key(text: str, place: str) -> CaseKey:
    """Parse a key. A dataset's directory may follow it.

    Args:
        text: A line of FlagPerf's ``test_conf.py``, with or without its quotes, or a bare key.
        place: File and line, for the error.

    Raises:
        ConfigError: The text is not a key, or has another framework. The message names the place and the field.
    """
    hint = f"write {':'.join(_FIELDS)}, for example resnet50:pytorch_1.13:A100:1:8:1"
    match = _KEY.match(text.strip())
    fields = match["key"].split(":") if match else []
    if match is None or len(fields) != len(_FIELDS) or not all(fields):
        raise ConfigError(f"{place}: {text.strip()!r} is not a case key", hint=hint)
    model, framework, hardware, *numbers = fields
    for name, number in zip(_FIELDS[3:], numbers, strict=True):
        if not (number.isascii() and number.isdigit()) or int(number) < 1:
            raise ConfigError(f"{place}: {name} is {number!r}, not a number from 1 on", hint=hint)
    if framework.partition("_")[0] != _FRAMEWORK:
        raise ConfigError(
            f"{place}: framework {framework!r} is not {_FRAMEWORK}", hint="cases of other frameworks cannot be run"
        )
    nnodes, nproc, repeats = map(int, numbers)
    return CaseKey(
        text=match["key"],
        case=model,
        framework=framework,
        hardware=hardware,
        nnodes=nnodes,
        nproc=nproc,
        repeats=repeats,
        data=Path(match["data"]) if match["data"] else None,
    )


def parse_case_key_lines(text: str, file: Path) -> list[CaseKey]:
    """Parse a file with one key on each line. Skip blank lines, comments and brackets of a Python dictionary.

    Raises:
        ConfigError: A line is not a key. The message names the line.
    """
    keys = []
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].strip()
        if content and not re.fullmatch(r"(\w+\s*=\s*)?[{}\[\]],?", content):
            keys.append(parse_case_key(content, f"{file}:{number}"))
    return keys

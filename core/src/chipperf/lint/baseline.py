"""Baselines: the findings of an old tree that are accepted until somebody corrects them.

A finding is known by document, rule and text and not by its line, so that it stays known when lines move. Each is
accepted as often as the baseline has it.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field, ValidationError

import chipperf
from chipperf.errors import ConfigError, first_fault
from chipperf.records.files import parse_model, read_bounded
from chipperf.records.schema import StrictModel
from chipperf.visible import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from chipperf.lint.lint_run import Finding, Result

_LINE_NUMBER: Final = re.compile(r"(\blines? |\.\w+:)\d+")
_HINT: Final = "perf lint PATH... --write-baseline FILE makes one"


class _File(StrictModel):
    """Number of findings by document, relative to the file, rule and text."""

    chipperf: str
    documents: dict[str, dict[str, dict[str, Annotated[int, Field(ge=1)]]]]


def baseline_of(result: Result, file: Path) -> str:
    """Return the content of a baseline that accepts the open findings, for ``file``."""
    documents: dict[str, dict[str, Counter[str]]] = {}
    for finding in sorted(result.open, key=lambda each: _key(each, file)):
        document, rule, text = _key(finding, file)
        documents.setdefault(document, {}).setdefault(rule, Counter())[text] += 1
    content = {"chipperf": chipperf.__version__, "documents": documents}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def accept_known(result: Result, baseline: Callable[[str], Path | None]) -> None:
    """Accept the findings in the baseline of their document, and list those of each baseline that no longer occur."""
    baselines = {name: file for name in result.files if (file := baseline(name))}
    left = {file: _read(file) for file in baselines.values()}
    for index, finding in enumerate(result.findings):
        file = baselines.get(finding.file)
        if file is None or finding.reason is not None:
            continue
        known = left[file]
        if known[_key(finding, file)]:
            known[_key(finding, file)] -= 1
            result.findings[index] = replace(finding, reason=f"in {file}", in_baseline=True)
    accepted = Counter(baselines[each.file] for each in result.findings if each.in_baseline)
    result.settings += [f"{file} accepts {count} findings" for file, count in accepted.items()]
    for file, known in left.items():
        checked = {_relative(name, file): result.checked[name] for name in result.files if baselines.get(name) == file}
        for (document, rule, text), count in known.items():
            is_gone = not (file.parent / document).exists()
            if count and (is_gone or rule in checked.get(document, ())):
                result.unmatched.append(f"{file}: {document}: {rule}: {text}")


def _key(finding: Finding, file: Path) -> tuple[str, str, str]:
    return _relative(finding.file, file), finding.rule, _LINE_NUMBER.sub(r"\1N", finding.message)


def _relative(document: str, file: Path) -> str:
    return visible(Path(os.path.relpath(document, file.parent)).as_posix())


def _read(file: Path) -> Counter[tuple[str, str, str]]:
    try:
        content = parse_model(_File, read_bounded(file))
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}", hint=_HINT) from error
    except ValidationError as error:
        raise ConfigError(f"{file} is no baseline: {first_fault(error)}", hint=_HINT) from error
    return Counter(
        {
            (document, rule, text): count
            for document, rules in content.documents.items()
            for rule, texts in rules.items()
            for text, count in texts.items()
        }
    )

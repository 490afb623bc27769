"""The page of each rule, with a wrong and a right example."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from chipperf.toml import parse_toml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chipperf.lint.rule import Rule

_EXAMPLES: Final = Path(__file__).with_name("rule_examples.toml")
_DOCUMENT: Final = "training/acme/resnet50-pytorch/README.md"


class Example(NamedTuple):
    """Files by path, with their content: wrong ones, in which the rule finds something, and right ones."""

    wrong: Mapping[str, str]
    right: Mapping[str, str]


@cache
def read_examples() -> Mapping[str, Example]:
    """Return the examples by the id of the rule. A text alone is that of a document where FlagPerf has it."""
    content = parse_toml(_EXAMPLES.read_text(encoding="utf-8"))
    return {id: Example(_files(each["wrong"]), _files(each["right"])) for id, each in content.items()}


def _files(example: str | Mapping[str, str]) -> Mapping[str, str]:
    return {_DOCUMENT: example} if isinstance(example, str) else example


def page(rule: Rule) -> str:
    """Return the rule's page in Markdown."""
    example = read_examples()[rule.id]
    lines = [
        f"# {rule.id} {rule.name}",
        "",
        f"{rule.severity.capitalize()}. In a good document: {rule.summary}",
        "",
        f"**Why it matters**: {rule.why}.",
        "",
        f"**What to do**: {rule.fix}.",
    ]
    if rule.evidence:
        lines += ["", f"**Needs** besides the document: {rule.evidence}. If this is missing, the rule is not checked."]
    if rule.off_because:
        lines += ["", f"**Off by default**: {rule.off_because}. `--extend-select {rule.id}` checks it."]
    for title, files in (("Wrong", example.wrong), ("Right", example.right)):
        lines += ["", f"## {title}"]
        for path, text in files.items():
            lines += ["", f"`{path}`:", "", f"```{Path(path).suffix[1:]}", text.strip("\n"), "```"]
    return "\n".join(lines) + "\n"

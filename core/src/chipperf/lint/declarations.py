"""What a document declares: sentences that a reader sees, and that say what they say of this row and this number."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from chipperf.documents import wording
from chipperf.documents.markdown import Table

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from chipperf.documents.markdown import Markdown

_HIDDEN: Final = re.compile(
    r"<(\w+)\s[^>]*>.*?(?:</\1>|$)|<(del|s|script|strike|style|template)>.*?(?:</\2>|$)|<!--.*?(?:-->|$)|~~.*?~~"
    r"|!\[[^\]]*\]\([^)]*\)|(?<=\])\([^)]*\)",
    re.IGNORECASE | re.DOTALL,
)
"""What a page does not show as text: elements with attributes may be hidden, and addresses and figures are no text."""

_OPENED: Final = re.compile(r"<(?!img|br|hr|input|a\b)\w+\s[^>]*[^/>]>", re.IGNORECASE)
_CLOSED: Final = re.compile(r"</(?!a>)\w+>", re.IGNORECASE)
_SENTENCE_END: Final = re.compile(r"(?<=[。；！？])|(?<=[.;!?])\s+")
_CLAUSE_END: Final = re.compile(r"[,，;；:：]")
_NEGATION: Final = re.compile(
    r"\b(?:no|none|nothing|neither|never|nor|not|without)\b|n't\b|不|无|没有|并非", re.IGNORECASE
)
_MISSED: Final = r"未达到|未达标|未收敛|没有收敛|没有达到|not converged|did not converge|not reach"
_BELOW: Final = re.compile(rf"低于目标|below (?:the )?target|{_MISSED}", re.IGNORECASE)
_ABOVE: Final = re.compile(rf"高于目标|above (?:the )?target|{_MISSED}", re.IGNORECASE)
_RESULT: Final = re.compile(r"\b(?:result|accuracy|run)\b|converge|结果|收敛|精度|准确率", re.IGNORECASE)
_SCHEDULE: Final = re.compile(r"epoch|step|sample|轮|步|样本|shorten|缩短|提前", re.IGNORECASE)
_SHAPE: Final = re.compile(r"(?<!\d)(\d{1,4})\s*[x×]\s*(\d{1,4})(?!\d)", re.IGNORECASE)
_NUMBER: Final = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s*([%％]?)")


def shown(text: str) -> str:
    """Return what a reader sees of a text without Markdown's own markup."""
    return _HIDDEN.sub("", text)


def sentences(document: Markdown) -> Iterator[str]:
    """Yield the sentences of a document that a reader sees; a row of a table is one text."""
    hidden = 0
    for block in document.blocks:
        if isinstance(block, Table):
            texts = [" ".join(cell.text for cell in row) for row in block.rows]
        elif block.kind == "html":
            hidden = max(0, hidden + len(_OPENED.findall(block.text)) - len(_CLOSED.findall(block.text)))
            continue
        else:
            texts = [] if block.kind == "code" else [block.text]
        for text in texts if not hidden else ():
            yield from filter(None, _SENTENCE_END.split(shown(text)))


def says_below(
    sentence: str, shape: str, metric: str, goal: float, result: float, *, only_row: bool, lower: bool
) -> bool:
    """Return whether a sentence says that the result of a row of topology ``shape`` misses the target ``goal``.

    With ``lower``, a result misses its target from above. The sentence names the row, unless that is the only one, the
    target, and no other result.
    """
    shapes = {f"{machines}x{cards}" for machines, cards in _SHAPE.findall(sentence)}
    if shape not in shapes if shapes else not only_row:
        return False
    missed = _ABOVE if lower else _BELOW
    if not any(missed.search(clause) and not _negated(clause, missed) for clause in _CLAUSE_END.split(sentence)):
        return False
    numbers = _NUMBER.findall(_SHAPE.sub("", sentence))
    is_fraction = wording.is_fraction(wording.quality_kind(metric))
    stated = [(text, sign, is_fraction and (bool(sign) or float(text) > 1)) for text, sign in numbers]
    of_target = [_is(goal, text, in_percent) for text, _, in_percent in stated]
    of_result = [_is(result, text, in_percent) for text, _, in_percent in stated]
    others = [sign for (_, sign, _), *own in zip(stated, of_target, of_result, strict=True) if not any(own)]
    named = any(of_result) or _RESULT.search(sentence) or wording.normal(metric) in wording.normal(sentence)
    return any(of_target) and not any(others) and bool(named)


def _negated(clause: str, missed: re.Pattern[str]) -> bool:
    return _NEGATION.search(missed.sub("", clause)) is not None


def _is(value: float, text: str, in_percent: bool) -> bool:
    """Return whether a written number is a value, rounded to as many digits as are written."""
    digits = len(text.partition(".")[2]) + 2 * in_percent
    return bool(abs(float(text) / (100 if in_percent else 1) - value) <= 0.5001 * 10**-digits)


def says_schedule(text: str, limits: Collection[float] = ()) -> bool:
    """Return whether a text says that another schedule ran, and each of the limits that the run had."""
    text = shown(text)
    stated = {float(number) for number, _ in _NUMBER.findall(re.sub(r"(?<=[^\W\d])(?=\d)|=", " ", text))}
    clauses = _CLAUSE_END.split(text)
    return stated.issuperset(limits) and any(
        _SCHEDULE.search(clause) and not _NEGATION.search(clause) for clause in clauses
    )

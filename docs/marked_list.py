"""Lists in pages that are made from the code, between two marks; prints nothing when run by itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def with_lists(page: Path, script: str, lists: Mapping[str, str]) -> str:
    """Return a page's content with other lists between its marks.

    Args:
        page: The page.
        script: Name of the script that makes the lists, as the first mark of each says it.
        lists: The lists, by what they are of, as their marks say it.

    Raises:
        ValueError: The page does not have the marks.
    """
    content = page.read_text(encoding="utf-8")
    for what, table in lists.items():
        between = re.compile(rf"(?<=<!-- {what}: made by docs/{script} -->\n).*?(?=<!-- /{what} -->)", re.DOTALL)
        content, count = between.subn(lambda _, table=table: table, content)
        if count != 1:
            raise ValueError(f"{page} does not have the two marks around the list of {what}")
    return content


def prose(text: str) -> str:
    """Return a docstring's text as Markdown: Sphinx' roles and literals become code."""
    return re.sub(r":(?:class|data|meth|func|mod):`~?([^`]*)`", r"`\1`", text).replace("``", "`")


def markdown(text: str) -> str:
    """Return a docstring's text for a cell of a table."""
    return prose(text).replace("|", "\\|")

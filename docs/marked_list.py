"""Lists in pages that are made from the code, between two marks; prints nothing when run by itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def with_list(page: Path, what: str, script: str, table: str) -> str:
    """Return a page's content with another list between its marks.

    Args:
        page: The page.
        what: What the list is of, as the marks say it.
        script: Name of the script that makes it, as the first mark says it.
        table: The list.

    Raises:
        ValueError: The page does not have the marks.
    """
    between = re.compile(rf"(?<=<!-- {what}: made by docs/{script} -->\n).*?(?=<!-- /{what} -->)", re.DOTALL)
    content, count = between.subn(lambda _: table, page.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(f"{page} does not have the two marks around the list of {what}")
    return content


def markdown(text: str) -> str:
    """Return a docstring's text for a cell of a table."""
    return text.replace("``", "`").replace("|", "\\|")

"""The documentation's pages, and what is written in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from translations import slugs

ROOT = Path(__file__).parents[2]
README, README_ZH = ROOT / "README.md", ROOT / "README.zh-CN.md"
TOML_PAGE = ROOT / "docs" / "training.md"
PAGES = (README, README_ZH, *sorted((ROOT / "docs").glob("*.md")))
LINKED_PAGES = (
    *PAGES,
    *(
        ROOT / name
        for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "changelog.d/README.md", "core/README.md")
    ),
    *sorted(ROOT.glob("plugins/*/README.md")),
    *sorted((ROOT / "docs" / "zh").glob("*.md")),
)

_BLOCK = re.compile(r"^(?P<marker><!-- needs: .* -->\n+)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
_COMMENT = re.compile(r"\s+#\s.*$")


@dataclass(frozen=True)
class Command:
    """A command of a page; ``marked`` if the page says that it needs cards."""

    page: str
    text: str
    marked: bool

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def blocks(page: Path, language: str) -> list[str]:
    """Return the code of a page's fenced blocks of one language."""
    text = page.read_text(encoding="utf-8")
    return [match["code"] for match in _BLOCK.finditer(text) if match["language"] == language]


def commands(page: Path) -> list[Command]:
    """Return every line of a page's shell blocks, without comments and prompts; continued lines are joined."""
    found = []
    for match in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        if match["language"] in ("bash", "console"):
            for line in match["code"].replace("\\\n", " ").splitlines():
                text = _COMMENT.sub("", line.removeprefix("$ ")).strip()
                if text and not text.startswith("#"):
                    found.append(Command(page.name, text, marked=match["marker"] is not None))
    return found


def perf_commands() -> list[Command]:
    """Return every page's commands that start with ``perf``; one that several pages have is returned once."""
    found = {command.text: command for page in PAGES for command in commands(page) if command.text.startswith("perf ")}
    return list(found.values())


def anchors(page: Path) -> set[str]:
    """Return the fragments that the page's headings can be linked by."""
    return set(slugs(page.read_text(encoding="utf-8")))


def links(page: Path) -> list[str]:
    """Return the targets of a page's links that are not web addresses."""
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]

"""The pages of the documentation in two languages, and what a page and its translation have in common.

``python docs/translations.py`` prints what a translation lacks.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, fields
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf.toml import parse_toml

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
NAVIGATION = parse_toml(Path(__file__).with_name("navigation.toml").read_text(encoding="utf-8"))

CODE = re.compile(r"^(?P<fence>```+)(?P<language>\w*)\n(?P<code>.*?)^(?P=fence)$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<=\]\()(?P<path>[^)\s#]*)(?:#(?P<fragment>[^)\s]+))?(?=\))")
_HEADING = re.compile(r"^(?P<marks>#+) (?P<text>.+)$", re.MULTILINE)
_COMMENT = re.compile(r"(^|\s+)#\s.*$", re.MULTILINE)
_SHELLS = ("bash", "console", "sh")


def pages_of(patterns: list[str]) -> list[str]:
    """Return the paths in the repository that match the patterns, in their order.

    Raises:
        ValueError: A pattern matches nothing.
    """
    found = []
    for pattern in patterns:
        matches = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern))
        if not matches:
            raise ValueError(f"navigation.toml: there is no {pattern}")
        found += matches
    return found


def pages() -> list[str]:
    """Return the English pages of the site, as paths in the repository."""
    return pages_of([page for section in NAVIGATION["section"] for page in section["pages"]])


def translation_path(page: str) -> str:
    """Return where the Chinese translation of an English page is, if there is one."""
    path = Path(page)
    if page == "README.md":
        return "README.zh-CN.md"
    if path.name == "report.en.md":
        return path.with_name("README.md").as_posix()
    return (path.parent / "zh" / path.name).as_posix()


def translated(page: str) -> str | None:
    """Return the path of an English page's translation, or None for a page that is in English only.

    Raises:
        ValueError: The page is neither translated nor listed in navigation.toml as in English only, or it is both.
    """
    path = translation_path(page)
    exists, english_only = (ROOT / path).is_file(), page in pages_of(NAVIGATION["english_only"])
    if exists == english_only:
        problem = f"there is {path}, and it is listed in" if exists else f"there is no {path}, and it is not in"
        raise ValueError(f"{page}: {problem} english_only of docs/navigation.toml")
    return path if exists else None


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Return a Markdown text with everything changed but code blocks and code spans."""
    parts, end = [], 0
    for match in CODE.finditer(text):
        parts += [change(text[end : match.start()]), match[0]]
        end = match.end()
    return "".join([*parts, change(text[end:])])


def slugs(text: str) -> list[str]:
    """Return the fragments by which GitHub links the headings of a Markdown text, in their order."""
    found: list[str] = []
    seen: Counter[str] = Counter()
    without_blocks = re.sub(r"^(```+).*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    for heading in _HEADING.finditer(without_blocks):
        shown = re.sub(r"\]\([^)]*\)", "]", heading["text"])
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).strip().replace(" ", "-")
        found.append(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


@dataclass(frozen=True)
class Part:
    """What a part of a page, from one heading to the next, has in common with its translation.

    Attributes:
        level: Number of marks of the heading, 0 above the first one.
        blocks: Language and code of each code block; comments of a shell's commands are left out.
        table_rows: Lines of tables.
        list_items: Items of lists.
        code: Code spans.
        links: Targets of links, as :func:`canonical` returns them.
        numbers: Numbers that are written in digits, outside of code and links.
    """

    level: int
    blocks: list[tuple[str, str]]
    table_rows: int
    list_items: int
    code: frozenset[str]
    links: frozenset[str]
    numbers: frozenset[str]


def parts(page: str) -> list[Part]:
    """Return the parts of a page, which may be a translation; links of a translation count as those of the English."""
    text = (ROOT / page).read_text(encoding="utf-8")
    starts = [0, *(match.start() for match in _HEADING.finditer(_blanked(text))), len(text)]
    return [_part(page, text[start:end]) for start, end in zip(starts, starts[1:], strict=False) if text[start:end]]


def _blanked(text: str) -> str:
    """Return the text with blanks in place of code blocks, in which a number sign begins no heading."""
    return re.sub(r"^(```+).*?^\1$", lambda block: " " * len(block[0]), text, flags=re.MULTILINE | re.DOTALL)


def _part(page: str, text: str) -> Part:
    heading = _HEADING.match(text)
    blocks, code = [], set()
    for match in CODE.finditer(text):
        if match["fence"]:
            shell = match["language"] in _SHELLS
            blocks.append((match["language"], _COMMENT.sub("", match["code"]) if shell else match["code"]))
        else:
            code.add(match[0])
    plain = CODE.sub(lambda match: "" if match["fence"] else "`code`", text)
    return Part(
        level=len(heading["marks"]) if heading else 0,
        blocks=blocks,
        table_rows=len(re.findall(r"^\|", plain, re.MULTILINE)),
        list_items=len(re.findall(r"^ *(?:[*-]|\d+\.) ", plain, re.MULTILINE)),
        code=frozenset(code),
        links=frozenset(canonical(page, match[0]) for match in LINK.finditer(plain)),
        numbers=frozenset(re.findall(r"\d+(?:\.\d+)?", LINK.sub("", plain))),
    )


def canonical(page: str, link: str) -> str:
    """Return a link of a page or of a translation as a path in the repository and a fragment, both of the English page.

    Raises:
        ValueError: There is no such file or heading.
    """
    path, _, fragment = link.partition("#")
    if "://" in path or path.startswith("mailto:"):
        return link
    target = (ROOT / page).parent.joinpath(path).resolve() if path else ROOT / page
    if not target.exists():
        raise ValueError(f"{page} links {link}, which is not there")
    name = target.relative_to(ROOT).as_posix()
    english = _ENGLISH_OF.get(name, name)
    if not fragment:
        return english
    own, headings = slugs(target.read_text(encoding="utf-8")), slugs((ROOT / english).read_text(encoding="utf-8"))
    if fragment not in own:
        raise ValueError(f"{page} links {link}, and {name} has no such heading")
    return f"{english}#{headings[own.index(fragment)] if len(own) == len(headings) else fragment}"


def differences(page: str) -> list[str]:
    """Return what a page has and its translation does not, or the other way round: below which heading, what, and both.

    Raises:
        ValueError: A link of the two leads nowhere.
    """
    english, chinese = parts(page), parts(translation_path(page))
    headings = ["", *slugs((ROOT / page).read_text(encoding="utf-8"))][-len(english) :]
    found = []
    for heading, one, other in zip_longest(headings, english, chinese):
        for name in (each.name for each in fields(Part)):
            here, there = getattr(one, name, None), getattr(other, name, None)
            if isinstance(here, frozenset) and isinstance(there, frozenset):
                here, there = sorted(here - there), sorted(there - here)
            if here != there:
                found.append(f"{page}#{heading}, {name}: {here} in English, {there} in Chinese")
    return found


_ENGLISH_OF = {translation_path(page): page for page in pages()}

if __name__ == "__main__":
    for translated_page in pages():
        if translated(translated_page) and "examples" not in translated_page:
            print("".join(f"{difference}\n" for difference in differences(translated_page)), end="")

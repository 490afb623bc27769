"""Builds the documentation as a site in English and Chinese: ``python docs/build_site.py DIRECTORY``.

Needs Zensical (docs/requirements.txt). The pages stay as GitHub shows them: copies are built, in one tree for each
language. Their links lead to pages of the same language, to files beside them, or to the repository. A dead link is an
error, and so is a page without a translation that navigation.toml does not name.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from translations import LINK, NAVIGATION, ROOT, canonical, outside_code, pages, pages_of, slugs, translated

LANGUAGES = {"en": "English", "zh": "中文"}
_ONLY_ENGLISH = "> 本页只有英文版。\n\n"
_FEATURES = [
    "content.code.copy",
    "navigation.footer",
    "navigation.instant",
    "navigation.path",
    "navigation.sections",
    "navigation.top",
    "search.highlight",
    "toc.follow",
]


_SEPARATOR = r"""[\s\-,:!=\[\]()\\"`/]+|\.(?!\d)"""


@dataclass
class Tree:
    """The copies of all pages in one language, with the files that they show or link.

    Attributes:
        language: Code of the language.
        directory: Where the copies lie, at the paths of the English pages in the repository.
        sources: Path of the file that is copied, by the path of the English page.
    """

    language: str
    directory: Path
    sources: dict[str, str] = field(default_factory=dict)

    def write(self) -> None:
        """Write all pages and the files that they link."""
        for page in pages():
            self.sources[page] = (translated(page) or page) if self.language == "zh" else page
        for page, source in self.sources.items():
            text = (ROOT / source).read_text(encoding="utf-8")
            english = slugs((ROOT / page).read_text(encoding="utf-8"))
            text = outside_code(text, partial(LINK.sub, partial(self._link, page, source)))
            text = _for_python_markdown(_with_ids(outside_code(text, _joined), english))
            if self.language == "zh" and source == page:
                text = re.sub(r"^(# .+\n\n)", rf"\1{_ONLY_ENGLISH}", text, count=1, flags=re.MULTILINE)
            target = self.directory / page
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")

    def _link(self, page: str, source: str, match: re.Match[str]) -> str:
        """Return a link of a page as it leads from the page's copy."""
        link = match[0]
        target, _, fragment = canonical(source, link).partition("#")
        written = (ROOT / source).parent.joinpath(link.partition("#")[0]).resolve()
        if "://" in link or link.startswith("mailto:"):
            return link
        is_other_language = target == page and link.partition("#")[0] and written != ROOT / source
        if target not in self.sources or is_other_language:
            if written.is_file() and written.is_relative_to(ROOT / "docs") and written.suffix != ".md":
                self._copy(target)
            else:
                kind = "tree" if written.is_dir() else "blob"
                return f"{NAVIGATION['repository']}/{kind}/main/{written.relative_to(ROOT).as_posix()}"
        path = os.path.relpath(target, Path(page).parent) if target != page else ""
        return f"{path}#{fragment}" if fragment else path or Path(page).name

    def _copy(self, file: str) -> None:
        copy = self.directory / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, copy)

    def _entry(self, page: str) -> str | dict[str, str]:
        """Return a page for the navigation, which takes the title from the page's heading if it has one."""
        has_title = re.search(r"^# ", (ROOT / self.sources[page]).read_text(encoding="utf-8"), re.MULTILINE)
        return page if has_title else {Path(page).parent.name: page}

    def configuration(self, output: Path) -> str:
        """Return the configuration with which Zensical builds the tree into a directory."""
        sections = [
            {section["title"][self.language]: [self._entry(page) for page in pages_of(section["pages"])]}
            for section in NAVIGATION["section"]
        ]
        other_root = {"en": {"en": "./", "zh": "./zh/"}, "zh": {"en": "../", "zh": "./"}}[self.language]
        alternates = [{"name": name, "link": other_root[code], "lang": code} for code, name in LANGUAGES.items()]
        lines = [
            "[project]",
            'site_name = "chipperf"',
            f"docs_dir = {json.dumps(self.directory.name)}",
            f"site_dir = {json.dumps(os.path.relpath(output, self.directory.parent))}",
            f"nav = {_inline(sections)}",
            "[project.theme]",
            f"language = {json.dumps(self.language)}",
            # Nothing is loaded from elsewhere, also not from GitHub by a link to it in the head of a page.
            "font = false",
            f"features = {json.dumps(_FEATURES)}",
            # Words end where Zensical's do by default, but not at "_", so that "p_core" is one.
            "[project.plugins.search]",
            f"separator = {json.dumps(_SEPARATOR)}",
            *(f"[[project.extra.alternate]]\n{_lines(each)}" for each in alternates),
            "[project.markdown_extensions]",
            "attr_list = {}",
            "tables = {}",
            "toc.permalink = true",
            "pymdownx.highlight = {}",
            "pymdownx.superfences = {}",
        ]
        return "\n".join(lines) + "\n"


def _inline(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_inline(key)} = {_inline(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(_inline(each) for each in value)}]"
    return json.dumps(value, ensure_ascii=False)


def _lines(table: dict[str, str]) -> str:
    return "\n".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items())


def _joined(text: str) -> str:
    """Take out line breaks between Chinese characters, which a browser would show as spaces."""
    return re.sub(r"(?<=[\u3000-\u9fff\uff00-\uffef])\n *(?=[\u3000-\u9fff\uff00-\uffef])", "", text)


def _with_ids(text: str, ids: list[str]) -> str:
    """Give the headings the fragments of the English page, by which pages of both languages link them."""
    remaining = iter(ids)
    lines, fence = [], ""
    for line in text.splitlines():
        mark = re.match(r"```+", line)
        if mark:
            fence = "" if fence == mark[0] else fence or mark[0]
        lines.append(f"{line} {{ #{next(remaining)} }}" if not fence and re.match(r"#+ ", line) else line)
    return "\n".join(lines) + "\n"


def _for_python_markdown(text: str) -> str:
    """Write lists as Python-Markdown needs them: a blank line before each, four spaces before what is in an item."""
    lines: list[str] = []
    fence = ""
    for line in text.splitlines():
        mark = re.match(r" *(```+)", line)
        if mark:
            fence = "" if fence == mark[1] else fence or mark[1]
        indent = re.match(r" *", line)[0]  # type: ignore[index]
        item = re.match(r" *(?:[*-]|\d+\.) ", line)
        if not fence and item and not indent and lines and lines[-1].strip():
            before = lines[-1]
            if not re.match(r" *(?:[*-]|\d+\.) | ", before):
                lines.append("")
        if not fence and not mark and indent:
            line = " " * (4 * ((len(indent) + 1) // 2 if item else 1)) + line.lstrip()
        lines.append(line)
    return "\n".join(lines) + "\n"


def build(directory: Path) -> Path:
    """Build the site below a directory and return its first page.

    Raises:
        ValueError: A page has no translation, or a link leads nowhere.
        subprocess.CalledProcessError: Zensical found a fault, or failed; it has said what.
    """
    site = directory / "site"
    for built in (site, *(directory / language for language in LANGUAGES)):
        shutil.rmtree(built, ignore_errors=True)
    for language in LANGUAGES:
        tree = Tree(language, directory / language)
        tree.write()
        configuration = directory / f"{language}.toml"
        output = site if language == "en" else site / language
        configuration.write_text(tree.configuration(output), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "zensical",
            "build",
            "--strict",
            "--clean",
            "--config-file",
            str(configuration),
        ]
        subprocess.run(command, check=True)
    return site / "index.html"


if __name__ == "__main__":
    try:
        print(build(Path(sys.argv[1]).resolve()))
    except (ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"no site: {error}")

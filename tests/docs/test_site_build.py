"""The documentation is built as a site in two languages, and nothing in it leads nowhere."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import PurePosixPath

import build_site
import pytest
import translations
from build_site import Tree
from chipperf.toml import parse_toml
from documents import ROOT
from translations import pages


@pytest.fixture(scope="module", params=["en", "zh"])
def tree(request, tmp_path_factory):
    """The copies of all pages in one language."""
    tree = Tree(request.param, tmp_path_factory.mktemp("site") / request.param)
    tree.write()
    return tree


def test_every_page_of_the_documentation_has_a_place():
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")}

    assert there <= set(pages())
    assert len(pages()) == len(set(pages()))


def test_links_of_copies_stay_in_their_language(tree):
    for page in pages():
        copy = tree.directory / page
        text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", copy.read_text(encoding="utf-8"), flags=re.M | re.S)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, fragment = link.partition("#")
            if "://" not in path:
                target = (copy.parent / path).resolve() if path else copy
                assert target.is_relative_to(tree.directory), f"{page}: {link}"
                assert target.is_file(), f"{page}: {link}"
                assert not fragment or f"{{ #{fragment} }}" in target.read_text(encoding="utf-8"), f"{page}: {link}"


def test_links_out_of_the_site_lead_to_the_repository(tree):
    text = "".join((tree.directory / page).read_text(encoding="utf-8") for page in pages())
    linked = set(re.findall(rf"\({translations.NAVIGATION['repository']}/(blob|tree)/main/([^)#]+)", text))

    assert ("blob", "LICENSE") in linked
    for kind, path in linked:
        assert (ROOT / path).is_dir() == (kind == "tree"), path


def test_page_in_english_only_says_so_in_the_chinese_site(tree):
    text = (tree.directory / "docs" / "hooks.md").read_text(encoding="utf-8")

    assert ("本页只有英文版" in text) == (tree.language == "zh")


def test_titles_of_sections_are_in_the_language(tree):
    assert ('"教程" = [' in tree.configuration(tree.directory)) == (tree.language == "zh")


@pytest.mark.parametrize(
    ("github", "python"),
    [
        ("Text:\n* a\n* b\n", "Text:\n\n* a\n* b\n"),
        ("* a\n  - b\n    - c\n", "* a\n    - b\n        - c\n"),
        ("1. a\n   more\n", "1. a\n    more\n"),
        ("```\nText\n* a\n  - b\n```\n", "```\nText\n* a\n  - b\n```\n"),
    ],
)
def test_lists_are_written_for_python_markdown(github, python):
    assert build_site._for_python_markdown(github) == python


def test_a_name_is_one_word_of_the_search(tree):
    search = parse_toml(tree.configuration(tree.directory))["project"]["plugins"]["search"]

    assert re.split(search["separator"], "perf_report: p_core (samples/s)") == [
        "perf_report",
        "p_core",
        "samples",
        "s",
        "",
    ]


def test_lines_of_chinese_are_joined():
    assert (
        build_site._joined("没有设备。\n如果有，\n  则用 torch\n训练。\n\n## 数据\n")
        == "没有设备。如果有，则用 torch\n训练。\n\n## 数据\n"
    )


@pytest.mark.skipif(find_spec("zensical") is None, reason="zensical is not installed: make site")
def test_site_is_built(tmp_path):
    first = build_site.build(tmp_path)

    assert "chipperf" in first.read_text(encoding="utf-8")
    for page in pages():
        path = PurePosixPath(page)
        folder = path.parent if path.name in ("README.md", "index.md") else path.with_suffix("")
        for root in (tmp_path / "site", tmp_path / "site" / "zh"):
            assert (root / folder / "index.html").is_file(), page

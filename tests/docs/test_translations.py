"""Every page is translated or says that it is not, and a translation has what the English page has."""

from __future__ import annotations

import pytest
import translations
from documents import ROOT
from translations import differences, outside_code, pages, parts, slugs, translated, translation_path

TRANSLATED = [page for page in pages() if (ROOT / translation_path(page)).is_file() and "examples" not in page]


@pytest.mark.parametrize("page", pages())
def test_page_is_translated_or_listed_as_english_only(page):
    translated(page)


@pytest.mark.parametrize("page", TRANSLATED)
def test_translation_has_what_the_page_has(page):
    assert differences(page) == []


def test_every_translation_is_of_a_page():
    assert {path.name for path in (ROOT / "docs" / "zh").iterdir()} <= {page.rpartition("/")[2] for page in TRANSLATED}
    assert "docs/training.md" in TRANSLATED


@pytest.mark.parametrize(
    ("chinese", "field"),
    [
        ("# 训练\n\n运行 `perf train`，用 8 张卡。见[报告](report.md)。\n", None),
        ("## 训练\n\n运行 `perf train`，用 8 张卡。见[报告](report.md)。\n", "level"),
        ("# 训练\n\n运行 `perf training`，用 8 张卡。见[报告](report.md)。\n", "code"),
        ("# 训练\n\n运行 `perf train`，用 9 张卡。见[报告](report.md)。\n", "numbers"),
        ("# 训练\n\n运行 `perf train`，用 8 张卡。见[指标](metrics.md)。\n", "links"),
        ("# 训练\n\n* 运行 `perf train`，用 8 张卡。见[报告](report.md)。\n", "list_items"),
        ("# 训练\n\n运行 `perf train`，用 8 张卡。见[报告](report.md)。\n\n| 一 |\n", "table_rows"),
        ("# 训练\n\n运行 `perf train`，用 8 张卡。见[报告](report.md)。\n\n```bash\nls\n```\n", "blocks"),
    ],
)
def test_what_a_translation_lacks_is_found(tmp_path, monkeypatch, chinese, field):
    monkeypatch.setattr(translations, "ROOT", tmp_path)
    (tmp_path / "docs" / "zh").mkdir(parents=True)
    for name, text in {
        "training": "# Training\n\nRun `perf train` on 8 cards. See [reports](report.md).\n",
        "zh/training": chinese,
        **dict.fromkeys(["report", "metrics", "zh/report", "zh/metrics"], "# A\n"),
    }.items():
        (tmp_path / "docs" / f"{name}.md").write_text(text, encoding="utf-8")

    found = differences("docs/training.md")

    assert [text.split(", ")[1].partition(":")[0] for text in found] == ([field] if field else [])


def test_comments_of_commands_may_be_translated(tmp_path, monkeypatch):
    monkeypatch.setattr(translations, "ROOT", tmp_path)
    for name, comment in {"a": "all", "b": "全部"}.items():
        (tmp_path / f"{name}.md").write_text(f"```bash\nmake test   # {comment}\n```\n", encoding="utf-8")

    assert parts("a.md") == parts("b.md")


def test_slugs_are_those_of_github():
    text = "# A `perf train`: B & C\n```bash\n# no heading\n```\n## Same\n## Same\n## 中文 标题\n"

    assert slugs(text) == ["a-perf-train-b--c", "same", "same-1", "中文-标题"]


def test_code_is_left_alone():
    assert outside_code("a `a` a\n```\na\n```\na", str.upper) == "A `a` A\n```\na\n```\nA"


def test_page_without_translation_that_is_not_listed_is_an_error(monkeypatch):
    monkeypatch.setitem(translations.NAVIGATION, "english_only", ["docs/hooks.md", "docs/metrics.md"])

    assert translated("docs/hooks.md") is None
    with pytest.raises(ValueError, match=r"no docs/zh/contract.md, and it is not in english_only"):
        translated("docs/contract.md")
    with pytest.raises(ValueError, match=r"there is docs/zh/metrics.md, and it is listed in english_only"):
        translated("docs/metrics.md")

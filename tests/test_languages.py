"""Core's texts in the languages of reports: each translation has all. A translation and its name add a language."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from chipperf import languages
from chipperf.languages import (
    ENGLISH,
    LANGUAGES,
    Stored,
    in_all_languages,
    in_language,
    pattern,
    phrase,
    read_translation,
)
from chipperf.plugin.torch_helpers import HOST_VARIABLES, KERNEL_SWITCHES
from chipperf.plugin.types import Title
from chipperf.report.render import render_report
from chipperf.report.templating import SandboxedTemplates
from chipperf.web import pages
from chipperf.web.board import summarize
from chipperf.web.pages import render_runs
from factory import make_record

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
CORE = ROOT / "core" / "src" / "chipperf"
TEMPLATES = [*(ROOT / "templates").rglob("*.j2"), *ROOT.glob("plugins/*/src/*/templates/*.j2")]
PLACEHOLDER = re.compile(r"%(?:\(\w+\)s|.)")


def texts_of_templates() -> Iterator[tuple[str, str]]:
    """Yield context and English of every text that a template says."""
    environment = SandboxedTemplates(None, None)
    for template in TEMPLATES:
        for _, function, arguments in environment.extract_translations(template.read_text(encoding="utf-8")):
            if function == "pgettext":
                yield arguments[0], arguments[1]
            else:
                yield "", arguments if isinstance(arguments, str) else arguments[0]


def texts_of_code() -> Iterator[tuple[str, str]]:
    """Yield context and English of every phrase in core, and of every title that has nothing but English."""
    for path in CORE.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                continue
            keywords = {keyword.arg: keyword.value for keyword in call.keywords}
            if call.func.id == "phrase":
                assert isinstance(call.args[0], ast.Constant), f"{path}, line {call.lineno}: the text is computed"
                yield ast.literal_eval(keywords.get("context", ast.Constant(""))), call.args[0].value
            elif call.func.id == "Title" and set(keywords) == {"en"}:
                yield "", ast.literal_eval(keywords["en"])


@cache
def texts() -> frozenset[tuple[str, str]]:
    """Return context and English of everything that core says."""
    return frozenset((*texts_of_templates(), *texts_of_code()))


OF_AN_IMPORT = ("the log has", "the last ")
"""First words of what is said about an imported log, in the words of its keys."""

TRANSLATED = [language for language in LANGUAGES if language != ENGLISH]


@pytest.mark.parametrize("language", TRANSLATED)
def test_translation_has_every_text_and_no_other(language: str) -> None:
    found = {(context, english) for context, spelled in read_translation(language).texts.items() for english in spelled}
    assert found - texts() == set(), "nothing says these"
    assert texts() - found == set(), "these have no translation"


@pytest.mark.parametrize("language", TRANSLATED)
def test_translation_takes_the_values_of_its_text(language: str) -> None:
    for spelled in read_translation(language).texts.values():
        for english, spelling in spelled.items():
            for form in (spelling,) if isinstance(spelling, str) else spelling:
                # A form of a plural may leave out its number, and the English one often does.
                values = (set(PLACEHOLDER.findall(text)) - {"%(num)s"} for text in (form, english))
                assert len(set(map(frozenset, values))) == 1, english


def stored_text(node: ast.expr) -> str | None:
    """Return a text or an f-string with ``{}`` for its values."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def texts_in(value: ast.expr | None, assigned: dict[str, list[ast.expr]]) -> Iterator[str | None]:
    """Yield the texts that an expression can be: itself, its parts and what is assigned to its name."""
    if isinstance(value, ast.Name):
        for each in assigned.pop(value.id, []):
            yield from texts_in(each, assigned)
    elif isinstance(value, ast.Dict):
        for each in value.values:
            yield from texts_in(each, assigned)
    else:
        yield stored_text(value) if value else None


def assignments(tree: ast.AST) -> dict[str, list[ast.expr]]:
    """Return what is assigned to each name of a file, or to an item of it."""
    found = defaultdict(list)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = zip(target.elts, node.value.elts, strict=False)
                else:
                    pairs = [(target.value if isinstance(target, ast.Subscript) else target, node.value)]
                for name, value in pairs:
                    found[ast.unparse(name)].append(value)
    return found


@cache
def stored_texts() -> tuple[frozenset[str], frozenset[str]]:
    """Return all texts in core's code, and those that say why: of a missing value, a setting, a failure, a bad record.

    A run's failure has a class.
    """
    every, reasons = set(), {*HOST_VARIABLES.values(), *KERNEL_SWITCHES.values()}
    for path in CORE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assigned = {} if path.parent.name == "importing" else assignments(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant | ast.JoinedStr):
                every.add(stored_text(node))
            if not isinstance(node, ast.Call):
                continue
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            name = ast.unparse(node.func)
            value = keywords.get("reason") if name in ("Missing", "Knob", "EnvironmentVariable") else None
            if "failure_class" in keywords and not {"importing", "contract"} & set(path.parts):
                value = keywords.get("message") or node.args[0]
            elif name == "switch_knobs" or (name == "UnusableRecord" and path.name == "store.py"):
                value = node.args[0]
            reasons.update(texts_in(value, dict(assigned)))
    return frozenset(filter(None, every)), frozenset(filter(None, reasons))


NEVER_IN_A_RECORD = {"in all {} runs; the first: {}", "no run completed", "{} of {} runs have none"}
"""Reasons in values of several runs together."""
AS_THEY_ARE = {"torch", "{}: {}", "{}: {}: Field required"}
"""A name, and the words of the library that checks records."""


@pytest.mark.parametrize("language", TRANSLATED)
def test_reasons_that_records_store_are_translated(language: str) -> None:
    every, reasons = stored_texts()
    translated = languages.parse_toml((languages.TRANSLATIONS / f"{language}.toml").read_text(encoding="utf-8"))
    found = translated["stored"] | translated["stored_since_3"] | translated["stored_parts"]

    assert {text for text in reasons if not text.startswith(OF_AN_IMPORT)} - set(
        found
    ) == NEVER_IN_A_RECORD | AS_THEY_ARE
    assert set(found) - every == set(), "nothing stores these"
    for english, spelled in found.items():
        assert len(re.findall(r"\{\d?\}", spelled)) == english.count("{}"), english
        assert "{}{}" not in english, f"nothing separates two values: {english}"


def test_stored_text_is_translated_with_its_values() -> None:
    text = "straggler: rank 3 on A1 takes 1.50 times as long as the others for waiting for data"

    assert in_language(Stored(text), "zh") == "慢卡：A1 上的 rank 3 在等待数据上的用时是其他 rank 的 1.50 倍"
    assert in_language(Stored(text), "en") == text
    assert in_language(Stored("anything {} else"), "zh") == "anything {} else"


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        (
            "bf16 was requested and bf16 declared, but training computes in fp32 at its end: matmul",
            "请求的精度为 bf16，声明为 bf16，但训练实际的计算精度为 fp32（训练结束时）：matmul",
        ),
        (
            "not reached within the budget of 30m: best 2.91 in epoch 3, target 2.85",
            "未达到（在 30m 的预算内）：最好结果 2.91，在第 3 个 epoch，目标 2.85",
        ),
        ("not reached: best 2.91 in epoch 3, target 2.85", "未达到：最好结果 2.91，在第 3 个 epoch，目标 2.85"),
        ("no telemetry was read", "没有读到遥测数据"),
    ],
)
def test_value_that_is_a_text_is_translated(text: str, spelled: str) -> None:
    assert in_language(Stored(text), "zh") == spelled


@pytest.mark.parametrize("name", ["core", "user", "file", "none", "at most 3"])
def test_value_that_is_a_name_stays(name: str) -> None:
    waits = f"straggler: rank 3 on {name} takes 1.50 times as long as the others for waiting for data"

    assert in_language(Stored(waits), "zh") == f"慢卡：{name} 上的 rank 3 在等待数据上的用时是其他 rank 的 1.50 倍"
    assert in_language(Stored(f"case {name} is not installed here"), "zh") == f"此处没有安装用例 {name}"


def test_report_of_layout_2_says_what_it_said() -> None:
    assert in_language(Stored("the model has none", since_3=False), "zh") == "该模型没有"
    assert in_language(Stored("threads on the host", since_3=False), "zh") == "threads on the host"
    assert in_language(Stored("threads on the host"), "zh") == "主机上的线程"


class Searched(str):
    """A text that counts how often it is searched. Each search begins behind what the one before found."""

    __slots__ = ("searches",)

    def find(self, *arguments):
        self.searches = getattr(self, "searches", 0) + 1
        return super().find(*arguments)


@pytest.mark.parametrize(
    ("start", "repeated"),
    [
        ("a was requested and ", " declared, but training computes in "),
        ("straggler: rank ", " on  takes  times as long as the others for "),
        ("", "; resumed from "),
    ],
)
def test_a_longer_text_is_searched_as_often(start: str, repeated: str) -> None:
    texts = [Searched(start + repeated * times) for times in (10, 100)]
    for text in texts:
        in_language(Stored(text), "zh")

    assert texts[0].searches == texts[1].searches > 0


def test_nested_texts_end() -> None:
    assert in_language(Stored("at most " * 3000), "zh") == "最多 " + "at most " * 2999


@pytest.fixture
def pseudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Add a language in which every text stands between « and »."""
    directory = shutil.copytree(languages.TRANSLATIONS, tmp_path / "translations")
    tables = defaultdict(list)
    for context, english in sorted(texts()):
        spelled = f"«{english}»" if english.strip(" ,;:.") else english
        tables[context].append(f"{json.dumps(english)} = {json.dumps(spelled)}")
    content = ["[texts]", *tables.pop("")]
    for context, lines in tables.items():
        content += [f"[contexts.{context}]", *lines]
    (directory / "qps.toml").write_text("\n".join(content), encoding="utf-8")
    monkeypatch.setattr(languages, "TRANSLATIONS", directory)
    monkeypatch.setitem(LANGUAGES, "qps", "«pseudo»")
    # Another test in this process may have made pages in the other languages.
    pages._heading.cache_clear()
    yield "qps"
    pages._heading.cache_clear()


def test_a_translation_alone_adds_a_language(pseudo: str) -> None:
    report = render_report([make_record(metrics__p_core={"missing": "not_run"})], language=pseudo)
    lines = report.splitlines()
    headings = [line.lstrip("#- ") for line in lines if line.lstrip("- ").startswith("#")]
    labels = [line.split("|")[1].strip(" *") for line in lines if line.startswith("| «")]

    # The vendor's title has no such language and is shown in English.
    assert [text for text in headings if not text.startswith("«")] == ["ACME A1 configuration and results"]
    assert "«Overall throughput»" in labels
    assert "| 4586.2 | «not run» |" in report
    assert "«%(" not in report
    assert not re.search("[一-鿿]", report)


def test_a_page_has_every_language(pseudo: str) -> None:
    record = make_record()
    page = render_runs([record], [summarize(record)], language=pseudo)

    assert f'<html lang="{pseudo}">' in page
    for language, name in LANGUAGES.items():
        assert f'<button type="button" lang="{language}" data-language="{language}">{name}</button>' in page
    for spelled in ('<span lang="zh">厂商</span>', '<span lang="en">Vendor</span>', '<span lang="qps">«Vendor»</span>'):
        assert spelled in page
    assert 'html[lang="qps"] body [lang]:not([lang="qps"])' in page


def test_a_text_without_translation_is_english(pseudo: str) -> None:
    assert in_language(phrase("nobody has %(what)s", what="this"), "zh") == "nobody has this"
    assert in_language(Title(zh="图片", en="pictures"), pseudo) == "pictures"
    assert in_language(Title(en="images"), pseudo) == "«images»"
    assert in_language(Title(en="images"), "zh") == "图片"


def test_a_phrase_takes_phrases_titles_and_lists_as_values() -> None:
    text = phrase("%(marker)s (%(reason)s)", marker=phrase("failed"), reason=["a", Title(zh="乙", en="b")])
    assert str(text) == "failed (a, b)"
    assert in_language(text, "zh") == "失败(a、乙)"
    assert in_all_languages(Title(zh="x", en="x")) == ("x",)


@pytest.mark.parametrize(("count", "form"), [(1, "jeden"), (3, "kilka"), (5, "wiele")])
def test_a_number_takes_the_plural_of_its_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, form: str
) -> None:
    (tmp_path / "qpl.toml").write_text(
        'plural = "n == 1 ? 0 : n < 5 ? 1 : 2"\n[texts]\n"one" = ["jeden", "kilka", "wiele"]\n', encoding="utf-8"
    )
    monkeypatch.setattr(languages, "TRANSLATIONS", tmp_path)
    assert read_translation("qpl").find_plural("one", "many", count) == form


def test_a_pattern_finds_a_text_in_any_language() -> None:
    found = re.compile(pattern(phrase("preset %(preset)s"), preset=r"(\w+)"))
    assert [found.fullmatch(text) is not None for text in ("preset demo", "预设 demo", "préréglage demo")] == [
        True,
        True,
        False,
    ]

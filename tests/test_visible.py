"""Foreign texts are shown and never obeyed, and two different texts never look equal."""

from __future__ import annotations

import json
import unicodedata

import pytest
from chipperf.visible import shown_apart, visible
from hypothesis import given
from hypothesis import strategies as st

FORGED = "\x1b[2K\rreport.md: 175 cells and facts equal 1 record\x1b[8m"


def test_what_a_terminal_obeys_is_shown():
    assert visible(FORGED) == r"\u001b[2K\rreport.md: 175 cells and facts equal 1 record\u001b[8m"
    assert visible("a\u202egpj.exe") == r"a\u202egpj.exe"
    assert visible("名称 ⚠ 1.5\t×\n") == "名称 ⚠ 1.5\t×\n"


@given(st.text())
def test_nothing_hidden_is_left_and_json_stays_the_same(text):
    shown = set(visible(text))
    turns = ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")
    assert not [each for each in shown if unicodedata.bidirectional(each) in turns]
    assert not [each for each in shown - set("\t\n") if unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp")]
    assert json.loads(visible(json.dumps(text, ensure_ascii=False))) == text


@pytest.mark.parametrize(
    ("one", "other", "shown"),
    [
        ("4476", "4475", ("4476", "4475")),
        ("145.20", "145\u200b.20", ("145.20", r"145\u200b.20")),
        ("p_core", "p_\u0441ore", ("p_core", r"p_\u0441ore")),
        ("e\u0301", "\u00e9", (r"e\u0301", r"\u00e9")),
        ("１４", "14", (r"\uff11\uff14", "14")),
        ("显卡：甲", "显卡：乙", ("显卡：甲", "显卡：乙")),
        ("\u200b", r"\u200b", (r"\u200b", r"\\u200b")),
        (
            "a" * 500 + "1" + "b" * 500,
            "a" * 500 + "2" + "b" * 500,
            tuple(f"...{'a' * 40}{n}{'b' * 40}..." for n in "12"),
        ),
    ],
)
def test_differing_texts_look_different(one, other, shown):
    assert shown_apart(one, other) == shown
    assert shown_apart(other, one) == shown[::-1]


@given(st.text(), st.text())
def test_no_two_texts_look_equal(one, other):
    if one != other:
        first, second = shown_apart(one, other)
        assert unicodedata.normalize("NFKC", first) != unicodedata.normalize("NFKC", second)


@pytest.mark.parametrize("arguments", ["verify {} --runs .", "compare {}", "report {}", "lint {}"])
def test_errors_show_the_path_they_name(perf, tmp_path, arguments):
    words = [word.format(f"{tmp_path}/{FORGED}") for word in arguments.split()]
    ended = perf(*words, PYTHONIOENCODING="ascii")
    assert ended.returncode in (1, 2)
    assert "\x1b" not in ended.stdout + ended.stderr
    assert r"\u001b[2K\rreport.md" in ended.stderr

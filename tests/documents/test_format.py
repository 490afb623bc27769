import doctest

import pytest
from chipperf.documents import format as formatting
from chipperf.documents.format import escape_markdown, gib, marker, number, quality, setting
from chipperf.languages import in_language
from chipperf.records.schema import Missing


def test_examples_in_docstrings_are_true():
    failures, tests = doctest.testmod(formatting)
    assert tests > 0
    assert failures == 0


@pytest.mark.parametrize(
    ("kind", "zh", "en"),
    [
        ("not_run", "未运行", "not run"),
        ("withheld", "未公开(contract)", "withheld (contract)"),
        ("failed", "失败(contract)", "failed (contract)"),
        ("not_applicable", "/", "/"),
        ("unknown", "未知", "unknown"),
    ],
)
def test_marker_names_the_kind_and_the_reason_that_belongs_to_it(kind, zh, en):
    missing = Missing(missing=kind, reason="contract")
    assert in_language(marker(missing), "zh") == zh
    assert in_language(marker(missing), "en") == en


def test_marker_without_reason_has_no_brackets():
    assert in_language(marker(Missing(missing="failed")), "zh") == "失败"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (220047.0, "220047"), (161.32, "161.32"), (12.5, "12.5"), (0.123456, "0.12346"), (-3.0, "-3")],
)
def test_number_keeps_five_digits_and_no_exponent(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.6843, "68.43%"), (0.755, "75.5%"), (0.68, "68.0%"), (1.0, "100.0%"), (0.0, "0.0%")]
)
def test_quality_as_percentage(value, text):
    assert quality(value, as_percent=True) == text


@pytest.mark.parametrize("value", [1e24, 1.7e308, -1e30])
def test_quality_that_is_no_fraction_is_shown_as_it_is(value):
    assert float(quality(value, as_percent=False)) == value


def test_quality_below_a_target_never_reads_like_the_target():
    assert quality(0.7549999, as_percent=True) == "75.49%"
    assert quality(0.4199999, as_percent=False) == "0.4199"


def test_memory_total_keeps_a_decimal_that_is_not_zero():
    assert gib(int(39.6 * 2**30), trim=True) == "39.6"


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (256, "256"), (0.1 * 3, "0.3"), (1e-4, "0.0001"), ("sgd", "sgd"), ("", "none")]
)
def test_setting_in_its_shortest_form(value, text):
    assert setting(value) == text


@pytest.mark.parametrize("function", [number, gib])
def test_missing_values_pass_through_numeric_functions(function):
    missing = Missing(missing="not_run")
    assert function(missing) is missing


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a | b", r"a \| b"),
        ("two\nlines", "two lines"),
        ("<b>&", "&lt;b>&amp;"),
        ("*x* `y`", r"\*x\* \`y\`"),
        ("linux_x86_64", "linux_x86_64"),
        ("_x_", r"\_x\_"),
        ("[w](https://a.b/c_d.whl)", "[w](https://a.b/c_d.whl)"),
        ("# x", r"\# x"),
        ("- x", r"\- x"),
        ("---", r"\---"),
        ("1. x", r"1\. x"),
        ("-1.5", "-1.5"),
        ("5.4.0-26", "5.4.0-26"),
        ("[w](javascript:x)", r"\[w\](javascript:x)"),
        ("![w](https://a.b/c)", r"\!\[w\](https://a.b/c)"),
    ],
)
def test_markdown_is_escaped_except_web_links(text, escaped):
    assert escape_markdown(text) == escaped

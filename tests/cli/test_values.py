"""Values and units as a terminal shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chipperf.cli import contract
from chipperf.cli.output import print_wrapped
from chipperf.cli.values import shown_unit
from chipperf.cli.withhold import _parts
from chipperf.contract.check import all_checks
from chipperf.contract.check_runner import CheckResult

if TYPE_CHECKING:
    from chipperf.records.columns import Unit


@pytest.mark.parametrize(
    ("unit", "case", "text"),
    [
        ("samples/s", "resnet50", "images/s"),
        ("samples/s", "gpt2", "tokens/s"),
        ("samples/s", "detr", "samples/s"),
        ("samples/s", "of-no-plugin", "samples/s"),
        ("s", "resnet50", "s"),
        ("fraction", "resnet50", ""),
    ],
)
def test_a_throughput_is_in_what_the_case_counts(unit: Unit, case: str, text: str) -> None:
    assert shown_unit(unit, case) == text


def test_text_wraps_between_words_on_a_terminal_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"{'word ' * 30}in-between"
    monkeypatch.setenv("COLUMNS", "40")

    print_wrapped(text, "    ")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    print_wrapped(f"  [1] {text}", "      ")

    plain, *wrapped = capsys.readouterr().out.splitlines()
    assert plain == text
    assert max(map(len, wrapped)) <= 40
    assert all(line.startswith("      ") for line in wrapped[1:])
    assert " ".join(" ".join(wrapped).split()) == f"[1] {text}"


def test_reason_that_many_checks_share_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third, fourth = all_checks()[:4]
    results = [
        CheckResult(check=first, status="passed"),
        CheckResult(check=second, status="not_run", message="no device: no card"),
        CheckResult(check=third, status="not_run", message="no group"),
        CheckResult(check=fourth, status="not_run", message="no device: no card"),
    ]

    contract._print_results(results)

    out = capsys.readouterr().out
    assert out.count("no device: no card") == 1
    assert f"2 checks not run: no device: no card: {second.id}, {fourth.id}" in out
    assert "no group" in out
    assert second.summary not in out


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (3.5, [("f", 3.5)]),
        ({"median": 3.0, "iqr": 1.0}, [("f", 3.0)]),
        ({"missing": "failed", "reason": "late"}, [("f", {"missing": "failed", "reason": "late"})]),
        (
            {"h2d_s": 0.1, "forward": {"median": 0.2}, "rest": {"a": 1}},
            [("f.h2d_s", 0.1), ("f.forward", 0.2), ("f.rest.a", 1)],
        ),
    ],
)
def test_value_of_several_parts_is_shown_by_part(value: object, parts: list[tuple[str, object]]) -> None:
    assert list(_parts("f", value)) == parts

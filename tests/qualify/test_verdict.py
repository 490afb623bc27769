"""What a qualification claims of the files that its stages left, as they are and edited."""

from __future__ import annotations

import json
import re
import shutil
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import chipperf
import pytest
from chipperf.contract.check import CONTRACT_VERSION, all_checks
from chipperf.qualify.qualification import QualificationDirectory
from chipperf.qualify.verdict import judge_qualification
from chipperf.records.machine_limits import limits_text
from chipperf.records.store import read_record
from factory import make_record
from limits_factory import limits_of_card, make_limits
from qualify_states import make_state

if TYPE_CHECKING:
    from pathlib import Path

    from support import FinishedRun


def claims_of(directory: QualificationDirectory, topic: str) -> tuple[list[str], list[str]]:
    """Return what may and what may not be claimed of a topic."""
    verdict = judge_qualification(make_state(), directory)
    return tuple([str(text) for text in texts if topic in str(text)] for texts in (verdict.may, verdict.may_not))  # type: ignore[return-value]


def edited(run: Path) -> None:
    """Make a run faster than its windows, with the checksums as they were."""
    record = json.loads((run / "record.json").read_text(encoding="utf-8"))
    record["metrics"]["p_core"]["median"] *= 1.5
    (run / "record.json").write_text(json.dumps(record), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda run: None, None),
        (edited, "implausible"),
        (lambda run: (run / "events.jsonl").unlink(), "its events are missing, so nothing confirms it"),
        (lambda run: (run / "logs/rank0.log").write_text("edited"), "rank0.log was changed after the run ended"),
    ],
    ids=["as measured", "edited record", "no events", "edited log"],
)
def test_run_is_claimed_as_its_files_say(
    trained_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, why: str | None
) -> None:
    run = shutil.copytree(trained_run.directory, tmp_path / "run")
    change(run)
    monkeypatch.setattr(QualificationDirectory, "records", lambda self: [(run, read_record(run))])

    claimed, not_claimed = claims_of(QualificationDirectory(tmp_path), "Run mobilenetv2")

    assert any(re.search(r"p_core [\d.]+ images per second", text) for text in claimed) is (why is None)
    assert any(why in text for text in not_claimed) if why else not_claimed == []


def test_run_of_another_vendor_is_not_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QualificationDirectory, "records", lambda self: [(tmp_path, make_record())])

    claimed, not_claimed = claims_of(QualificationDirectory(tmp_path), "Run ")

    assert (claimed, not_claimed[0]) == ([], "Run resnet50 fp32 1x8: it is of vendor acme")


def test_limit_above_its_data_sheet_is_not_claimed(tmp_path: Path) -> None:
    possible, excessive = limits_of_card(0), limits_of_card(1, 130e12)
    (tmp_path / "limits-1").mkdir()
    limits = make_limits(2, cards=[possible, excessive])
    (tmp_path / "limits-1" / "limits.json").write_text(limits_text(limits))

    verdict = judge_qualification(make_state(vendor="acme"), QualificationDirectory(tmp_path))

    told = {part: [str(text) for text in getattr(verdict, part) if "TFLOP" in str(text)] for part in ("may", "may_not")}
    assert told == {
        "may": ["Limit of card 0, products fp32: 100 TFLOP/s"],
        "may_not": ["Limit of card 1, products fp32: 130 TFLOP/s"],
    }


def test_limits_of_another_vendor_are_not_claimed(tmp_path: Path) -> None:
    (tmp_path / "limits-1").mkdir()
    (tmp_path / "limits-1" / "limits.json").write_text(limits_text(make_limits(2)))

    assert claims_of(QualificationDirectory(tmp_path), "Limit") == (
        [],
        ["Limits of the machine: it is of vendor acme"],
    )


def test_last_limits_are_the_newest(tmp_path: Path) -> None:
    for attempt, hour in ((2, 1), (10, 2)):
        (tmp_path / f"limits-{attempt}").mkdir()
        created_at = datetime(2026, 1, 1, hour, tzinfo=timezone.utc)
        limits = make_limits(2, created_at=created_at, cards=[limits_of_card(0, attempt * 1e12)])
        (tmp_path / f"limits-{attempt}" / "limits.json").write_text(limits_text(limits))

    verdict = judge_qualification(make_state(vendor="acme"), QualificationDirectory(tmp_path))

    assert "Limit of card 0, products fp32: 10 TFLOP/s" in map(str, verdict.may)


def certificate_of(directory: QualificationDirectory, **changes: Any) -> dict[str, Any]:
    """Write a certificate of this version that shows what it claims, but for the changes, and return it."""
    steps = [
        {
            **{"step": step, "loss": 1.0 / step, "reference_loss": 1.0 / step, "gradient_distance": 0.0},
            **dict.fromkeys(("gradient_norm", "reference_gradient_norm"), 2.0),
        }
        for step in (1, 2)
    ]
    comparison = {
        **{"case": "mobilenetv2", "case_version": "1", "dataset": "sample", "batch_size": 1, "steps": steps},
        **{"learning_rate_scale": 1.0, "loss_tolerance": 1e-4, "gradient_tolerance": 3e-3},
    }
    content = {
        **{"chipperf_version": chipperf.__version__, "vendor": "cpu", "distribution": "", "reference": ""},
        **{"created_at": "2026-01-01T00:00:00Z", "simulated": False, "size": "tiny", "seed": 0, "within": True},
        **{"device": {}, "runtime": {}, "precision": {"requested": "fp32"}, "comparisons": [comparison]},
        **changes,
    }
    file = directory.certificate("mobilenetv2")
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(content))
    return content


def test_certificate_that_shows_what_it_says_is_a_claim(tmp_path: Path) -> None:
    directory = QualificationDirectory(tmp_path)
    certificate_of(directory)

    (claim,), not_claimed = claims_of(directory, "First steps")

    assert "mobilenetv2: 2 steps within tolerance" in claim
    assert not_claimed == []


NOT_COMPARED = "First steps against the CPU reference, not compared: mobilenetv2"


@pytest.mark.parametrize(
    ("where", "value", "why"),
    [
        (("comparisons",), [], NOT_COMPARED),
        (("comparisons", 0, "steps"), [], "'within' is true, and its comparisons say otherwise"),
        (("comparisons", 0, "case"), "resnet50", NOT_COMPARED),
        (("vendor",), "acme", "it is of vendor acme"),
        (("within",), False, "'within' is false, and its comparisons say otherwise"),
        (("comparisons", 0, "loss_tolerance"), 1.0, "the tolerances of mobilenetv2 are not those of its precision"),
        (("precision", "requested"), "bf16", "the tolerances of mobilenetv2 are not those of its precision"),
        (("precision",), {}, "the tolerances of mobilenetv2 are not those of its precision"),
        (("comparisons", 0, "steps", 1, "step"), 3, "steps of mobilenetv2 are missing"),
        (("comparisons", 0, "steps", 1, "gradient_norm"), 2.5, "differ by less than their norms do"),
        (("comparisons", 0, "steps", 1, "gradient_norm"), None, "differ by less than their norms do"),
        (("comparisons", 0, "steps", 1, "loss"), 0.6, "'within' is true, and its comparisons say otherwise"),
    ],
)
def test_certificate_that_shows_something_else_is_no_claim(
    where: tuple[str | int, ...], value: Any, why: str, tmp_path: Path
) -> None:
    directory = QualificationDirectory(tmp_path)
    content = place = certificate_of(directory)
    for key in where[:-1]:
        place = place[key]  # type: ignore[index]
    place[where[-1]] = value  # type: ignore[index]
    directory.certificate("mobilenetv2").write_text(json.dumps(content))

    claimed, not_claimed = claims_of(directory, "First steps")

    assert claimed == []
    assert any(why in text for text in not_claimed), not_claimed


def statement_of(*, verdict: str = "passed", without: str = "", **changes: Any) -> dict[str, Any]:
    """Return a statement in which all checks of level 0 passed, but for the last one and the changes."""
    ids = [check.id for check in all_checks() if check.level == 0 and check.id != without]
    verdicts = {**dict.fromkeys(ids, "passed"), ids[-1]: verdict}
    results = [
        {"check": id, "level": 0, "verdict": each, "message": "", "seconds": 0.1, "waiver": None}
        for id, each in verdicts.items()
    ]
    level = {"level": 0, "claimed": True, "passed": len(ids), "applicable": len(ids), "remark": ""}
    names = ("chipperf_version", "api_version", "distribution", "distribution_version", "finished_utc", "python")
    return {
        **dict.fromkeys((*names, "system"), ""),
        **{"contract_version": CONTRACT_VERSION, "vendor": "cpu", "simulated": False, "device": {}, "runtime": {}},
        **{"levels": [level], "results": results},
        **changes,
    }


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        (statement_of(), None),
        (statement_of(verdict="failed"), "the statement contradicts itself: it says 'L0 "),
        (statement_of(verdict="not_run"), "the statement contradicts itself"),
        (statement_of(without="A1"), "Contract: without a result of A1"),
        (statement_of(vendor="acme"), "it is of vendor acme"),
        (statement_of(results=[]), "the statement contradicts itself"),
        ({}, "Field required"),
    ],
    ids=["as it was", "failed", "not run", "left out", "another vendor", "no results", "empty"],
)
def test_only_levels_that_follow_from_results_are_claimed(
    statement: dict[str, Any], why: str | None, tmp_path: Path
) -> None:
    directory = QualificationDirectory(tmp_path)
    directory.statement.write_text(json.dumps(statement))

    claimed, not_claimed = claims_of(directory, "Contract")

    assert claimed == ([] if why else [f"Contract: L0 {len(statement['results'])}/{len(statement['results'])}"])
    assert any(why in text for text in not_claimed) if why else not_claimed == []

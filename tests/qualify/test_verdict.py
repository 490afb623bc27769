"""What a qualification claims of the files that its stages left, as they are and edited."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import chipperf
import pytest
from chipperf.bundle.pack import pack
from chipperf.contract.check import CONTRACT_VERSION, LEVELS, all_checks
from chipperf.errors import RecordError
from chipperf.plugin.installed import find_vendor
from chipperf.qualify.qualification import QualificationDirectory
from chipperf.qualify.qualify_plan import Candidate
from chipperf.qualify.verdict import judge_qualification
from chipperf.records.checkpoints import digest_of
from chipperf.records.machine_limits import limits_text
from chipperf.records.store import read_record
from factory import make_record
from limits_factory import limits_of_card, make_limits
from qualify_states import make_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import FinishedRun


TRAINED = [Candidate(case="mobilenetv2", precision="fp32", topology="1x2")]
"""What the run of the tests trained."""

ACME: dict[str, Any] = {"vendor": "acme", "software": "chipperf-acme 2.3.4, chipperf 0.1.0"}


def claims_of(directory: QualificationDirectory, topic: str, **state: Any) -> tuple[list[str], list[str]]:
    """Return what may and what may not be claimed of a topic."""
    verdict = judge_qualification(make_state(**{"candidates": TRAINED, **state}), directory)
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

    verdict = judge_qualification(make_state(**ACME), QualificationDirectory(tmp_path))

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

    verdict = judge_qualification(make_state(**ACME), QualificationDirectory(tmp_path))

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
        **{"chipperf_version": chipperf.__version__, "vendor": "cpu", "reference": ""},
        "distribution": find_vendor("cpu").source,
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
        (("chipperf_version",), "0.0.1", "it is of "),
        (("distribution",), "other 1", "it is of "),
        (("created_at",), "2019-01-01T00:00:00Z", "it is older than the qualification"),
        (("created_at",), "2026-01-01T00:00:00", "Input should have timezone info"),
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


def statement_of(*, verdict: str = "passed", **changes: Any) -> dict[str, Any]:
    """Return a statement in which all checks passed, but for the last one of level 0 and the changes."""
    checks = all_checks()
    last = [check.id for check in checks if check.level == 0][-1]
    results = [
        {"check": check.id, "level": check.level, "message": "", "seconds": 0.1, "waiver": None}
        | {"verdict": verdict if check.id == last else "passed"}
        for check in checks
    ]
    counts = Counter(check.level for check in checks)
    levels = [
        {"level": level, "claimed": True, "passed": counts[level], "applicable": counts[level], "remark": ""}
        for level in LEVELS
    ]
    entry = find_vendor("cpu")
    return {
        **dict.fromkeys(("api_version", "python", "system"), ""),
        **{"contract_version": CONTRACT_VERSION, "vendor": "cpu", "simulated": False, "device": {}, "runtime": {}},
        **{"distribution": entry.distribution, "distribution_version": entry.version},
        **{"chipperf_version": chipperf.__version__, "finished_utc": "2026-01-01T00:00:00+00:00"},
        **{"levels": levels, "results": results},
        **changes,
    }


def restated(change: Callable[[list[dict[str, Any]]], object], **levels: dict[str, Any]) -> dict[str, Any]:
    """Return a statement whose results are changed, and its levels too so that they follow from them."""
    statement = statement_of()
    change(statement["results"])
    for name, changes in levels.items():
        statement["levels"][int(name[1:])].update(changes)
    return statement


RESULTS = statement_of()["results"]
COUNT = Counter(each["level"] for each in RESULTS)


def shown(passed: int, applicable: int) -> dict[str, Any]:
    return {"passed": passed, "applicable": applicable}


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        (statement_of(), None),
        (statement_of(verdict="failed"), "the statement contradicts itself: it says 'L0 "),
        (statement_of(verdict="not_run"), "the statement contradicts itself"),
        (statement_of(levels=[]), "its results are not those of the checks: "),
        (statement_of(levels=statement_of()["levels"][:1]), "its levels are not those of its results"),
        (restated(lambda all: all[0].update(verdict="waived"), L0=shown(COUNT[0] - 1, COUNT[0])), "has no waiver"),
        (
            restated(lambda all: all[0].update(verdict="advisory"), L0=shown(COUNT[0] - 1, COUNT[0] - 1)),
            f"its results are not those of the checks: {RESULTS[0]['check']}",
        ),
        (
            restated(lambda all: all.append(all[0]), L0=shown(COUNT[0] + 1, COUNT[0] + 1)),
            "it has two results of one check",
        ),
        (
            restated(lambda all: all.append(all[0] | {"check": "Z99"}), L0=shown(COUNT[0] + 1, COUNT[0] + 1)),
            "its results are not those of the checks: Z99",
        ),
        (
            restated(
                lambda all: all[0].update(level=3),
                L0=shown(COUNT[0] - 1, COUNT[0] - 1),
                L3=shown(COUNT[3] + 1, COUNT[3] + 1),
            ),
            f"its results are not those of the checks: {RESULTS[0]['check']}",
        ),
        (statement_of(chipperf_version="0.0.1"), "it is of "),
        (statement_of(finished_utc="2019-01-01T00:00:00+00:00"), "it is older than the qualification"),
        (
            restated(lambda all: all.pop(0), L0=shown(COUNT[0] - 1, COUNT[0] - 1)),
            f"its results are not those of the checks: {RESULTS[0]['check']}",
        ),
        (statement_of(vendor="acme"), "it is of vendor acme"),
        (statement_of(results=[]), "the statement contradicts itself"),
        ({}, "Field required"),
    ],
    ids=[
        *("as it was", "failed", "not run", "no levels", "few levels", "waived", "advisory", "twice", "unknown"),
        *("moved", "another version", "old", "left out", "another vendor", "no results", "empty"),
    ],
)
def test_only_levels_that_follow_from_results_are_claimed(
    statement: dict[str, Any], why: str | None, tmp_path: Path
) -> None:
    directory = QualificationDirectory(tmp_path)
    directory.statement.write_text(json.dumps(statement))

    claimed, not_claimed = claims_of(directory, "Contract")

    assert claimed == ([] if why else [f"Contract: L{level} {COUNT[level]}/{COUNT[level]}" for level in LEVELS])
    assert any(why in text for text in not_claimed) if why else not_claimed == []


def test_what_was_changed_after_it_was_packed_is_not_claimed(
    trained_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = QualificationDirectory(tmp_path)
    run = shutil.copytree(trained_run.directory, tmp_path / "run")
    monkeypatch.setattr(QualificationDirectory, "records", lambda self: [(run, read_record(run))])
    directory.statement.write_text(json.dumps(statement_of()))
    certificate_of(directory)
    documents = [directory.statement, directory.certificate("mobilenetv2")]
    pack([run], [], directory.bundle, documents=documents)
    state = make_state(candidates=TRAINED, bundle_sha256=digest_of(directory.bundle).sha256)
    state.stage("bundle").state = "completed"

    before = [str(text) for text in judge_qualification(state, directory).may]
    for file in (*documents, run / "record.json"):
        file.write_text(file.read_text(encoding="utf-8") + " ", encoding="utf-8")
    after = judge_qualification(state, directory)

    assert [text.partition(":")[0] for text in before[-3:-1]] == [
        "First steps against the CPU reference",
        "Run mobilenetv2 fp32 1x2",
    ]
    assert [text.partition(";")[0] for text in map(str, after.may)] == ["The bundle bundle.tar.gz is verified"]
    changed = [text for text in map(str, after.may_not) if "it was changed after it was packed into the bundle" in text]
    assert len(changed) == 3


def test_bundle_is_called_signed_only_with_a_signature(tmp_path: Path, trained_run: FinishedRun) -> None:
    directory = QualificationDirectory(tmp_path)
    pack([trained_run.directory], [], directory.bundle)
    state = make_state(bundle_sha256=digest_of(directory.bundle).sha256, key=tmp_path / "key")
    state.stage("bundle").state = "completed"

    verdict = judge_qualification(state, directory)

    assert "Who made the bundle: it is not signed, --sign KEY signs it" in map(str, verdict.may_not)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"preset": "full"}, "its preset is tiny"),
        ({"candidates": []}, "it was not planned"),
        ({"software": "chipperf 0, chipperf 0"}, "it is of chipperf "),
        ({"created_at": datetime(9000, 1, 1, tzinfo=timezone.utc)}, "it is older than the qualification"),
    ],
)
def test_run_of_another_plan_is_not_claimed(
    trained_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], why: str
) -> None:
    run = trained_run.directory
    monkeypatch.setattr(QualificationDirectory, "records", lambda self: [(run, read_record(run))])

    claimed, (not_claimed, *_) = claims_of(QualificationDirectory(tmp_path), "Run mobilenetv2", **changes)

    assert claimed == []
    assert not_claimed.startswith(f"Run mobilenetv2 fp32 1x2: {why}")


@pytest.mark.parametrize(
    "change",
    [
        lambda stages: stages.clear(),
        lambda stages: stages.pop(1),
        lambda stages: stages[1].update(state="completed", error="a check failed"),
        lambda stages: stages[1].update(seconds=-1.0),
    ],
)
def test_stages_that_contradict_themselves_are_refused(tmp_path: Path, change: Any) -> None:
    directory = QualificationDirectory(tmp_path)
    state = make_state().model_dump(mode="json")
    change(state["stages"])
    directory.state.write_text(json.dumps(state))

    with pytest.raises(RecordError, match=r"stages"):
        directory.read()


def test_command_stays_on_its_line(tmp_path: Path) -> None:
    verdict = judge_qualification(make_state(command="perf\n```\n## all"), QualificationDirectory(tmp_path))

    assert verdict.command == r"perf\n```\n## all"

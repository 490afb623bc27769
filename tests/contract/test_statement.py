"""What a conformance statement says, and what it does not claim."""

from __future__ import annotations

import json

import pytest
from chipperf.contract import check as checks
from chipperf.contract.check import Check, fp32
from chipperf.contract.check_runner import CheckResult, PluginReadiness
from chipperf.contract.statement import Statement, judge, make_statement
from chipperf.contract.waivers import Waiver
from chipperf.plugin import installed
from chipperf.plugin.types import Capability
from pydantic import ValidationError

ENTRY = installed.PluginEntry(
    group=installed.VENDOR_GROUP, name="acme", value="acme", distribution="chipperf-acme", version="1.2"
)


def result(id, status="passed", *, level=0, message="", since="1.0", capability=None):
    check = Check(
        id=id,
        summary="It works.",
        fault="it does not",
        level=level,
        capability=capability,
        needs="session",
        ranks=1,
        most_ranks=1,
        settings=fp32,
        since=since,
        timeout_s=1,
        function=print,
    )
    return CheckResult(check=check, status=status, message=message, seconds=0.25)


def waiver(id, kind="bug"):
    return {id: Waiver(check=id, kind=kind, reason="known")}


def state(*results, waivers=None, standing=None, level=None):
    highest = max(result.check.level for result in results)
    return make_statement(
        ENTRY, standing or PluginReadiness(), results, waivers or {}, level=highest if level is None else level
    )


@pytest.mark.parametrize(
    ("status", "waived", "verdict"),
    [
        ("passed", False, "passed"),
        ("failed", False, "failed"),
        ("not_run", False, "not_run"),
        ("not_applicable", False, "not_applicable"),
        ("passed", True, "unexpected_pass"),
        ("failed", True, "waived"),
        ("not_run", True, "not_run"),
        ("not_applicable", True, "not_applicable"),
    ],
)
def test_verdict(status, waived, verdict):
    judged = judge(result("A1", status, message="why"), waiver("A1")["A1"] if waived else None)

    assert judged.verdict == verdict
    assert (judged.waiver is not None) == waived


def test_waived_check_that_passes_says_what_to_remove():
    judged = judge(result("A1"), waiver("A1", "planned")["A1"])

    assert judged.message == "it passes, but is waived as planned (known): remove the waiver"


def test_failure_of_a_new_check_is_advice_for_one_minor_version(monkeypatch):
    monkeypatch.setattr(checks, "CONTRACT_VERSION", "1.3")
    statement = state(result("A1"), result("A2", "failed", since="1.3"))

    assert [judged.verdict for judged in statement.results] == ["passed", "advisory"]
    assert statement.succeeded
    assert statement.levels[0].claimed
    assert (statement.levels[0].passed, statement.levels[0].applicable) == (1, 1)
    assert judge(result("A2", "failed", since="1.2"), None).verdict == "failed"


def test_all_that_passed_is_claimed():
    statement = state(result("A1"), result("A2"), result("D1", level=1))

    assert statement.succeeded
    assert statement.line == "contract 1.0 · L0 2/2 · L1 1/1"


def test_what_does_not_apply_does_not_count():
    statement = state(result("A1"), result("A2", "not_applicable", message="bf16 is not declared"))

    assert statement.line == "contract 1.0 · L0 1/1"


@pytest.mark.parametrize(
    ("results", "waivers", "line", "succeeded"),
    [
        ([("A2", "failed")], {}, "L0 1/2 not claimed (A2 failed)", False),
        ([("A2", "not_run")], {}, "L0 1/2 not claimed (A2 not run)", True),
        ([("A2", "failed")], waiver("A2", "bug"), "L0 1/2 not claimed (A2 waived as bug)", True),
        ([("A2", "failed")], waiver("A2", "planned"), "L0 1/2 not claimed (A2 waived as planned)", True),
        ([("A2", "failed")], waiver("A2", "unsupported"), "L0 1/2 (A2 unsupported)", True),
        ([("A2", "passed")], waiver("A2"), "L0 1/2 not claimed (A2 waived but passing)", False),
        (
            [("A2", "failed"), ("A3", "not_run"), ("A4", "failed")],
            waiver("A4"),
            "L0 1/4 not claimed (A2 failed; A3 not run; A4 waived as bug)",
            False,
        ),
    ],
)
def test_level_and_success(results, waivers, line, succeeded):
    statement = state(result("A1"), *(result(*each) for each in results), waivers=waivers)

    assert statement.line == f"contract 1.0 · {line}"
    assert statement.succeeded is succeeded


def test_level_without_a_device_did_not_run():
    no_device = PluginReadiness(no_device="no /dev/acme0")
    statement = state(result("A1"), result("D1", "not_run", level=1), standing=no_device)

    assert statement.line == "contract 1.0 · L0 1/1 · L1 not run (no device)"
    assert [claim.claimed for claim in statement.levels] == [True, False]
    assert statement.succeeded


@pytest.mark.parametrize(
    ("devices", "phrase"), [(1, "L1 1/1 (1 device, M6 not run)"), (2, "L1 1/2 not claimed (M6 not run)")]
)
def test_one_device_claims_levels_of_a_plugin_for_several(devices, phrase):
    apart = result("M6", "not_run", level=1, capability=Capability.MULTI_DEVICE)
    standing = PluginReadiness(device_count=devices)
    statement = state(result("A1"), result("D1", level=1), apart, standing=standing)

    assert statement.line == f"contract 1.0 · L0 1/1 · {phrase}"


def test_level_of_ranks_is_not_claimed_on_one_device():
    ranks = result("P2", "not_run", level=3, capability=Capability.DISTRIBUTED)
    statement = state(result("A1"), ranks, standing=PluginReadiness(device_count=1))

    assert not statement.levels[3].claimed


def test_simulated_stack_claims_nothing_above_level_0():
    statement = state(result("A1"), result("D1", level=1), standing=PluginReadiness(simulated=True))

    assert statement.simulated
    assert statement.line == "contract 1.0 · L0 1/1 · L1 1/1 not claimed (simulated)"


def test_no_level_is_claimed_above_one_that_is_not():
    statement = state(result("A1", "failed"), result("D1", level=1), result("N1", level=2))

    assert [claim.claimed for claim in statement.levels] == [False, False, False]
    assert statement.levels[2].remark == "a lower level is not claimed"


def test_waiver_as_unsupported_does_not_hold_back_higher_levels():
    statement = state(
        result("A1"), result("D1", "failed", level=1), result("N1", level=2), waivers=waiver("D1", "unsupported")
    )

    assert [claim.claimed for claim in statement.levels] == [True, True, True]


def test_level_of_which_nothing_ran_is_not_claimed():
    statement = state(result("A1"), level=1)

    assert statement.levels[1].remark == "no check ran"
    assert not statement.levels[1].claimed


@pytest.mark.parametrize(
    ("count", "named"),
    [(6, "T1, T2, T3, T4, T5, T6 not run"), (26, "T1, T2, T3, T4, T5 and 21 more not run")],
)
def test_line_names_a_few_checks_and_counts_many(count, named):
    statement = state(*(result(f"T{number}", "not_run") for number in range(1, count + 1)))

    assert statement.line.endswith(f"L0 0/{count} not claimed ({named})")


def test_single_checks_claim_no_level():
    statement = make_statement(ENTRY, PluginReadiness(), [result("A1")], {}, level=None)

    assert statement.levels == ()
    assert statement.line == "contract 1.0"
    assert statement.succeeded


def test_statement_survives_json():
    standing = PluginReadiness(device={"name": "Acme A1", "total_bytes": 2**36}, runtime={"torch": "2.4", "sdk": None})
    statement = state(result("A1"), result("A2", "failed", message="错"), waivers=waiver("A2"), standing=standing)

    text = statement.model_dump_json()

    assert Statement.model_validate_json(text) == statement
    content = json.loads(text)
    assert (content["vendor"], content["distribution"], content["distribution_version"]) == (
        *("acme", "chipperf-acme", "1.2"),
    )
    assert content["device"]["name"] == "Acme A1"
    assert content["results"][1]["waiver"]["kind"] == "bug"


def test_statement_takes_nothing_it_does_not_know():
    content = state(result("A1")).model_dump()

    with pytest.raises(ValidationError, match="vendors_own_claim"):
        Statement.model_validate({**content, "vendors_own_claim": "L3"})

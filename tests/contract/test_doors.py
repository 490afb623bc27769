"""The doors to the contract suite: ``perf contract`` and ``pytest --pyargs chipperf.contract``."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from typing import TYPE_CHECKING

import new_vendor
import pytest
from chipperf.cli.main import app
from chipperf.contract.check import CONTRACT_VERSION, all_checks
from chipperf.contract.check_runner import Runner
from chipperf.contract.statement import Statement
from chipperf.errors import PerfError
from new_vendor import FAILING, NEEDS_CAPABILITY, NEEDS_DEVICE, PASSING, VENDOR
from support import TIMEOUT_S, fill, perf_command
from typer.testing import CliRunner

if TYPE_CHECKING:
    from pathlib import Path

NO_DEVICE = "no device: this plugin does not look for cards yet"


def waive(path: Path, *checks: str, kind: str = "bug") -> Path:
    tables = [f'[[waiver]]\ncheck = "{check}"\nkind = "{kind}"\nreason = "metadata by hand"\n' for check in checks]
    path.write_text("\n".join(tables), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Ended:
    """How ``perf contract`` ended: its exit code, what it printed, and the error."""

    code: int
    out: str
    error: str
    hint: str | None


@pytest.fixture
def vendor(tmp_path, monkeypatch):
    root = tmp_path / "site"
    root.mkdir()
    new_vendor.install(root)
    monkeypatch.syspath_prepend(root)
    return VENDOR


@pytest.fixture
def contract(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        result = CliRunner().invoke(app, ["contract", *(str(argument) for argument in arguments)])
        error = result.exception
        if error is None or isinstance(error, SystemExit):
            return Ended(result.exit_code, result.stdout, result.stderr, None)
        assert isinstance(error, PerfError), result.exception
        return Ended(error.exit_code, result.stdout, error.message, error.hint)

    return run


@pytest.fixture
def few_checks(monkeypatch):
    """Let there be three checks, so that running all of them is quick."""
    few = [check for check in all_checks() if check.id in (PASSING, FAILING, NEEDS_DEVICE)]
    monkeypatch.setattr("chipperf.cli.contract.all_checks", lambda: few)


def test_list_has_every_check(contract):
    listed = json.loads(contract("list", "--json").out)

    assert [entry["id"] for entry in listed] == [check.id for check in all_checks()]
    assert listed[0] == {
        "id": "A1",
        "level": 0,
        "since": "1.0",
        "capability": None,
        "ranks": 1,
        "summary": all_checks()[0].summary,
        "fault": all_checks()[0].fault,
        "advisory": False,
    }
    assert re.search(rf"^{len(listed)} checks: L0 static \d+, L1 device \d+", contract("list").out, re.MULTILINE)


def test_check_that_passes_ends_with_0(contract, vendor):
    ended = contract("run", "--vendor", vendor, "--check", PASSING)

    assert ended.code == 0
    assert re.fullmatch(rf"1/1 {PASSING} ok \d+\.\d s\n", ended.error)
    assert re.search(rf"^{PASSING} +L0 +ok +\d+\.\d s", ended.out, re.MULTILINE)
    assert ended.out.splitlines()[-1] == f"contract {CONTRACT_VERSION}"


def test_check_that_fails_ends_with_4_and_says_what_is_wrong(contract, vendor):
    ended = contract("run", "--vendor", vendor, "--check", PASSING, "--check", FAILING.lower())

    assert ended.code == 4
    assert ended.error == f"vendor '{vendor}' (chipperf-{vendor} 1.2) does not conform"
    assert re.search(rf"^{FAILING} +L0 +FAILED", ended.out, re.MULTILINE)
    assert "requires chipperf" in " ".join(ended.out.split())


@pytest.mark.parametrize(
    ("arguments", "code", "error", "hint"),
    [
        (("--vendor", "doorchop"), 3, "no vendor is called 'doorchop' (did you mean 'doorchip'?)", "install"),
        (("--vendor", VENDOR, "--check", "A99"), 2, "there is no check 'A99' (did you mean 'A9'?)", "contract list"),
        (("--vendor", VENDOR, "--check", "A2", "--level", "0"), 2, "--check and --level exclude", "one of the two"),
        (("--vendor", VENDOR, "--waivers", "none.toml"), 2, "none.toml: ", "check --waivers"),
        (("--vendor", VENDOR, "--statement", "none/s.json"), 2, "none is not a directory", "create it"),
        (("--vendor", VENDOR, "--statement", "."), 2, ". is a directory", "name a file"),
    ],
)
def test_mistake_is_found_before_any_check_is_run(contract, vendor, monkeypatch, arguments, code, error, hint):
    monkeypatch.setattr("chipperf.contract.check_runner.Runner.run", None)

    ended = contract("run", *arguments)

    assert (ended.code, ended.out) == (code, "")
    assert error in ended.error
    assert hint in ended.hint


@pytest.mark.parametrize("arguments", [(), ("--vendor", VENDOR, "--level", "4"), ("--vendor", VENDOR, "--check")])
def test_command_line_that_makes_no_sense_ends_with_2(contract, arguments):
    assert contract("run", *arguments).code == 2


@pytest.mark.usefixtures("few_checks")
def test_level_that_is_asked_for_and_has_no_device_ends_with_3(contract, vendor, tmp_path):
    run = ("run", "--vendor", vendor, "--waivers", waive(tmp_path / "w.toml", FAILING, kind="unsupported"))

    asked, not_asked = contract(*run, "--level", "1"), contract(*run)

    assert (asked.code, not_asked.code) == (3, 0)
    assert f"level 1 was asked for and did not run: {NO_DEVICE}" in asked.error
    claim = f"contract {CONTRACT_VERSION} · L0 1/2 ({FAILING} unsupported) · L1 not run (no device)"
    assert asked.out.splitlines()[-1] == not_asked.out.splitlines()[-1] == claim


def test_check_that_is_asked_for_and_has_no_device_ends_with_3(contract, vendor):
    ended = contract("run", "--vendor", vendor, "--check", PASSING, "--check", NEEDS_DEVICE)

    assert ended.code == 3
    assert f"level 1 was asked for and did not run: {NO_DEVICE}" in ended.error


@pytest.mark.usefixtures("few_checks")
def test_level_that_is_asked_for_without_torch_ends_with_3(contract, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so is missing')\n")
    monkeypatch.syspath_prepend(tmp_path)

    ended = contract("run", "--vendor", "cpu", "--level", "1")

    assert ended.code == 3
    assert "level 1 was asked for and did not run" in ended.error
    assert "importing torch failed: ImportError: libtorch.so is missing" in ended.error


def test_waived_failure_ends_with_0_and_shows_the_reason(contract, vendor, tmp_path):
    waivers = waive(tmp_path / "w.toml", FAILING)

    ended = contract("run", "--vendor", vendor, "--check", FAILING, "--waivers", waivers)

    assert ended.code == 0
    assert "[bug: metadata by hand]" in " ".join(ended.out.split())


def test_waived_check_that_passes_ends_with_4(contract, vendor, tmp_path):
    waivers = waive(tmp_path / "w.toml", PASSING)

    ended = contract("run", "--vendor", vendor, "--check", PASSING, "--waivers", waivers)

    assert ended.code == 4
    assert ended.out.count("metadata by hand") == 1
    assert "remove the waiver" in " ".join(ended.out.split())


@pytest.mark.usefixtures("few_checks")
def test_statement_is_printed_and_written(contract, vendor, tmp_path):
    path = tmp_path / "conformance.json"

    ended = contract("run", "--vendor", vendor, "--level", "0", "--json", "--statement", path)

    printed = Statement.model_validate_json(ended.out)
    assert printed == Statement.model_validate_json(path.read_text(encoding="utf-8"))
    assert (printed.vendor, printed.distribution, printed.distribution_version) == (vendor, f"chipperf-{vendor}", "1.2")
    assert [claim.level for claim in printed.levels] == [0]
    assert {result.check: result.verdict for result in printed.results} == {PASSING: "passed", FAILING: "failed"}
    assert not printed.levels[0].claimed
    assert ended.code == 4


@pytest.mark.usefixtures("few_checks")
def test_ended_program_writes_what_it_found(contract, vendor, tmp_path, monkeypatch):
    path = tmp_path / "conformance.json"
    run = Runner.run
    monkeypatch.setattr(Runner, "run", lambda self, check: run(self, check) if check.id == PASSING else sys.exit(143))

    ended = contract("run", "--vendor", vendor, "--level", "1", "--statement", path)

    found = Statement.model_validate_json(path.read_text(encoding="utf-8"))
    verdicts = {result.check: (result.verdict, result.message) for result in found.results}
    unfinished = ("not_run", "the program was stopped first")
    assert verdicts == {PASSING: ("passed", ""), FAILING: unfinished, NEEDS_DEVICE: unfinished}
    assert not any(claim.claimed for claim in found.levels)
    assert ended.code == 143
    assert found.line in ended.out


@pytest.mark.usefixtures("few_checks")
def test_ended_program_goes_on_where_it_was(contract, vendor, tmp_path, monkeypatch):
    path = tmp_path / "conformance.json"
    run, ran = Runner.run, []

    def noted(self, check):
        ran.append(check.id)
        return run(self, check)

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "run", lambda self, check: run(self, check) if check.id == PASSING else sys.exit(143))
        contract("run", "--vendor", vendor, "--level", "0", "--statement", path)
    monkeypatch.setattr(Runner, "run", noted)

    ended = contract("run", "--vendor", vendor, "--level", "0", "--statement", path, "--resume")

    found = Statement.model_validate_json(path.read_text(encoding="utf-8"))
    assert ran == [FAILING]
    assert {result.check: result.verdict for result in found.results} == {PASSING: "passed", FAILING: "failed"}
    assert ended.code == 4


@pytest.mark.usefixtures("few_checks")
@pytest.mark.parametrize("field", ["vendor", "distribution_version", "contract_version", "chipperf_version"])
def test_statement_of_another_plugin_is_not_continued(contract, vendor, tmp_path, field):
    path = tmp_path / "conformance.json"
    contract("run", "--vendor", vendor, "--level", "0", "--statement", path)
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, field: "another"}), encoding="utf-8")

    ended = contract("run", "--vendor", vendor, "--level", "0", "--statement", path, "--resume")

    assert (ended.code, "is of another plugin or version" in ended.error) == (2, True)


def test_resuming_needs_a_statement(contract, vendor):
    assert contract("run", "--vendor", vendor, "--level", "0", "--resume").code == 2


def test_full_disk_hides_no_result_and_keeps_the_old_statement(contract, vendor, small_disk):
    path = small_disk / "conformance.json"
    path.write_text("old")
    fill(small_disk)

    ended = contract("run", "--vendor", vendor, "--check", PASSING, "--statement", path)

    assert ended.code == 1
    assert "the disk is full" in ended.error
    assert re.search(rf"^{PASSING} +L0 +ok", ended.out, re.MULTILINE)
    assert path.read_text() == "old"


def test_program_ends_with_the_code_and_one_line(perf, tmp_path):
    new_vendor.install(tmp_path)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)

    ended = perf("contract", "run", "--vendor", VENDOR, "--check", FAILING, PYTHONPATH=path)

    assert ended.returncode == 4
    progress, *error = ended.stderr.splitlines()
    assert progress.startswith(f"1/1 {FAILING} FAILED ")
    assert error == [
        f"perf: error: vendor '{VENDOR}' (chipperf-{VENDOR} 1.2) does not conform",
        "  hint: each message above says what to correct",
    ]


def test_terminated_program_leaves_no_file(tmp_path):
    program = subprocess.Popen(
        perf_command("contract", "run", "--vendor", "cpu"), env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    while not any(tmp_path.iterdir()):
        time.sleep(0.01)

    program.terminate()

    assert program.wait(TIMEOUT_S) == 128 + signal.SIGTERM
    assert not any(tmp_path.iterdir())


TERMINATED_AT_ITS_FIRST_DIRECTORY = """
import os, signal, sys, tempfile
from chipperf.__main__ import main
made = tempfile.mkdtemp
def make_and_terminate(*arguments, **options):
    path = made(*arguments, **options)
    os.kill(os.getpid(), signal.SIGTERM)
    return path
tempfile.mkdtemp = make_and_terminate
sys.argv[1:] = ["contract", "run", "--vendor", "cpu"]
main()
"""


def test_program_terminated_while_it_makes_a_directory_leaves_none(tmp_path):
    command = [sys.executable, "-c", TERMINATED_AT_ITS_FIRST_DIRECTORY]
    program = subprocess.run(command, env={**os.environ, "TMPDIR": str(tmp_path)}, timeout=TIMEOUT_S, check=False)

    assert program.returncode == 128 + signal.SIGTERM
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def run_pytest(tmp_path_factory):
    """Run pytest on the installed suite from a directory that knows nothing of it."""
    root = tmp_path_factory.mktemp("site")
    new_vendor.install(root)
    directory = tmp_path_factory.mktemp("unrelated")
    # A project of its own with the same names, that the suite must not stumble over.
    (directory / "conftest.py").write_text("import pytest\n\n\n@pytest.fixture\ndef check():\n    return 'mine'\n")
    (directory / "test_contract.py").write_text("def test_mine(check):\n    assert check == 'mine'\n")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PERF_", "PYTEST_"))}
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *(str(argument) for argument in arguments)],
            cwd=directory,
            env={**inherited, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )

    return run


SUITE = ("--pyargs", "chipperf.contract")


@pytest.fixture(scope="module")
def outcomes(run_pytest, tmp_path_factory):
    """Outcome and message of some items, with two checks waived: one that fails, and one that passes."""
    folder = tmp_path_factory.mktemp("waivers")
    waivers = waive(folder / "waivers.toml", "A7", FAILING)
    chosen = " or ".join((PASSING, FAILING, "A7", NEEDS_CAPABILITY, NEEDS_DEVICE))
    report = folder / "report.xml"

    ended = run_pytest(
        *(*SUITE, "--perf-vendor", VENDOR, "--perf-level", 1, "--perf-waivers", waivers, "-k", chosen),
        f"--junit-xml={report}",
    )

    assert ended.returncode == 1, ended.stdout + ended.stderr
    return {case.get("name"): case for case in ElementTree.parse(report).getroot().iter("testcase")}


def outcome_of(outcomes, check):
    """Return what became of an item, and why; ``None`` if it passed."""
    for outcome in outcomes[f"test_conforms[{VENDOR}-{check}]"]:
        return outcome.get("type") or outcome.tag, outcome.get("message")
    return None


def test_pytest_names_items_by_vendor_and_check(outcomes):
    assert {f"test_conforms[{VENDOR}-{check}]" for check in (PASSING, FAILING, NEEDS_DEVICE)} <= set(outcomes)


def test_pytest_passes_a_check_that_passes(outcomes):
    assert outcome_of(outcomes, PASSING) is None


def test_pytest_expects_a_waived_failure(outcomes):
    assert outcome_of(outcomes, FAILING) == ("pytest.xfail", "bug: metadata by hand")


def test_pytest_fails_a_waived_check_that_passes(outcomes):
    outcome, message = outcome_of(outcomes, "A7")

    assert outcome == "failure"
    assert "it passes, but is waived as bug (metadata by hand): remove the waiver" in message


def test_pytest_skips_what_needs_another_capability_and_says_so(outcomes):
    assert outcome_of(outcomes, NEEDS_CAPABILITY) == (
        *("pytest.skip", "not applicable: deterministic is not declared"),
    )


def test_pytest_skips_what_needs_a_device_and_says_so(outcomes):
    outcome, message = outcome_of(outcomes, NEEDS_DEVICE)

    assert outcome == "pytest.skip"
    assert message.startswith(f"not run: {NO_DEVICE}")


def test_pytest_fails_a_check_that_fails_without_a_traceback_of_the_suite(run_pytest):
    ended = run_pytest(*SUITE, "--perf-vendor", VENDOR, "--perf-vendor", "cpu", "-k", f"{PASSING} or {FAILING}", "-rA")

    assert ended.returncode == 1
    assert f"PASSED test_contract.py::test_conforms[cpu-{PASSING}]" in ended.stdout
    assert f"FAILED test_contract.py::test_conforms[{VENDOR}-{FAILING}]" in ended.stdout
    summary = next(check.summary for check in all_checks() if check.id == FAILING)
    assert f"{FAILING}: {summary}" in ended.stdout
    assert "runner.run(check)" not in ended.stdout


@pytest.mark.parametrize(("options", "level"), [((), 0), (("--perf-level", 1), 1)])
def test_pytest_collects_the_checks_up_to_a_level(run_pytest, options, level):
    ended = run_pytest(*SUITE, "--perf-vendor", VENDOR, *options, "--collect-only", "--quiet")

    collected = re.findall(rf"\[{VENDOR}-(\w+)\]$", ended.stdout, re.MULTILINE)
    assert collected == [check.id for check in all_checks() if check.level <= level]


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("--perf-vendor", "doorchop"), 4, "no vendor is called 'doorchop' (did you mean 'doorchip'?)"),
        (("--perf-vendor", "cpu", "--perf-waivers", "none.toml"), 4, "none.toml: No such file"),
        (("--perf-vendor", "cpu", "--perf-level", "4"), 4, "argument --perf-level: invalid choice: 4"),
        ((), 2, "--perf-vendor NAME is missing"),
    ],
)
def test_pytest_ends_at_once_with_a_mistake_in_the_options(run_pytest, arguments, code, error):
    ended = run_pytest(*SUITE, *arguments)

    assert ended.returncode == code
    assert error in ended.stdout + ended.stderr


def test_pytest_ends_at_once_if_a_waiver_matches_nothing(run_pytest, tmp_path):
    waivers = waive(tmp_path / "waivers.toml", "A99")

    ended = run_pytest(*SUITE, "--perf-vendor", "cpu", "--perf-waivers", waivers)

    assert ended.returncode == 4
    assert "a waiver matches no check: there is no check 'A99' (did you mean 'A9'?)" in ended.stderr


def test_pytest_of_another_project_is_left_alone(run_pytest):
    ended = run_pytest("-W", "error")

    assert ended.returncode == 0, ended.stdout
    assert "1 passed" in ended.stdout

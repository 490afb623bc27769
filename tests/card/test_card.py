"""``make card``: its parts on fake commands, and its plan; nothing here trains."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest
import telemetry
from chipperf.cases.registry import case_names
from chipperf.errors import VendorSelectionError
from chipperf.hardware import BYTES, WATTS
from chipperf.suites.suite_plan import plan_suite

import card
from card import Part

if TYPE_CHECKING:
    from pathlib import Path

SAYS = ("sh", "-c", "echo 12.5 images/s")
FAILS = ("sh", "-c", "echo 'perf: error: no card' >&2; echo '  hint: add one' >&2; exit 3")
HANGS = ("sh", "-c", "trap '' TERM; sleep 60 & echo $!; wait; sleep 60")


@pytest.fixture(autouse=True)
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "GRACE_S", 0.1)


def made_up(*commands: tuple[str, ...], **options: object) -> Part:
    named = {f"{number}.txt": command for number, command in enumerate(commands)}
    return Part("made up", 1, named, **options)


@pytest.mark.parametrize(
    ("commands", "state", "why"),
    [
        ((SAYS,), "done", []),
        ((SAYS, FAILS), "failed", ["1.txt: exit code 3: no card"]),
        ((("sh", "-c", "exit 1"),), "failed", ["0.txt: exit code 1: nothing was said"]),
    ],
)
def test_part_is_what_came_of_its_commands(
    tmp_path: Path, commands: tuple[tuple[str, ...], ...], state: str, why: list[str]
) -> None:
    part = made_up(*commands)
    part.run(tmp_path, 60)
    assert (part.state, part.why) == (state, why)
    assert part.figures == ["12.5 images/s"] * commands.count(SAYS)


def test_hanging_command_is_killed_with_its_children_and_those_after_it_are_named(tmp_path: Path) -> None:
    part = made_up(HANGS, SAYS)
    part.run(tmp_path, 1)
    assert (part.state, part.why) == ("timed out", ["0.txt: not done after 1 s", "1.txt: not begun within 1 s"])
    child = int((tmp_path / "0.txt").read_text(encoding="utf-8"))
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)


def test_figures_that_cannot_be_read_and_faults_without_an_exit_code_fail_a_part(tmp_path: Path) -> None:
    for read, why in [
        (lambda out: json.loads("["), "no figures: JSONDecodeError"),
        (lambda out: ([], ["the first device does not compute"]), "the first device does not compute"),
    ]:
        part = made_up(SAYS, read=read)
        part.run(tmp_path, 60)
        assert part.state == "failed"
        assert part.why[0].startswith(why)


def test_page_has_every_part_after_one_hangs_and_says_which_did_not_run(tmp_path: Path) -> None:
    hanging, after = made_up(HANGS), made_up(SAYS)
    card.carry_out([hanging, after], tmp_path, time.monotonic() + 2, ["# acme"])
    assert [part.state for part in (hanging, after)] == ["timed out", "done"]
    late = made_up(SAYS)
    card.carry_out([hanging, after, late], tmp_path, time.monotonic(), ["# acme"])
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert page.startswith("# acme\n\n| Part | Result | Seconds |\n")
    assert "## made up: not run\n\n* no time was left" in page


def test_page_shows_figures_and_links_what_was_written(tmp_path: Path) -> None:
    parts = [made_up(SAYS, FAILS)]
    card.carry_out(parts, tmp_path, time.monotonic() + 60, ["# acme"])
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| made up | failed |" in page
    assert "* 1.txt: exit code 3: no card\n\n```text\n12.5 images/s\n```\n" in page
    assert page.endswith("Files: [0.txt](0.txt), [1.log](1.log)\n")


def test_plan_fits_into_nine_minutes_and_its_suites_can_be_run(tmp_path: Path) -> None:
    parts = card.plan("cpu", ("fp32", "bf16"), tmp_path, 1.0)
    assert sum(part.seconds for part in parts) <= 540
    planned = {path.stem: plan_suite(path).runs for path in (tmp_path / "suites").iterdir()}
    assert {name: [run.precision for run in runs] for name, runs in planned.items()} == {
        name: ["fp32", "bf16"] for name in ("throughput", *case_names())
    }
    scripts = [argument for part in parts for argv in part.commands.values() for argument in argv if ".py" in argument]
    assert scripts
    assert all(os.path.exists(script) for script in scripts)


def test_doctors_part_fails_if_the_device_does_not_compute(tmp_path: Path) -> None:
    for compute, faults in (("ok", []), ("it hangs", ["the first device does not compute"])):
        vendor = {"name": "acme", "reason": "2 cards", "compute": {"compute": compute}}
        (tmp_path / "doctor.json").write_text(json.dumps({"vendors": [vendor]}), encoding="utf-8")
        assert card.read_doctor("acme", tmp_path) == (["2 cards", f"compute: {compute}"], faults)


def test_contracts_figures_are_its_faults_and_its_claim(tmp_path: Path) -> None:
    verdicts = {"A1": "passed", "M4": "failed", "S3": "not_run"}
    message = "it leaks\nat line 3"
    results = [{"check": check, "verdict": verdict, "message": message} for check, verdict in verdicts.items()]
    (tmp_path / "contract.json").write_text(json.dumps({"results": results}), encoding="utf-8")
    (tmp_path / "contract.txt").write_text("a table\ncontract 1.0 · L0 1/2\n", encoding="utf-8")
    assert card.read_contract(tmp_path) == (["M4: it leaks", "contract 1.0 · L0 1/2"], [])


def test_without_an_accelerator_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(name: str | None) -> None:
        raise VendorSelectionError("no vendor is available", hint="--vendor cpu runs the reference")

    monkeypatch.setattr(card, "select_vendor", refuse)
    monkeypatch.setattr(sys, "argv", ["card.py"])
    with pytest.raises(SystemExit) as end:
        card.main()
    assert end.value.code == 3
    said = capsys.readouterr().err
    assert said == "card: error: no vendor is available\n  hint: --vendor cpu runs the reference\n"


def test_full_folder_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "README.md").touch()
    monkeypatch.setattr(sys, "argv", ["card.py", "--vendor", "cpu", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        card.main()
    assert end.value.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


TOOL = "| 0  C500  N/A  45C  | 118.5W / 350W | 1536/65536 MiB |\nPower Draw : 71000 mW\nUsed : 1.5 GiB, id 42GB20"


@pytest.mark.parametrize(
    ("units", "readings", "expected"),
    [
        (WATTS, [110.0, 120.0], 118.5),
        (WATTS, [70.0], 71.0),
        (BYTES, [1600 * 2**20], 1536 * 2**20),
        (WATTS, [], None),
        ({"kW": 1e3}, [1.0], None),
    ],
)
def test_nearest_number_with_the_unit_is_found(
    units: dict[str, float], readings: list[float], expected: float | None
) -> None:
    assert telemetry.nearest(TOOL, units, readings) == expected


def test_distance_is_from_the_range_of_the_readings() -> None:
    assert telemetry.distance(115.0, [110.0, 120.0]) == 0
    assert telemetry.distance(0.1185, [110.0, 120.0]) > telemetry.ALLOWED

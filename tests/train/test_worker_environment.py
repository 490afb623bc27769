"""What a worker's interpreter is started with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from chipperf import EnvironmentSettings, Rank
from chipperf.errors import RecordError
from chipperf.records.store import read_record
from chipperf.run.directory import RunDirectory
from chipperf.run.plan import read_plan
from chipperf.run.programs import program
from chipperf.train import worker_environment
from chipperf.vendors import cpu

if TYPE_CHECKING:
    from pathlib import Path

    from support import FinishedRun, MakePlan


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """Programs that a worker became, with their environments."""
    calls: list[tuple[list[str], dict[str, str]]] = []

    def execve(program: str, arguments: list[str], environment: dict[str, str]) -> None:
        calls.append((arguments, environment))
        raise SystemExit(0)

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(worker_environment, "_redirect_output", lambda log: None)
    monkeypatch.setattr(worker_environment, "end_with_launcher", lambda: None)
    for name in ("OMP_NUM_THREADS", "GLIBC_TUNABLES", "RANK"):
        monkeypatch.delenv(name, raising=False)
    return calls


def start(directory: RunDirectory, make_plan: MakePlan, **changes: Any) -> None:
    (directory.path / "logs").mkdir(exist_ok=True)
    directory.plan.write_text(make_plan(**changes).model_dump_json(), encoding="utf-8")
    with pytest.raises(SystemExit):
        worker_environment.main(directory.path)


def test_vendor_variables_are_set_before_the_interpreter_starts(
    tmp_path: Path, make_plan: MakePlan, executed: list[tuple[list[str], dict[str, str]]]
) -> None:
    start(RunDirectory(tmp_path), make_plan)

    [(arguments, environment)] = executed
    assert arguments == [*program("chipperf.train.worker"), str(tmp_path)]
    for variable in cpu.perf_environment(Rank(), EnvironmentSettings(case="mobilenetv2", precision="fp32")):
        assert environment[variable.name] == variable.value
    applied = json.loads(environment[worker_environment.APPLIED_VARIABLE])
    assert {item["origin"] for item in applied} == {"vendor"}
    assert all(item["reason"] for item in applied)


def test_value_of_the_user_wins_and_is_recorded_as_such(
    tmp_path: Path,
    make_plan: MakePlan,
    executed: list[tuple[list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")

    start(RunDirectory(tmp_path), make_plan)

    [(_, environment)] = executed
    assert environment["OMP_NUM_THREADS"] == "3"
    applied = {item["name"]: item for item in json.loads(environment[worker_environment.APPLIED_VARIABLE])}
    assert applied["OMP_NUM_THREADS"]["origin"] == "user"
    assert applied["OMP_NUM_THREADS"]["value"] == "3"
    assert "vendor wanted" in applied["OMP_NUM_THREADS"]["reason"]


def test_launchers_variables_are_passed_on(
    tmp_path: Path,
    make_plan: MakePlan,
    executed: list[tuple[list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)

    start(RunDirectory(tmp_path), make_plan)

    assert executed[0][1]["RANK"] == "1"


def test_vendor_that_disappeared_is_reported(tmp_path: Path, make_plan: MakePlan, executed: list[Any]) -> None:
    directory = RunDirectory(tmp_path)

    start(directory, make_plan, vendor="acme")

    assert executed == []
    failure = json.loads(directory.failure(0).read_text())
    assert failure["failure_class"] == "VendorSelectionError"
    assert "no vendor is called 'acme'" in failure["message"]
    assert failure["exit_code"] == 3


def test_allocator_setting_is_in_effect_in_a_new_interpreter() -> None:
    """With it a freed buffer stays with the process; without it glibc returns it at once."""
    settings = EnvironmentSettings(case="mobilenetv2", precision="fp32")
    variables = {item.name: item.value for item in cpu.perf_environment(Rank(), settings)}
    if "GLIBC_TUNABLES" not in variables:
        pytest.skip("not glibc")
    program = """
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
size = 64 * 2**20
buffer = libc.malloc(size)
ctypes.memset(buffer, 1, size)
libc.free(buffer)
print(next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""

    def resident_mib(environment: dict[str, str]) -> int:
        inherited = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
        command = [sys.executable, "-c", program]
        return int(subprocess.run(command, env=inherited | environment, capture_output=True, check=True).stdout)

    assert resident_mib({}) < 60
    assert resident_mib({"GLIBC_TUNABLES": variables["GLIBC_TUNABLES"]}) > 60


def test_variables_are_in_force_and_recorded_in_a_real_run(trained_run: FinishedRun) -> None:
    knobs = {knob.name: knob for knob in read_record(trained_run.directory).knobs}

    assert knobs["OMP_NUM_THREADS"].origin == "vendor"
    assert knobs["threads"].value == knobs["OMP_NUM_THREADS"].value
    assert (knobs["GLIBC_TUNABLES"].origin, knobs["GLIBC_TUNABLES"].value) == ("user", "glibc.malloc.top_pad=1")
    assert knobs["memory_format"].origin == "core"
    assert (knobs["OMP_WAIT_POLICY"].origin, knobs["OMP_WAIT_POLICY"].value) == ("user", os.environ["OMP_WAIT_POLICY"])


def test_plan_survives_a_round_trip(tmp_path: Path, make_plan: MakePlan) -> None:
    plan = make_plan()
    (tmp_path / "plan.json").write_text(plan.model_dump_json(), encoding="utf-8")

    assert read_plan(tmp_path / "plan.json") == plan


@pytest.mark.parametrize("content", [None, "{}", "{"])
def test_plan_that_cannot_be_read_is_an_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(RecordError, match="cannot read the run's plan") as caught:
        read_plan(path)
    assert caught.value.hint == "start the run again"

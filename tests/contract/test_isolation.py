"""Whatever a call does to its process, the server says what happened and answers the next one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from chipperf.contract.isolation import ForkServer, ForkServers
from chipperf.errors import PluginError
from support import processes_naming

AMPLE_S = 60


@pytest.fixture(scope="module")
def server():
    server = ForkServer(os.environ, ["misbehavior"])
    yield server
    server.close()


@pytest.fixture
def call(server):
    """Call a function of misbehavior.py; afterwards the same server must still answer, and correctly."""

    def call(name, argument=None, *, timeout_s=AMPLE_S, environment=None):
        return server.call(f"misbehavior:{name}", argument, timeout_s=timeout_s, environment=environment)

    yield call
    assert call("add", [1, 2, 3]).value == 6


def test_value_is_returned_with_the_time_it_took(call):
    outcome = call("add", [1, 2])

    assert (outcome.value, outcome.fault, outcome.output) == (3, None, "")
    assert 0 < outcome.seconds < AMPLE_S


@pytest.mark.parametrize("name", ["hang", "hang_deaf_to_signals"])
def test_hanging_call_is_killed_in_time(call, name):
    outcome = call(name, timeout_s=0.3)

    assert outcome.fault.startswith(f"it did not finish within 0.3 s and was killed, in {name} (")
    assert outcome.value is None


def test_limit_inside_a_check_follows_the_factor(call):
    assert call("hang_in_a_call_of_its_own", 0.1).value.startswith("it did not finish within 0.3 s")


@pytest.mark.parametrize(
    ("name", "argument", "fault"),
    [
        ("crash", None, "it crashed the process with SIGSEGV"),
        ("exit_at_once", 3, "it ended the process with status 3"),
        ("exit_at_once", 0, "it ended the process with status 0"),
        ("raise_system_exit", None, "SystemExit: no licence for this card"),
        ("raise_keyboard_interrupt", None, "KeyboardInterrupt"),
        ("return_no_json", None, "TypeError: Object of type set is not JSON serializable"),
        ("no_such_function", None, "AttributeError: module 'misbehavior' has no attribute 'no_such_function'"),
    ],
)
def test_call_without_a_value_has_a_fault(call, name, argument, fault):
    outcome = call(name, argument)

    assert outcome.fault.startswith(fault)
    assert outcome.value is None


def test_module_that_does_not_exist_is_a_fault(server, call):
    assert "ModuleNotFoundError" in server.call("no_such_module:f", None, timeout_s=AMPLE_S).fault


def test_exception_is_shown_with_its_traceback_and_cause(call):
    outcome = call("raise_with_a_cause")

    assert outcome.fault == "RuntimeError: the card is gone"
    assert "KeyError: 'card'" in outcome.output
    assert 'misbehavior.py", line' in outcome.output


def test_crash_is_shown_with_the_place_it_happened(call):
    assert "misbehavior.py" in call("crash").output


def test_printing_does_not_disturb_the_answer(call):
    outcome = call("print_text", '{"value": "mine"}')

    assert outcome.value == "printed"
    assert set(outcome.output.splitlines()) == {"and more", '{"value": "mine"}'}


def test_only_the_end_of_much_binary_output_is_kept(call):
    outcome = call("print_binary")

    assert outcome.value == "printed"
    assert 0 < len(outcome.output) <= 4000


@pytest.mark.parametrize("name", ["close_output", "close_everything"])
def test_closing_its_files_harms_nobody_else(call, name):
    outcome = call(name)

    assert outcome.value == "closed" or outcome.fault is not None


def test_writing_into_all_files_reaches_nobody_else(call):
    outcome = call("write_everywhere", '{"value": "forged"}\n')

    assert outcome.value in ("written", None)


def test_standard_input_is_empty(call):
    assert call("read_input").value == ""


def test_thread_does_not_keep_the_process(call):
    outcome = call("start_a_thread_that_stays")

    assert outcome.value == "started"
    assert outcome.seconds < AMPLE_S


@pytest.mark.parametrize("ending", ["", "_and_hang", "_and_crash"])
def test_orphans_are_gone_afterwards(call, tmp_path, ending):
    outcome = call(f"start_orphan{ending}", str(tmp_path), timeout_s=AMPLE_S if ending != "_and_hang" else 5)

    orphan = int(outcome.output.split()[0]) if ending else outcome.value
    assert not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE
    assert not processes_naming(str(tmp_path))


def test_call_finds_nothing_of_an_earlier_one(call):
    first, second = call("remember", "mine").value, call("remember", "other").value

    assert first == second == [None, None, os.getcwd()]


def test_variables_are_set_for_one_call_only(call):
    assert call("variable", "MASTER_PORT", environment={"MASTER_PORT": "1"}).value == "1"
    assert call("variable", "MASTER_PORT").value is None


def test_server_has_the_environment_it_was_given():
    server = ForkServer({**os.environ, "ACME_RING": "1"})
    try:
        assert server.call("misbehavior:variable", "ACME_RING", timeout_s=AMPLE_S).value == "1"
    finally:
        server.close()


def test_calls_find_what_was_imported_beforehand(server, call):
    assert call("loaded", "misbehavior").value is True
    assert call("loaded", "torch").value is False


def test_module_that_cannot_be_imported_beforehand_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "noisy_and_broken.py").write_text("print('{}')\nraise ImportError('libacme.so.1 is missing')\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(PluginError, match=r"noisy_and_broken failed: ImportError: libacme\.so\.1 is missing"):
        ForkServer(os.environ, ["noisy_and_broken"])


def test_interpreter_that_does_not_start_is_an_error():
    with pytest.raises(PluginError, match="ended with status"):
        ForkServer({**os.environ, "PYTHONHOME": "/nowhere"})


def test_call_that_is_under_way_can_be_stopped(call, server):
    outcomes = []
    waiting = threading.Thread(target=lambda: outcomes.append(call("hang")))
    waiting.start()
    while not (forks := psutil.Process(server._process.pid).children()):
        time.sleep(0.01)

    server.stop_call()
    waiting.join(AMPLE_S)

    assert outcomes[0].fault == "it crashed the process with SIGKILL"
    assert not forks[0].is_running()


def test_closed_server_says_so(tmp_path):
    server = ForkServer(os.environ, ["misbehavior"])
    server.close()

    assert server.call("misbehavior:add", [], timeout_s=AMPLE_S).fault == "the process for the checks has ended"


def test_server_that_was_killed_says_so():
    server = ForkServer(os.environ, ["misbehavior"])
    psutil.Process(server._process.pid).kill()

    fault = server.call("misbehavior:add", [], timeout_s=AMPLE_S).fault
    server.close()

    assert "the process for the checks" in fault
    assert "ended" in fault


def test_server_that_does_not_answer_is_not_asked_again(monkeypatch):
    monkeypatch.setattr("chipperf.contract.isolation._KILL_TIMEOUT_S", 0.5)
    server = ForkServer(os.environ, ["misbehavior"])

    silent = server.call("misbehavior:stop_the_server", None, timeout_s=0.1)

    assert silent.fault == "the process for the checks does not answer"
    assert server.ended
    assert server.call("misbehavior:add", [], timeout_s=AMPLE_S).fault == "the process for the checks has ended"


def test_call_does_not_outlive_the_program_that_waits_for_it(tmp_path):
    program = (
        "import os; from chipperf.contract.isolation import ForkServer; "
        f"ForkServer(os.environ).call('misbehavior:hang_and_say_so', {str(tmp_path / 'pid')!r}, timeout_s=600)"
    )
    path = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    caller = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path})
    while not (tmp_path / "pid").exists() or not (text := (tmp_path / "pid").read_text()).endswith("\n"):
        assert caller.poll() is None, "the caller ended before its call had begun"
        time.sleep(0.01)
    callee = psutil.Process(int(text))
    server = callee.parent()

    caller.kill()
    caller.wait()

    _, alive = psutil.wait_procs([callee, server], timeout=AMPLE_S)
    assert not alive


def test_servers_are_kept_and_replaced_once_they_ended():
    with closing(ForkServers()) as servers:
        server = servers.get(os.environ, ["misbehavior"])
        assert servers.get(os.environ, ["misbehavior"]) is server
        assert servers.get(os.environ, ["misbehavior"], number=1) is not server
        server.close()
        another = servers.get(os.environ, ["misbehavior"])
        assert another.call("misbehavior:add", [1, 2], timeout_s=AMPLE_S).value == 3
    assert another.ended

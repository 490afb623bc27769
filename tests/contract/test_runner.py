"""How the runner joins what the ranks of a check found."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace

import pytest
from chipperf.contract.check import each_precision, find_check
from chipperf.contract.check_runner import PluginReadiness, Runner
from chipperf.contract.isolation import CallOutcome
from chipperf.plugin.installed import find_vendor
from chipperf.plugin.types import Capability
from chipperf.precisions import PRECISIONS

PASSED = {"status": "passed", "message": ""}


class Server:
    """Answers a call with a report, or hangs until it is stopped if there is none."""

    def __init__(self, report: dict[str, str] | None) -> None:
        self.report = report
        self.stopped = threading.Event()

    def call(self, *_, **__) -> CallOutcome:
        if self.report is None:
            self.stopped.wait()
            return CallOutcome(fault="it crashed the process with SIGKILL")
        return CallOutcome(value=self.report)

    def stop_call(self) -> None:
        self.stopped.set()


@pytest.mark.parametrize(
    ("reports", "status", "message"),
    [
        ((PASSED, PASSED), "passed", ""),
        (({"status": "failed", "message": "too late"}, PASSED), "failed", "rank 0: too late"),
        ((None, {"status": "failed", "message": "wrong sum"}), "failed", "rank 1: wrong sum"),
        (({"status": "not_run", "message": "no group"}, PASSED), "not_run", "rank 0: no group"),
        (({"status": "failed", "message": "is 3"},) * 2, "failed", "ranks 0 and 1: is 3"),
        ((None, {"status": "not_run", "message": "card 1 is gone"}), "not_run", "rank 1: card 1 is gone"),
        (
            ({"status": "failed", "message": "peer lost", "detail": "..."}, {"status": "failed", "message": "is 3"}),
            *("failed", "rank 1: is 3"),
        ),
    ],
)
def test_message_names_the_rank_that_failed(monkeypatch, reports, status, message):
    servers = [Server(report) for report in reports]
    monkeypatch.setattr("chipperf.contract.check_runner._GRACE_S", 0.1)
    monkeypatch.setattr(Runner, "_prevented", lambda *_: None)
    monkeypatch.setattr(Runner, "_server", lambda _, rank, settings: servers[rank.rank])

    with Runner(find_vendor("cpu")) as runner:
        result = runner.run(find_check("P3"))

    assert (result.status, result.message) == (status, message)


@pytest.mark.parametrize(("device_type", "status"), [("cpu", "passed"), ("acme", "not_run")])
def test_ranks_share_the_cpu_and_no_card_even_if_its_memory_is_the_hosts(monkeypatch, device_type, status):
    standing = PluginReadiness(
        device_type=device_type, device_count=1, capabilities=("distributed", Capability.UNIFIED_MEMORY)
    )
    monkeypatch.setattr(Runner, "readiness", standing)
    monkeypatch.setattr(Runner, "_server", lambda *_: Server(PASSED))

    with Runner(find_vendor("cpu")) as runner:
        assert runner.run(find_check("P3")).status == status


@pytest.mark.parametrize(("device_type", "devices", "ranks"), [("cpu", 1, 3), ("acme", 2, 2), ("acme", 8, 3)])
def test_third_rank_takes_part_where_it_has_a_device(monkeypatch, device_type, devices, ranks):
    standing = PluginReadiness(device_type=device_type, device_count=devices, capabilities=("distributed",))
    seen = []
    monkeypatch.setattr(Runner, "readiness", standing)
    monkeypatch.setattr(Runner, "_server", lambda _, rank, settings: seen.append(rank.world_size) or Server(PASSED))

    with Runner(find_vendor("cpu")) as runner:
        runner.run(find_check("P2"))

    assert seen == [ranks] * ranks


@pytest.fixture
def interruptible():
    """Let SIGINT interrupt: a shell starts what shall run in the background with the signal ignored."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("interruptible")
def test_interrupted_check_of_several_ranks_ends_at_once(monkeypatch):
    servers = [Server(None), Server(None)]
    monkeypatch.setattr(Runner, "_prevented", lambda *_: None)
    monkeypatch.setattr(Runner, "_server", lambda _, rank, settings: servers[rank.rank])
    interrupt = threading.Timer(0.2, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
    interrupt.start()

    with Runner(find_vendor("cpu")) as runner, pytest.raises(KeyboardInterrupt):
        runner.run(find_check("P3"))

    assert all(server.stopped.is_set() for server in servers)


def test_check_is_carried_out_in_the_environment_of_each_of_its_settings(monkeypatch):
    asked = []

    def call(self, server, function, rank, settings, timeout_s, **_):
        asked.append((function, settings.precision, settings.deterministic))
        return CallOutcome(value={} if function == "environment" else PASSED)

    monkeypatch.setattr(Runner, "_prevented", lambda *_: None)
    monkeypatch.setattr(Runner, "_call", call)
    with Runner(find_vendor("cpu")) as runner:
        assert runner.run(find_check("N3")).status == "passed"
        assert runner.run(find_check("S3")).status == "passed"

    for function in ("environment", "carry_out"):
        settings = [(precision, deterministic) for name, precision, deterministic in asked if name == function]
        assert settings == [(precision, wanted) for wanted in (False, True) for precision in PRECISIONS]


@pytest.mark.parametrize(
    ("statuses", "status", "message"),
    [
        (("passed", "not_run", "passed"), "not_run", "not_run"),
        (("not_applicable", "passed"), "not_applicable", "not_applicable"),
        (("passed", "failed", "passed"), "failed", "failed"),
        (("passed", "passed"), "passed", ""),
    ],
)
def test_worst_of_the_settings_decides(monkeypatch, statuses, status, message):
    reports = iter(
        CallOutcome(value={"status": each, "message": "" if each == "passed" else each}) for each in statuses
    )
    check = replace(find_check("A7"), settings=lambda: each_precision()[: len(statuses)])
    monkeypatch.setattr(Runner, "_prevented", lambda *_: None)
    monkeypatch.setattr(Runner, "_call", lambda *_, **__: next(reports))

    with Runner(find_vendor("cpu")) as runner:
        result = runner.run(check)

    assert (result.status, result.message) == (status, message)


@pytest.mark.parametrize(
    ("others", "status"),
    [
        ({"P1": "passed"}, "failed"),
        ({"P1": "failed"}, "not_run"),
        ({"P1": "not_run"}, "not_run"),
        ({"P1": "not_applicable"}, "failed"),
        ({"P1": "passed", "P7": "failed"}, "not_run"),
        ({"P1": "passed", "P7": "passed"}, "failed"),
        # The other one, which refers back, is the one that fails.
        ({"P1": "see P3"}, "not_run"),
    ],
)
def test_check_that_refers_to_one_without_a_fault_fails(monkeypatch, others, status):
    def call(*_, check, **__):
        said = others.get(check, f"no group, see {' and '.join(others)}: a vendor's words, see A1")
        return CallOutcome(value={"status": "not_run" if "see" in said else said, "message": said})

    monkeypatch.setattr(Runner, "_prevented", lambda *_: None)
    monkeypatch.setattr(Runner, "_server", lambda *_: None)
    monkeypatch.setattr(Runner, "_call", call)
    with Runner(find_vendor("cpu")) as runner:
        result = runner.run(find_check("P3"))
        failed = [check for check in others if runner.run(find_check(check)).status == "failed"]

    assert result.status == status
    assert "a vendor's words" in result.message
    assert status == "failed" or failed or "not_run" in others.values()


def test_check_that_fits_nowhere_runs_again_before_it_fails(monkeypatch):
    reports = iter([{"status": "not_run", "message": "too slow, see T1"}, PASSED, PASSED])
    monkeypatch.setattr(Runner, "_prevented", lambda *_: None)
    monkeypatch.setattr(Runner, "_server", lambda *_: None)
    monkeypatch.setattr(Runner, "_call", lambda *_, **__: CallOutcome(value=next(reports)))

    with Runner(find_vendor("cpu")) as runner:
        assert runner.run(find_check("T2")).status == "passed"

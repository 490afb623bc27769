"""Observers: told everything, able to change nothing."""

import logging
import signal
from typing import get_args

import pytest
from chipperf import EpochFinished, MemoryStats
from chipperf.errors import PluginLoadError, TrainingStopped
from chipperf.plugin.registration import EVENT_HOOKS, OBSERVER_HOOKS
from chipperf.plugin.session import bind
from chipperf.plugin.types import Event
from chipperf.records.store import read_record
from hook_events import EVENTS

EVENT = EpochFinished(run_id="r", epoch=1, step=10, mean_loss=0.5, memory=MemoryStats(source="acme runtime"))


def told_to(path, error=None):
    """Source of an observer that writes each epoch to ``path`` and then raises ``error``."""
    return f"""
    @hookimpl
    def perf_epoch_finished(event):
        with open({str(path)!r}, "a") as log:
            log.write(f"{{event.epoch}} ")
        {f"raise {error}" if error else "return 'nobody reads this'"}
    """


@pytest.mark.parametrize("error", ["ValueError('full')", "SystemExit(1)", "GeneratorExit('x')"])
def test_observer_that_raises_is_disabled_listed_once_and_harms_no_other(plugins, tmp_path, caplog, error):
    bad = plugins.observer("bad", told_to(tmp_path / "bad", error))
    good = plugins.observer("good", told_to(tmp_path / "good"))
    session = bind(plugins.vendor("acme"), observers=[bad, good])

    with caplog.at_level(logging.WARNING, logger="chipperf.plugin.session"):
        session.notify(EVENT)
        session.notify(EVENT)

    assert (tmp_path / "bad").read_text() == "1 "
    assert (tmp_path / "good").read_text() == "1 1 "
    ((disabled, reason),) = session.disabled_observers
    assert (disabled.name, disabled.distribution, disabled.version) == ("bad", "perf-bad", "1.2")
    assert reason.startswith(f"perf_epoch_finished raised {error.partition('(')[0]}")
    assert caplog.text.count("observer 'bad' (perf-bad 1.2) is disabled") == 1


def test_each_observer_gets_only_the_hooks_it_implements(plugins, tmp_path):
    epochs = plugins.observer("epochs", told_to(tmp_path / "epochs"))
    starts = plugins.observer("starts", "@hookimpl\ndef perf_run_started(event): ...")
    session = bind(plugins.vendor("acme"), observers=[epochs, starts])

    session.notify(EVENT)

    assert (tmp_path / "epochs").read_text() == "1 "


def test_observer_cannot_change_the_event(plugins):
    vandal = plugins.observer("vandal", "@hookimpl\ndef perf_epoch_finished(event):\n    event.mean_loss = 0.0")
    session = bind(plugins.vendor("acme"), observers=[vandal])

    session.notify(EVENT)

    assert EVENT.mean_loss == 0.5
    assert "FrozenInstanceError" in session.disabled_observers[0][1]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, TrainingStopped])
def test_interrupt_during_an_observer_stops_the_run(plugins, stop):
    source = f"from {stop.__module__} import {stop.__name__}\n\n@hookimpl\n"
    slow = plugins.observer("slow", f"{source}def perf_epoch_finished(event):\n    raise {stop.__name__}")
    session = bind(plugins.vendor("acme"), observers=[slow])

    with pytest.raises(stop):
        session.notify(EVENT)
    assert session.disabled_observers == ()


@pytest.mark.parametrize("body", ["time.sleep(600)", "persist()"])
def test_observer_that_hangs_is_interrupted_and_named(plugins, tmp_path, body):
    source = f"""
    import time

    def persist():
        while True:
            try:
                time.sleep(600)
            except Exception:
                pass

    @hookimpl
    def perf_epoch_finished(event):
        {body}
    """
    stuck, good = plugins.observer("stuck", source), plugins.observer("good", told_to(tmp_path / "good"))
    session = bind(plugins.vendor("acme"), observers=[stuck, good])

    session.observer_limit_s = 0.1
    session.notify(EVENT)

    assert (tmp_path / "good").read_text() == "1 "
    ((disabled, reason),) = session.disabled_observers
    assert (disabled.name, reason) == ("stuck", "perf_epoch_finished did not return within 0.1 s")
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_run_that_finished_has_finished_whatever_its_observer_does(plugins, image_folder, tmp_path, perf):
    plugins.vendor("acme")
    plugins.observer("stuck", "import time\n\n@hookimpl\ndef perf_run_finished(event):\n    time.sleep(600)")

    process = perf(
        *("train", "mobilenetv2", "--vendor", "acme", "--preset", "tiny", "--data", image_folder),
        *("--out", tmp_path / "run", "--set", "workers=0", "--max-steps", 1, "--hang-timeout", 10),
        PYTHONPATH=str(plugins.root),
    )

    assert process.returncode == 0, process.stderr
    record = read_record(tmp_path / "run")
    assert record.status.state == "completed"
    [named] = record.disabled_observers
    assert named == "stuck (perf-stuck 1.2): perf_run_finished did not return within 5 s"


def test_observer_that_cannot_be_imported_is_disabled(plugins):
    broken = plugins.observer("broken", "import a_module_nobody_has")

    session = bind(plugins.vendor("acme"), observers=[broken])

    assert "a_module_nobody_has" in session.disabled_observers[0][1]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("@hookimpl\ndef perf_synchronize(device): ...", "perf_synchronize is a vendor's hook"),
        ("@hookimpl\ndef perf_run_strated(event): ...", r"not a hook \(did you mean 'perf_run_started'\?\)"),
        ("@hookimpl(wrapper=True)\ndef perf_run_started(event):\n    yield", "uses wrapper"),
        ("def perf_run_started(event): ...", "lacks @hookimpl"),
    ],
)
def test_observer_that_breaks_the_specification_is_an_error(plugins, source, fault):
    observer = plugins.observer("watcher", source)

    with pytest.raises(PluginLoadError, match=rf"observer 'watcher' \(perf-watcher 1\.2\) .*{fault}"):
        bind(plugins.vendor("acme"), observers=[observer])


def test_every_observer_hook_has_an_event_of_its_own():
    assert {type(event).__name__: hook for hook, event in EVENTS.items()} == EVENT_HOOKS
    assert set(EVENT_HOOKS.values()) == set(OBSERVER_HOOKS)
    assert {event.__name__ for event in get_args(Event)} == set(EVENT_HOOKS)

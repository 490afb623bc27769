"""What installed plugins say, asked together or each by itself, in a fork or in a new interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest
from chipperf.errors import VendorHookError
from chipperf.plugin import installed, probe_process


def names(infos):
    return [info.name for info in infos]


def test_healthy_plugins_are_asked_in_one_process(monkeypatch):
    monkeypatch.setattr(probe_process, "ask_all", None)

    infos = probe_process.installed_infos.__wrapped__()

    assert names(infos) == [entry.name for entry in installed.vendors()]


def test_each_plugin_is_asked_by_itself_where_one_fails(monkeypatch):
    ask = probe_process._ask

    def ask_but_not_together(entries, question, *arguments, **options):
        if len(entries) > 1:
            raise VendorHookError("one of them ended the process")
        return ask(entries, question, *arguments, **options)

    monkeypatch.setattr(probe_process, "_ask", ask_but_not_together)

    assert names(probe_process.installed_infos.__wrapped__()) == [entry.name for entry in installed.vendors()]


WITNESS = """
import atexit, faulthandler, gc, json, os, signal, sys, threading, time

def seen():
    return {
        "argv": sys.argv,
        "path": sys.path,
        "directory": os.getcwd(),
        "variables": sorted(os.environ.items()),
        "descriptors": [number for number in range(100) if os.path.exists(f"/proc/self/fd/{number}")],
        "inputs": [os.read(0, 1).decode(), sys.stdin.read()],
        "streams": [each.fileno() for each in (sys.stdin, sys.stdout, sys.stderr)],
        "handlers": {number: str(signal.getsignal(number)) for number in sorted(signal.valid_signals())},
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "leads": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
        "threads": threading.active_count(),
        "dumps": faulthandler.is_enabled(),
        "umask": [os.umask(0o22), os.umask(0o22)],
    }

@hookimpl
def perf_probe():
    print("never flushed")
    atexit.register(print, "the plugin's exit handler ran")
    device = chipperf.ProbedDevice(index=0, name="A1")
    return chipperf.ProbeResult(available=True, reason=json.dumps(seen()), devices=(device,))
"""

CALLER = """
import atexit, faulthandler, json, signal, sys
sys.path[:] = json.loads(sys.argv.pop())
from chipperf.plugin import installed, probe_process

faulthandler.enable()
signal.signal(signal.SIGTERM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 60)
left_open = [open("/dev/null") for _ in range(5)]
atexit.register(lambda: print("ended"))
entry = installed.find_vendor("acme")
sys.stdout.write("begun ")
before = set(sys.modules)
forks = probe_process._may_fork([entry])
if sys.argv.pop() == "interpreter":
    probe_process._may_fork = lambda _: False
answer = probe_process.probe_vendor(entry)
left = {name for name in set(sys.modules) - before if name.startswith("fake_")}
print(forks, sorted(left), signal.getsignal(signal.SIGTERM).__name__, answer.reason)
"""


def test_fork_shows_a_plugin_what_a_new_interpreter_shows(plugins):
    plugins.vendor("acme", perf_probe=textwrap.dedent(WITNESS))

    def asked_in(kind):
        command = [sys.executable, "-c", CALLER, kind, json.dumps(sys.path)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        head, separator, rest = said.partition("{")
        seen, end = json.JSONDecoder().raw_decode(separator + rest)
        return head, seen, rest[end - 1 :]

    head, seen, tail = asked_in("fork")

    assert (head, tail) == ("begun True [] <lambda> ", "\nended\n")
    assert seen == asked_in("interpreter")[1]
    assert seen["leads"] == [True, True]


@pytest.mark.parametrize(
    ("state", "forks"),
    [
        ("pass", True),
        ("import threading, time; threading.Thread(target=time.sleep, args=(9,), daemon=True).start()", False),
        ("import sys, types; sys.modules['torch'] = types.ModuleType('torch')", False),
        ("import sys, types; sys.modules['acme'] = types.ModuleType('acme')", False),
        ("import os; os.listdir = lambda path: open('/nowhere')", False),
    ],
)
def test_fork_needs_a_process_without_threads_torch_and_the_plugin(state, forks):
    script = f"""if True:
        from chipperf.plugin import installed, probe_process
        reference = installed.find_vendor("cpu")
        settings = dict(group="chipperf.vendors", name="acme", distribution="perf-acme", version="1.2")
        plugin = installed.PluginEntry(value="acme.plugin:hooks", **settings)
        {state}
        print(probe_process._may_fork([reference, plugin]))
    """

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert ended.stdout == f"{forks}\n", ended.stderr


def test_fork_whose_end_nobody_can_know_has_answered(plugins):
    """A shell may let its programs ignore the ends of their children."""
    plugins.vendor("acme")
    script = """if True:
        import json, signal, sys
        sys.path[:] = json.loads(sys.argv[1])
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        from chipperf.plugin import installed, probe_process
        print(probe_process.probe_vendor(installed.find_vendor("acme")).reason)
    """

    ended = subprocess.run([sys.executable, "-c", script, json.dumps(sys.path)], capture_output=True, text=True)

    assert ended.stdout == "one A1\n", ended.stderr

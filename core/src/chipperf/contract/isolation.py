"""Processes in which checks call a plugin, so that a hang or a crash of the plugin becomes a result of the check.

A :class:`ForkServer` is an interpreter with the environment that the vendor asks for. It imports the heavy modules
once and forks for each call, so a call starts within milliseconds and no earlier call affects it. The server itself
runs no operator and no plugin code, because threads and device contexts do not survive a fork.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final, NoReturn, TypeAlias

import psutil

from chipperf.contract.check import not_run_on
from chipperf.errors import PerfError, PluginError
from chipperf.run.failure import DUMP_SIGNAL

_BOOTSTRAP: Final = (
    "import sys; sys.path[:] = sys.argv.pop().split('\\n'); from chipperf.contract.isolation import serve; serve()"
)
Variables: TypeAlias = Mapping[str, str | None]
"""Environment variables to set before a call, or to remove, with the value ``None``."""

_START_TIMEOUT_S: Final = 300.0
_KILL_TIMEOUT_S: Final = 30.0
"""Time that the server has to kill a call after its timeout."""

_DUMP_S: Final = 0.5
"""Time for a call that has to be killed to say where it is."""

_POLL_S: Final = 0.005
_OUTPUT_TAIL_BYTES: Final = 4000
_PR_SET_CHILD_SUBREAPER: Final = 36
"""linux/prctl.h: orphaned descendants become this process's children."""

_INNERMOST: Final = re.compile(r'^Current thread [^\n]*\n  File "([^"]*)", line (\d+) in (.*)$', re.MULTILINE)
"""Where a process is, in what faulthandler writes."""

_timeout_factor = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOutcome:
    """The result of a call in its own process: its value, or as ``fault`` why there is none; and its last output."""

    value: Any = None
    fault: str | None = None
    output: str = ""
    seconds: float = 0.0


class ForkServer:
    """A process that forks for each call. It has imported the modules in ``preload``, and calls have its environment.

    A :class:`PluginError` says why it does not start.
    """

    def __init__(self, environment: Mapping[str, str], preload: Sequence[str] = ()) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", _BOOTSTRAP, json.dumps(list(preload)), "\n".join(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(environment),
            start_new_session=True,
        )
        greeting = self._read(_START_TIMEOUT_S)
        if greeting.get("fault") is not None:
            self.close()
            raise PluginError(f"a process for the checks does not start: {greeting['fault']}")

    def call(
        self, target: str, arguments: object, *, timeout_s: float, environment: Variables | None = None
    ) -> CallOutcome:
        """Call a function, ``module:function``, in a fork of the server. It takes and returns a JSON value.

        After ``timeout_s`` the call is killed, with every process it started.
        """
        request = {"target": target, "arguments": arguments, "timeout_s": timeout_s, "environment": environment or {}}
        with self._lock:
            try:
                print(json.dumps(request), file=self._process.stdin, flush=True)
            # ValueError: it was closed.
            except (BrokenPipeError, ValueError):
                return CallOutcome(fault="the process for the checks has ended")
            return CallOutcome(**self._read(timeout_s + _KILL_TIMEOUT_S))

    @property
    def ended(self) -> bool:
        """True if the server can no longer answer calls."""
        return self._process.poll() is not None

    def stop_call(self) -> None:
        """Kill the current call with every process it started. Its outcome has a fault."""
        with suppress(psutil.NoSuchProcess):
            _kill_all(psutil.Process(self._process.pid).children(recursive=True))

    def close(self) -> None:
        """End the server and all of its descendants."""
        self.stop_call()
        with suppress(BrokenPipeError), self._process as process:
            process.kill()

    def _read(self, timeout_s: float) -> dict[str, Any]:
        stdout = self._process.stdout
        if stdout is None or not select.select([stdout], [], [], timeout_s)[0]:
            # A late answer must not become the answer to the next call.
            self.close()
            return {"fault": "the process for the checks does not answer"}
        line = stdout.readline()
        if not line:
            return {"fault": f"the process for the checks ended with status {self._process.wait()}"}
        answer: dict[str, Any] = json.loads(line)
        return answer


class ForkServers:
    """Fork servers, each started at its first use and then kept."""

    def __init__(self) -> None:
        self._servers: dict[object, ForkServer] = {}

    def get(self, environment: Mapping[str, str], preload: Sequence[str] = (), *, number: int = 0) -> ForkServer:
        """Return the server with this environment and these modules. Starts a new one if the last has ended.

        ``number`` distinguishes servers that run at the same time and differ in nothing else.
        """
        key = (number, tuple(preload), frozenset(environment.items()))
        if key not in self._servers or self._servers[key].ended:
            self._servers[key] = ForkServer(environment, preload)
        return self._servers[key]

    def close(self) -> None:
        """End every server."""
        for server in self._servers.values():
            server.close()


def set_timeout_factor(factor: float) -> None:
    """Multiply the limits that the check of this process sets to what it does, as the user asks for slow machines."""
    global _timeout_factor
    _timeout_factor = factor


def patient(limit_s: float) -> float:
    """Return a time limit, inside a check, as long as the user's machine needs it to be."""
    return limit_s * _timeout_factor


def waited_s(*, caller: bool = False) -> float:
    """Return how long threads of this process have waited for a core, as on a busy host; 0 where nobody counts.

    They are all threads that have not ended, or the ``caller`` alone, for which it takes microseconds to ask.
    """
    waited_ns = 0
    with suppress(OSError):
        for thread in ("/proc/thread-self",) if caller else [each.path for each in os.scandir("/proc/self/task")]:
            # A thread may end meanwhile.
            with suppress(OSError, ValueError), open(f"{thread}/schedstat", encoding="ascii") as times:
                waited_ns += int(times.read().split()[1])
    return waited_ns / 1e9


def undisturbed_s() -> float:
    """Return a clock that stands still while a thread of this process waits for a core.

    Between two readings passes what the work between them takes on a quiet host, or less if several threads waited.
    """
    return time.monotonic() - waited_s()


def call_in_new_interpreter(
    function: Callable[[Any], object],
    argument: object,
    *,
    timeout_s: float,
    environment: Variables | None = None,
) -> CallOutcome:
    """Call a function of a module, which takes and returns a JSON value, in a new interpreter."""
    with not_run_on(PluginError, "the check needs another process"):
        server = ForkServer(os.environ)
    with closing(server):
        target = f"{function.__module__}:{function.__name__}"
        return server.call(target, argument, timeout_s=patient(timeout_s), environment=environment)


def innermost_call(output: str) -> str:
    """Return where a process was when it last wrote its stacks, ``, in NAME (FILE:LINE)``; empty if it wrote none."""
    found = _INNERMOST.findall(output)
    return ", in {2} ({0}:{1})".format(*found[-1]) if found else ""


def reason_of(error: BaseException) -> str:
    """Return an exception as text for the result of a check."""
    return error.message if isinstance(error, PerfError) else f"{type(error).__name__}: {error}"


def serve() -> None:
    """Import modules, then answer one request per line of standard input until it ends. This is the server."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # A module that prints during its import must not write into the answers.
    os.dup2(2, 1)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        for name in json.loads(sys.argv[1]):
            importlib.import_module(name)
    except BaseException as error:
        answer({"fault": f"importing {name} failed: {type(error).__name__}: {error}"})
        return
    answer({"fault": None})
    with suppress(BrokenPipeError):
        for line in sys.stdin:
            request = json.loads(line)
            timeout_s, environment = request["timeout_s"], request["environment"]
            answer(asdict(call_in_fork(_call_by_name, request, timeout_s=timeout_s, environment=environment)))


def _call_by_name(request: Mapping[str, Any]) -> object:
    module, _, name = request["target"].partition(":")
    return getattr(importlib.import_module(module), name)(request["arguments"])


def call_in_fork(
    function: Callable[[Any], object],
    argument: object,
    *,
    timeout_s: float,
    environment: Variables | None = None,
) -> CallOutcome:
    """Call a function in a fork of this process, which must have no threads and no children. It returns JSON."""
    started_s, timeout_s = time.monotonic(), patient(timeout_s)
    with tempfile.TemporaryFile() as result, tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            _become_callee(partial(function, argument), environment or {}, result.fileno(), output.fileno())
        status = _wait(child, timeout_s)
        _kill_descendants(child)
        result.seek(0)
        content = result.read()
        output.seek(max(0, output.seek(0, os.SEEK_END) - _OUTPUT_TAIL_BYTES))
        printed = output.read().decode(errors="replace").strip()
    try:
        answer: dict[str, Any] = json.loads(content)
    except ValueError:
        if status is None:
            fault = f"it did not finish within {timeout_s:g} s and was killed{innermost_call(printed)}"
        elif status < 0:
            fault = f"it crashed the process with {signal.Signals(-status).name}"
        else:
            fault = f"it ended the process with status {status}"
        answer = {"fault": fault}
    return CallOutcome(**answer, output=printed, seconds=time.monotonic() - started_s)


def _become_callee(call: Callable[[], object], environment: Variables, result: int, output: int) -> NoReturn:
    """Run the function in the forked child, write its result, and exit. The files are given by their descriptors."""
    try:
        os.setsid()
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        faulthandler.register(DUMP_SIGNAL, all_threads=True)
        # The plugin must not be able to write into the server's pipes or keep them open.
        os.closerange(3, result)
        os.closerange(result + 1, os.sysconf("SC_OPEN_MAX"))
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        content = json.dumps({"value": call()})
    except BaseException as error:
        traceback.print_exc()
        content = json.dumps({"fault": reason_of(error)})
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    with os.fdopen(result, "wb") as file:
        file.write(content.encode())
    # Threads and exit handlers of the plugin must not keep the process alive.
    os._exit(0)


def _wait(child: int, timeout_s: float) -> int | None:
    """Wait for the child until the timeout passes. Return its exit code, or ``None`` if it was killed."""
    deadline_s = time.monotonic() + timeout_s
    caller = os.getppid()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        # If the caller has been killed, no process waits for the answer.
        if time.monotonic() > deadline_s or os.getppid() != caller:
            with suppress(ProcessLookupError):
                os.kill(child, DUMP_SIGNAL)
                time.sleep(_DUMP_S)
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(_POLL_S)


def _kill_descendants(child: int) -> None:
    """Kill every process that the call left running. The server is their parent now, because it is their subreaper."""
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    _kill_all(psutil.Process().children(recursive=True))
    with suppress(ChildProcessError):
        while os.waitpid(-1, 0):
            pass


def _kill_all(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()

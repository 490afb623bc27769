"""Asking plugins, each in its own process.

A plugin is foreign code, on a machine that may not have the vendor's driver. In a child process it can crash, hang,
print without end or exit without affecting the caller. It also cannot leave a device context open, which would break a
later fork. Commands that only ask plugins, such as ``perf lint`` and ``perf doctor``, never import a vendor themselves.

The child is a fork where that is as good as a new interpreter, which takes longer to start than most commands to run.
"""

from __future__ import annotations

import faulthandler
import fcntl
import functools
import importlib
import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import GenericAlias
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, NoReturn

from chipperf import errors
from chipperf.errors import PluginError, VendorHookError
from chipperf.plugin import installed
from chipperf.plugin.installed import PluginEntry
from chipperf.plugin.types import PluginDescription, ProbeResult, VendorInfo

if TYPE_CHECKING:
    from collections.abc import Iterable

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT_S: Final = 10.0
"""Time limit of a plugin's answer, including the start of its interpreter."""

_TOGETHER_TIMEOUT_S: Final = ANSWER_TIMEOUT_S / 2

PROBE_TIMEOUT_S: Final = 45.0
"""Time limit of a probe: a management library may first start the drivers of eight cards, which takes half a minute."""

MAX_OUTPUT_BYTES: Final = 2**20

_LONGEST_POLL_S: Final = 0.05

# The child must find the same plugins as its parent, also if their path is in sys.path but not in PYTHONPATH.
_BOOTSTRAP: Final = (
    "import sys; sys.path[:] = sys.argv.pop().split('\\n'); from chipperf.plugin.probe_process import main; main()"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fault:
    """The error that a plugin's answer ends with."""

    fault: Literal["PluginError", "PluginLoadError", "VendorHookError"]
    message: str
    hint: str | None


def probe_vendor(entry: PluginEntry, *, timeout_s: float = PROBE_TIMEOUT_S) -> ProbeResult:
    """Run a vendor's ``perf_probe``; for its errors see :func:`ask`."""
    result: ProbeResult = ask(entry, "probe", ProbeResult, timeout_s=timeout_s)
    return result


def ask_all(
    entries: Iterable[PluginEntry], question: str, expected: Any, *, timeout_s: float = ANSWER_TIMEOUT_S
) -> list[tuple[PluginEntry, Any]]:
    """Ask plugins at the same time, see :func:`ask`. Return each with its answer or its :class:`PluginError`."""

    def answer_of(entry: PluginEntry) -> tuple[PluginEntry, Any]:
        try:
            return entry, ask(entry, question, expected, timeout_s=timeout_s)
        except PluginError as fault:
            return entry, fault

    with ThreadPoolExecutor() as pool:
        return list(pool.map(answer_of, entries))


@functools.cache
def installed_infos() -> tuple[VendorInfo, ...]:
    """Return the infos of the installed vendors, each name once. A broken plugin is a warning."""
    infos = []
    entries = list({entry.name: entry for entry in installed.vendors()}.values())
    # One process starts in a fraction of the time of several. If one plugin fails in it, each is asked by itself.
    with suppress(PluginError, IndexError):
        descriptions = _ask(entries, "describe", PluginDescription, timeout_s=_TOGETHER_TIMEOUT_S)
        if len(descriptions) == len(entries):
            return tuple(info for info, *_ in descriptions)
    for entry, answer in ask_all(entries, "describe", PluginDescription):
        if isinstance(answer, PluginError):
            logger.warning("the names of %s are unknown: %s", entry.name, answer)
        else:
            infos.append(answer[0])
    return tuple(infos)


def ask(entry: PluginEntry, question: str, expected: Any, *arguments: str, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
    """Call the method ``question`` of a vendor's session in a child process, which is killed after ``timeout_s``.

    The answer has the type ``expected``. The question ``load`` only imports what any entry point names.

    Raises:
        PluginLoadError: The plugin cannot be imported or does not fulfill the specification.
        VendorHookError: It raised, returned another type, hung, printed too much, or ended its process.
    """
    return _ask([entry], question, expected, *arguments, timeout_s=timeout_s)[0]


def _ask(entries: list[PluginEntry], question: str, expected: Any, *arguments: str, timeout_s: float) -> Any:
    """Ask several plugins in one child process. The first, which must exist, stands for them all in errors."""
    entry = entries[0]
    remedy = f"report it to the authors of {entry.distribution}"
    asked = "its import" if question in ("load", "describe") else f"perf_{question}"
    request = json.dumps([[asdict(each) for each in entries], question, arguments])
    with (
        file_in_memory() as answer,
        file_in_memory() as output,
        _Fork(request, answer, output) if _may_fork(entries) else _interpreter(request, answer, output) as child,
    ):
        try:
            child.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise VendorHookError(
                f"{entry}: {asked} did not return within {timeout_s:g} s", hint=f"check the driver, and {remedy}"
            ) from error
        finally:
            # The plugin may have started processes, for example a vendor's management tool.
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        answer.seek(0)
        output.seek(0)
        said, printed = answer.read().rstrip(b"\0"), output.read()
    # Imported here: who lists plugins does not ask them.
    from pydantic import TypeAdapter, ValidationError

    if not printed.endswith(b"\0"):
        raise VendorHookError(f"{entry}: {asked} prints more than {MAX_OUTPUT_BYTES // 2**20} MiB", hint=remedy)
    if not said:
        complaints = printed.rstrip(b"\0").decode(errors="replace")
        last_words = complaints.strip().splitlines()[-1:] or ["it printed nothing"]
        raise VendorHookError(
            f"{entry}: {asked} ended its process with exit status {child.returncode}: {last_words[0]}", hint=remedy
        )
    answer_type: Any = GenericAlias(tuple, (expected,) * len(entries)) | _Fault
    try:
        content: Any = TypeAdapter(answer_type).validate_json(said)
    except ValidationError as error:
        raise VendorHookError(f"{entry}: the answer of {asked} is not valid: {said[:80]!r}", hint=remedy) from error
    if isinstance(content, _Fault):
        fault: type[PluginError] = getattr(errors, content.fault)
        raise fault(content.message, hint=content.hint)
    return content


def file_in_memory() -> BinaryIO:
    """Return a file of zeros for the output of a child, whatever that prints: nothing makes the file larger."""
    descriptor = os.memfd_create("output", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(descriptor, MAX_OUTPUT_BYTES)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return open(descriptor, "r+b")


def _may_fork(entries: Iterable[PluginEntry]) -> bool:
    """Return whether a fork of this process tells as much about the plugins as a new interpreter.

    Not so with threads, of which a fork lacks all but one, with torch, or with a plugin that was imported here.
    """
    packages = {entry.value.partition(":")[0].partition(".")[0] for entry in entries} - {installed.CORE_PACKAGE}
    with suppress(OSError):
        return len(os.listdir("/proc/self/task")) == 1 and sys.modules.keys().isdisjoint({"torch", *packages})
    return False


def _interpreter(request: str, answer: BinaryIO, output: BinaryIO) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _BOOTSTRAP, request, "\n".join(sys.path)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=answer, stderr=output, start_new_session=True)


class _Fork:
    """A fork of this process that answers a request. It is used as a :class:`subprocess.Popen`."""

    def __init__(self, request: str, answer: BinaryIO, output: BinaryIO) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _answer_in_fork(request, answer, output)

    def __enter__(self) -> _Fork:
        return self

    def __exit__(self, *_: object) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait(timeout=math.inf)

    def wait(self, *, timeout: float) -> None:
        """Wait for its end, or raise a :class:`subprocess.TimeoutExpired`."""
        started_s = time.monotonic()
        while self.returncode is None:
            waited_s = time.monotonic() - started_s
            try:
                ended, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                # The user's shell ignores SIGCHLD, so that nobody can know.
                self.returncode = 0
                return
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif waited_s > timeout:
                raise subprocess.TimeoutExpired("fork", timeout)
            else:
                time.sleep(min(waited_s / 8, _LONGEST_POLL_S))


def _answer_in_fork(request: str, answer: BinaryIO, output: BinaryIO) -> NoReturn:
    """Give up, in the fork, what a new interpreter would not have, and answer."""
    try:
        os.setsid()
        # A file may have one of the three numbers, if the caller's was closed.
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, file in enumerate([fcntl.fcntl(file, fcntl.F_DUPFD, 3) for file in (nothing, answer, output)]):
            os.dup2(file, number)
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if descriptor > 2:
                with suppress(OSError):  # The list's own is closed.
                    os.close(descriptor)
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        faulthandler.disable()
        importlib.invalidate_caches()
        # The caller's streams are kept: at their end they would write what it has not flushed yet.
        _kept = sys.stdin, sys.stdout, sys.stderr
        write = functools.partial(open, mode="w", encoding="utf-8", errors="backslashreplace", closefd=False)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0, closefd=False), write(1), write(2, buffering=1)
        sys.argv[:] = ["-c", request]
        main()
    except BaseException:
        traceback.print_exc()
    finally:
        # Neither the caller's code nor its exit handlers go on here.
        os._exit(1)


def main() -> None:
    """Ask plugins and print their answers, or a fault, as JSON. The first argument is entries, question and arguments.

    Only the answer goes to standard output. The plugin's own output goes to standard error.
    """
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from pydantic_core import to_jsonable_python

    from chipperf.plugin.session import bind

    entries, question, arguments = json.loads(sys.argv[1])
    content: Any = []
    try:
        for entry in (PluginEntry(**fields) for fields in entries):
            if question == "load":
                installed.load_object(entry)
                content.append(None)
            else:
                content.append(getattr(bind(entry, purpose="inspect"), question)(*arguments))
    except PluginError as fault:
        content = _Fault(
            fault="PluginLoadError" if isinstance(fault, errors.PluginLoadError) else "VendorHookError",
            message=fault.message,
            hint=fault.hint,
        )
    with answer:
        # A variable of the environment, which an answer quotes, may be no text.
        answer.write(json.dumps(to_jsonable_python(content), ensure_ascii=False).encode(errors="replace"))
    # Threads of the plugin must not keep the process alive.
    os._exit(0)

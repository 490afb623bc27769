"""Processes that would start Python and import torch, forked from one that has done both.

To import torch and what training needs takes three seconds of processor time, and a run of two ranks does it three
times. Where a test is about what ranks do, and not about how their interpreter starts, :class:`ReadyProcess` does what
``python -m chipperf...`` or a program of the tests does, with variables, directory and output of its own, and begins in
milliseconds. What it starts or becomes by such a command is forked likewise; everything else is executed.

A forked process has not what is read before Python begins: ``GLIBC_TUNABLES``, ``LD_PRELOAD`` and ``OMP_*`` other than
the number of threads. :func:`stands_in` says where that matters.
"""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import gc
import importlib
import io
import json
import os
import pkgutil
import re
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import weakref
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

_PRELOAD = (
    "torch",
    "torch._dynamo",
    "torchvision",
)
_PACKAGES = (
    "bundle cases cli compare data documents importing launch lint plugin records report run suites train verify web"
)
_SHOWN_BYTES = 2**16
_MESSAGE_BYTES = 2**20
_START_TIMEOUT_S = 120
_CLONE_NEWNET = 0x40000000
_TESTS = Path(__file__).parent
_BENCHMARKS = _TESTS.parent / "benchmarks"


def stands_in(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Return True if a fork can stand in for a command: it runs chipperf, and asks nothing of Python's start."""
    if sys.platform != "linux" or not _can_be(_namespace(list(command))[1]):
        return False
    customized = _customization(environment)
    if customized is not None and "sys.meta_path" in customized.read_text(encoding="utf-8"):
        # It waits for an import that has been there before it.
        return False
    read_early = re.compile("GLIBC_TUNABLES|MALLOC_|LD_|LANG|LC_|OMP_(?!NUM_THREADS)|PYTHON(?!PATH)")
    names = {name for name in {*environment, *os.environ} if read_early.match(name)}
    return all(environment.get(name) == os.environ.get(name) for name in names)


def _customization(environment: Mapping[str, str]) -> Path | None:
    """Return the module that Python imports when it starts, if there is one on the path of these variables."""
    paths = (Path(path, "sitecustomize.py") for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path)
    return next((path for path in paths if path.exists()), None)


def _namespace(command: list[str]) -> tuple[str | None, list[str]]:
    """Return the network namespace that a command is to be run in, and the command."""
    return (command[3], command[4:]) if command[:3] == ["ip", "netns", "exec"] else (None, command)


_PERF = """\
#!{python} -IS
import json, os, socket, sys

reading, status = os.pipe()
request = dict(arguments=["-m", "chipperf", *sys.argv[1:]], environment=dict(os.environ), directory=os.getcwd())
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
    connection.connect({address!r})
    socket.send_fds(connection, [json.dumps(request | dict(namespace=None)).encode()], [status, 1, 2])
    os.close(status)
    connection.recv(16)
    sys.exit(int(os.read(reading, 16)))
"""


class ReadyProcess:
    """A forked process, used as :class:`subprocess.Popen` with text in both pipes is; it leads a session of its own."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], directory: Path | None = None) -> None:
        self._printed = ["", ""]
        self._output = [tempfile.TemporaryFile() for _ in self._printed]  # noqa: SIM115 - closed when it has ended
        self._start(command, environment, directory, [file.fileno() for file in self._output])

    def _start(
        self, command: Sequence[str], environment: Mapping[str, str], directory: Path | None, streams: list[int]
    ) -> None:
        namespace, self.args = _namespace(list(command))
        self.returncode: int | None = None
        self._status, status = os.pipe()
        request = {
            "arguments": self.args[1:],
            "environment": dict(environment),
            "directory": str(directory or Path.cwd()),
            "namespace": namespace,
        }
        self.pid = _server().start(request, [status, *streams])
        os.close(status)

    def poll(self) -> int | None:
        """Return the exit code, or ``None`` while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code, negative for the signal that killed it.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._status, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0)
            code = os.read(self._status, 16)
            os.close(self._status)
            assert code, "the process that all others are forked from has ended"
            self.returncode = int(code)
            for number, file in enumerate(self._output):
                with file:
                    file.seek(0)
                    self._printed[number] = file.read().decode()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end and return what was printed, to both outputs."""
        self.wait(timeout)
        stdout, stderr = self._printed
        return stdout, stderr

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def install_perf(folder: Path) -> None:
    """Write a program ``perf`` that a shell finds there, and that is forked."""
    program = folder / "perf"
    program.write_text(_PERF.format(python=sys.executable, address=str(_server().address)), encoding="utf-8")
    program.chmod(0o755)


class _Server:
    """The process that forks, as its client sees it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="ready-python-")
        self.address = Path(self._folder.name) / "requests"
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as public:
            public.bind(str(self.address))
            public.listen()
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), str(public.fileno()), " " * _SHOWN_BYTES],
                env=_without_own_variables(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), public.fileno()),
                start_new_session=True,
            )
        self._connection.settimeout(_START_TIMEOUT_S)
        atexit.register(self._close)

    def start(self, request: Mapping[str, Any], descriptors: list[int]) -> int:
        """Fork a process with a standard output, a standard error, and a pipe for its exit code; return its id."""
        with self._lock:
            socket.send_fds(self._connection, [json.dumps(request).encode()], descriptors)
            answer = self._connection.recv(_MESSAGE_BYTES)
        assert answer, "the process that all others are forked from has ended"
        return int(answer)

    def _close(self) -> None:
        self._connection.close()
        self._process.wait()
        self._folder.cleanup()


@cache
def _server() -> _Server:
    return _Server()


def _without_own_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that the server may have: what is read when a library is loaded is right for all tests."""
    kept = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    # The kernel keeps the order: the first one is the room that :func:`_show` writes to.
    return {"ROOM": " " * _SHOWN_BYTES, **kept, "OMP_WAIT_POLICY": "passive"}


def serve(own: int, public: int) -> None:
    """Fork a process for each request, and tell how each ended; the server's program.

    Args:
        own: Descriptor of a connection; with it this process ends, and all that it forked.
        public: Descriptor of a socket on which others can connect.
    """
    subprocess.Popen = _ForkingPopen  # type: ignore[misc]
    os.execve = _become_other_program  # type: ignore[assignment]
    for name in _modules():
        importlib.import_module(name)
    _PRELOADED.update(sys.modules)
    # Neither looked through nor written to in any of the processes.
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=public) as listening, selectors.DefaultSelector() as selector:
        selector.register(listening, selectors.EVENT_READ)
        selector.register(socket.socket(fileno=own), selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listening:
                    selector.register(listening.accept()[0], selectors.EVENT_READ)
                    continue
                if key.data is not None:
                    pid, status = key.data
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    with suppress(BrokenPipeError):
                        os.write(status, f"{code}".encode())
                    os.close(status)
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    continue
                assert isinstance(key.fileobj, socket.socket)
                message = b""
                # Whoever asked may have been killed.
                with suppress(ConnectionError):
                    message, descriptors, _, _ = socket.recv_fds(key.fileobj, _MESSAGE_BYTES, 4)
                if not message and key.fd != own:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
                    continue
                if not message:
                    for running in selector.get_map().values():
                        if running.data is not None:
                            os.kill(running.data[0], signal.SIGKILL)
                    return
                request = json.loads(message)
                status, *streams = descriptors
                pid = os.fork()
                if pid == 0:
                    os.setsid()
                    if request["namespace"] is not None:
                        _enter(request["namespace"])
                    for opened, number in zip(streams, (1, 2, 0), strict=False):
                        os.dup2(opened, number)
                    _be(request["arguments"], request["environment"], request["directory"])
                for opened in streams:
                    os.close(opened)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, status))
                with suppress(ConnectionError):
                    key.fileobj.send(f"{pid}".encode())


def _enter(namespace: str) -> None:
    """Move this process into a network namespace."""
    with open(f"/run/netns/{namespace}", "rb") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")


def _modules() -> list[str]:
    """Return what is imported before any fork: torch and chipperf, without plugins."""
    packages = [f"chipperf.{name}" for name in _PACKAGES.split()]
    found = [
        module.name
        for package in packages
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
    ]
    return [*_PRELOAD, *found]


class _ForkingPopen(subprocess.Popen):  # type: ignore[type-arg]
    """Starts ``python -m chipperf...`` and programs of the tests by a fork, and everything else as it is."""

    def __init__(self, args: Any, *positional: Any, **options: Any) -> None:
        if _can_be(args):
            environment = options.pop("env", None)
            kept = options.get("pass_fds", ())
            # Called between fork and exec, where output, directory and session are those of the new process already.
            options["preexec_fn"] = partial(
                _be, list(args)[1:], dict(os.environ if environment is None else environment), kept=kept
            )
        super().__init__(args, *positional, **options)


def _can_be(command: Any) -> bool:
    """Return True for ``python -m chipperf...``, programs of tests, benchmarks, and servers that use torch."""
    if isinstance(command, str) or len(command) < 2 or command[0] != sys.executable:
        return False
    option, *words = [word for word in command[1:] if word != "-P"]
    if option == "-X":
        return words[1] == "-c" and '"torch"' in words[3]
    if option == "-m":
        return words[0].startswith("chipperf")
    return any(Path(option).is_relative_to(programs) for programs in (_TESTS, _BENCHMARKS))


def _become_other_program(path: str, command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Stand in for :func:`os.execve`: run another module, of which and of whose state nothing is here yet."""
    assert _can_be(command), command
    sys.stdout.flush()
    sys.stderr.flush()
    _be(command[1:], environment, kept=[number for number in _descriptors() if os.get_inheritable(number)])


def _be(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    directory: str | None = None,
    kept: Collection[int] = (),
) -> NoReturn:
    """Be ``python ARGUMENTS`` and end; closes everything but the standard streams and what is kept, as an exec does."""
    code = 1
    try:
        _close_descriptors(kept)
        _reset_signals()
        # The command that this is forked from may collect its garbage less often.
        gc.set_threshold(*_THRESHOLDS)
        # Those of the server were made for other files, and a command may have replaced them.
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(
                io.BufferedWriter(io.FileIO(number, "wb", closefd=False)),
                "utf-8",
                "backslashreplace",
                line_buffering=True,
            )
            for number in (1, 2)
        )
        # Temporary directories of the command that this is forked from are its own to remove.
        weakref.finalize._registry.clear()  # type: ignore[attr-defined]
        for name in set(sys.modules).difference(_PRELOADED):
            del sys.modules[name]
        if directory is not None:
            os.chdir(directory)
        os.environ.clear()
        os.environ.update(environment)
        _show([sys.executable, *arguments])
        code = _run(list(arguments))
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _reset_signals() -> None:
    """Handle signals as Python does when it starts."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)


def _close_descriptors(kept: Collection[int]) -> None:
    """Close descriptors; objects that still hold one will close nothing else instead."""
    closed = set(_descriptors()).difference(kept)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in closed:
        os.dup2(nothing, number, inheritable=False)


def _descriptors() -> list[int]:
    """Return the open descriptors, but the standard streams."""
    opened = []
    for number in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):
            os.fstat(number)
            opened.append(number)
    return [number for number in opened if number > 2]


def _run(arguments: list[str]) -> int:
    """Run a module or a file as the main program and return the exit code."""
    is_safe = arguments[0] == "-P"
    arguments = arguments[is_safe:]
    if arguments[:2] == ["-X", "faulthandler"]:
        faulthandler.enable()
        arguments = arguments[2:]
    is_module, is_code = arguments[0] == "-m", arguments[0] == "-c"
    name = arguments[is_module or is_code]
    sys.argv = arguments[is_module:] if is_module else ["-c", *arguments[2:]] if is_code else arguments
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    first = os.getcwd() if is_module else "" if is_code else str(Path(name).parent)
    sys.path[:] = [*([] if is_safe else [first]), *paths, *_PATH]
    importlib.invalidate_caches()
    if _customization(os.environ):
        sys.modules.pop("sitecustomize", None)
        importlib.import_module("sitecustomize")
    if "OMP_NUM_THREADS" in os.environ:
        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    sys.modules.pop(name, None)
    code = 0
    try:
        if is_module:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        elif is_code:
            sys.modules["__main__"] = ModuleType("__main__")
            exec(name, vars(sys.modules["__main__"]))
        else:
            runpy.run_path(name, run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    return code


def _show(command: Sequence[str]) -> None:
    """Let others see this command, and the variables: launchers, checks and tests find ranks by them.

    The kernel shows the memory in which it has left both for the process; the server was given room there.
    """
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    arguments_start, arguments_end, variables_start = (int(field) for field in fields[45:48])
    variables = [f"{name}={value}" for name, value in os.environ.items()]
    # Whoever has seen the command may ask for the variables.
    for start, size, words in (
        (variables_start, _SHOWN_BYTES, variables),
        (arguments_start, arguments_end - arguments_start, command),
    ):
        # A last byte that is not zero would mean that the text goes on elsewhere.
        text = b"\0".join(os.fsencode(word) for word in words)[: size - 2]
        ctypes.memmove(start, text.ljust(size, b"\0"), size)


_PRELOADED: dict[str, Any] = {}
_PATH = sys.path[1:]
_THRESHOLDS = gc.get_threshold()

if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))

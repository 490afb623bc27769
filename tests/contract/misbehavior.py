"""Functions that do to their process what a plugin should not; called in forks by test_isolation.py."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

from chipperf.contract.isolation import call_in_fork, set_timeout_factor


def add(numbers):
    return sum(numbers)


def hang(_):
    time.sleep(600)


def hang_in_a_call_of_its_own(factor):
    set_timeout_factor(factor)
    return call_in_fork(hang, None, timeout_s=3).fault


def hang_and_say_so(path):
    """Hang, after leaving the process's id in a file."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(600)


def hang_deaf_to_signals(_):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(600)


def crash(_):
    ctypes.string_at(0)


def exit_at_once(status):
    os._exit(status)


def raise_system_exit(_):
    sys.exit("no licence for this card")


def raise_keyboard_interrupt(_):
    raise KeyboardInterrupt


def raise_with_a_cause(_):
    try:
        {}["card"]
    except KeyError as error:
        raise RuntimeError("the card is gone") from error


def return_no_json(_):
    return {1, 2}


def print_text(text):
    print(text)
    os.write(2, b"and more\n")
    return "printed"


def print_binary(_):
    os.write(1, bytes(range(256)) * 4096)
    return "printed"


def close_output(_):
    os.close(1)
    os.close(2)
    return "closed"


def close_everything(_):
    os.closerange(0, 4096)
    return "closed"


def write_everywhere(text):
    """Write into whatever file happens to be open."""
    for descriptor in range(64):
        with suppress(OSError):
            os.write(descriptor, text.encode())
    return "written"


def read_input(_):
    return sys.stdin.read()


def start_a_thread_that_stays(_):
    threading.Thread(target=time.sleep, args=(600,)).start()
    return "started"


def start_orphan(marker):
    """Start a process that leaves session and parent behind, as daemons do, and return its id."""
    sleeper = f"import time; time.sleep(600)  # {marker}"
    starter = (
        "import subprocess, sys; "
        f"child = subprocess.Popen([sys.executable, '-c', {sleeper!r}], stdout=2, start_new_session=True); "
        "print(child.pid)"
    )
    return int(subprocess.run([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True, check=True).stdout)


def start_orphan_and_hang(marker):
    print(start_orphan(marker), flush=True)
    time.sleep(600)


def start_orphan_and_crash(marker):
    print(start_orphan(marker), flush=True)
    os.abort()


def stop_the_server(_):
    os.kill(os.getppid(), signal.SIGSTOP)


def remember(value):
    """Leave something behind in module, environment and directory; return what an earlier call left."""
    found = getattr(sys, "left_behind", None), os.environ.get("LEFT_BEHIND"), os.getcwd()
    sys.left_behind = os.environ["LEFT_BEHIND"] = value
    os.chdir("/")
    return found


def variable(name):
    return os.environ.get(name)


def loaded(module):
    return module in sys.modules

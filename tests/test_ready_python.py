"""A forked process does what a started one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from ready_python import ReadyProcess, stands_in

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = {
    "place": "import os, sys; print(os.environ['PLACE'], os.getcwd(), sys.argv, sys.path[0])",
    "exit code": "import sys; print('out'); sys.exit(3)",
    "complaint": "import sys; sys.exit('it failed')",
    "error": "raise ValueError('no number')",
    "exit handler": "import atexit; atexit.register(print, 'the end')",
    "terminated": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "broken pipe": "import os\nr, w = os.pipe()\nos.close(r)\ntry: os.write(w, b'x')\nexcept OSError as e: print(e)",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_process_ends_as_a_started_one(program: str, tmp_path: Path) -> None:
    command, variables = [sys.executable, "-c", program, "word"], {**os.environ, "PLACE": "here"}

    forked = ReadyProcess(command, variables, tmp_path)
    out, complaints = forked.communicate(timeout=120)

    started = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True)
    assert (forked.returncode, out) == (started.returncode, started.stdout)
    assert complaints.splitlines()[-1:] == started.stderr.splitlines()[-1:]


def test_process_can_be_seen_and_killed() -> None:
    process = ReadyProcess([sys.executable, "-c", "import time; time.sleep(600)", "word"], {"PLACE": "here"})
    seen = psutil.Process(process.pid)
    while "word" not in seen.cmdline():
        time.sleep(0.001)

    assert seen.environ() == {"PLACE": "here"}
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)
    assert process.poll() is None
    process.kill()
    assert process.wait(60) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("command", "variables", "expected"),
    [
        (["-m", "chipperf", "train"], {}, True),
        (["-m", "chipperf", "train"], {"OMP_NUM_THREADS": "1"}, True),
        (["-m", "chipperf", "train"], {"GLIBC_TUNABLES": "glibc.malloc.top_pad=1"}, False),
        (["-m", "chipperf", "train"], {"PYTHONOPTIMIZE": "1"}, False),
        (["-m", "torch.distributed.run"], {}, False),
        (["-c", "import torch"], {}, False),
    ],
)
def test_fork_stands_in_only_for_what_it_can_do(
    command: list[str], variables: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in variables:
        monkeypatch.delenv(name, raising=False)

    assert stands_in([sys.executable, *command], {**os.environ, **variables}) == expected

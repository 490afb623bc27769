"""How a killed run is told from a running one."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from chipperf.errors import UsageError
from chipperf.records import process_files
from chipperf.records.process_files import has_live_process, hold_process_file
from chipperf.run.directory import RunDirectory

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys
from pathlib import Path
from chipperf.records.process_files import hold_process_file
held = hold_process_file(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_process_is_alive_as_long_as_it_holds_its_file(tmp_path: Path) -> None:
    """Neither its number nor its machine's name matter: in another container both may be another process's."""
    path = tmp_path / "process.json"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        path.write_text(json.dumps({"pid": os.getpid(), "host": "renamed", "boot": process_files._boot_id()}))
        assert has_live_process(tmp_path, thorough=True)
        with pytest.raises(UsageError, match="still running"):
            hold_process_file(path)

        holder.kill()
        holder.wait()

        assert not has_live_process(tmp_path, thorough=True)
        os.close(hold_process_file(path))


@pytest.mark.parametrize("lives", [True, False])
def test_process_of_another_machine_is_alive_if_it_touches_its_file(
    lives: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "process-launcher1.json"
    path.write_text(json.dumps({"pid": 1, "host": "node1", "boot": "another"}))
    # A clock that runs behind or ahead decides nothing.
    os.utime(path, (1e9, 1e9))
    monkeypatch.setattr(process_files, "_WATCHED_S", 0.3)
    if lives:
        threading.Timer(0.1, lambda: os.utime(path)).start()

    assert has_live_process(tmp_path, thorough=True) == lives


def test_listing_records_waits_for_no_file_that_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "process.json"
    path.write_text(json.dumps({"pid": 1, "host": "node1", "boot": "another"}))
    os.utime(path, (1e9, 1e9))
    monkeypatch.setattr(process_files.time, "sleep", lambda seconds: pytest.fail("waits"))

    assert not has_live_process(tmp_path, thorough=False)


def test_launcher_shows_its_life(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    os.utime(directory.process, (1e9, 1e9))

    directory.show_life()

    assert time.time() - directory.process.stat().st_mtime < 60
    directory.release_reserve()


CREATOR = """
import sys
from pathlib import Path
from chipperf.errors import UsageError
from chipperf.run.directory import RunDirectory
directory = RunDirectory(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
try:
    getattr(directory, sys.argv[2])()
    print("took it", flush=True)
    directory.plan.write_text("{}")
except UsageError as error:
    print("refused", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("method", ["create", "reopen"])
def test_one_of_many_processes_gets_a_directory(method: str, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    command = [sys.executable, "-c", CREATOR, directory, method]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) for _ in range(6)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            print(file=process.stdin)
        answers = [process.stdout.readline() for process in processes if process.stdout is not None]
    finally:
        for process in processes:
            process.kill()
            process.communicate()

    assert sorted(answers) == ["refused\n"] * 5 + ["took it\n"]


def test_file_that_its_holder_removed_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "process.json"
    first = hold_process_file(path)
    path.unlink()

    second = hold_process_file(path)

    assert has_live_process(tmp_path, thorough=True)
    os.close(second)
    assert not has_live_process(tmp_path, thorough=True)
    os.close(first)


def test_run_begins_although_somebody_looks_whether_it_is_alive(tmp_path: Path) -> None:
    path = tmp_path / "process.json"
    path.write_text("")
    look = path.open("rb")
    fcntl.flock(look, fcntl.LOCK_SH)
    threading.Timer(0.1, look.close).start()

    os.close(hold_process_file(path))

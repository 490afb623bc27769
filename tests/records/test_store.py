"""Writing without ever being half-written, and reading files that are not what they should be."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.errors import RecordError, UsageError
from chipperf.records.files import write_atomically
from chipperf.records.schema import Status
from chipperf.records.store import read_record
from chipperf.run.directory import RunDirectory
from chipperf.run.failure import first_failure, report_failure
from support import fill

if TYPE_CHECKING:
    from pathlib import Path

    from chipperf.records.schema import Record

DISK_FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    return directory


def content_of(record: Record) -> dict[str, Any]:
    return record.model_dump(mode="json")


def files_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failed_write_leaves_the_old_content_and_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "record.json"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(RecordError, match="cannot write .*record.json: Input/output error"):
        write_atomically(path, "new")

    assert path.read_text() == "old"
    assert files_in(tmp_path) == {"record.json"}


def test_writer_killed_before_it_is_done_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text("old")
    program = """
import os, pathlib, signal, sys
from chipperf.records import files
files.os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
files.write_atomically(pathlib.Path(sys.argv[1]), "new")
"""

    killed = subprocess.run([sys.executable, "-c", program, str(path)])

    assert killed.returncode == -9
    assert path.read_text() == "old"


def test_written_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        write_atomically(tmp_path / "report.md", "text")
    finally:
        os.umask(umask)

    assert stat.S_IMODE((tmp_path / "report.md").stat().st_mode) == 0o644


def test_unicode_is_written_as_it_is(tmp_path: Path) -> None:
    write_atomically(tmp_path / "报告.md", "训练\n")

    assert (tmp_path / "报告.md").read_bytes() == "训练\n".encode()


def test_full_disk_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise DISK_FULL

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RecordError, match="the disk is full: cannot write .*x.json") as caught:
        write_atomically(tmp_path / "x.json", "text")
    assert caught.value.hint == "free some space; what was written before is intact"


def test_record_and_failure_are_written_on_a_full_disk(small_disk: Path, planned: Record) -> None:
    directory = RunDirectory(small_disk / "run")
    directory.create()
    directory.write_record(planned)
    fill(small_disk)
    with pytest.raises(RecordError, match="the disk is full"):
        write_atomically(small_disk / "other", "x" * 10_000)

    with pytest.raises(SystemExit), report_failure(directory, 0):
        write_atomically(small_disk / "other", "x" * 10_000)
    reported = first_failure(directory, range(1))
    assert reported is not None
    directory.write_record(planned.model_copy(update={"status": Status(state="failed", failure=reported[0])}))

    record = read_record(directory.path)
    assert record.status.failure is not None
    assert record.status.failure.failure_class == "RecordError"
    assert "the disk is full" in record.status.failure.message
    assert "other" not in files_in(small_disk)
    directory.release_reserve()


def test_without_the_reserve_a_full_disk_leaves_the_old_record(small_disk: Path, planned: Record) -> None:
    directory = RunDirectory(small_disk / "run")
    directory.create()
    directory.write_record(planned)
    directory.release_reserve()
    fill(small_disk)
    before = directory.record.read_bytes()

    with pytest.raises(RecordError, match="the disk is full"):
        directory.write_record(planned.model_copy(update={"warnings": ["x" * 5000]}))

    assert directory.record.read_bytes() == before


def test_run_does_not_begin_on_a_full_disk(small_disk: Path) -> None:
    fill(small_disk)

    with pytest.raises(RecordError, match="the disk is full") as caught:
        RunDirectory(small_disk / "run").create()
    assert caught.value.exit_code == 1
    assert not list(small_disk.rglob(".reserve"))


@pytest.mark.parametrize(
    "occupant", ["record.json", "plan.json", "events.jsonl", "telemetry-node1.jsonl", "checkpoints/mine.pt"]
)
def test_run_or_a_part_of_one_is_never_overwritten(tmp_path: Path, occupant: str) -> None:
    (tmp_path / occupant).parent.mkdir(exist_ok=True)
    (tmp_path / occupant).write_text("{}")

    with pytest.raises(UsageError, match="already holds a run") as caught:
        RunDirectory(tmp_path).create()
    assert "choose another --out" in str(caught.value.hint)
    assert files_in(tmp_path) == {occupant.partition("/")[0]}


@pytest.mark.parametrize(
    ("place", "reason"), [("file/run", "Not a directory"), ("file", "exists|Not a directory"), ("x" * 300, "too long")]
)
def test_directory_that_cannot_be_made(tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(UsageError, match=reason) as caught:
        RunDirectory(tmp_path / place).create()
    assert caught.value.hint == "choose another directory with --out"


def test_directory_that_may_not_be_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(type(tmp_path), "exists", refuse)
    with pytest.raises(UsageError, match="cannot write to .*: Permission denied"):
        RunDirectory(tmp_path / "run").create()


def test_finished_run_keeps_no_auxiliary_file(run: RunDirectory, planned: Record) -> None:
    run.write_record(planned)
    run.release_reserve()

    assert files_in(run.path) == {"record.json", "logs"}


def test_record_is_read_from_its_directory_or_its_file(run: RunDirectory, planned: Record) -> None:
    run.write_record(planned)

    assert read_record(run.path) == read_record(run.record) == planned


def test_running_record_whose_process_lives_is_running(run: RunDirectory, planned: Record) -> None:
    run.write_record(planned)

    assert read_record(run.path).status.state == "running"


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"pid": 1, "created": 0.0, "host": "of version 0.1"}'])
def test_running_record_whose_process_is_gone_was_killed(
    run: RunDirectory, planned: Record, content: str | None
) -> None:
    run.write_record(planned)
    run.release_reserve()
    if content is not None:
        run.process.write_text(content)

    record = read_record(run.path)

    assert record.status.state == "killed"
    assert record.status.failure is not None
    assert record.status.failure.failure_class == "killed"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"record\.json:1:1: not JSON: Expecting value"),
        (b'{\n  "a": 1,\n  b\n}', r"record\.json:3:3: not JSON"),
        (b'{"schema_version": 1', r"record\.json:1:21: not JSON"),
        (b"\x7fELF\x02\xff\xfe", "record.json is not a record: byte 5 is not UTF-8"),
        (b"[" * 100_000, "record.json is not a record: nested too deeply"),
        (b'{"a":' * 100_000, "record.json is not a record: nested too deeply"),
        (b"[" + b"0," * 1_000_000 + b"0]", "record.json is not a record: schema_version is missing"),
        (b"9" * 20, "record.json is not a record: a number has 20 digits"),
        (b"null", "record.json is not a record: schema_version is missing"),
        (b'{"schema_version": "1"}', "record.json is not a record: schema_version is missing"),
        (b'{"schema_version": 1}', r"record\.json: kind: Field required"),
    ],
    ids=["empty", "syntax", "cut", "binary", "deep", "deep-objects", "huge", "number", "null", "text", "incomplete"],
)
def test_file_that_is_no_record_is_named_with_the_place(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content)

    with pytest.raises(RecordError, match=message):
        read_record(path)


def test_edited_field_is_named(tmp_path: Path, planned: Record) -> None:
    content = content_of(planned)
    content["topology"]["nnodes"] = "many"
    (tmp_path / "record.json").write_text(json.dumps(content))

    with pytest.raises(RecordError, match=r"record\.json: topology\.nnodes: Input should be a valid integer"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        *("metrics", "metrics.p_core", "metrics.quality", "metrics.curve", "dataset.is_sample", "dataset.fingerprint"),
        *("environment.driver", "environment.cards", "environment.distributions"),
    ],
)
def test_record_without_a_field_that_has_a_default_in_code_is_incomplete(
    tmp_path: Path, planned: Record, path: str
) -> None:
    content = content_of(planned)
    *above, name = path.split(".")
    part = content
    for each in above:
        part = part[each]
    del part[name]
    (tmp_path / "record.json").write_text(json.dumps(content))

    with pytest.raises(RecordError, match=rf"record\.json: {path}: Field required") as caught:
        read_record(tmp_path)
    assert caught.value.hint == "the file was edited or is incomplete"


@pytest.mark.parametrize(("key", "known"), [("schema_version", 2), ("metrics_version", 1)])
def test_newer_record_names_the_version_to_install(tmp_path: Path, planned: Record, key: str, known: int) -> None:
    content = content_of(planned) | {key: 7, "chipperf_version": "3.2.1", "unheard_of": True}
    (tmp_path / "record.json").write_text(json.dumps(content))

    with pytest.raises(RecordError, match=f"has {key} 7; this chipperf reads up to {known}") as caught:
        read_record(tmp_path)
    assert "chipperf 3.2.1" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["", "none", "none/record.json"])
def test_no_record_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordError, match="no record at"):
        read_record(tmp_path / name)


def test_no_record_beside_those_of_repeats(tmp_path: Path) -> None:
    for name in ("repeat-2", "repeat-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").touch()

    with pytest.raises(RecordError, match="no record at") as caught:
        read_record(tmp_path)
    assert caught.value.hint == f"name the runs in it, such as {tmp_path / 'repeat-1'}"


def test_record_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "record.json").mkdir()

    with pytest.raises(RecordError, match="cannot read .*: Is a directory"):
        read_record(tmp_path)

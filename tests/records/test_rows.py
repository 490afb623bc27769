"""Records in a program: everything that is there once, and rows that say what is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from datetime import datetime, timezone

import pytest
from chipperf import records
from chipperf.errors import RecordError, UnusableRecord
from chipperf.records.columns import COLUMNS
from factory import UNKNOWN, make_record


def write(directory, **changes):
    directory.mkdir(parents=True)
    file = directory / "record.json"
    file.write_text(make_record(**{"run_id": directory.name, **changes}).model_dump_json(), encoding="utf-8")
    return file


def test_all_records_below_a_directory_are_loaded_in_the_order_of_names(tmp_path):
    for name in ("b", "a/deep", "c"):
        write(tmp_path / name)

    assert [stored.record.run_id for stored in records.load(tmp_path)] == ["deep", "b", "c"]
    assert [stored.record.run_id for stored in records.load(str(tmp_path / "b"))] == ["b"]
    assert [stored.record.run_id for stored in records.load(tmp_path / "b" / "record.json")] == ["b"]


def test_a_record_counts_once(tmp_path):
    write(tmp_path / "runs" / "a")
    shutil.copytree(tmp_path / "runs" / "a", tmp_path / "runs" / "copy")

    assert len(records.load(tmp_path)) == 1
    assert len(records.table([tmp_path, tmp_path / "runs", tmp_path / "runs" / "copy"])) == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b"null", b"{" * 100_000, b'{"schema_version": 99}', b'{"schema_version": 2}']
)
def test_what_is_no_record_is_named_and_the_others_are_returned(tmp_path, content):
    write(tmp_path / "a")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "record.json").write_bytes(content)
    problems = []

    with pytest.warns(records.UnreadableRecord, match=r"bad.record\.json"):
        loaded = records.load(tmp_path)
    rows = records.table([tmp_path], on_problem=problems.append)

    assert [stored.record.run_id for stored in loaded] == [row["run_id"] for row in rows] == ["a"]
    assert [type(problem) for problem in problems] == [UnusableRecord]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records.load(tmp_path / "a")


def test_a_fifo_is_named(tmp_path):
    os.mkfifo(tmp_path / "record.json")

    with pytest.warns(records.UnreadableRecord, match="not a regular file"):
        assert records.load(tmp_path) == []


def test_nothing_at_a_path_is_an_error(tmp_path):
    with pytest.raises(RecordError, match="there is no"):
        records.load(tmp_path / "misspelled")
    with pytest.raises(RecordError, match="there is no"):
        records.table([tmp_path, tmp_path / "misspelled"])


def test_values_have_their_unit_in_their_key(tmp_path):
    write(tmp_path / "a")
    (row,) = records.table([tmp_path])

    measured = {column.name: column for column in COLUMNS}
    assert [column.unit for column in measured.values()] == list(records.UNITS.values())
    assert row["p_core_samples_per_s"] == 4659.0
    assert row["mem_peak_bytes"] == 21 * 2**30
    assert row["time_to_target_s"] == 27_000.5
    assert (row["quality"], row["target"], row["lower_is_better"]) == (0.7561, 0.755, False)
    assert row["created_at"] == datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
    assert (row["verdict"], row["device"], row["topology"], row["devices"]) == ("converged", "A1", "1x8", 8)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"metrics__p_core": UNKNOWN}, "unknown"),
        ({"metrics__p_core": {"missing": "withheld", "reason": "secret"}}, "withheld: secret"),
        ({"status": {"state": "failed", "failure": {"failure_class": "oom", "message": "full"}}}, "failed: oom"),
        ({"status": {"state": "interrupted"}}, "failed: interrupted"),
    ],
)
def test_value_that_is_missing_says_why(tmp_path, changes, expected):
    write(tmp_path / "a", **changes)
    (row,) = records.table([tmp_path])

    assert (row["p_core_samples_per_s"], row["p_core_missing"]) == (None, expected)


def test_rows_have_the_same_keys_and_plain_values(tmp_path):
    write(tmp_path / "a", seed=UNKNOWN, environment__driver=UNKNOWN)
    write(tmp_path / "b", status={"state": "killed"})
    first, second = records.table([tmp_path])

    assert list(first) == list(second)
    assert (first["seed"], first["driver"]) == (None, None)
    assert {type(value) for row in (first, second) for value in row.values()} <= {
        *(str, int, float, bool, type(None), datetime)
    }


def test_date_without_a_zone_is_utc(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    file = write(tmp_path / "a")
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content | {"created_at": "2026-01-01T12:00:00"}), encoding="utf-8")
    write(tmp_path / "b", created_at="2026-01-01T12:00:00+08:00")

    assert [f"{row['created_at']:%H:%M %Z}" for row in records.table([tmp_path])] == ["12:00 UTC", "04:00 UTC"]
    monkeypatch.undo()
    time.tzset()


def test_reading_imports_neither_torch_nor_the_command_line():
    program = "import sys, chipperf.records as r; r.load; r.table; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())

    assert "chipperf.records.rows" in imported
    assert not imported & {"torch", "numpy", "pandas", "typer", "rich", "jinja2", "chipperf.cli"}


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'tables'"):
        records.tables  # noqa: B018

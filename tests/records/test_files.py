"""Files are read within bounds: what never ends, what is huge, and what says something twice is refused."""

from __future__ import annotations

import json
import os

import pytest
from chipperf.errors import RecordError
from chipperf.records.checkpoints import (
    CheckpointManifest,
    FileDigest,
    checkpoint_name,
    read_manifest,
    verify_checkpoint,
)
from chipperf.records.files import MAX_RECORD_BYTES, open_regular, parse_model, read_bounded
from chipperf.records.store import read_record, record_text
from chipperf.run.plan import read_plan
from chipperf.run.progress import Progress, read_progress
from pydantic import ValidationError


def test_only_regular_files_within_the_limit_are_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "fifo")
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        # Most of it takes no room on the disk.
        file.truncate(MAX_RECORD_BYTES + 1)
    with pytest.raises(RecordError, match="huge: it is larger than 64 MiB"):
        read_record(huge)
    assert read_bounded(huge, MAX_RECORD_BYTES + 1).strip(b"\0") == b""


def test_a_key_twice_is_refused(planned, tmp_path):
    file = tmp_path / "record.json"
    file.write_text(record_text(planned).replace('"kind"', '"kind": "imported", "kind"', 1))
    with pytest.raises(RecordError, match="the key 'kind' occurs twice in an object"):
        read_record(file)
    with pytest.raises(ValidationError, match="the key 'size_bytes' occurs twice"):
        parse_model(FileDigest, '{"size_bytes": 1, "sha256": "", "size_bytes": 2}')


def test_a_manifest_for_more_ranks_than_files_is_refused_at_once(tmp_path):
    manifest = {"run_id": "r", "step": 1, "world_size": 10**9, "torch": "2", "devices": [], "files": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"written_at": "2026-01-02T03:04:05Z"}))
    assert CheckpointManifest.model_validate_json((tmp_path / "manifest.json").read_text()).world_size == 10**9
    with pytest.raises(RecordError, match="names 0 files for 1000000000 ranks"):
        verify_checkpoint(tmp_path)


def test_a_manifest_of_another_step_than_its_checkpoint_is_refused(tmp_path):
    manifest = {"run_id": "r", "step": 500, "world_size": 1, "torch": "2", "files": {}}
    checkpoint = tmp_path / checkpoint_name(1, 44)
    checkpoint.mkdir()
    (checkpoint / "manifest.json").write_text(json.dumps(manifest | {"written_at": "2026-01-02T03:04:05Z"}))
    with pytest.raises(RecordError, match=r"manifest\.json says step 500"):
        read_manifest(checkpoint)


def test_a_plan_that_is_no_text_is_an_error(tmp_path):
    (tmp_path / "plan.json").write_bytes(b"{\xff}")
    with pytest.raises(RecordError, match="cannot read the run's plan"):
        read_plan(tmp_path / "plan.json")


@pytest.mark.parametrize("content", [b'{"step": "many"}', b'{"steps": [1]}', b"{\xff}", b"[]", b"3", b'{"loss": {}}'])
def test_odd_progress_is_none(tmp_path, content):
    (tmp_path / "progress.json").write_bytes(content)
    assert read_progress(tmp_path / "progress.json") is None
    (tmp_path / "progress.json").write_text('{"phase": "training", "step": 3, "steps": 9}')
    assert read_progress(tmp_path / "progress.json") == Progress(phase="training", step=3, steps=9)

"""Files of checkpoints: none is half-written, and what is damaged is found."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from chipperf.errors import RecordError
from chipperf.plugin.types import Rank
from chipperf.records.checkpoints import (
    MANIFEST,
    SHARED,
    checkpoint_name,
    list_checkpoints,
    newest_complete_step,
    newest_valid,
    prune,
    verify_checkpoint,
)
from chipperf.run.collectives import Collectives
from chipperf.train import checkpoint as checkpoint_module
from chipperf.train.checkpoint import CheckpointWriter, on_host, read_checkpoint
from support import fill
from tiny_training import DEVICE, make_training

if TYPE_CHECKING:
    from collections.abc import Callable

SHARED_STATE = {"model": {"weight": torch.arange(1000.0)}, "step": 3, "names": ["a", "b"], "nothing": None}
OWN_STATE: dict[str, Any] = {"generators": [1, (2, 3)]}


class OtherRank(Collectives):
    """Two ranks, of which the other one reports what a test wants."""

    def __init__(self, report: Any) -> None:
        super().__init__(Rank(), DEVICE)
        self._report = report

    def gather(self, item: Any) -> list[Any]:
        return [item, self._report] if isinstance(item, tuple) else [item, item]


def writer(directory: Path, *, session: int = 1, keep: int = 2, collectives: Collectives | None = None) -> Any:
    return CheckpointWriter(
        directory,
        run_id="run-1",
        session=session,
        keep=keep,
        rank=Rank(),
        collectives=collectives or Collectives(Rank(), DEVICE),
    )


def save(directory: Path, step: int, **options: Any) -> str | None:
    fault: str | None = writer(directory, **options).save(step, SHARED_STATE, OWN_STATE)
    return fault


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert save(tmp_path, 12) is None

    [checkpoint] = list_checkpoints(tmp_path)
    manifest = verify_checkpoint(checkpoint)
    shared, own = read_checkpoint(checkpoint, 0)
    assert (manifest.step, manifest.run_id, manifest.world_size) == (12, "run-1", 1)
    assert manifest.torch == torch.__version__
    assert torch.equal(shared["model"]["weight"], torch.arange(1000.0))
    assert {**shared, "model": None} == {**SHARED_STATE, "model": None}
    assert own == OWN_STATE
    assert names(checkpoint) == [MANIFEST, "rank0.pt", SHARED]


def test_reading_runs_no_code_of_a_file(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "owned"),)

    save(tmp_path, 1)
    [checkpoint] = list_checkpoints(tmp_path)
    torch.save({"weight": Malicious()}, checkpoint / SHARED)

    with pytest.raises(RecordError, match=r"shared.pt cannot be loaded"):
        read_checkpoint(checkpoint, 0)
    assert not (tmp_path / "owned").exists()


def cut_off(checkpoint: Path) -> str:
    path = checkpoint / SHARED
    path.write_bytes(path.read_bytes()[:-1])
    return "shared.pt has .* bytes instead of"


def flip_a_bit(checkpoint: Path) -> str:
    path = checkpoint / "rank0.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return "rank0.pt does not have the checksum"


def lose_a_rank(checkpoint: Path) -> str:
    (checkpoint / "rank0.pt").unlink()
    return "rank0.pt cannot be read: No such file"


def lose_the_manifest(checkpoint: Path) -> str:
    (checkpoint / MANIFEST).unlink()
    return "is incomplete"


def empty_the_manifest(checkpoint: Path) -> str:
    (checkpoint / MANIFEST).write_text("")
    return "manifest.json cannot be read"


def forget_a_rank(checkpoint: Path) -> str:
    manifest = checkpoint / MANIFEST
    manifest.write_text(manifest.read_text().replace('"world_size": 1', '"world_size": 2'))
    return "manifest.json names 2 files for 2 ranks"


DAMAGES = [cut_off, flip_a_bit, lose_a_rank, lose_the_manifest, empty_the_manifest, forget_a_rank]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_the_one_before_is_taken(tmp_path: Path, damage: Callable[[Path], str]) -> None:
    save(tmp_path, 10)
    save(tmp_path, 20)
    message = damage(list_checkpoints(tmp_path)[0])

    with pytest.raises(RecordError, match=message):
        verify_checkpoint(list_checkpoints(tmp_path)[0])
    found, faults = newest_valid(tmp_path)

    assert found is not None
    assert found[1].step == 10
    [(path, fault)] = faults
    assert path.name == checkpoint_name(1, 20)
    assert checkpoint_name(1, 20) in fault


def test_all_damaged_is_none(tmp_path: Path) -> None:
    for step in range(len(DAMAGES)):
        save(tmp_path, step, keep=99)
    for checkpoint, damage in zip(list_checkpoints(tmp_path), DAMAGES, strict=True):
        damage(checkpoint)

    found, faults = newest_valid(tmp_path)

    assert found is None
    assert len(faults) == len(DAMAGES)


@pytest.mark.parametrize("exists", [True, False])
def test_no_checkpoint_at_all(tmp_path: Path, exists: bool) -> None:
    directory = tmp_path / "checkpoints"
    if exists:
        directory.mkdir()
        (directory / "notes.txt").write_text("mine")
        (directory / "session-step").mkdir()

    assert newest_valid(directory) == (None, [])
    assert newest_complete_step(directory) is None


def test_newest_is_that_of_the_last_session(tmp_path: Path) -> None:
    """After a fall back to step 10, step 15 is newer than the 20 that could not be read."""
    for session, step in ((1, 10), (1, 20), (2, 15), (10, 12)):
        save(tmp_path, step, session=session, keep=99)

    assert [path.name for path in list_checkpoints(tmp_path)] == [
        checkpoint_name(*key) for key in ((10, 12), (2, 15), (1, 20), (1, 10))
    ]
    assert newest_complete_step(tmp_path) == 12


def test_old_and_incomplete_ones_are_removed_and_other_files_are_not(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step, keep=99)
    lose_the_manifest(list_checkpoints(tmp_path)[1])
    (tmp_path / "notes.txt").write_text("mine")

    prune(tmp_path, 1)

    assert names(tmp_path) == ["notes.txt", checkpoint_name(1, 30)]


def test_killed_writer_leaves_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 10)
    program = """
import os, pathlib, signal, sys
from chipperf.records import store
from chipperf.train.checkpoint import CheckpointWriter
from chipperf.run.collectives import Collectives
from chipperf.plugin.types import Rank
store.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
CheckpointWriter(
    pathlib.Path(sys.argv[1]), run_id="run-1", session=1, keep=2, rank=Rank(), collectives=Collectives(Rank(), None),
).save(20, {"a": 1}, {})
"""

    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=100)

    assert killed.returncode == -9
    assert len(list_checkpoints(tmp_path)) == 2
    found, _ = newest_valid(tmp_path)
    assert found is not None
    assert found[1].step == 10


@pytest.mark.parametrize(("owner", "call"), [(os, "write"), (os, "fsync"), (Path, "mkdir")])
def test_full_disk_keeps_the_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, call: str
) -> None:
    save(tmp_path, 10)

    def fail(*_: object, **__: object) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(owner, call, fail)
    assert save(tmp_path, 20) == "the disk is full"
    monkeypatch.undo()

    assert names(tmp_path) == [checkpoint_name(1, 10)]
    assert save(tmp_path, 20) is None


def test_really_full_disk_keeps_the_older_checkpoint_and_gives_its_space_back(small_disk: Path) -> None:
    save(small_disk, 10)
    large = {"weights": torch.zeros(3_000_000)}

    fault = writer(small_disk).save(20, large, OWN_STATE)

    assert fault == "the disk is full"
    assert names(small_disk) == [checkpoint_name(1, 10)]
    assert shutil.disk_usage(small_disk).free > 7_000_000
    fill(small_disk)
    assert save(small_disk, 30) == "the disk is full"
    assert newest_valid(small_disk)[0] is not None


def test_fault_of_one_rank_is_the_fault_of_all(tmp_path: Path) -> None:
    fault = save(tmp_path, 10, collectives=OtherRank(({}, "the disk is full")))

    assert fault == "the disk is full"
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "told"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "Read-only file system")]
)
def test_training_goes_on_without_checkpoints_and_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, told: str
) -> None:
    training = make_training(monkeypatch, checkpoints=tmp_path, checkpoint_every_steps=5)

    def fail(path: Path, *_: object) -> Any:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(checkpoint_module, "_write", fail)
    training.loop.train()

    state = training.state
    assert state.steps == 24
    assert state.warnings == [
        f"no checkpoint after step 5 and 5 later ones, the last after step 24: {told}; older ones were kept"
    ]
    assert names(tmp_path) == []


def test_state_on_the_host_keeps_its_shape() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    state = on_host({"a": [parameter, (1, None)], "b": {"c": "text"}})

    assert state["a"][1] == (1, None)
    assert state["b"] == {"c": "text"}
    assert not state["a"][0].requires_grad

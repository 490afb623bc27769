from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil

import numpy as np
import pytest
from chipperf.data import generated_dataset, sample
from chipperf.data.generated_dataset import default_sample_root
from chipperf.data.imagefolder import scan_imagefolder
from chipperf.data.sample import SampleOptions, class_names, ensure_sample_dataset, render
from chipperf.errors import ConfigError, DataError
from PIL import Image

OPTIONS = SampleOptions(classes=2, train_per_class=3, val_per_class=1, width=40, height=30)


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_two_generations_are_the_same_to_the_byte(tmp_path):
    one, other = (ensure_sample_dataset(OPTIONS, tmp_path / name) for name in ("one", "other"))
    assert one.name == other.name == "sample-v1-2x3x1-40x30-seed0"
    assert contents(one) == contents(other)


def test_pixels_of_this_generator_version_are_frozen():
    digest = hashlib.sha256()
    for label in range(5):
        digest.update(render(OPTIONS, "train", label, number=0).tobytes())
    assert sample.GENERATOR_VERSION == 1
    assert digest.hexdigest() == "abd185a710724d7bbaf704c368f4ca173b223edc136df4db25a18a1d8834de9f"


def test_layout_and_manifest_agree(tmp_path):
    root = ensure_sample_dataset(OPTIONS, tmp_path)
    folder = scan_imagefolder(root)
    manifest = json.loads((root / "dataset.json").read_text())
    assert (len(folder.train), len(folder.val)) == (6, 2) == (manifest["train_samples"], manifest["eval_samples"])
    assert folder.classes == class_names(2)
    assert manifest["name"] == "chipperf-sample-2"
    assert manifest["options"]["seed"] == 0
    digest = hashlib.sha256()
    for split in ("train", "val"):
        for name, data in contents(root).items():
            if name.startswith(f"{split}/"):
                digest.update(f"{name} {hashlib.sha256(data).hexdigest()}\n".encode())
    assert manifest["content_sha256"] == digest.hexdigest()


def test_images_differ_within_a_class_and_have_the_size_asked_for(tmp_path):
    root = ensure_sample_dataset(OPTIONS, tmp_path)
    images = [np.asarray(Image.open(path)) for path in root.rglob("*.jpg")]
    assert {image.shape for image in images} <= {(30, 40, 3), (40, 30, 3)}
    assert len({image.tobytes() for image in images}) == 8


def test_default_images_have_the_size_of_photographs():
    options = SampleOptions()
    sizes = [len(sample.encode(render(options, "train", label, number=0))) for label in range(options.classes)]
    assert 60_000 < np.mean(sizes) < 120_000


def test_existing_dataset_is_used_again(tmp_path, monkeypatch):
    root = ensure_sample_dataset(OPTIONS, tmp_path)
    monkeypatch.setattr(sample, "render", lambda *arguments: pytest.fail("generated again"))
    assert ensure_sample_dataset(OPTIONS, tmp_path) == root


def test_progress_counts_every_image(tmp_path):
    seen = []
    ensure_sample_dataset(OPTIONS, tmp_path, lambda done, total: seen.append((done, total)))
    assert seen == [(done, 8) for done in range(1, 9)]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_interrupted_generation_leaves_nothing(tmp_path, interruption):
    def interrupt(done, total):
        if done == 5:
            raise interruption

    with pytest.raises(interruption):
        ensure_sample_dataset(OPTIONS, tmp_path, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_changed_dataset_is_not_taken_for_the_sample(tmp_path):
    root = ensure_sample_dataset(OPTIONS, tmp_path)
    next(root.rglob("*.jpg")).unlink()
    with pytest.raises(DataError, match="not a complete sample dataset of this version, or was changed"):
        ensure_sample_dataset(OPTIONS, tmp_path)


def test_foreign_directory_of_that_name_is_left_alone(tmp_path):
    other = tmp_path / OPTIONS.directory_name
    (other / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="not a complete sample dataset") as caught:
        ensure_sample_dataset(OPTIONS, tmp_path)
    assert str(other) in caught.value.hint
    assert (other / "train").is_dir()


def test_a_second_process_that_finished_first_wins(tmp_path):
    finished = ensure_sample_dataset(OPTIONS, tmp_path / "finished")
    destination = tmp_path / OPTIONS.directory_name

    def other_process(done, total):
        if done == total:
            shutil.copytree(finished, destination)

    assert ensure_sample_dataset(OPTIONS, tmp_path, other_process) == destination
    assert sorted(path.name for path in tmp_path.iterdir()) == ["finished", destination.name]


def test_too_little_space_is_an_error_with_the_bytes_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(generated_dataset.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(DataError, match=r"no space for the sample dataset in .*: about \d+ bytes are needed"):
        ensure_sample_dataset(OPTIONS, tmp_path)


def test_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(generated_dataset, "files_sha256", full)
    with pytest.raises(DataError, match="no space for the sample dataset"):
        ensure_sample_dataset(OPTIONS, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_directory_that_cannot_be_written_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(DataError, match=r"cannot write the sample dataset to .*file"):
        ensure_sample_dataset(OPTIONS, file / "below")


@pytest.mark.parametrize("field", ["classes", "train_per_class", "val_per_class", "width", "height"])
def test_options_below_one_are_named(field):
    with pytest.raises(ConfigError, match=f"{field} must be at least 1, not 0"):
        SampleOptions(**{field: 0})


def test_default_root_is_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_sample_root() == tmp_path / "chipperf" / "samples"


def test_class_names_are_unique_and_sorted():
    for classes in (2, 10, 120):
        names = class_names(classes)
        assert len(set(names)) == classes
        assert list(names) == sorted(names)

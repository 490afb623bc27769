from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
from chipperf.cases.classification.case import IMAGENET2012
from chipperf.data import dataset_identity
from chipperf.data.dataset_identity import files_sha256
from chipperf.data.imagefolder import identify_imagefolder, imagefolder_files, scan_imagefolder
from chipperf.errors import DataError


def identify(root, reference=IMAGENET2012.reference):
    return identify_imagefolder(scan_imagefolder(root), reference)


@pytest.fixture
def copy(tiny_dataset, tmp_path):
    root = tmp_path / "my-pictures"
    shutil.copytree(tiny_dataset, root)
    return root


def test_sample_dataset_is_known_by_its_manifest(tiny_dataset):
    found = identify(tiny_dataset)
    assert found.is_sample
    assert (found.name, found.version) == ("chipperf-sample-3", "1")
    assert (found.train_samples, found.eval_samples, found.classes) == (21, 9, 3)
    assert found.target == 0.5
    assert len(found.fingerprint) == 64


def test_moved_sample_dataset_keeps_its_identity(tiny_dataset, copy):
    assert identify(copy) == identify(tiny_dataset)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(file.read_bytes() + b"x"),
        lambda file: file.rename(file.with_name("renamed.jpg")),
        lambda file: file.write_bytes(file.read_bytes()[:-1] + b"x"),
    ],
)
def test_changed_sample_dataset_is_an_error(copy, change):
    change(next(copy.glob("train/*/*.jpg")))
    with pytest.raises(DataError, match=r"not those of its dataset\.json"):
        identify(copy)


def test_own_directory_is_known_by_its_name_and_files(copy, tmp_path):
    (copy / "dataset.json").unlink()
    found = identify(copy)
    assert (found.name, found.is_sample, found.version, found.target) == ("my-pictures", False, None, None)
    elsewhere = tmp_path / "elsewhere" / "my-pictures"
    shutil.copytree(copy, elsewhere)
    assert identify(elsewhere) == found
    next(copy.glob("val/*/*.jpg")).write_bytes(b"another size")
    assert identify(copy).fingerprint != found.fingerprint


def test_another_image_of_the_same_name_and_size_is_another_dataset(copy):
    (copy / "dataset.json").unlink()
    found = identify(copy)
    image = next(copy.glob("val/*/*.jpg"))
    image.write_bytes(image.read_bytes()[:-1] + b"x")
    assert identify(copy).fingerprint != found.fingerprint


@pytest.mark.parametrize(("changed", "noticed"), [("a0", True), ("a1", False), ("a2", True), ("labels.json", True)])
def test_contents_of_evenly_spaced_images_and_of_all_annotations_count(tmp_path, monkeypatch, changed, noticed):
    monkeypatch.setattr(dataset_identity, "SAMPLED_FILES", 3)
    paths = ["a0", "a1", "a2", "a3", "a4", "labels.json"]
    for path in paths:
        (tmp_path / path).write_text("before")
    before = files_sha256(tmp_path, paths)
    (tmp_path / changed).write_text("behind")
    assert (files_sha256(tmp_path, paths) != before) is noticed


def test_reference_dataset_is_known_by_its_counts(copy):
    (copy / "dataset.json").unlink()
    for classes, name in ((1000, "my-pictures"), (3, "imagenet2012")):
        reference = replace(IMAGENET2012.reference, train_samples=21, eval_samples=9, classes=classes)
        assert identify(copy, reference).name == name


@pytest.mark.parametrize(("text", "message"), [("{", "cannot be read"), ("[]", "is not a dataset manifest")])
def test_manifest_that_cannot_be_used_is_named(copy, text, message):
    (copy / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=rf"dataset\.json {message}"):
        identify(copy)


def test_sample_of_an_earlier_version_is_no_dataset_of_the_user(copy):
    manifest = json.loads((copy / "dataset.json").read_text())
    del manifest["files_sha256"]
    (copy / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"not those of its dataset\.json"):
        identify(copy)


def test_manifest_without_a_key_names_it(copy):
    digest = files_sha256(copy, imagefolder_files(copy))
    (copy / "dataset.json").write_text(f'{{"files_sha256": "{digest}"}}')
    with pytest.raises(DataError, match="lacks the key 'name'"):
        identify(copy)


def test_identity_holds_no_path(copy):
    found = identify(copy)
    assert str(copy.parent) not in str(asdict(found))


def test_manifest_of_another_program_does_not_matter(copy):
    (copy / "dataset.json").unlink()
    found = identify(copy)
    (copy / "dataset.json").write_text('{"labels": [["a/1.png", 0]]}')
    assert identify(copy) == found


def test_file_that_grows_while_it_is_read_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "labels.json").write_text("{}")
    size = os.fstat
    monkeypatch.setattr(os, "fstat", lambda file: SimpleNamespace(st_mode=size(file).st_mode, st_size=1))
    with pytest.raises(DataError, match=r"labels\.json: changes while it is read"):
        files_sha256(tmp_path, ["labels.json"])

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

import pytest
from chipperf.data.dataset_files import read_file
from chipperf.data.decode import decode_rgb
from chipperf.data.imagefolder import check_imagefolder, read_split, scan_imagefolder
from chipperf.errors import DataError
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image


def make_tree(root, paths):
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return root


def test_images_are_listed_by_sorted_class_and_path(tmp_path):
    root = make_tree(
        tmp_path,
        [
            "train/cat/b.JPEG",
            "train/cat/a.png",
            "train/cat/more/c.jpg",
            "train/cat/notes.txt",
            "train/ant/é.webp",
            "train/.cache/x.jpg",
            "train/README.jpg",
            "val/ant/1.jpg",
            "val/cat/1.jpg",
        ],
    )
    folder = scan_imagefolder(root)
    train = folder.train
    assert folder.classes == ("ant", "cat")
    assert [(train.relative_path(index), train.label(index)) for index in range(len(train))] == [
        ("ant/é.webp", 0),
        ("cat/a.png", 1),
        ("cat/b.JPEG", 1),
        ("cat/more/c.jpg", 1),
    ]
    assert train.path(3) == os.path.join(root, "train/cat/more/c.jpg")
    assert len(folder.val) == 2


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "cannot list .*train: No such file or directory"),
        (["train/README.txt", "val/a/1.jpg"], "train holds no class directories"),
        (["train/a/1.jpg"], "cannot list .*val: No such file or directory"),
        (["train/a/1.jpg", "train/b/notes.txt", "val/a/1.jpg"], "class directory .*b holds no images"),
        (["train/a/1.jpg", "val/a/1.jpg", "val/b/1.jpg"], r"different classes; 1 class\(es\) only in val: b"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/b/1.jpg"], r"different classes; 1 class\(es\) only in train: a"),
    ],
)
def test_layout_that_cannot_be_trained_on_is_an_error_with_a_remedy(tmp_path, paths, message):
    with pytest.raises(DataError, match=message):
        scan_imagefolder(make_tree(tmp_path, paths))


def test_data_directory_that_is_missing_or_a_file_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist") as caught:
        scan_imagefolder(tmp_path / "nowhere")
    assert "perf data check" in caught.value.hint
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(DataError, match="file is not a directory"):
        scan_imagefolder(file)


def test_long_difference_of_classes_is_shortened(tmp_path):
    root = make_tree(tmp_path, [f"train/c{number}/1.jpg" for number in range(9)] + ["val/c0/1.jpg"])
    with pytest.raises(DataError, match=r"8 class\(es\) only in train: c1, c2, c3, c4, c5, …$"):
        scan_imagefolder(root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every directory")
def test_class_directory_that_cannot_be_read_is_named(tmp_path):
    root = make_tree(tmp_path, ["train/a/1.jpg"])
    (root / "train/a").chmod(0)
    with pytest.raises(DataError, match="cannot list .*a: Permission denied"):
        scan_imagefolder(root)
    (root / "train/a").chmod(0o755)


def test_listing_links_to_directories_and_files(tmp_path):
    store = make_tree(tmp_path / "store", ["x/1.jpg", "2.jpg"])
    root = make_tree(tmp_path / "data", ["train/b/0.jpg"])
    (root / "train/a").symlink_to(store / "x")
    (root / "train/b/2.jpg").symlink_to(store / "2.jpg")
    split, _ = read_split(root / "train")
    assert [split.relative_path(index) for index in range(len(split))] == ["a/1.jpg", "b/0.jpg", "b/2.jpg"]


def test_link_that_leads_back_is_named_and_not_followed_for_ever(tmp_path):
    root = make_tree(tmp_path, ["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/1.jpg"])
    (root / "train/a/up").symlink_to("../../val/b")
    (root / "val/b/back").symlink_to("../../train/a")
    (root / "train/a/again").symlink_to(".")
    with pytest.raises(DataError, match="train/a/again: leads back to a directory that holds it|up/back: leads back"):
        scan_imagefolder(root)


def messages(root):
    return {finding.code: finding.message for finding in check_imagefolder(root).findings}


@pytest.mark.parametrize(
    ("level", "explained"), [("", ""), ("n01/", "2 directories within it: move these up (n01, n02)")]
)
def test_one_class_is_an_error_and_a_level_between_is_explained(tmp_path, level, explained):
    paths = [f"train/animals/{level}1.jpg", f"train/animals/{level.replace('1', '2')}2.jpg"]
    root = make_tree(tmp_path, [*paths, f"val/animals/{level}1.jpg"])
    with pytest.raises(DataError, match="train has one class, 'animals', but a classification needs two") as caught:
        scan_imagefolder(root)
    assert caught.value.message == messages(root)["one-class"]
    assert caught.value.message.endswith(explained or "needs two")


def test_level_between_several_classes_and_images_is_a_warning(tmp_path):
    tree = [f"{split}/{outer}/{inner}/1.jpg" for split in ("train", "val") for outer in "ab" for inner in "xy"]
    root = make_tree(tmp_path, tree)
    assert len(scan_imagefolder(root).train) == 4
    assert (
        "all images of 2 classes lie in directories within them, which are not distinguished: a, b"
        in (messages(root)["nested-class"])
    )


def test_hidden_directories_and_files_are_left_out_and_said(tmp_path):
    tree = [f"{split}/{name}/1.jpg" for split in ("train", "val") for name in "ab"]
    hidden = ["train/.cache/1.jpg", "train/a/.ipynb_checkpoints/1-checkpoint.jpg", "train/a/._1.jpg"]
    root = make_tree(tmp_path, tree + hidden)
    assert len(scan_imagefolder(root).train) == 2
    said = messages(root)["hidden"]
    assert "train: 3 files or directories are left out" in said
    for name in (".cache", "a/.ipynb_checkpoints", "a/._1.jpg"):
        assert str(root / "train" / name) in said


def test_flat_split_says_how_many_images_it_has_and_how_imagenet_is_sorted(tmp_path):
    tree = ["train/a/1.jpg", "train/b/1.jpg", *(f"val/ILSVRC2012_val_{number}.JPEG" for number in range(7))]
    root = make_tree(tmp_path, tree)
    with pytest.raises(DataError, match=r"val holds no class directories, but 7 images: .*valprep\.sh") as caught:
        scan_imagefolder(root)
    assert caught.value.message == messages(root)["no-classes"]


def test_images_beside_the_classes_are_named(tmp_path):
    tree = [f"{split}/{name}/1.jpg" for split in ("train", "val") for name in "ab"]
    root = make_tree(tmp_path, [*tree, "train/3.jpg"])
    assert "1 images lie in no class directory and are ignored: 3.jpg" in messages(root)["loose-images"]


def test_fifo_is_refused_and_not_waited_for(tmp_path):
    root = make_tree(tmp_path, ["train/b/1.jpg", "val/a/1.jpg", "val/b/1.jpg"])
    (root / "train/a").mkdir()
    os.mkfifo(root / "train/a/1.jpg")
    assert f"{root / 'train/a/1.jpg'}: is not a regular file" in messages(root)["unreadable"]


PATHS = [
    f"{split}/{directory}{name}"
    for split in ("train", "val")
    for directory in ("", "a/", "b/", "B/", ".cache/", "a/inner/", "b/inner/")
    for name in ("1.jpg", "2.png", "notes.txt", ".hidden.jpg", "damaged.jpg", "fifo.jpg")
]
COMPLETE = ["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/1.jpg"]


@settings(max_examples=100, deadline=None)
@given(paths=st.sets(st.sampled_from(PATHS), max_size=4), missing=st.sets(st.sampled_from(COMPLETE), max_size=2))
def test_check_and_training_agree_about_every_odd_tree(paths, missing):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for path in sorted({*COMPLETE, *paths} - missing):
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.stem == "fifo":
                os.mkfifo(file)
            else:
                file.write_bytes(b"damaged" if file.stem == "damaged" else buffer.getvalue())
        report = check_imagefolder(root, full=True)
        if report.ok:
            assert read_all(root) == report.train_samples + report.eval_samples
        else:
            with pytest.raises(DataError) as caught:
                read_all(root)
            assert caught.value.message in [finding.message for finding in report.findings]


def read_all(root):
    folder = scan_imagefolder(root)
    paths = [split.path(index) for split in (folder.train, folder.val) for index in range(len(split))]
    return len([decode_rgb(read_file(path), path) for path in paths])


def test_many_files_that_are_no_images_are_one_line(tmp_path):
    tree = [f"{split}/{name}/1.jpg" for split in ("train", "val") for name in "ab"]
    root = make_tree(tmp_path, [*tree, *(f"train/a/{number}.txt" for number in range(500))])
    findings = [finding for finding in check_imagefolder(root).findings if finding.code == "not-an-image"]
    [message] = [finding.message for finding in findings]
    assert message.startswith("500 files are ignored, as their names are not those of images: ")
    assert len(message) < 1000


def test_names_that_look_alike_are_explained(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    tree = ["train/a/1.jpg", "val/a/1.jpg", f"train/{composed}/1.jpg", f"val/{decomposed}/1.jpg"]
    root = make_tree(tmp_path / "apart", tree)
    with pytest.raises(DataError, match="upper and lower case only, or in the coding of accents"):
        scan_imagefolder(root)
    tree = [f"{split}/{name}/1.jpg" for split in ("train", "val") for name in (composed, decomposed)]
    assert "case-only-difference" in messages(make_tree(tmp_path / "both", tree))


@pytest.mark.parametrize(
    ("paths", "said"), [(["train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg"], "test, train"), (["x/train/a/1.jpg"], "x")]
)
def test_missing_split_says_what_lies_in_its_place(tmp_path, paths, said):
    root = make_tree(tmp_path / "data", paths)
    with pytest.raises(DataError, match=rf"cannot list .*: No such file or directory; .*data holds {said}$") as caught:
        scan_imagefolder(root)
    assert caught.value.message in [finding.message for finding in check_imagefolder(root).findings]

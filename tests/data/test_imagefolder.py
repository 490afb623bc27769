from __future__ import annotations

import os

import pytest
from chipperf.data.imagefolder import read_split, scan_imagefolder
from chipperf.errors import DataError


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

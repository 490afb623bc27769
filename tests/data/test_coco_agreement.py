"""What the check accepts trains and is evaluated rightly, and what it refuses stops training with the same words."""

from __future__ import annotations

import copy
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from chipperf.cases.detr.evaluation import (
    DETECTION,
    CollectedDetections,
    average_precision,
    coco_document,
    coco_index,
)
from chipperf.data.coco import InstanceSplit, check_coco, scan_coco
from chipperf.data.coco_batch import CocoDataset
from chipperf.data.coco_sample import CocoSampleOptions, ensure_coco_sample
from chipperf.data.coco_transforms import DetectionEvaluationTransform
from chipperf.data.loader import SampleKey
from chipperf.errors import DataError
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from pathlib import Path

TRAIN = "annotations/instances_train2017.json"
VAL = "annotations/instances_val2017.json"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three training and two evaluation images without panoptic annotations; tests write to a copy of it."""
    options = CocoSampleOptions(train_samples=3, val_samples=2, width=48, height=36)
    root = ensure_coco_sample(options, tmp_path_factory.mktemp("coco"))
    (root / "dataset.json").unlink()
    for path in [*root.glob("panoptic_*"), *root.glob("annotations/panoptic_*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return root


@pytest.fixture(scope="module")
def scratch(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scratch") / "data"
    shutil.copytree(pristine, root)
    return root


@pytest.fixture(scope="module")
def documents(pristine: Path) -> dict[str, Any]:
    return {name: json.loads((pristine / name).read_text()) for name in (TRAIN, VAL)}


@pytest.fixture
def edited(scratch: Path, documents: dict[str, Any]) -> Any:
    """Writes changed annotations, and returns the dataset's directory."""

    def write(change: Any, name: str = VAL) -> Path:
        changed = copy.deepcopy(documents)
        change(changed[name])
        for path, document in changed.items():
            (scratch / path).write_text(json.dumps(document))
        return scratch

    return write


def train(root: Path) -> float | None:
    """Read all that training and evaluation read, and return the average precision of the annotated boxes."""
    data = scan_coco(root)
    for split in (data.train, data.val):
        dataset = CocoDataset(split, DetectionEvaluationTransform(16), masks=False)
        for index in range(len(split.images)):
            dataset[SampleKey(epoch=0, sample=index)]
    return perfect_precision(data.truth)


def perfect_precision(split: InstanceSplit) -> float | None:
    rows = []
    for index, image_id in enumerate(split.images.ids.tolist()):
        found = split.objects(index, masks=False)
        boxes = zip(found.labels.tolist(), found.boxes.tolist(), strict=True)
        rows += [(image_id, label, 1.0, box) for label, box in boxes] or [(image_id, 0, 0.0, [0, 0, 1, 1])]
    detections = CollectedDetections(np.array(rows, DETECTION), None)
    return average_precision(coco_index(coco_document(split)), detections, "bbox")["ap"]


ODD = st.one_of(
    st.sampled_from([None, True, "", "1", "x", 1.0, 2.5, 0, -1, 2**60, 2**64, float("nan"), [], {}, [1, 2], "\ud800"]),
    st.sampled_from(
        [[1, 2, 3, 4], ["1", 2, 3, 4], [1, 2, 0, 4], [[1, 1, 3, 1, 3, "3"]], {"size": [1, 1], "counts": "x"}]
    ),
    st.sampled_from(["circle", "square", 1, 2, 3, 4, 5, 36, 48]),
)
KEYS = {
    "images": ("id", "height", "width", "file_name"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"),
    "categories": ("id", "name"),
}
PLACES = [(name, kind, key) for name in (TRAIN, VAL) for kind, keys in KEYS.items() for key in keys]


@st.composite
def edits(draw: st.DrawFn) -> tuple[str, str, str, int, str, Any]:
    name, kind, key = draw(st.sampled_from(PLACES))
    how = draw(st.sampled_from(["set", "set", "set", "text", "drop", "remove", "repeat", "empty"]))
    return name, kind, key, draw(st.integers(0, 20)), how, draw(ODD)


def apply(documents: dict[str, Any], edit: tuple[str, str, str, int, str, Any]) -> None:
    name, kind, key, number, how, value = edit
    entries = documents[name][kind]
    if how == "empty":
        entries.clear()
    if not entries:
        return
    entry = entries[number % len(entries)]
    if how == "set":
        entry[key] = value
    elif how == "text":
        for other in entries:
            other[key] = str(other.get(key))
    elif how == "drop":
        entry.pop(key, None)
    elif how == "remove":
        entries.remove(entry)
    elif how == "repeat":
        entries.append(copy.deepcopy(entry))


@settings(max_examples=150, deadline=None)
@given(changes=st.lists(edits(), min_size=1, max_size=2))
def test_check_and_training_agree_about_every_odd_dataset(
    scratch: Path, documents: dict[str, Any], changes: list[Any]
) -> None:
    changed = copy.deepcopy(documents)
    for change in changes:
        apply(changed, change)
    for name, document in changed.items():
        (scratch / name).write_text(json.dumps(document))
    report = check_coco(scratch)
    messages = [finding.message for finding in report.findings]
    if report.ok:
        precision = train(scratch)
        assert report.findings or precision == pytest.approx(1)
    else:
        with pytest.raises(DataError) as caught:
            train(scratch)
        assert caught.value.message in messages


@pytest.mark.parametrize(
    ("kind", "key"), [("image", "id"), ("category", "category_id"), ("annotations only", "image_id")]
)
def test_ids_as_text_are_an_error_that_names_entry_and_key(edited: Any, kind: str, key: str) -> None:
    def change(document: Any) -> None:
        for entry in document["annotations"]:
            entry["category_id" if kind == "category" else "image_id"] = str(entry["category_id"])
        if kind != "annotations only":
            for entry in document["categories" if kind == "category" else "images"]:
                entry["id"] = str(entry["id"])

    root = edited(change)
    with pytest.raises(DataError) as caught:
        train(root)
    assert f"{VAL}: the entry with id " in caught.value.message
    assert f" as '{key}'" in caught.value.message
    assert caught.value.message in [finding.message for finding in check_coco(root).findings]


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("annotations", "category_id", 2.5),
        ("annotations", "id", True),
        ("annotations", "iscrowd", 0.5),
        ("annotations", "area", "12"),
        ("annotations", "bbox", [1, 2, "3", 4]),
        ("annotations", "bbox", "1234"),
        ("annotations", "segmentation", [[1, 1, 3, 1, 3, "3"]]),
        ("annotations", "segmentation", {"size": [36, 48], "counts": [0.5]}),
        ("images", "height", "36"),
        ("images", "file_name", "\ud800.jpg"),
        ("categories", "name", 3),
    ],
)
def test_value_of_another_type_is_an_error_by_check_and_training(edited: Any, kind: str, key: str, value: Any) -> None:
    root = edited(lambda document: document[kind][0].update({key: value}))
    with pytest.raises(DataError, match=rf"{VAL}: the entry with id .* has .* as '{key}'") as caught:
        train(root)
    assert caught.value.message in [finding.message for finding in check_coco(root).findings]


def test_whole_numbers_may_be_written_with_a_point(edited: Any) -> None:
    def change(document: Any) -> None:
        for entry in document["images"]:
            entry["id"] = float(entry["id"])
        for entry in document["annotations"]:
            entry.update(id=float(entry["id"]), category_id=float(entry["category_id"]))

    root = edited(change)
    assert check_coco(root).findings == ()
    assert train(root) == pytest.approx(1)


def test_category_that_means_something_else_is_an_error_with_both_names(edited: Any) -> None:
    root = edited(lambda document: document["categories"][0].update(name="square"))
    with pytest.raises(DataError, match=r"1 category ids have other names than in .*: 1 is 'circle' and 'square'$"):
        train(root)
    assert {finding.code for finding in check_coco(root).findings} == {"category-names"}


def test_category_that_training_does_not_know_is_an_error(edited: Any) -> None:
    def change(document: Any) -> None:
        document["categories"].append({"id": 7, "name": "star"})
        document["annotations"][0]["category_id"] = 7

    root = edited(change)
    with pytest.raises(DataError, match=r"objects have 1 categories that .* does not list: 7$"):
        train(root)
    assert {finding.code for finding in check_coco(root).findings} == {"category-unlearned"}


def test_image_of_another_size_than_annotated_is_found_in_its_header(edited: Any) -> None:
    def turn(document: Any) -> None:
        image = document["images"][0]
        image.update(height=image["width"], width=image["height"])

    root = edited(turn)
    [finding] = [finding for finding in check_coco(root).findings if finding.severity == "error"]
    assert finding.message.endswith("EXIF orientation turns it")
    with pytest.raises(DataError) as caught:
        train(root)
    assert caught.value.message == finding.message


def test_evaluation_split_without_objects_is_a_warning_and_training_one_an_error(edited: Any) -> None:
    root = edited(lambda document: document["annotations"].clear())
    [finding] = check_coco(root).findings
    assert (finding.severity, finding.code) == ("warning", "no-objects")
    assert train(root) is None
    root = edited(lambda document: document["annotations"].clear(), TRAIN)
    with pytest.raises(DataError, match="there is no object to learn"):
        train(root)
    assert not check_coco(root).ok


@pytest.mark.parametrize(
    ("rewrite", "meant"),
    [
        (lambda x, y, w, h: [x, y, x + w, y + h], "left, top, right and bottom"),
        (lambda x, y, w, h: [x / 48, y / 48, w / 48, h / 48], "fractions of the image"),
    ],
)
def test_boxes_of_another_format_are_a_warning_with_an_example(
    coco_sample: Path, tmp_path: Path, rewrite: Any, meant: str
) -> None:
    root = tmp_path / "data"
    shutil.copytree(coco_sample, root)
    (root / "dataset.json").unlink()
    document = json.loads((root / TRAIN).read_text())
    for entry in document["annotations"]:
        entry["bbox"] = [value / (128 / 48) if "fractions" in meant else value for value in rewrite(*entry["bbox"])]
    (root / TRAIN).write_text(json.dumps(document))
    [finding] = [finding for finding in check_coco(root).findings if finding.code == "box-format"]
    assert finding.severity == "warning"
    assert f"boxes seem to be {meant}, where COCO has left, top, width and height in pixels" in finding.message
    assert "annotation " in finding.message
    assert " on an image of " in finding.message

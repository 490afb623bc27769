from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np
import pytest
from chipperf.cases.detr.case import DETR
from chipperf.data.coco import (
    decode_segment_ids,
    draw_segmentation,
    identify_coco,
    scan_coco,
    scan_coco_split,
)
from chipperf.data.coco_annotations import read_annotation_file
from chipperf.data.imagefolder import PackedBytes
from chipperf.errors import DataError
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

INSTANCES = "annotations/instances_train2017.json"
PANOPTIC = "annotations/panoptic_train2017.json"


@pytest.fixture
def dataset(coco_sample, tmp_path):
    root = tmp_path / "shapes"
    shutil.copytree(coco_sample, root)
    (root / "dataset.json").unlink()
    return root


@pytest.fixture
def edit(dataset):
    """Changes an annotation file of the dataset."""

    def apply(name, change):
        path = dataset / name
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    return apply


@pytest.fixture
def peer(coco_sample):
    """The training annotations in pycocotools' own index."""
    with redirect_stdout(io.StringIO()):
        return COCO(coco_sample / INSTANCES)


def test_objects_are_those_that_pycocotools_finds(coco_sample, peer):
    split = scan_coco_split(coco_sample, "train2017", "masks")
    assert split.images.ids.tolist() == sorted(peer.getImgIds())
    assert list(split.things) == sorted(peer.getCatIds())
    seen = 0
    for index, image_id in enumerate(split.images.ids.tolist()):
        entries = peer.loadAnns(peer.getAnnIds(image_id, iscrowd=False))
        found = split.objects(index, masks=True)
        boxes = np.array([entry["bbox"] for entry in entries]).reshape(-1, 4)
        np.testing.assert_array_equal(found.boxes[:, 2:] - found.boxes[:, :2], boxes[:, 2:])
        np.testing.assert_array_equal(found.boxes[:, :2], boxes[:, :2])
        assert found.labels.tolist() == [entry["category_id"] for entry in entries]
        rows = split.table.rows(index)
        areas = split.table.areas[rows][~split.table.is_crowd[rows]]
        assert areas.tolist() == [entry["area"] for entry in entries]
        assert found.masks.shape == (len(entries), *split.images.sizes[index])
        for mask, entry in zip(found.masks, entries, strict=True):
            np.testing.assert_array_equal(mask, peer.annToMask(entry))
        assert split.images.path(index) == str(coco_sample / "train2017" / peer.imgs[image_id]["file_name"])
        seen += len(entries)
    assert seen == len(peer.getAnnIds(iscrowd=False)) < len(peer.anns)


def test_image_without_annotations_has_no_objects(coco_sample, peer):
    split = scan_coco_split(coco_sample, "train2017", "masks")
    [empty, *_] = [image_id for image_id in peer.getImgIds() if not peer.getAnnIds(image_id)]
    index = split.images.position(empty)
    found = split.objects(index, masks=True)
    assert found.boxes.shape == (0, 4)
    assert found.labels.shape == (0,)
    assert found.masks.shape == (0, *split.images.sizes[index])


def test_panoptic_objects_are_the_segments_without_crowds(coco_sample):
    split = scan_coco_split(coco_sample, "train2017", "panoptic")
    document = json.loads((coco_sample / PANOPTIC).read_text())
    crowds = 0
    for entry in document["annotations"]:
        index = split.images.position(entry["image_id"])
        segments = [segment for segment in entry["segments_info"] if not segment["iscrowd"]]
        crowds += len(entry["segments_info"]) - len(segments)
        found = split.objects(index, masks=True)
        assert found.labels.tolist() == [segment["category_id"] for segment in segments]
        assert found.masks.sum(axis=(1, 2)).tolist() == [segment["area"] for segment in segments]
        assert split.objects(index, masks=False).masks is None
    assert crowds
    assert split.things == {1: "circle", 2: "square", 3: "triangle", 5: "ring", 8: "cross"}
    assert split.stuff == {92: "stripes", 95: "checks", 101: "rings"}


def test_boxes_of_panoptic_segments_are_those_of_their_pixels(dataset, edit):
    def forget_boxes(document):
        for entry in document["annotations"]:
            for segment in entry["segments_info"]:
                segment["bbox"] = [0, 0, 1, 1]

    annotated = scan_coco_split(dataset, "train2017", "panoptic")
    edit(PANOPTIC, forget_boxes)
    split = scan_coco_split(dataset, "train2017", "panoptic")
    for index in range(len(split.images)):
        drawn = split.objects(index, masks=True)
        assert drawn.boxes.tolist() == annotated.objects(index, masks=False).boxes.tolist()
        assert drawn.boxes.dtype == np.float32


def test_order_of_entries_in_the_file_does_not_matter(coco_sample, dataset, edit):
    def reverse(document):
        document["images"].reverse()
        document["annotations"].reverse()

    edit(INSTANCES, reverse)
    edit(PANOPTIC, reverse)
    for kind in ("masks", "panoptic"):
        ours, theirs = (scan_coco_split(root, "train2017", kind) for root in (coco_sample, dataset))
        for index in range(len(ours.images)):
            one, other = (split.objects(index, masks=True) for split in (ours, theirs))
            assert sorted(one.boxes.tolist()) == sorted(other.boxes.tolist())
            assert one.masks.sum() == other.masks.sum()


def test_unknown_image_id_is_an_error(coco_sample):
    images = scan_coco_split(coco_sample, "val2017", "boxes").images
    for image_id in (-1, 1, 10_000):
        with pytest.raises(DataError, match=rf"val2017: no image has the id {image_id}"):
            images.position(image_id)


def test_packed_bytes_keep_every_string():
    packed = PackedBytes([b"one", b"", b"three"])
    assert [packed[index] for index in range(3)] == [b"one", b"", b"three"]


SQUARE = [[1, 1, 3, 1, 3, 3, 1, 3]]


@pytest.mark.parametrize(
    "segmentation", [SQUARE, {"size": [4, 5], "counts": [5, 2, 2, 2, 9]}, {"size": [4, 5], "counts": "52207"}]
)
def test_every_form_of_segmentation_is_drawn(segmentation):
    expected = np.zeros((4, 5), np.uint8)
    expected[1:3, 1:3] = 1
    np.testing.assert_array_equal(draw_segmentation(segmentation, 4, 5), expected)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "a polygon needs three points"),
        ([[1, 1, 3, 3]], "a polygon needs three points"),
        ({"size": [5, 4], "counts": [20]}, "not a polygon or run-length code of 4x5 pixels"),
        ({"size": [4, 5], "counts": [7, 2]}, "counts do not add up to 4x5"),
        (None, "not a polygon or run-length code"),
    ],
)
def test_segmentation_that_cannot_be_drawn_is_an_error_that_names_its_annotation(dataset, edit, segmentation, message):
    with pytest.raises(ValueError, match=message):
        draw_segmentation(segmentation, 4, 5)
    edit(INSTANCES, lambda document: document["annotations"][0].update(segmentation=segmentation))
    split = scan_coco_split(dataset, "train2017", "masks")
    with pytest.raises(DataError, match=r"annotation 1 of .*\.jpg: its segmentation cannot be drawn"):
        split.objects(int(np.argmax(split.table.ends > 0)), masks=True)


def test_segment_ids_are_read_from_all_three_channels():
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 1], pixels[1, 0], pixels[1, 1] = (7, 0, 0), (0, 7, 0), (1, 2, 3)
    assert decode_segment_ids(pixels).tolist() == [[0, 7], [7 * 256, 1 + 2 * 256 + 3 * 65536]]


@pytest.mark.parametrize("name", [INSTANCES, PANOPTIC])
def test_missing_annotation_file_is_named(dataset, name):
    (dataset / name).unlink()
    kind = "panoptic" if "panoptic" in name else "boxes"
    with pytest.raises(DataError, match=rf"the annotation file .*{name} is missing") as caught:
        scan_coco(dataset, kind)
    assert "instances_{train,val}2017.json" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [\n  {"id": 1}', r"not valid JSON at line 2, column 12: Expecting ',' delimiter"),
        ('{"images": [{"file_name": "0000', "not valid JSON at line 1, column 27: Unterminated string"),
        ("", "not valid JSON at line 1, column 1"),
        ("[]", "has no list 'images'"),
        ('{"annotations": [], "categories": []}', "has no list 'images'"),
        ('{"images": [], "categories": []}', "has no list 'annotations'"),
        ('{"images": [], "annotations": {}, "categories": []}', "has no list 'annotations'"),
        ('{"images": [], "annotations": []}', "has no list 'categories'"),
    ],
)
def test_damaged_annotation_file_is_an_error_that_says_where(dataset, text, message):
    (dataset / INSTANCES).write_text(text)
    with pytest.raises(DataError, match=rf"{INSTANCES}: {message}") as caught:
        scan_coco(dataset)
    assert caught.value.hint


def test_annotation_file_that_is_no_text_is_an_error(dataset):
    (dataset / INSTANCES).write_bytes(b'{"images": "\xff\xfe\xff"}')
    with pytest.raises(DataError, match=rf"{INSTANCES}: not JSON in UTF-8"):
        read_annotation_file(dataset / INSTANCES)


def first(key):
    return lambda document: document[key][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document["annotations"][0].pop("bbox"), "the entry with id 1 has no 'bbox'"),
        (lambda document: document["annotations"][0].pop("image_id"), "the entry with id 1 has no 'image_id'"),
        (lambda document: document["annotations"][0].pop("area"), "the entry with id 1 has no 'area'"),
        (lambda document: document["annotations"][0].update(bbox=[1, 2, 3]), r"id 1 has \[1, 2, 3\] as 'bbox'"),
        (lambda document: document["annotations"][0].update(bbox=[1, 2, 3, None]), "as 'bbox'"),
        (lambda document: document["annotations"][0].update(area="large"), "id 1 has 'large' as 'area'"),
        (lambda document: document["annotations"].append(7), "7 is in the place of an entry"),
        (lambda document: document["images"][0].pop("file_name"), "has no 'file_name'"),
        (lambda document: document["images"][0].update(height="tall"), "has 'tall' as 'height'"),
        (lambda document: document["images"][0].update(file_name=3), "has 3 as 'file_name'"),
        (lambda document: document["categories"][0].pop("id"), "an entry has no 'id'"),
    ],
)
def test_entry_with_a_wrong_value_is_named(dataset, edit, change, message):
    edit(INSTANCES, change)
    with pytest.raises(DataError, match=rf"{INSTANCES}: .*{message}"):
        scan_coco(dataset)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda document: document["categories"].append({"id": 91}),
            "1 category ids are outside 1-90: 91",
        ),
        (
            lambda document: document["annotations"][0].update(category_id=90),
            r"1 annotations have a category that is not listed \(90\): 1",
        ),
        (
            lambda document: document["annotations"][2].update(image_id=999),
            r"1 annotations name an image that is not listed \(999\): 3",
        ),
        (
            lambda document: [entry.update(id=entry["id"] - 1) for entry in document["annotations"]],
            "1 annotation ids are below 1: 0",
        ),
        (lambda document: document["annotations"][0].update(id=2), "1 annotation ids occur more than once: 2"),
        (lambda document: document["images"].append(document["images"][0]), "1 image ids occur more than once: 1"),
    ],
)
def test_contradiction_in_an_annotation_file_is_an_error(dataset, edit, change, message):
    edit(INSTANCES, change)
    with pytest.raises(DataError, match=rf"{INSTANCES}: {message}$") as caught:
        scan_coco(dataset)
    assert caught.value.hint == "`perf data check detr DIR` lists every problem"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document["categories"].append({"id": 201, "isthing": 0}), "1 category ids are outside 1-200"),
        (lambda document: document["annotations"].pop(0), "1 images have no annotation: 1"),
        (
            lambda document: document["annotations"][0].update(image_id=999),
            "1 annotations name images that are not listed: 999",
        ),
        (lambda document: document["annotations"][0].pop("segments_info"), "image_id 1 has no 'segments_info'"),
        (lambda document: document["categories"][0].pop("isthing"), "has no 'isthing'"),
    ],
)
def test_contradiction_in_a_panoptic_file_is_an_error(dataset, edit, change, message):
    edit(PANOPTIC, change)
    with pytest.raises(DataError, match=rf"{PANOPTIC}: .*{message}"):
        scan_coco(dataset, "panoptic")


def test_listed_images_that_are_absent_are_counted_and_named(dataset):
    names = sorted(path.name for path in (dataset / "train2017").iterdir())
    for name in names[:7]:
        (dataset / "train2017" / name).unlink()
    with pytest.raises(DataError) as caught:
        scan_coco(dataset)
    message = caught.value.message
    assert f"7 images are listed, but not in {dataset / 'train2017'}: {', '.join(names[:5])}, …" in message


def test_absent_panoptic_map_is_named(dataset):
    path = next(iter(sorted((dataset / "panoptic_train2017").iterdir())))
    path.unlink()
    with pytest.raises(DataError, match=f"1 panoptic maps are listed, but not in .*panoptic_train2017: {path.name}"):
        scan_coco(dataset, "panoptic")
    assert len(scan_coco(dataset, "masks").train.images) == 16


def test_map_that_disappears_later_is_named(dataset):
    split = scan_coco_split(dataset, "train2017", "panoptic")
    path = dataset / "panoptic_train2017" / "000000000001.png"
    path.unlink()
    with pytest.raises(DataError, match=f"{path}: cannot be read: No such file"):
        split.objects(0, masks=True)


@pytest.mark.parametrize("layout", ["absent", "file", "empty", "no-images"])
def test_directory_of_another_layout_is_an_error(dataset, tmp_path, layout):
    root = tmp_path / layout
    if layout == "file":
        root.write_text("")
    elif layout == "empty":
        root.mkdir()
    elif layout == "no-images":
        shutil.copytree(dataset / "annotations", root / "annotations")
    with pytest.raises(DataError) as caught:
        scan_coco(root)
    assert str(root) in caught.value.message
    assert caught.value.hint


def test_identity_of_an_own_directory_is_its_name_and_listing(dataset, tmp_path):
    found = identify_coco(scan_coco(dataset), DETR.data.reference)
    assert (found.name, found.version, found.is_sample, found.target) == ("shapes", None, False, None)
    elsewhere = tmp_path / "elsewhere" / "shapes"
    shutil.copytree(dataset, elsewhere)
    assert identify_coco(scan_coco(elsewhere, "panoptic"), DETR.data.reference) == found
    (elsewhere / "panoptic_val2017" / "000000000002.png").write_bytes(b"another size")
    assert identify_coco(scan_coco(elsewhere), DETR.data.reference).fingerprint != found.fingerprint
    reference = replace(DETR.data.reference, train_samples=16, eval_samples=8, classes=5)
    assert identify_coco(scan_coco(dataset), reference).name == "coco2017"


def test_changed_sample_is_refused(coco_sample, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(coco_sample, root)
    next(root.glob("train2017/*.jpg")).write_bytes(b"changed")
    with pytest.raises(DataError, match=r"not those of its dataset\.json"):
        identify_coco(scan_coco(root), DETR.data.reference)


def test_published_size_is_that_of_coco_2017():
    assert (DETR.data.reference.train_samples, DETR.data.reference.eval_samples) == (118_287, 5_000)


def test_parts_that_need_no_torch_do_not_import_it():
    program = "import sys\nimport chipperf.data.coco\nimport chipperf.data.coco_sample\n"
    program += "sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("counts", ["", "522", "0T1", "52207o", "5220\x007", "5220é"])
def test_run_length_code_that_ends_early_is_not_drawn_as_if_nothing_were_there(counts):
    with pytest.raises(ValueError, match=r"counts do not add up|not a run-length code|ascii"):
        draw_segmentation({"size": [4, 5], "counts": counts}, 4, 5)


@pytest.mark.parametrize("seed", range(20))
def test_every_run_length_code_of_pycocotools_is_whole(seed):
    rng = np.random.RandomState(seed)
    mask = np.asfortranarray(rng.random_sample((rng.randint(1, 90), rng.randint(1, 90))) < rng.choice([0.001, 0.5, 1]))
    code = coco_mask.encode(mask.astype(np.uint8, order="F"))
    drawn = draw_segmentation({"size": list(mask.shape), "counts": code["counts"].decode()}, *mask.shape)
    np.testing.assert_array_equal(drawn, mask)


@pytest.mark.parametrize(
    ("segmentation", "side"), [([[0, 0, 1e12, 0, 0, 1e12]], 10), ({"size": [2**20, 2**20], "counts": "05"}, 2**20)]
)
def test_segmentation_on_which_pycocotools_crashes_is_refused(segmentation, side):
    with pytest.raises(ValueError, match="far outside|too large"):
        draw_segmentation(segmentation, side, side)


def test_files_that_no_case_reads_are_no_part_of_the_dataset(dataset):
    for path in (*dataset.glob("annotations/panoptic_*"), *(dataset / "panoptic_val2017").iterdir()):
        path.unlink()
    found = identify_coco(scan_coco(dataset), DETR.data.reference)
    (dataset / "train2017" / "notes").symlink_to("nowhere")
    (dataset / "panoptic_val2017").rmdir()
    (dataset / "panoptic_val2017").write_text("no directory")
    assert identify_coco(scan_coco(dataset), DETR.data.reference) == found

from __future__ import annotations

import json
import os
import shutil

import pytest
from chipperf.cases.detr.case import DETR, DETR_MASKS, DETR_PANOPTIC
from chipperf.cases.detr.evaluation import coco_document
from chipperf.data import dataset_check
from chipperf.data.coco import check_coco, scan_coco
from chipperf.data.dataset_identity import ReferenceDataset
from chipperf.errors import DataError
from PIL import Image


@pytest.fixture
def dataset(coco_sample, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(coco_sample, root)
    (root / "dataset.json").unlink()
    return root


def edit(root, name, change):
    path = root / "annotations" / name
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def codes(report):
    return {finding.code for finding in report.findings}


@pytest.mark.parametrize("full", [False, True])
def test_good_dataset_has_no_findings(coco_sample, full):
    report = check_coco(coco_sample, full=full)
    assert report.ok
    assert report.findings == ()
    assert (report.train_samples, report.eval_samples, report.classes, report.images_read) == (16, 8, 5, 48)
    assert report.fully_decoded is full


def test_dataset_without_panoptic_annotations_is_good(dataset):
    for path in [*dataset.glob("panoptic_*"), *dataset.glob("annotations/panoptic_*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert check_coco(dataset).findings == ()


def test_all_problems_are_listed_at_once(dataset):
    absent, text, truncated = sorted((dataset / "train2017").iterdir())[:3]
    absent.unlink()
    text.write_text("<html>404</html>")
    truncated.write_bytes(truncated.read_bytes()[:-200])
    absent_map = next((dataset / "panoptic_val2017").iterdir())
    absent_map.unlink()

    def damage(document):
        document["annotations"][0]["category_id"] = 77
        document["annotations"][1]["image_id"] = 12345
        document["annotations"][2]["bbox"][2] = 0
        document["categories"].append({"id": 300})

    edit(dataset, "instances_train2017.json", damage)
    (dataset / "annotations" / "instances_val2017.json").write_text('{"images": [')
    report = check_coco(dataset, full=True)
    assert codes(report) == {
        "category-unknown",
        "image-unknown",
        "category-range",
        "image-absent",
        "degenerate-box",
        "annotations",
        "map-absent",
        "unreadable",
    }
    assert not report.ok
    messages = " ".join(finding.message for finding in report.findings)
    for part in (absent.name, str(text), str(truncated), absent_map.name, "77", "12345", "300", "line 1, column 13"):
        assert part in messages
    assert report.eval_samples == 0


def test_headers_alone_find_what_is_no_image_but_not_truncation(dataset):
    text, truncated = sorted((dataset / "val2017").iterdir())[:2]
    text.write_text("<html>404</html>")
    truncated.write_bytes(truncated.read_bytes()[:-200])
    assert [str(text) in finding.message for finding in check_coco(dataset).findings] == [True]


@pytest.mark.parametrize("bbox", [[5, 5, 0, 9], [5, 5, 9, -1], [-20, 5, 10, 9], [5, 4000, 9, 9]])
def test_box_without_area_in_its_image_is_a_warning(dataset, bbox):
    edit(dataset, "instances_val2017.json", lambda document: document["annotations"][3].update(bbox=bbox))
    report = check_coco(dataset)
    assert report.ok
    [finding] = report.findings
    assert (finding.severity, finding.code) == ("warning", "degenerate-box")
    assert finding.message.endswith("1 boxes have no area within their image and are not trained: 4")


def test_wrong_size_is_a_finding_with_both_numbers(coco_sample):
    findings = {finding.code: finding.message for finding in check_coco(coco_sample, DETR.data.reference).findings}
    assert findings == {
        "train-count": "16 training images; coco2017 has 118287",
        "eval-count": "8 evaluation images; coco2017 has 5000",
        "class-count": "5 classes; coco2017 has 80",
    }
    right = ReferenceDataset(name="right", title="Right", train_samples=16, eval_samples=8, classes=5)
    assert check_coco(coco_sample, right).ok


def test_changed_sample_dataset_is_a_finding(coco_sample, tmp_path):
    root = tmp_path / "sample"
    shutil.copytree(coco_sample, root)
    with next(root.glob("val2017/*.jpg")).open("ab") as file:
        file.write(b"\0")
    assert codes(check_coco(root)) == {"manifest"}


@pytest.mark.parametrize("layout", ["none", "file", "empty", "no-images"])
def test_directory_of_another_layout_is_a_finding_and_no_exception(dataset, tmp_path, layout):
    root = tmp_path / layout
    if layout == "file":
        root.write_text("")
    elif layout == "empty":
        root.mkdir()
    elif layout == "no-images":
        shutil.copytree(dataset / "annotations", root / "annotations")
    report = check_coco(root, DETR.data.reference)
    assert not report.ok
    assert codes(report) & {"layout", "annotations"}


def test_progress_ends_at_the_number_of_images(coco_sample, monkeypatch):
    monkeypatch.setattr(dataset_check, "_FILES_PER_TASK", 10)
    seen = []
    check_coco(coco_sample, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(10, 48), (20, 48), (30, 48), (40, 48), (48, 48)]


def test_panoptic_maps_are_opened_and_compared(dataset):
    cut_off, small, other = sorted((dataset / "panoptic_val2017").iterdir())[:3]
    assert check_coco(dataset, full=True).findings == ()
    with Image.open(small) as image:
        half = image.resize((image.width // 2, image.height // 2), Image.Resampling.NEAREST)
    half.save(small)
    [finding] = check_coco(dataset).findings
    assert (finding.code, str(small) in finding.message) == ("contradiction", True)
    cut_off.write_bytes(cut_off.read_bytes()[:-100])
    with Image.open(other) as image:
        size = image.size
    Image.new("RGB", size).save(other)
    report = check_coco(dataset, full=True)
    messages = {finding.code: finding.message for finding in report.findings}
    assert [finding.code for finding in report.findings].count("contradiction") == 2
    assert str(cut_off) in messages["unreadable"]
    assert "differ in the segments" in messages["contradiction"]
    split = scan_coco(dataset, "panoptic").val
    for index, part in ((0, "cannot be decoded"), (1, "its annotation file says"), (2, "differ in the segments")):
        with pytest.raises(DataError, match=part):
            split.objects(index, masks=True)


def test_size_in_panoptic_annotations_is_compared_too(dataset):
    edit(dataset, "panoptic_train2017.json", lambda document: document["images"][0].update(height=5))
    findings = check_coco(dataset).findings
    assert [finding.code for finding in findings] == ["contradiction", "contradiction"]
    assert "train2017/000000000001.jpg" in findings[0].message


def test_panoptic_categories_and_images_are_those_of_the_instances(dataset):
    edit(dataset, "panoptic_val2017.json", lambda document: document["categories"][0].update(name="square"))
    edit(dataset, "panoptic_train2017.json", lambda document: document["categories"][1].update(name="circle"))
    assert codes(check_coco(dataset)) == {"category-names"}
    with pytest.raises(DataError, match="2 category ids have other names"):
        scan_coco(dataset, "panoptic")

    def forget_image(document):
        image = document["images"].pop()
        document["annotations"] = [entry for entry in document["annotations"] if entry["image_id"] != image["id"]]

    edit(dataset, "instances_val2017.json", forget_image)
    assert codes(check_coco(dataset)) == {"category-names", "image-difference"}


def test_segmentation_that_cannot_be_drawn_is_a_warning_since_boxes_do_not_need_it(dataset):
    edit(dataset, "instances_val2017.json", lambda document: document["annotations"][3].update(segmentation=[[1, 1]]))
    assert check_coco(dataset).findings == ()
    report = check_coco(dataset, full=True)
    assert report.ok
    [finding] = report.findings
    assert "1 segmentations cannot be drawn, so masks cannot be learned" in finding.message
    assert "annotation 4 of " in finding.message


def test_what_is_learned_decides_what_is_an_error(dataset):
    edit(dataset, "instances_val2017.json", lambda document: document["annotations"][3].update(segmentation=[[1, 1]]))
    (dataset / "annotations" / "panoptic_train2017.json").unlink()
    boxes, masks, panoptic = (
        case.data.check(dataset, None, full=True, progress=lambda done, total: None)
        for case in (DETR, DETR_MASKS, DETR_PANOPTIC)
    )

    assert (boxes.ok, masks.ok, panoptic.ok) == (True, False, False)
    assert codes(boxes) == codes(masks) == {"segmentation"}
    assert codes(panoptic) == {"segmentation", "annotations"}
    for kind in ("masks", "panoptic"):
        with pytest.raises(DataError, match=r"annotation 4 of|panoptic_train2017\.json is missing"):
            coco_document(scan_coco(dataset, kind).truth)


def test_segments_are_learned_without_the_instances_of_their_images(dataset):
    (dataset / "annotations" / "instances_train2017.json").unlink()
    report = check_coco(dataset, kind="panoptic")

    assert report.findings == ()
    assert (report.train_samples, report.eval_samples, report.classes) == (16, 8, 5)
    assert scan_coco(dataset, "panoptic").train.things == scan_coco(dataset, "panoptic").truth.things
    assert codes(check_coco(dataset)) == {"annotations"}


@pytest.mark.parametrize("full", [False, True])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(dataset, full):
    image = next((dataset / "val2017").iterdir())
    for path in (image, dataset / "annotations" / "instances_train2017.json", dataset / "dataset.json"):
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    report = check_coco(dataset, full=full)
    messages = [finding.message for finding in report.findings]
    assert sum(message.endswith("is not a regular file") for message in messages) == 3


@pytest.mark.parametrize("area", [-1, -0.5, 2e10])
def test_area_with_which_evaluation_ignores_an_object_is_an_error(dataset, area):
    edit(dataset, "instances_val2017.json", lambda document: document["annotations"][3].update(area=area))
    with pytest.raises(DataError, match=r"1 annotations have an area below 0 or above 1e\+10.*: 4") as caught:
        scan_coco(dataset)
    assert caught.value.message in [finding.message for finding in check_coco(dataset).findings]


def test_thing_that_is_stuff_in_the_other_split_is_an_error(dataset):
    edit(dataset, "panoptic_val2017.json", lambda document: document["categories"][-1].update(isthing=1))
    with pytest.raises(DataError, match=r"1 categories are things here and stuff in .*: 101") as caught:
        scan_coco(dataset, "panoptic")
    assert caught.value.message in [finding.message for finding in check_coco(dataset, kind="panoptic").findings]


def test_panoptic_split_of_crowds_only_has_nothing_to_find(dataset):
    def crowd(document):
        for entry in document["annotations"]:
            for segment in entry["segments_info"]:
                segment["iscrowd"] = 1

    edit(dataset, "panoptic_val2017.json", crowd)
    [finding] = check_coco(dataset, kind="panoptic").findings
    assert (finding.severity, finding.code) == ("warning", "no-objects")


def test_annotations_that_contradict_each_other_are_warnings(dataset):
    def enlarge(document):
        document["annotations"][3]["bbox"][2] *= 9

    edit(dataset, "instances_val2017.json", enlarge)
    [finding] = check_coco(dataset).findings
    assert (finding.severity, finding.code) == ("warning", "box-outside")
    assert finding.message.endswith("evaluation does not: annotations 4")

    def as_fractions(document):
        for entry in document["annotations"]:
            entry["area"] /= 128 * 96
            if isinstance(entry["segmentation"], list):
                entry["segmentation"] = [[value / 128 for value in polygon] for polygon in entry["segmentation"]]

    edit(dataset, "instances_train2017.json", as_fractions)
    assert codes(check_coco(dataset)) == {"box-outside", "odd-area"}
    assert codes(check_coco(dataset, full=True)) == {"box-outside", "odd-area", "segmentation-elsewhere"}


@pytest.mark.parametrize("full", [False, True])
def test_evaluation_images_that_were_trained_on_are_a_warning(dataset, full):
    for number, image in enumerate(sorted((dataset / "train2017").iterdir())[:8]):
        shutil.copy(image, sorted((dataset / "val2017").iterdir())[number])
    report = check_coco(dataset, full=full)
    [finding] = [finding for finding in report.findings if finding.code == "repeated-images"]
    assert finding.severity == "warning"
    assert finding.message.startswith(f"8 of 8 evaluation images are training images, too: {dataset / 'val2017'}")


def test_image_and_objects_that_are_listed_twice_are_found(dataset):
    def repeat(document):
        document["annotations"] += [{**entry, "id": 1000 + entry["id"]} for entry in document["annotations"][:3]]

    edit(dataset, "instances_val2017.json", repeat)
    [finding] = check_coco(dataset).findings
    assert (finding.severity, finding.code) == ("warning", "repeated-object")
    assert finding.message.endswith(
        "3 annotations have image, category and box of another: annotations 1001, 1002, 1003"
    )

    def list_again(document):
        document["images"].append({**document["images"][2], "id": 99})

    edit(dataset, "instances_train2017.json", list_again)
    with pytest.raises(DataError, match=r"1 images, with different ids, occur more than once: 000000000005\.jpg"):
        scan_coco(dataset)


def test_key_that_stands_twice_is_an_error_by_check_and_training(dataset):
    path = dataset / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text()[:-1] + ',"annotations":[]}')
    with pytest.raises(DataError, match="annotations") as caught:
        scan_coco(dataset)
    assert caught.value.message in [finding.message for finding in check_coco(dataset).findings]

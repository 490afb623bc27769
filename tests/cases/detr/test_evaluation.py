"""Evaluation: the figures of a plain pycocotools run, on any number of ranks, and what is refused."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chipperf import Rank
from chipperf.cases.detr import evaluation
from chipperf.cases.detr.evaluation import (
    COCO_RESULTS,
    DETECTION,
    CollectedDetections,
    DetectionEvaluator,
    PanopticEvaluator,
    average_precision,
    coco_document,
    coco_index,
    collect,
    merge,
    require_every_image,
)
from chipperf.cases.detr.panoptic_quality import SegmentedImage
from chipperf.cases.detr.postprocess import Detections, encode_masks
from chipperf.data.coco import InstanceSplit, PanopticSplit, scan_coco_split
from chipperf.data.coco_sample import CocoSampleOptions, ensure_coco_sample
from chipperf.errors import DataError, TrainingError
from chipperf.run.collectives import Collectives
from evaluation_ranks import evaluate
from generated_predictions import QUERIES, predict_boxes, predict_segments
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

PROGRAM = Path(__file__).with_name("evaluation_ranks.py")
ALONE = Collectives(Rank(), torch.device("cpu"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample dataset with 20 images to evaluate on, which two ranks share evenly and three do not."""
    options = CocoSampleOptions(train_samples=1, val_samples=20, width=128, height=96)
    return ensure_coco_sample(options, tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def split(root: Path) -> InstanceSplit:
    return scan_instances(root)


def scan_instances(root: Path) -> InstanceSplit:
    found = scan_coco_split(root, "val2017", "masks")
    assert isinstance(found, InstanceSplit)
    return found


@pytest.fixture(scope="module")
def panoptic(root: Path) -> PanopticSplit:
    found = scan_coco_split(root, "val2017", "panoptic")
    assert isinstance(found, PanopticSplit)
    return found


@pytest.fixture(scope="module")
def plain_run(root: Path, split: InstanceSplit) -> dict[str, list[float]]:
    """What pycocotools says in one process about the predictions, written as a file of results would have them."""
    results: dict[str, list[dict[str, Any]]] = {"bbox": [], "segm": []}
    for image_id in split.images.ids.tolist():
        detections, [codes] = predict_boxes(split, image_id)
        for query in range(QUERIES):
            left, top, right, bottom = detections.boxes[0, query].tolist()
            common = {
                "image_id": image_id,
                "category_id": int(detections.labels[0, query]),
                "score": float(detections.scores[0, query]),
            }
            results["bbox"].append(common | {"bbox": [left, top, right - left, bottom - top]})
            results["segm"].append(common | {"segmentation": codes[query]})
    stats = {}
    with redirect_stdout(io.StringIO()):
        truth = COCO(root / "annotations" / "instances_val2017.json")
        for kind, found in results.items():
            plain = COCOeval(truth, truth.loadRes(found), kind)
            plain.evaluate()
            plain.accumulate()
            plain.summarize()
            stats[kind] = plain.stats.tolist()
    return stats


@pytest.fixture(scope="module")
def results(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """What every rank of jobs of one, two and three ranks is told."""
    process = subprocess.run(
        [sys.executable, str(PROGRAM), str(root), str(tmp_path_factory.mktemp("rendezvous")), "2", "3"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    alone = json.loads(json.dumps(evaluate(root, Rank())))
    several = json.loads(process.stdout.splitlines()[-1])
    return {1: [alone], **{int(ranks): told for ranks, told in several.items()}}


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_figures_are_those_of_a_plain_run_on_any_number_of_ranks(
    results: dict[int, list[dict[str, Any]]], plain_run: dict[str, list[float]], ranks: int, kind: str
) -> None:
    assert len(results[ranks]) == ranks
    for told in results[ranks]:
        figures = [-1 if value is None else value for value in told["detection"][kind].values()]
        assert figures == pytest.approx(plain_run[kind], abs=1e-6)
        assert told["detection"]["images"] == 20
    assert 0.1 < plain_run[kind][0] < 0.9


@pytest.mark.parametrize("ranks", [2, 3])
def test_panoptic_quality_does_not_depend_on_the_number_of_ranks(
    results: dict[int, list[dict[str, Any]]], ranks: int
) -> None:
    [alone] = results[1]
    assert all(told["panoptic"] == alone["panoptic"] for told in results[ranks])
    assert 0.1 < alone["panoptic"]["all"]["pq"] < 0.9


def test_figures_are_in_the_order_of_pycocotools() -> None:
    assert list(COCO_RESULTS) == [
        *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
        *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
    ]


def predict(split: InstanceSplit, ids: list[int]) -> CollectedDetections:
    return merge([collect([image_id], *predict_boxes(split, image_id)) for image_id in ids])


def test_batches_of_several_images_are_taken_apart(split: InstanceSplit) -> None:
    ids = split.images.ids[:3].tolist()
    single = [predict_boxes(split, image_id) for image_id in ids]
    batch = collect(
        ids,
        Detections(
            scores=torch.cat([found.scores for found, _ in single]),
            labels=torch.cat([found.labels for found, _ in single]),
            boxes=torch.cat([found.boxes for found, _ in single]),
        ),
        [codes for _, [codes] in single],
    )
    together, apart = merge([batch]), predict(split, ids)
    for name in DETECTION.fields or ():
        np.testing.assert_array_equal(together.rows[name], apart.rows[name])
    assert together.masks == apart.masks


def test_image_of_several_ranks_counts_once_in_the_first(split: InstanceSplit) -> None:
    ids = split.images.ids.tolist()
    first, second = predict(split, ids[:6]), predict(split, ids[4:])
    merged = merge([second, first])
    assert len(merged.rows) == len(merged.masks or ()) == QUERIES * len(ids)
    assert merged.rows["image"].tolist() == [image_id for image_id in ids for _ in range(QUERIES)]


def test_rank_without_any_image_takes_part(split: InstanceSplit) -> None:
    ids = split.images.ids.tolist()
    merged = merge([merge([]), predict(split, ids)])
    assert len(merged.masks or ()) == len(merged.rows) == QUERIES * len(ids)
    assert merged.rows["box"].dtype == merged.rows["score"].dtype == np.float32


def test_missing_and_foreign_images_are_errors(root: Path, split: InstanceSplit) -> None:
    ids = split.images.ids.tolist()
    evaluator = DetectionEvaluator(split)
    with pytest.raises(TrainingError) as caught:
        evaluator.evaluate([predict(split, ids[:-2])], ALONE, is_main=True)
    assert caught.value.failure_class == "evaluation_count"
    assert caught.value.message == (
        f"evaluation covers 18 images, the split has 20: 2 are missing ({ids[-2]}, {ids[-1]})"
    )
    with pytest.raises(TrainingError, match=r"covers 2 images, the split has 1: 1 are not in it \(7\)"):
        require_every_image(np.array([3, 7]), np.array([3]))


@pytest.mark.parametrize("field", ["score", "box"])
def test_prediction_that_is_not_finite_is_an_error_that_names_the_image(
    root: Path, split: InstanceSplit, field: str
) -> None:
    found = predict(split, split.images.ids.tolist())
    found.rows[field][3 * QUERIES] = float("nan")
    with pytest.raises(TrainingError, match=rf"on 1 images are not finite: image ids {split.images.ids[3]}$") as caught:
        DetectionEvaluator(split).evaluate([found], ALONE, is_main=True)
    assert caught.value.failure_class == "non_finite_prediction"


def test_detections_without_masks_have_no_mask_figures(root: Path, split: InstanceSplit) -> None:
    found = [collect([image_id], predict_boxes(split, image_id)[0]) for image_id in split.images.ids.tolist()]
    quality = DetectionEvaluator(split).evaluate(found, ALONE, is_main=True)
    assert quality.segm is None
    assert quality.bbox["ap"] is not None


def test_figures_of_sizes_that_do_not_occur_are_none(root: Path, split: InstanceSplit) -> None:
    found = predict(split, split.images.ids.tolist())
    quality = DetectionEvaluator(split).evaluate([found], ALONE, is_main=True)
    assert quality.bbox["ap_large"] is quality.bbox["ar_large"] is None


def test_nothing_is_printed(root: Path, split: InstanceSplit, capsys: pytest.CaptureFixture[str]) -> None:
    found = predict(split, split.images.ids.tolist())
    DetectionEvaluator(split).evaluate([found], ALONE, is_main=True)
    assert capsys.readouterr().out == ""


def test_annotations_are_read_once_for_all_evaluations(
    root: Path, split: InstanceSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = predict(split, split.images.ids.tolist())
    evaluator = DetectionEvaluator(split)
    first = evaluator.evaluate([found], ALONE, is_main=True)
    monkeypatch.setattr(evaluation, "coco_document", lambda split: pytest.fail("built again"))
    assert evaluator.evaluate([found], ALONE, is_main=True) == first


def test_objects_that_do_not_say_whether_they_are_crowds_are_none(
    root: Path, split: InstanceSplit, tmp_path: Path
) -> None:
    name = "annotations/instances_val2017.json"
    document = json.loads((root / name).read_text())
    for entry in document["annotations"]:
        del entry["iscrowd"]
    copy = tmp_path / "data"
    shutil.copytree(root, copy)
    (copy / name).write_text(json.dumps(document))
    found = predict(split, split.images.ids.tolist())
    assert DetectionEvaluator(scan_instances(copy)).evaluate([found], ALONE, is_main=True).images == 20


def test_true_segments_have_full_quality(panoptic: PanopticSplit) -> None:
    evaluator = PanopticEvaluator(panoptic)
    for image_id in panoptic.images.ids.tolist():
        evaluator.add(image_id, perfect(panoptic, image_id))
    quality = evaluator.evaluate(ALONE)
    assert quality.all is not None
    assert (quality.all.pq, quality.all.sq, quality.all.rq, quality.all.categories) == (1, 1, 1, 8)


def perfect(panoptic: PanopticSplit, image_id: int) -> SegmentedImage:
    index = panoptic.images.position(image_id)
    rows = panoptic.table.rows(index)
    ids, labels = panoptic.table.ids[rows], panoptic.table.labels[rows]
    return SegmentedImage.from_map(panoptic.segment_map(index), ids, labels, np.zeros(len(ids), np.bool_))


def test_panoptic_evaluation_misses_no_image_and_begins_anew(panoptic: PanopticSplit) -> None:
    evaluator = PanopticEvaluator(panoptic)
    ids = panoptic.images.ids.tolist()
    for image_id in ids[1:]:
        evaluator.add(image_id, predict_segments(panoptic, image_id))
    with pytest.raises(TrainingError, match=rf"covers 19 images, the split has 20: 1 are missing \({ids[0]}\)"):
        evaluator.evaluate(ALONE)
    with pytest.raises(TrainingError, match="covers 0 images"):
        evaluator.evaluate(ALONE)


def test_map_that_disagrees_with_its_annotation_is_an_error(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(root, copy)
    one, other = sorted((copy / "panoptic_val2017").iterdir())[:2]
    split = scan_coco_split(copy, "val2017", "panoptic")
    assert isinstance(split, PanopticSplit)
    sizes = split.images.sizes.tolist()
    same_size = next(number for number in range(1, 20) if sizes[number] == sizes[0] and differ(split, 0, number))
    shutil.copyfile(sorted((copy / "panoptic_val2017").iterdir())[same_size], one)
    image_id = int(split.images.ids[0])
    with pytest.raises(DataError, match=f"the map and the segments of image {image_id} in .* differ in the segments"):
        PanopticEvaluator(split).add(image_id, predict_segments(scan_panoptic(root), image_id))


def scan_panoptic(root: Path) -> PanopticSplit:
    split = scan_coco_split(root, "val2017", "panoptic")
    assert isinstance(split, PanopticSplit)
    return split


def differ(split: PanopticSplit, one: int, other: int) -> bool:
    return set(split.table.ids[split.table.rows(one)]) != set(split.table.ids[split.table.rows(other)])


@pytest.mark.parametrize("queries", [1, 255, 256, 1000])
def test_any_number_of_masks_can_be_evaluated(split: InstanceSplit, queries: int) -> None:
    index, width = 0, 40
    height_width = split.images.sizes[index].tolist()
    code = encode_masks(torch.ones(1, *height_width, dtype=torch.bool))[0]
    rows = np.zeros(queries, DETECTION)
    rows["image"], rows["label"], rows["score"] = split.images.ids[index], 1, np.linspace(1, 0.1, queries)
    rows["box"] = [0, 0, width, width]
    truth = coco_index(coco_document(split))
    found = average_precision(truth, CollectedDetections(rows, [code] * queries), "segm")
    assert found["ap"] is not None


def test_average_precision_without_objects_is_not_defined(split: InstanceSplit) -> None:
    crowds = replace(split, table=replace(split.table, is_crowd=np.ones_like(split.table.is_crowd)))
    found = predict(split, split.images.ids.tolist())
    quality = DetectionEvaluator(crowds).evaluate([found], ALONE, is_main=True)
    assert set(quality.bbox.values()) == {None}

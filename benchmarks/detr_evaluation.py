"""Time of a detection evaluation: as it is made, collected once with plain pycocotools, and batch by batch.

The last is what DETR's public implementation and FlagPerf's copy of it do: for every batch an index of its results and
pycocotools' evaluation of its images, and in the end one accumulation over all of them. All run in this one process, in
turn, round after round, on the same generated detections, and have to agree in every figure. Measured is CPU time.

Run: python benchmarks/detr_evaluation.py --images 1000 --rounds 5
"""

from __future__ import annotations

import io
import json
import tempfile
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from chipperf.cases.detr.evaluation import DetectionEvaluator, coco_index, collect
from chipperf.cases.detr.postprocess import Detections
from chipperf.data.coco import EVAL_SPLIT, instances_name, read_instances
from chipperf.plugin.types import Rank
from chipperf.run.collectives import Collectives
from pycocotools.cocoeval import COCOeval
from side_by_side import Line, benchmark_parser, compared, cpu_s, in_turn, parse, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

Batch = tuple[list[int], Detections]

SIDE_PX = 640
CATEGORIES = 80
OBJECTS = 7
QUERIES = 100


def main() -> None:
    parser = benchmark_parser(__doc__, rounds=4)
    parser.add_argument("--images", type=int, default=1000, help="images of the split; COCO's has 5000")
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parse(parser, images=16)
    print_table(lines(arguments.images, arguments.batch_size, arguments.rounds))


def lines(images: int, batch_size: int, rounds: int) -> list[Line]:
    """Generate objects and detections, evaluate them in each way, and compare figures and times."""
    rng = np.random.RandomState(0)
    truth = generate_truth(images, rng)
    batches = generate_batches(truth, batch_size, rng)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / instances_name(EVAL_SPLIT)
        path.parent.mkdir()
        path.write_text(json.dumps(truth), encoding="utf-8")
        evaluator = DetectionEvaluator(read_instances(Path(directory), EVAL_SPLIT, masks=False)[0])
        ours = evaluated_once(evaluator, batches)
        others = {"batch by batch": evaluated_per_batch(truth, batches), "collected once": plain_once(truth, batches)}
        for name, other in others.items():
            if not np.allclose(ours(), other(), rtol=0, atol=1e-9):
                raise SystemExit(f"{name}: other figures")
        found = in_turn({"ours": partial(cpu_s, ours), **{n: partial(cpu_s, o) for n, o in others.items()}}, rounds)
    what = f"evaluation of {images} images in batches of {batch_size}"
    return [compared(what, found["ours"], f"pycocotools, {name}", found[name], "CPU s") for name in others]


def generate_truth(images: int, rng: np.random.RandomState) -> dict[str, Any]:
    """Return annotations with as many categories and objects per image as COCO has."""
    annotations = [
        {
            "id": image * OBJECTS + number + 1,
            "image_id": image + 1,
            "category_id": int(rng.randint(CATEGORIES)) + 1,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for image in range(images)
        for number, box in enumerate(random_boxes(OBJECTS, rng).tolist())
    ]
    return {
        "images": [
            {"id": image + 1, "file_name": f"{image + 1}.jpg", "height": SIDE_PX, "width": SIDE_PX}
            for image in range(images)
        ],
        "annotations": annotations,
        "categories": [{"id": number + 1, "name": f"{number}"} for number in range(CATEGORIES)],
    }


def generate_batches(truth: dict[str, Any], batch_size: int, rng: np.random.RandomState) -> list[Batch]:
    """Return detections near the objects, the others anywhere."""
    objects = np.array([entry["bbox"] for entry in truth["annotations"]]).reshape(-1, OBJECTS, 4)
    labels = np.array([entry["category_id"] for entry in truth["annotations"]]).reshape(-1, OBJECTS)
    ids = [image["id"] for image in truth["images"]]
    batches = []
    for start in range(0, len(ids), batch_size):
        chosen = slice(start, start + batch_size)
        count = len(ids[chosen])
        boxes = random_boxes(count * QUERIES, rng).reshape(count, QUERIES, 4)
        boxes[:, :OBJECTS] = objects[chosen] + rng.uniform(-8, 8, (count, OBJECTS, 4))
        found = rng.randint(1, CATEGORIES + 1, (count, QUERIES))
        found[:, :OBJECTS] = labels[chosen]
        corners = np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=2)
        detections = Detections(
            scores=torch.from_numpy(rng.uniform(size=(count, QUERIES)).astype(np.float32)),
            labels=torch.from_numpy(found),
            boxes=torch.from_numpy(corners.astype(np.float32)),
        )
        batches.append((ids[chosen], detections))
    return batches


def random_boxes(count: int, rng: np.random.RandomState) -> np.ndarray[Any, Any]:
    """Return left, top, width and height of boxes that lie in the image."""
    sizes = rng.uniform(20, SIDE_PX / 2, (count, 2))
    return np.concatenate([rng.uniform(size=(count, 2)) * (SIDE_PX - sizes), sizes], axis=1)


def evaluated_once(evaluator: DetectionEvaluator, batches: list[Batch]) -> Callable[[], list[float]]:
    alone = Collectives(Rank(), torch.device("cpu"))

    def run() -> list[float]:
        parts = [collect(ids, detections) for ids, detections in batches]
        quality = evaluator.evaluate(parts, alone, is_main=True)
        return [-1.0 if value is None else value for value in quality.bbox.values()]

    return run


def plain_once(truth: dict[str, Any], batches: list[Batch]) -> Callable[[], list[float]]:
    index = coco_index(truth)

    def run() -> list[float]:
        results = [result for ids, detections in batches for result in results_of(ids, detections)]
        with redirect_stdout(io.StringIO()):
            whole = COCOeval(index, index.loadRes(results), "bbox")
            whole.evaluate()
            whole.accumulate()
            whole.summarize()
        figures: list[float] = whole.stats.tolist()
        return figures

    return run


def evaluated_per_batch(truth: dict[str, Any], batches: list[Batch]) -> Callable[[], list[float]]:
    index = coco_index(truth)

    def run() -> list[float]:
        evaluated, ids_in_order = [], []
        for ids, detections in batches:
            with redirect_stdout(io.StringIO()):
                part = COCOeval(index, index.loadRes(results_of(ids, detections)), "bbox")
                part.params.imgIds = ids
                part.evaluate()
            shape = (len(part.params.catIds), len(part.params.areaRng), len(ids))
            evaluated.append(np.array(part.evalImgs, dtype=object).reshape(shape))
            ids_in_order += ids
        whole = COCOeval(index, iouType="bbox")
        whole.params.imgIds = ids_in_order
        whole.evalImgs = np.concatenate(evaluated, axis=2).ravel().tolist()
        whole._paramsEval = whole.params
        with redirect_stdout(io.StringIO()):
            whole.accumulate()
            whole.summarize()
        figures: list[float] = whole.stats.tolist()
        return figures

    return run


def results_of(ids: list[int], detections: Detections) -> list[dict[str, Any]]:
    """Return a batch as the public implementation prepares it."""
    corners = detections.boxes
    boxes = torch.cat([corners[..., :2], corners[..., 2:] - corners[..., :2]], dim=2)
    return [
        {"image_id": image_id, "category_id": label, "bbox": box, "score": score}
        for number, image_id in enumerate(ids)
        for label, box, score in zip(
            detections.labels[number].tolist(), boxes[number].tolist(), detections.scores[number].tolist(), strict=True
        )
    ]


if __name__ == "__main__":
    main()

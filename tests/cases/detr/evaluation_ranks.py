"""Evaluations of generated predictions on several ranks: prints the quality that every rank is told as JSON.

Arguments: the dataset's directory, one for the rendezvous, and the numbers of ranks to evaluate on. Ranks are forked
from this one process, so that torch is imported once.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from chipperf import Rank
from chipperf.cases.detr.evaluation import DetectionEvaluator, PanopticEvaluator, collect
from chipperf.data.coco import InstanceSplit, PanopticSplit, scan_coco_split
from chipperf.run.collectives import Collectives
from generated_predictions import predict_boxes, predict_segments


def evaluate(root: Path, rank: Rank) -> dict[str, Any]:
    """Predict every ``world_size``-th image of the evaluation split, and image 2 on every rank, and evaluate."""
    collectives = Collectives(rank, torch.device("cpu"))
    instances, panoptic = (scan_coco_split(root, "val2017", kind) for kind in ("masks", "panoptic"))
    assert isinstance(instances, InstanceSplit)
    assert isinstance(panoptic, PanopticSplit)
    ids = instances.images.ids
    parts, segments = [], PanopticEvaluator(panoptic)
    for image_id in {2, *ids[rank.rank :: rank.world_size].tolist()}:
        detections, masks = predict_boxes(instances, image_id)
        parts.append(collect([image_id], detections, masks))
        segments.add(image_id, predict_segments(panoptic, image_id))
    quality = DetectionEvaluator(instances).evaluate(parts, collectives, is_main=rank.is_main)
    return {"detection": asdict(quality), "panoptic": asdict(segments.evaluate(collectives))}


def run_rank(root: Path, rendezvous: Path, rank: Rank) -> dict[str, Any]:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank.rank, world_size=rank.world_size)
    told = evaluate(root, rank)
    dist.destroy_process_group()
    return told


def main() -> None:
    root, rendezvous = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    results = {}
    for ranks in map(int, sys.argv[3:]):
        places = [
            (root, rendezvous / str(ranks), Rank(rank=rank, local_rank=rank, world_size=ranks, local_world_size=ranks))
            for rank in range(ranks)
        ]
        with multiprocessing.get_context("fork").Pool(ranks) as pool:
            results[ranks] = pool.starmap(run_rank, places, chunksize=1)
    print(json.dumps(results))


if __name__ == "__main__":
    main()

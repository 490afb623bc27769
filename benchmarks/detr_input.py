"""Images per second of processor time of DETR's input with masks, beside the augmentation of its public implementation.

Both read, decode, augment, collate and normalize the same files in one process with one thread. The peer does
the augmentation of facebookresearch/detr in torchvision's v1 operations on Pillow images, as that code does; with
``--peer DIR``, a clone of facebookresearch/detr, it is that code itself. Random numbers differ between both, so that
sizes agree in the mean only.

Run: python benchmarks/detr_input.py --images 32 --rounds 5
"""

from __future__ import annotations

import importlib
import json
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from chipperf.cases.registry import find_case
from chipperf.data.coco import instances_name, scan_coco
from chipperf.data.coco_batch import build_detection_training_loader, normalize_padded
from chipperf.data.coco_transforms import CROP_SIDES, LONGEST_SIDE, SHORTER_SIDES, SIDES_BEFORE_CROP
from chipperf.data.loader import LoaderChoices
from chipperf.data.transforms import IMAGENET_MEAN, IMAGENET_STD, Normalize, shorter_side_to
from PIL import Image
from pycocotools import mask as coco_mask
from side_by_side import Line, benchmark_parser, compare, parse, print_table
from torchvision.transforms import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH_SIZE = 2
Sample = tuple[Any, torch.Tensor, torch.Tensor]
"""An image, boxes as corners in pixels, and masks."""


def main() -> None:
    parser = benchmark_parser(__doc__, rounds=5)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--peer", type=Path, help="clone of facebookresearch/detr")
    arguments = parse(parser, images=BATCH_SIZE)
    torch.set_num_threads(1)
    ensure_few_samples = find_case("detr_masks").data.ensure_few_samples
    if ensure_few_samples is None:
        raise SystemExit("detr_masks generates no sample")
    sample = ensure_few_samples(arguments.images, "real")
    with tempfile.TemporaryDirectory() as scratch:
        outline(sample, Path(scratch))
        print_table(lines(Path(scratch), arguments.images, arguments.peer, arguments.rounds))


def outline(sample: Path, root: Path) -> None:
    """Link the images, and write annotations with outlines alone, as all of COCO's single objects have them."""
    (root / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        (root / split).symlink_to(sample / split)
        annotated = json.loads((sample / instances_name(split)).read_text(encoding="utf-8"))
        for entry in annotated["annotations"]:
            if not isinstance(entry["segmentation"], list):
                left, top, width, height = entry["bbox"]
                corners = [left, top, left + width, top, left + width, top + height, left, top + height]
                entry["segmentation"], entry["iscrowd"] = [corners], 0
        (root / instances_name(split)).write_text(json.dumps(annotated), encoding="utf-8")


def lines(root: Path, images: int, clone: Path | None, rounds: int) -> Iterator[Line]:
    for masks in (False, True):
        ours = partial(rate, chipperf_input(root, masks=masks), images)
        theirs = partial(rate, reference(clone, root, masks=masks) if clone else plain_input(root, masks=masks), images)
        what = f"DETR's input {'with' if masks else 'without'} masks, images of 640x480"
        peer = "facebookresearch/detr" if clone else "the same with torchvision v1"
        yield compare(what, ours, peer, theirs, rounds, "images/CPU s")


def rate(epoch: Callable[[], object], images: int) -> float:
    start_s = time.process_time()
    epoch()
    return images / (time.process_time() - start_s)


def chipperf_input(root: Path, *, masks: bool) -> Callable[[], object]:
    split, normalize = scan_coco(root, "masks" if masks else "boxes").train, Normalize(torch.device("cpu"))
    loader = build_detection_training_loader(
        split, batch_size=BATCH_SIZE, seed=0, masks=masks, options=LoaderChoices(workers=0)
    )
    return lambda: [normalize_padded(normalize, batch.images, batch.mask) for batch in loader]


def plain_input(root: Path, *, masks: bool) -> Callable[[], object]:
    """Return an epoch of the peer, on the whole annotations as a loop over a dataset of pycocotools has them."""
    annotated = json.loads((root / instances_name("train2017")).read_text(encoding="utf-8"))
    objects: dict[int, list[Any]] = {image["id"]: [] for image in annotated["images"]}
    for entry in annotated["annotations"]:
        if not entry.get("iscrowd"):
            objects[entry["image_id"]].append(entry)

    def load(image: dict[str, Any]) -> Sample:
        pixels = Image.open(root / "train2017" / image["file_name"]).convert("RGB")
        found = objects[image["id"]]
        boxes = torch.as_tensor([entry["bbox"] for entry in found], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        drawn = [draw(entry["segmentation"], image) for entry in found] if masks else []
        none = torch.zeros(0, pixels.height, pixels.width)
        return augment((pixels, boxes, torch.stack(drawn) if drawn else none))

    def epoch() -> None:
        for start in range(0, len(annotated["images"]), BATCH_SIZE):
            collate([load(image) for image in annotated["images"][start : start + BATCH_SIZE]])

    return epoch


def draw(segmentation: Any, image: dict[str, Any]) -> torch.Tensor:
    codes = coco_mask.frPyObjects(segmentation, image["height"], image["width"])
    mask = coco_mask.decode(codes)
    return torch.as_tensor(mask, dtype=torch.uint8).reshape(*mask.shape[:2], -1).any(dim=2)


def augment(sample: Sample) -> Sample:
    """Flip, resize and perhaps crop as the paper's appendix A.4 says, then normalize the image."""
    if random.random() < 0.5:
        image, boxes, masks = sample
        boxes = boxes[:, [2, 1, 0, 3]] * torch.tensor([-1, 1, -1, 1]) + torch.tensor([image.width, 0, image.width, 0])
        sample = functional.hflip(image), boxes, masks.flip(-1)
    if random.random() < 0.5:
        sample = resized(sample, random.choice(SIDES_BEFORE_CROP), None)
        width, height = (random.randint(min(CROP_SIDES[0], side), min(CROP_SIDES[1], side)) for side in sample[0].size)
        sample = cropped(sample, random.randint(0, sample[0].height - height), height, width)
    image, boxes, masks = resized(sample, random.choice(SHORTER_SIDES), LONGEST_SIDE)
    return functional.normalize(functional.to_tensor(image), IMAGENET_MEAN, IMAGENET_STD), boxes, masks


def resized(sample: Sample, side: int, longest: int | None) -> Sample:
    image, boxes, masks = sample
    height, width = shorter_side_to(side, image.height, image.width, longest=longest)
    scale = torch.tensor([width / image.width, height / image.height] * 2)
    if len(masks):
        masks = torch.nn.functional.interpolate(masks[:, None].float(), (height, width))[:, 0] > 0.5
    return functional.resize(image, [height, width]), boxes * scale, masks


def cropped(sample: Sample, top: int, height: int, width: int) -> Sample:
    image, boxes, masks = sample
    left = random.randint(0, image.width - width)
    boxes = (boxes - torch.tensor([left, top, left, top])).reshape(-1, 2, 2)
    boxes = boxes.min(torch.tensor([width, height])).clamp(min=0).reshape(-1, 4)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    if len(masks):
        masks = masks[kept, top : top + height, left : left + width]
    return functional.crop(image, top, left, height, width), boxes[kept], masks


def collate(samples: list[Sample]) -> Any:
    height, width = np.max([image.shape[1:] for image, _, _ in samples], axis=0)
    images, padding = torch.zeros(len(samples), 3, height, width), torch.ones(len(samples), height, width).bool()
    for number, (image, _, _) in enumerate(samples):
        images[number, :, : image.shape[1], : image.shape[2]] = image
        padding[number, : image.shape[1], : image.shape[2]] = False
    return images, padding, [rest for _, *rest in samples]


def reference(clone: Path, root: Path, *, masks: bool) -> Callable[[], object]:
    """Return an epoch of a clone of facebookresearch/detr."""
    sys.path.insert(0, str(clone))
    coco, misc = (importlib.import_module(name) for name in ("datasets.coco", "util.misc"))
    dataset = coco.CocoDetection(
        str(root / "train2017"), str(root / instances_name("train2017")), coco.make_coco_transforms("train"), masks
    )
    loader = torch.utils.data.DataLoader(dataset, BATCH_SIZE, shuffle=True, collate_fn=misc.collate_fn)
    return lambda: list(loader)


if __name__ == "__main__":
    main()

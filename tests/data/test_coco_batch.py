from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from chipperf.data.coco import scan_coco, scan_coco_split
from chipperf.data.coco_batch import (
    DetectionBatch,
    LoadedSample,
    Padding,
    build_detection_evaluation_loader,
    build_detection_training_loader,
    collate,
    normalize_padded,
)
from chipperf.data.coco_transforms import DetectionSample
from chipperf.data.dataset_files import read_file
from chipperf.data.decode import decode_rgb
from chipperf.data.loader import LoaderChoices
from chipperf.data.transforms import Normalize
from chipperf.errors import ConfigError, DataError
from torch.utils.data._utils.pin_memory import pin_memory

WITH_WORKERS = LoaderChoices(workers=2, prefetch_factor=2, start_method="fork")


def training_loader(split, **options):
    return build_detection_training_loader(split, **{"batch_size": 4, "seed": 3, "resolution": 64, **options})


def tensors(batch):
    return {name: value for name, value in batch._asdict().items() if isinstance(value, torch.Tensor)}


@pytest.fixture
def dataset(coco_sample, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(coco_sample, root)
    return root


@pytest.mark.parametrize("kind", ["boxes", "masks", "panoptic"])
def test_training_batches_have_the_documented_form(coco_sample, kind):
    loader = training_loader(scan_coco(coco_sample, kind).train, masks=kind != "boxes")
    batches = list(loader)
    assert len(batches) == loader.steps_per_epoch == 4
    labels = set()
    for batch in batches:
        count, _, height, width = batch.images.shape
        found = sum(batch.counts)
        assert batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.mask.shape == (count, height, width)
        assert batch.mask.dtype == torch.bool
        assert batch.boxes.shape == (found, 4)
        assert batch.boxes.dtype == torch.float32
        assert ((batch.boxes > 0) & (batch.boxes <= 1)).all()
        assert batch.labels.shape == (found,)
        assert batch.labels.dtype == batch.sizes.dtype == batch.orig_sizes.dtype == torch.int64
        if kind == "boxes":
            assert batch.masks is None
        else:
            assert batch.masks.shape == (found, height, width)
            assert batch.masks.dtype == torch.bool
        labels |= set(batch.labels.tolist())
    assert labels == ({1, 2, 3, 5, 8, 92, 95, 101} if kind == "panoptic" else {1, 2, 3, 5, 8})


def targets_of(batch):
    """Return one dictionary of views per image."""
    counts = list(batch.counts)
    columns = {
        "boxes": batch.boxes.split(counts),
        "labels": batch.labels.split(counts),
        "size": batch.sizes.unbind(),
    }
    if batch.masks is not None:
        columns["masks"] = batch.masks.split(counts)
    return [
        {"image_id": image_id} | {key: values[number] for key, values in columns.items()}
        for number, image_id in enumerate(batch.image_ids)
    ]


def test_targets_are_one_dictionary_per_image(coco_sample):
    batch = next(iter(training_loader(scan_coco_split(coco_sample, "train2017", "masks"), masks=True)))
    targets = targets_of(batch)
    assert [target["image_id"] for target in targets] == list(batch.image_ids)
    for number, target in enumerate(targets):
        count = batch.counts[number]
        assert target["boxes"].shape == (count, 4)
        assert target["labels"].shape == (count,)
        assert target["masks"].shape == (count, *batch.images.shape[2:])
        height, width = target["size"].tolist()
        assert not batch.mask[number, :height, :width].any()
        assert batch.mask[number].sum() == batch.mask[number].numel() - height * width
        assert not target["masks"][:, batch.mask[number]].any()
        for box, mask in zip(target["boxes"].tolist(), target["masks"], strict=True):
            rows, columns = (mask.any(dim=dim).nonzero().flatten() / side for dim, side in ((1, height), (0, width)))
            x, y, box_width, box_height = box
            # A crop cuts a box, not what is drawn in it: a mask may be smaller than its box, but not lie outside.
            assert columns.min() >= x - box_width / 2 - 0.04
            assert columns.max() <= x + box_width / 2 + 0.04
            assert rows.min() >= y - box_height / 2 - 0.04
            assert rows.max() <= y + box_height / 2 + 0.04
            assert 0 < box_width * box_height <= 1
    without = targets_of(next(iter(training_loader(scan_coco_split(coco_sample, "train2017", "boxes")))))
    assert "masks" not in without[0]


def test_crowds_are_no_targets_and_empty_images_stay(coco_sample):
    document = json.loads((coco_sample / "annotations" / "instances_train2017.json").read_text())
    crowds = [entry for entry in document["annotations"] if entry["iscrowd"]]
    split = scan_coco_split(coco_sample, "train2017", "boxes")
    evaluation = build_detection_evaluation_loader(split, batch_size=5, resolution=64)
    counts = {
        image_id: count for batch in evaluation for image_id, count in zip(batch.image_ids, batch.counts, strict=True)
    }
    assert crowds
    assert sum(counts.values()) == len(document["annotations"]) - len(crowds)
    assert set(counts) == {image["id"] for image in document["images"]}
    assert 0 in counts.values()


def test_pixels_and_order_do_not_depend_on_workers(coco_sample):
    split = scan_coco_split(coco_sample, "train2017", "masks")
    runs = []
    for options in (LoaderChoices(workers=0), WITH_WORKERS):
        loader = training_loader(split, masks=True, options=options)
        batches = []
        for epoch in (0, 1):
            loader.set_epoch(epoch)
            batches += list(loader)
        loader.close()
        runs.append(batches)
    alone, with_workers = runs
    assert len(alone) == len(with_workers) == 8
    for one, other in zip(alone, with_workers, strict=True):
        assert isinstance(other, DetectionBatch)
        assert list(one.image_ids) == list(other.image_ids)
        assert list(one.counts) == list(other.counts)
        for name, tensor in tensors(one).items():
            assert torch.equal(tensor, getattr(other, name)), name
    assert list(alone[0].image_ids) != list(alone[4].image_ids)


def test_evaluation_is_the_resized_image(coco_sample):
    split = scan_coco_split(coco_sample, "val2017", "boxes")
    [batch] = build_detection_evaluation_loader(split, batch_size=8, resolution=96)
    assert list(batch.image_ids) == split.images.ids.tolist()
    for number in range(8):
        path = split.images.path(number)
        height, width = batch.sizes[number].tolist()
        pixels = decode_rgb(read_file(path), path)
        assert (height, width) == pixels.shape[:2] == tuple(batch.orig_sizes[number].tolist())
        assert torch.equal(batch.images[number, :, :height, :width], torch.from_numpy(pixels).permute(2, 0, 1))
        assert batch.images[number].sum() == pixels.sum(dtype=np.int64)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_load_every_evaluation_image_once(coco_sample, world_size):
    split = scan_coco_split(coco_sample, "val2017", "boxes")
    ids = [
        image_id
        for rank in range(world_size)
        for batch in build_detection_evaluation_loader(
            split, batch_size=2, rank=rank, world_size=world_size, resolution=32
        )
        for image_id in batch.image_ids
    ]
    assert sorted(ids) == split.images.ids.tolist()


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        (Padding(), (70, 90)),
        (Padding(multiple=32), (96, 96)),
        (Padding(multiple=10), (70, 90)),
        (Padding(fixed_side=128), (128, 128)),
    ],
)
def test_padding_follows_the_images_or_is_fixed(padding, expected):
    assert padding.size([70, 50], [60, 90]) == expected


def test_image_that_does_not_fit_the_fixed_size_is_an_error():
    with pytest.raises(ConfigError, match="an image of 90x70 pixels does not fit into batches of 80x80"):
        Padding(fixed_side=80).size([70], [90])


@pytest.mark.parametrize(("padding", "shapes"), [(Padding(multiple=64), 3), (Padding(fixed_side=128), 1)])
def test_padding_bounds_the_number_of_shapes(coco_sample, padding, shapes):
    split = scan_coco_split(coco_sample, "train2017", "boxes")
    found = {
        tuple(batch.images.shape[2:])
        for batch in training_loader(split, batch_size=1, padding=padding)
        if not batch.mask.all()
    }
    assert len(found) <= shapes
    assert all(side % 64 == 0 for shape in found for side in shape)


def test_padding_is_zero_after_normalization(coco_sample):
    batch = next(iter(training_loader(scan_coco_split(coco_sample, "train2017", "boxes"))))
    normalize = Normalize(torch.device("cpu"))
    assert batch.mask.any()
    images = normalize_padded(normalize, batch.images, batch.mask)
    assert images.dtype == torch.float32
    padding = batch.mask.unsqueeze(1).expand_as(images)
    assert not images[padding].any()
    assert torch.equal(images[~padding], normalize(batch.images)[~padding])


def test_batch_can_be_pinned(coco_sample, monkeypatch):
    batch = next(iter(training_loader(scan_coco_split(coco_sample, "train2017", "boxes"))))
    pinned = []
    # Page-locked memory needs an accelerator; what torch would lock is what counts here.
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *arguments: pinned.append(tensor) or tensor)
    copy = pin_memory(batch)
    assert isinstance(copy, DetectionBatch)
    assert {id(tensor) for tensor in pinned} == {id(tensor) for tensor in tensors(batch).values()}
    assert [target["image_id"] for target in targets_of(copy)] == list(batch.image_ids)
    assert copy.masks is None


@pytest.mark.parametrize("options", [LoaderChoices(), WITH_WORKERS])
def test_unreadable_image_stops_the_loader_with_one_line_that_names_it(dataset, options):
    split = scan_coco_split(dataset, "train2017", "boxes")
    victim = sorted(dataset.glob("train2017/*.jpg"))[4]
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(DataError) as caught:
        list(training_loader(split, options=options))
    assert str(caught.value).startswith(f"{victim}: cannot be decoded")


def test_image_of_another_size_than_annotated_is_an_error(dataset):
    path = dataset / "annotations" / "instances_train2017.json"
    document = json.loads(path.read_text())
    image = document["images"][0]
    wrong, right = (f"{image['width'] + extra}x{image['height']}" for extra in (1, 0))
    image["width"] += 1
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=rf"{image['file_name']}: is {right} pixels, its annotation file says {wrong}"):
        list(training_loader(scan_coco_split(dataset, "train2017", "boxes")))


def test_batch_without_any_object_has_empty_tensors(coco_sample):
    split = scan_coco_split(coco_sample, "train2017", "masks")
    index = int(np.argmin(np.diff(split.table.ends, prepend=0)))
    objects = split.objects(index, masks=True)
    assert len(objects.labels) == 0
    sample = DetectionSample(np.zeros((*split.images.sizes[index], 3), np.uint8), objects)
    batch = collate([LoadedSample(sample, 1, sample.size)], Padding())
    [target] = targets_of(batch)
    assert target["boxes"].shape == (0, 4)
    assert target["masks"].shape == (0, *sample.size)


def test_settings_say_what_is_in_force(coco_sample):
    settings = training_loader(scan_coco_split(coco_sample, "train2017", "boxes"), options=WITH_WORKERS).settings
    assert (settings.workers, settings.persistent_workers, settings.start_method) == (2, True, "fork")
    assert settings.decoder.startswith("simplejpeg ")
    assert settings.decoder.endswith(" whole")

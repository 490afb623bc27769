from __future__ import annotations

import random
import shutil
from typing import NamedTuple

import numpy as np
import pytest
import torch
from chipperf.data.imagefolder import scan_imagefolder
from chipperf.data.loader import (
    LoaderChoices,
    SharedPieces,
    build_evaluation_loader,
    build_training_loader,
)
from chipperf.errors import DataError

WITH_WORKERS = LoaderChoices(workers=2, prefetch_factor=2, start_method="fork")


def training_batches(folder, options, epochs=(0,)):
    loader = build_training_loader(folder.train, batch_size=4, seed=3, image_size=32, options=options)
    batches = []
    for epoch in epochs:
        loader.set_epoch(epoch)
        batches += list(loader)
    return batches


@pytest.fixture
def broken_dataset(tiny_dataset, tmp_path):
    root = tmp_path / "broken"
    shutil.copytree(tiny_dataset, root)
    victim = sorted(root.glob("train/*/*.jpg"))[4]
    victim.write_bytes(victim.read_bytes()[:200])
    return root, victim


def test_training_batches_have_the_documented_form(tiny_dataset):
    batches = training_batches(scan_imagefolder(tiny_dataset), None)
    assert len(batches) == 5
    for images, labels in batches:
        assert images.shape == (4, 3, 32, 32)
        assert images.dtype == torch.uint8
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.dtype == torch.int64
        assert set(labels.tolist()) <= {0, 1, 2}


def test_pixels_and_order_do_not_depend_on_workers(tiny_dataset):
    folder = scan_imagefolder(tiny_dataset)
    alone = training_batches(folder, LoaderChoices(workers=0), epochs=(0, 1))
    with_workers = training_batches(folder, WITH_WORKERS, epochs=(0, 1))
    assert len(alone) == len(with_workers) == 10
    for (images, labels), (other_images, other_labels) in zip(alone, with_workers, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)
    assert not torch.equal(alone[0][0], alone[5][0])


def test_batches_keep_their_pixels_while_their_worker_goes_on(tiny_dataset):
    split = scan_imagefolder(tiny_dataset).train
    alone, with_worker = (
        build_training_loader(split, batch_size=1, seed=3, image_size=32, options=LoaderChoices(**options))
        for options in ({"workers": 0}, {"workers": 1, "prefetch_factor": 1})
    )
    alone, with_worker = ([images for images, _ in loader] for loader in (alone, with_worker))
    assert len(alone) == 21
    assert torch.equal(torch.cat(alone), torch.cat(with_worker))


class Mixed(NamedTuple):
    images: torch.Tensor
    names: list[str]
    boxes: torch.Tensor
    masks: torch.Tensor | None


def mixed(objects):
    images = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    return Mixed(images, ["a", "b"], torch.rand(objects, 4), torch.rand(objects, 3) > 0.5 if objects else None)


def test_batches_take_the_same_pieces_of_memory_in_turn():
    pieces = SharedPieces(2)
    sent = [mixed(objects=9) for _ in range(5)]
    places = []
    for before in sent:
        after = pieces.put(before)
        assert type(after) is Mixed
        assert after.names == before.names
        for name in ("images", "boxes", "masks"):
            ours, theirs = getattr(after, name), getattr(before, name)
            assert torch.equal(ours, theirs)
            assert ours.dtype == theirs.dtype
            assert ours.stride() == theirs.stride()
            assert ours.is_shared()
        # One piece is one file and one socket, however many tensors a batch has.
        assert len({getattr(after, name).untyped_storage().data_ptr() for name in ("images", "boxes", "masks")}) == 1
        places.append(after.images.data_ptr())
    assert len(set(places)) == 2
    assert places[::2] == places[:1] * 3


@pytest.mark.parametrize("objects", [0, 200])
def test_a_batch_may_be_larger_than_those_before_or_have_no_objects(objects):
    pieces = SharedPieces(1)
    pieces.put(mixed(objects=1))
    before = mixed(objects)
    after = pieces.put(before)
    assert torch.equal(after.boxes, before.boxes)
    assert torch.equal(after.images, before.images)
    assert (after.masks is None) == (objects == 0)


def test_a_batch_of_another_kind_goes_its_ordinary_way():
    batch = {"images": torch.ones(2), "names": ["a", "b"]}
    assert SharedPieces(1).put(batch) is batch


@pytest.mark.parametrize("world_size", [1, 2])
def test_evaluation_batches_hold_every_image_once(tiny_dataset, world_size):
    folder = scan_imagefolder(tiny_dataset)
    labels = []
    for rank in range(world_size):
        loader = build_evaluation_loader(
            folder.val, batch_size=4, rank=rank, world_size=world_size, resize_to=36, image_size=32
        )
        for images, batch_labels in loader:
            assert images.shape == (len(batch_labels), 3, 32, 32)
            labels += batch_labels.tolist()
    assert sorted(labels) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("options", [LoaderChoices(), WITH_WORKERS])
def test_unreadable_image_stops_the_loader_with_one_line_that_names_it(broken_dataset, options):
    root, victim = broken_dataset
    with pytest.raises(DataError) as caught:
        training_batches(scan_imagefolder(root), options)
    assert str(caught.value).startswith(f"{victim}: cannot be decoded")
    assert "\n" not in str(caught.value)
    assert caught.value.hint is not None


def test_image_that_disappeared_stops_the_loader(broken_dataset):
    root, victim = broken_dataset
    folder = scan_imagefolder(root)
    victim.unlink()
    with pytest.raises(DataError, match=rf"{victim}: cannot be read: No such file"):
        training_batches(folder, None)


def test_settings_say_what_is_in_force(tiny_dataset):
    split = scan_imagefolder(tiny_dataset).train
    alone = build_training_loader(split, batch_size=4, seed=0).settings
    assert (alone.workers, alone.prefetch_factor, alone.persistent_workers, alone.start_method) == (
        0,
        None,
        False,
        None,
    )
    assert "jpeg" in alone.decoder
    assert torch.__version__ in alone.resize
    workers = build_training_loader(split, batch_size=4, seed=0, options=WITH_WORKERS).settings
    assert (workers.workers, workers.prefetch_factor, workers.persistent_workers) == (2, 2, True)
    assert workers.start_method == "fork"


def test_length_is_what_is_left_of_the_epoch(tiny_dataset):
    loader = build_training_loader(scan_imagefolder(tiny_dataset).train, batch_size=4, seed=0, image_size=32)
    assert len(loader) == loader.steps_per_epoch == 5
    loader.set_epoch(0, first_step=3)
    assert len(loader) == len(list(loader)) == 2
    assert loader.steps_per_epoch == 5


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_draws_from_no_global_generator(image_folder, workers):
    """A resumed run opens its loaders once more than one that was never stopped."""
    split = scan_imagefolder(image_folder).train
    loader = build_training_loader(split, batch_size=4, seed=0, options=LoaderChoices(workers=workers))
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    before = (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist())

    assert len(list(loader)) == 6

    assert (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()) == before
    loader.close()

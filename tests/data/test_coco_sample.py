from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from chipperf.cases.detr.case import DETR
from chipperf.data import coco_sample
from chipperf.data.coco import decode_segment_ids, draw_segmentation, identify_coco, scan_coco
from chipperf.data.coco_sample import SIZES, STUFF, THINGS, CocoSampleOptions, ensure_coco_sample, render_scene
from chipperf.data.decode import decode_rgb
from chipperf.errors import ConfigError, DataError
from PIL import Image

TINY = SIZES["tiny"]
FEW = CocoSampleOptions(train_samples=3, val_samples=2, width=64, height=48)
SPLITS = ("train2017", "val2017")


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def document(root, kind, split):
    return json.loads((root / "annotations" / f"{kind}_{split}.json").read_text())


def test_two_generations_are_the_same_to_the_byte(tmp_path):
    one, other = (ensure_coco_sample(FEW, tmp_path / name) for name in ("one", "other"))
    assert one.name == other.name == "coco-sample-v4-3x2-64x48-seed0"
    assert contents(one) == contents(other)


def test_content_of_this_generator_version_is_frozen():
    digest = hashlib.sha256()
    for number in range(8):
        scene = render_scene(TINY, "train2017", number)
        digest.update(scene.pixels.tobytes())
        digest.update(scene.segment_map.astype("<i4").tobytes())
    assert coco_sample.COCO_GENERATOR_VERSION == 4
    assert digest.hexdigest() == "eba8a672bcf030bd4c071cd727057ed5cf956f8889a9aca76eab08635c5d7d95"


def test_content_digest_covers_images_maps_and_annotations(coco_sample):
    digest = hashlib.sha256()
    for split in SPLITS:
        for path in sorted((coco_sample / split).iterdir()):
            segments = np.asarray(Image.open(coco_sample / f"panoptic_{split}" / f"{path.stem}.png"))
            digest.update(hashlib.sha256(path.read_bytes()).digest() + hashlib.sha256(segments.tobytes()).digest())
    for split in SPLITS:
        for kind in ("instances", "panoptic"):
            text = (coco_sample / "annotations" / f"{kind}_{split}.json").read_bytes()
            digest.update(hashlib.sha256(text).digest())
    assert json.loads((coco_sample / "dataset.json").read_text())["content_sha256"] == digest.hexdigest()


def test_rings_have_a_hole():
    scenes = [render_scene(TINY, "train2017", number) for number in range(16)]
    rings = [region for scene in scenes for region in scene.regions if THINGS.get(region.category_id) == "ring"]
    seen = 0
    for ring in rings:
        rows, columns = np.nonzero(ring.mask)
        center = ring.mask[(rows.min() + rows.max()) // 2, (columns.min() + columns.max()) // 2]
        seen += not ring.is_crowd
        assert ring.is_crowd or center == 0
    assert seen


def test_every_form_of_annotation_occurs(coco_sample):
    instances = document(coco_sample, "instances", "train2017")
    forms = {
        "polygon" if isinstance(entry["segmentation"], list) else type(entry["segmentation"]["counts"]).__name__
        for entry in instances["annotations"]
    }
    assert forms == {"polygon", "str", "list"}
    annotated = {entry["image_id"] for entry in instances["annotations"]}
    assert annotated < {image["id"] for image in instances["images"]}


def test_crowds_occur(coco_sample):
    crowds = [entry for entry in document(coco_sample, "instances", "train2017")["annotations"] if entry["iscrowd"]]
    assert crowds
    assert all(isinstance(entry["segmentation"]["counts"], list) for entry in crowds)


@pytest.mark.parametrize("split", SPLITS)
def test_panoptic_maps_agree_with_both_annotation_files(coco_sample, split):
    instances, panoptic = (document(coco_sample, kind, split) for kind in ("instances", "panoptic"))
    masks = {}
    for entry in instances["annotations"]:
        masks.setdefault(entry["image_id"], []).append((entry["category_id"], entry["segmentation"]))
    categories = set()
    for entry in panoptic["annotations"]:
        path = coco_sample / f"panoptic_{split}" / entry["file_name"]
        segments = decode_segment_ids(decode_rgb(path.read_bytes(), str(path)))
        assert set(np.unique(segments)) - {0} == {segment["id"] for segment in entry["segments_info"]}
        things = [segment for segment in entry["segments_info"] if segment["category_id"] in THINGS]
        for segment in entry["segments_info"]:
            pixels = segments == segment["id"]
            rows, columns = np.nonzero(pixels)
            left, top = columns.min(), rows.min()
            assert segment["bbox"] == [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
            assert segment["area"] == pixels.sum()
            categories.add(segment["category_id"])
        for segment, (category, segmentation) in zip(things, masks.get(entry["image_id"], []), strict=True):
            assert segment["category_id"] == category
            np.testing.assert_array_equal(draw_segmentation(segmentation, *segments.shape), segments == segment["id"])
    assert categories == {*THINGS, *STUFF}


def test_images_have_both_orientations_and_differ(coco_sample):
    images = [np.asarray(Image.open(path)) for path in coco_sample.rglob("*.jpg")]
    assert {image.shape for image in images} == {(96, 128, 3), (128, 96, 3)}
    assert len({image.tobytes() for image in images}) == len(images) == 24


def test_things_stand_out_from_the_ground():
    for number in range(8):
        scene = render_scene(TINY, "train2017", number)
        for region in scene.regions:
            colors = scene.pixels[region.mask > 0].astype(int)
            saturation = (colors.max(axis=1) - colors.min(axis=1)).mean()
            assert (saturation > 110) == (region.category_id in THINGS)


def test_default_images_have_the_size_of_photographs():
    sizes = [
        len(coco_sample.encode(render_scene(CocoSampleOptions(), "train2017", number).pixels)) for number in range(6)
    ]
    assert 50_000 < np.mean(sizes) < 200_000


def test_sample_is_identified_by_its_manifest(coco_sample):
    found = identify_coco(scan_coco(coco_sample), DETR.data.reference)
    assert (found.name, found.version, found.is_sample) == ("chipperf-coco-sample", "4", True)
    assert (found.train_samples, found.eval_samples, found.classes) == (16, 8, 5)
    assert found.target == coco_sample_target(coco_sample)
    assert len(found.fingerprint) == 64


def coco_sample_target(root):
    return json.loads((root / "dataset.json").read_text())["target_bbox_map"]


def test_content_digest_does_not_depend_on_how_maps_are_compressed(tmp_path, monkeypatch):
    one = ensure_coco_sample(FEW, tmp_path / "one")
    monkeypatch.setattr(coco_sample, "_PNG_LEVEL", 9)
    other = ensure_coco_sample(FEW, tmp_path / "other")
    manifests = [json.loads((root / "dataset.json").read_text()) for root in (one, other)]
    assert manifests[0]["content_sha256"] == manifests[1]["content_sha256"]
    assert manifests[0]["files_sha256"] != manifests[1]["files_sha256"]


def test_existing_dataset_is_used_again_and_a_changed_one_refused(tmp_path, monkeypatch):
    root = ensure_coco_sample(FEW, tmp_path)
    monkeypatch.setattr(coco_sample, "render_scene", lambda *arguments: pytest.fail("generated again"))
    assert ensure_coco_sample(FEW, tmp_path) == root
    next(root.glob("panoptic_val2017/*.png")).unlink()
    with pytest.raises(DataError, match="not a complete sample dataset of this version, or was changed"):
        ensure_coco_sample(FEW, tmp_path)


def test_progress_counts_every_image(tmp_path):
    seen = []
    ensure_coco_sample(FEW, tmp_path, lambda done, total: seen.append((done, total)))
    assert seen == [(done, 5) for done in range(1, 6)]


@pytest.mark.parametrize(
    ("field", "smallest"), [("train_samples", 1), ("val_samples", 1), ("width", 32), ("height", 32)]
)
def test_options_that_are_too_small_are_named(field, smallest):
    with pytest.raises(ConfigError, match=f"{field} must be at least {smallest}, not 0"):
        CocoSampleOptions(**{field: 0})

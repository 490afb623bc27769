"""The torch side of the DETR case on a tiny dataset, with the whole structure at a low resolution."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
import torch
from chipperf import LoaderOptions, Rank
from chipperf.cases.config import resolve
from chipperf.cases.detr.case import DETR, DETR_MASKS, DETR_PANOPTIC
from chipperf.cases.detr.hyperparameters import DetrHyperparameters
from chipperf.cases.detr.workload import DetrWorkload
from chipperf.cases.workload import WorkloadContext
from chipperf.data.coco_sample import TARGETS, CocoSampleOptions, ensure_coco_sample
from chipperf.errors import DataError, TrainingError
from chipperf.records.schema import Missing
from chipperf.run.collectives import Collectives

if TYPE_CHECKING:
    from pathlib import Path

DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training and two evaluation images; not to be written to."""
    return ensure_coco_sample(CocoSampleOptions(train_samples=8, val_samples=2), tmp_path_factory.mktemp("coco"))


def make_workload(root: Path, **changes: Any) -> DetrWorkload:
    tiny = resolve(DETR, preset="tiny").values
    return DetrWorkload(
        WorkloadContext(
            hyperparameters=DetrHyperparameters.model_validate(tiny.model_dump() | changes),
            reference=DETR.data.reference,
            data_root=root,
            rank=Rank(),
            device=DEVICE,
            loader_options=LoaderOptions(),
            loader_workers=0,
        )
    )


def test_identity_of_the_data_is_recorded(coco: Path) -> None:
    workload = make_workload(coco)

    assert (workload.dataset.train_samples, workload.eval_samples, workload.dataset.is_sample) == (8, 2, True)
    assert str(coco.parent) not in workload.dataset.model_dump_json()
    assert workload.steps_per_epoch == 4


def test_cases_differ_in_what_they_learn_and_sample_data_has_a_target_for_each(coco: Path) -> None:
    targets = ("boxes", "masks", "panoptic")
    assert tuple(case.base.model_dump()["targets"] for case in (DETR, DETR_MASKS, DETR_PANOPTIC)) == targets

    workloads = [make_workload(coco, targets=kind) for kind in targets]

    assert [workload.target for workload in workloads] == list(TARGETS.values())
    # As in the reference; the sample's things have ids up to 8.
    assert [workload.build_model().class_head.out_features - 1 for workload in workloads] == [9, 9, 250]


@pytest.mark.parametrize("targets", ["boxes", "masks", "panoptic"])
def test_every_trained_weight_gets_a_gradient(coco: Path, targets: str) -> None:
    workload = make_workload(coco, targets=targets)
    model = workload.build_model()
    batch = workload.to_device(next(workload.epoch_batches(0)))

    loss = workload.loss(model, batch)
    loss.backward()

    assert torch.isfinite(loss)
    assert workload.sample_count(batch) == 2
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


@pytest.mark.parametrize(
    ("targets", "figures"),
    [("boxes", ["bbox_ap"]), ("masks", ["segm_ap", "bbox_ap"]), ("panoptic", ["pq", "sq", "rq", "segm_ap", "bbox_ap"])],
)
def test_evaluation_counts_every_image_and_gives_every_figure(coco: Path, targets: str, figures: list[str]) -> None:
    workload = make_workload(coco, targets=targets)
    model = workload.build_model().eval()

    evaluation = workload.evaluate(model, Collectives(Rank(), DEVICE), nullcontext)

    assert evaluation.samples == 2
    assert evaluation.value == evaluation.details[figures[0]]
    assert set(figures) <= set(evaluation.details)


@pytest.mark.parametrize("category", [8, 240])
def test_quality_is_undefined_where_there_is_nothing_to_find(coco: Path, tmp_path: Path, category: int) -> None:
    root = tmp_path / "crowds"
    shutil.copytree(coco, root)
    (root / "dataset.json").unlink()
    path = root / "annotations" / "panoptic_val2017.json"
    path.write_text(path.read_text().replace('"iscrowd":0', '"iscrowd":1'))
    workload = make_workload(root, targets="panoptic")
    model = workload.build_model().eval()
    with torch.no_grad():
        # It is sure of one category, which the annotations list or not.
        model.get_submodule("class_head").bias[category] = 50.0

    value = workload.evaluate(model, Collectives(Rank(), DEVICE), nullcontext).value

    assert isinstance(value, Missing)
    assert value.reason == "the evaluation split has no object to find, so the quality is not defined"


def test_static_shapes_are_the_same_for_every_batch(coco: Path) -> None:
    workload = make_workload(coco, static_shapes=True)

    batches = [workload.to_device(batch) for batch in workload.epoch_batches(0)]

    assert {(*batch.images.shape, *batch.targets.labels.shape) for batch in batches} == {(2, 3, 107, 107, 2, 100)}


def test_backbone_has_a_rate_of_its_own_and_both_drop(coco: Path) -> None:
    workload = make_workload(coco, lr=1e-4, backbone_lr_factor=0.1, lr_drop_epochs=2)
    optimizer = workload.build_optimizer(workload.build_model())

    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-4, 1e-5])
    assert workload.learning_rates(7) == pytest.approx([1e-4, 1e-5])
    assert workload.learning_rates(8) == pytest.approx([1e-5, 1e-6])


def test_missing_backbone_weights_name_file_and_remedy(coco: Path) -> None:
    workload = make_workload(coco, backbone_weights="resnet50-0676ba61.pth")

    with pytest.raises(DataError, match=r"resnet50-0676ba61\.pth does not exist") as error:
        workload.build_model()
    assert "beside train2017" in str(error.value.hint)


def test_non_finite_predictions_name_the_images(coco: Path) -> None:
    workload = make_workload(coco)
    model = workload.build_model()
    batch = workload.to_device(next(workload.epoch_batches(0)))
    with torch.no_grad():
        model.get_submodule("class_head").bias.fill_(float("nan"))

    with pytest.raises(TrainingError, match=", ".join(map(str, batch.targets.image_ids))) as error:
        workload.loss(model, batch)
    assert error.value.failure_class == "non_finite_loss"

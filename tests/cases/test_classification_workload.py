"""The torch side of the classification cases on a tiny dataset."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
import torch
from chipperf import LoaderOptions, Rank
from chipperf.cases.classification.case import MOBILENETV2 as CASE
from chipperf.cases.classification.hyperparameters import ClassificationHyperparameters
from chipperf.cases.classification.workload import ClassificationWorkload
from chipperf.cases.config import resolve
from chipperf.cases.workload import WorkloadContext
from chipperf.errors import ConfigError, TrainingError
from chipperf.run.collectives import Collectives

if TYPE_CHECKING:
    from pathlib import Path

DEVICE = torch.device("cpu")


def make_workload(root: Path, rank: Rank | None = None, **changes: Any) -> ClassificationWorkload:
    tiny = resolve(CASE, preset="tiny").values
    return ClassificationWorkload(
        WorkloadContext(
            hyperparameters=ClassificationHyperparameters.model_validate(tiny.model_dump() | changes),
            reference=CASE.data.reference,
            data_root=root,
            rank=rank or Rank(),
            device=DEVICE,
            loader_options=LoaderOptions(),
            loader_workers=0,
        )
    )


def rates(workload: ClassificationWorkload, steps: int) -> list[float]:
    return [workload.learning_rates(step)[0] for step in range(steps)]


def test_identity_of_the_data_is_recorded(image_folder: Path) -> None:
    workload = make_workload(image_folder)

    dataset = workload.dataset
    assert (dataset.train_samples, dataset.eval_samples, dataset.classes, dataset.is_sample) == (24, 9, 3, True)
    assert str(image_folder.parent) not in dataset.model_dump_json()
    assert workload.target == 0.5
    assert workload.eval_samples == 9


@pytest.mark.parametrize(("world_size", "accumulate", "steps"), [(1, 1, 6), (2, 1, 3), (1, 2, 3), (1, 4, 1)])
def test_steps_of_an_epoch(image_folder: Path, world_size: int, accumulate: int, steps: int) -> None:
    rank = Rank(world_size=world_size, local_world_size=world_size)

    assert make_workload(image_folder, rank, accumulate_steps=accumulate).steps_per_epoch == steps


def test_epoch_without_a_single_step_is_an_error(image_folder: Path) -> None:
    with pytest.raises(ConfigError, match="accumulate_steps is 7, but an epoch has 6 batches") as caught:
        make_workload(image_folder, accumulate_steps=7)
    assert "lower accumulate_steps" in str(caught.value.hint)


def test_rate_decays_in_steps(image_folder: Path) -> None:
    workload = make_workload(image_folder, lr=1.0, lr_gamma=0.1, lr_step_epochs=2)

    assert rates(workload, 30) == pytest.approx([1.0] * 12 + [0.1] * 12 + [0.01] * 6)


@pytest.mark.parametrize(
    ("warmup_epochs", "expected"),
    [
        (0.0, [1, 1, 1, 1]),
        (0.5, [1 / 3, 2 / 3, 1, 1]),
        (5 / 12, [1 / 2.5, 2 / 2.5, 1, 1]),
        (0.1, [1, 1, 1, 1]),
    ],
)
def test_rate_rises_linearly_and_never_above_its_base(
    image_folder: Path, warmup_epochs: float, expected: list[float]
) -> None:
    workload = make_workload(image_folder, lr=1.0, warmup_epochs=warmup_epochs)

    assert rates(workload, 4) == pytest.approx(expected)


def test_model_has_one_output_per_class(image_folder: Path) -> None:
    workload = make_workload(image_folder)
    model = workload.build_model()

    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    assert sum(parameter.numel() for parameter in model.parameters()) == 2_223_872 + 3 * 1281
    optimizer = workload.build_optimizer(model)
    [group] = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.045, 0.9, 4e-5)


class Oracle(torch.nn.Module):
    """Gives the answers it was told to give, in batches of four."""

    def __init__(self, answers: torch.Tensor) -> None:
        super().__init__()
        self.answers = iter(answers.split(4))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(next(self.answers), 3).float()


class SaysTheFirstClass(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[1.0, 0.0, 0.0]]).expand(len(images), 3)


def test_accuracy_is_correct_over_all_samples_also_with_a_partial_batch(image_folder: Path) -> None:
    labels = torch.arange(9) // 3
    answers = labels.clone()
    answers[8] = 0

    evaluation = make_workload(image_folder).evaluate(Oracle(answers), Collectives(Rank(), DEVICE), nullcontext)

    # A mean of the three batches' accuracies would be (1 + 1 + 0) / 3.
    assert (evaluation.value, evaluation.samples) == (8 / 9, 9)


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_the_split_without_padding(image_folder: Path, world_size: int) -> None:
    class OneOfSeveral(Collectives):
        def sum_counts(self, values):  # type: ignore[no-untyped-def]
            counted.append(values[1])
            return [values[0], 9]

    counted: list[int] = []
    for rank in range(world_size):
        place = Rank(rank=rank, local_rank=rank, world_size=world_size, local_world_size=world_size)
        workload = make_workload(image_folder, place, batch_size=1)
        workload.evaluate(SaysTheFirstClass(), OneOfSeveral(place, DEVICE), nullcontext)

    assert sum(counted) == 9
    assert max(counted) - min(counted) <= 1


def test_evaluation_of_another_number_of_samples_is_an_error(image_folder: Path) -> None:
    class Duplicates(Collectives):
        def sum_counts(self, values):  # type: ignore[no-untyped-def]
            return [values[0], values[1] + 1]

    with pytest.raises(TrainingError, match="evaluation counted 10 samples, the split has 9") as caught:
        make_workload(image_folder).evaluate(SaysTheFirstClass(), Duplicates(Rank(), DEVICE), nullcontext)
    assert caught.value.failure_class == "evaluation_count"

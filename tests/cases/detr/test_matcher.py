"""Hungarian matching: optimal, for every layer and image, in one copy."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from chipperf.cases.detr import loss
from chipperf.cases.detr.loss import UNMATCHED, match, matching_costs
from chipperf.errors import TrainingError
from detr_examples import random_output, random_targets, stack_targets
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_no_other_assignment_is_cheaper() -> None:
    output, targets = random_output(2, queries=5), random_targets(3, 2)
    costs = matching_costs(output.logits, output.boxes, targets).numpy()

    assignment = match(output.logits, output.boxes, targets)

    for layer, image in np.ndindex(2, 2):
        slots = range(targets.counts[image])
        cheapest = min(
            sum(costs[layer, image, query, slot] for slot, query in zip(slots, queries, strict=True))
            for queries in permutations(range(5), len(slots))
        )
        chosen = sum(costs[layer, image, assignment[layer, image, slot], slot] for slot in slots)
        assert chosen == pytest.approx(cheapest)
    assert (assignment[:, 1, 2] == UNMATCHED).all()


def test_cost_is_made_of_class_distance_and_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities = torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.8, 0.1]])
    boxes = torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5]])
    image = {"image_id": 1, "labels": torch.tensor([1]), "boxes": boxes[:1]}

    costs = matching_costs(probabilities.log()[None, None], boxes[None, None], stack_targets([image]))

    # The second box touches the first in a corner: their union is half of what encloses both.
    torch.testing.assert_close(costs[0, 0, :, 0], torch.tensor([-0.2 - 2, 5 * 1.0 - 0.8 + 2 * 0.5]))
    monkeypatch.setattr(loss, "BOX_L1_WEIGHT", 0)
    monkeypatch.setattr(loss, "BOX_GIOU_WEIGHT", 0)
    only_class = matching_costs(probabilities.log()[None, None], boxes[None, None], stack_targets([image]))
    torch.testing.assert_close(only_class[0, 0, :, 0], torch.tensor([-0.2, -0.8]))


def test_layers_are_matched_on_their_own() -> None:
    targets = random_targets(2)
    boxes = targets.boxes[0]
    logits = torch.zeros(2, 1, 2, 6)

    assignment = match(logits, torch.stack([boxes, boxes.flip(0)])[:, None], targets)

    assert assignment.tolist() == [[[0, 1]], [[1, 0]]]


def test_of_more_objects_than_queries_the_best_fitting_are_matched() -> None:
    targets = random_targets(4)

    assignment = match(torch.zeros(1, 1, 2, 6), targets.boxes[:, 1:3][None], targets)

    assert assignment.tolist() == [[[UNMATCHED, 0, 1, UNMATCHED]]]


def test_images_without_objects_match_nothing() -> None:
    output = random_output(2)

    assert (match(output.logits, output.boxes, random_targets(0, 0)) == UNMATCHED).all()


def test_boxes_without_area_are_matched() -> None:
    targets = random_targets(2)
    targets.boxes[..., 2:] = 0
    boxes = targets.boxes.flip(1)[None]

    assert match(torch.zeros(1, 1, 2, 6), boxes, targets).tolist() == [[[1, 0]]]


class HostReads(TorchFunctionMode):
    """Notes every call that brings values from a device to the host."""

    READS = frozenset({"cpu", "item", "tolist", "__bool__", "__int__", "__float__", "__index__", "nonzero", "unique"})

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := getattr(function, "__name__", "")) in self.READS:
            self.calls.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("layers", "counts"), [(1, (1,)), (6, (3, 0, 9, 2))])
def test_all_costs_reach_the_host_in_one_copy(layers: int, counts: tuple[int, ...]) -> None:
    output, targets = random_output(len(counts), layers=layers), random_targets(*counts)

    with HostReads() as reads:
        match(output.logits, output.boxes, targets)

    assert reads.calls == ["cpu"]


@pytest.mark.parametrize(
    ("field", "broken", "message"),
    [("logits", [1], "ids 101$"), ("logits", [0, 2], "ids 100, 102$"), ("boxes", [1], "ids 101$")],
)
def test_predictions_that_are_not_finite_are_an_error_that_names_the_images(
    field: str, broken: list[int], message: str
) -> None:
    output, targets = random_output(3), random_targets(2, 0, 1)
    with torch.no_grad():
        getattr(output, field)[0, broken, 3, 1] = float("nan")

    with pytest.raises(TrainingError, match=message) as caught:
        match(output.logits, output.boxes, targets)
    assert caught.value.failure_class == "non_finite_loss"

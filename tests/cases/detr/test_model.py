"""The model by itself: shapes, padding, what is trained, layouts and precisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.distributed as dist
import torchvision
from chipperf.cases.detr.loss import match, set_loss
from chipperf.cases.detr.model import Backbone, Detr, DetrConfig, Transformer, sine_positions
from chipperf.errors import ConfigError, DataError
from detr_examples import random_targets, small_config
from torch import nn
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def small_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Return two images of 32 x 64 pixels; the second has padding right and below."""
    padding = torch.zeros(2, 32, 64, dtype=torch.bool)
    padding[1, 16:] = padding[1, :, 40:] = True
    return torch.randn(2, 3, 32, 64), padding


def training_loss(model: nn.Module, *counts: int, masks: bool = False) -> torch.Tensor:
    targets = random_targets(*counts, canvas=(32, 64) if masks else None)
    output = model(*small_batch())
    return set_loss(output, targets, match(output.logits, output.boxes, targets))["loss"]


def trained_names(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_defaults_are_the_structure_of_the_paper() -> None:
    with torch.device("meta"):
        model = Detr(DetrConfig())

    # What the reference prints when it starts to train; the paper's table 1 says 41M.
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 41_302_368
    output = model(torch.zeros(2, 3, 800, 1066, device="meta"), torch.zeros(2, 800, 1066, device="meta").bool())
    assert output.logits.shape == (6, 2, 100, 92)
    assert output.boxes.shape == (6, 2, 100, 4)
    assert output.masks is None


@pytest.mark.parametrize("changes", [{}, {"backbone": "resnet50", "dilation": True}], ids=["stride32", "dc5"])
def test_no_shape_depends_on_data(changes: dict[str, Any]) -> None:
    """The meta device has shapes only: a read-back or a data-dependent shape raises there."""
    with torch.device("meta"):
        model = Detr(small_config(masks=True, **changes))
    images, padding = small_batch()

    output = model(images.to("meta"), padding.to("meta"))

    assert output.logits.shape == (2, 2, 7, 6)
    assert output.boxes.shape == (2, 2, 7, 4)
    assert output.masks is not None
    assert output.masks.shape == (2, 7, 8, 16)


def test_backbone_gives_four_stages_and_dilation_doubles_the_last_ones_resolution() -> None:
    images = torch.zeros(1, 3, 32, 64, device="meta")
    with torch.device("meta"):
        plain, dilated = Backbone(DetrConfig()), Backbone(DetrConfig(dilation=True))

    assert [tuple(maps.shape[1:]) for maps in plain(images)] == [
        (256, 8, 16),
        (512, 4, 8),
        (1024, 2, 4),
        (2048, 1, 2),
    ]
    assert dilated(images)[-1].shape == (1, 2048, 2, 4)
    assert plain.channels == (256, 512, 1024, 2048)


def test_boxes_are_fractions_and_masks_are_float32() -> None:
    output = Detr(small_config(masks=True))(*small_batch())

    assert output.boxes.min() > 0
    assert output.boxes.max() < 1
    assert output.masks is not None
    assert {tensor.dtype for tensor in output if tensor is not None} == {torch.float32}


def test_positions_do_not_depend_on_padding() -> None:
    padding = torch.ones(1, 6, 8, dtype=torch.bool)
    padding[:, :4, :5] = False

    alone = sine_positions(torch.zeros(1, 4, 5, dtype=torch.bool), 32)
    padded = sine_positions(padding, 32)

    torch.testing.assert_close(padded[..., :4, :5], alone, rtol=0, atol=0)


def test_positions_go_once_round_the_circle_in_the_first_channels() -> None:
    encoded = sine_positions(torch.zeros(1, 4, 2, dtype=torch.bool), 8)[0]

    torch.testing.assert_close(encoded[0, :, 0], torch.tensor([1.0, 0, -1, 0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(encoded[1, :, 0], torch.tensor([0.0, -1, 0, 1]), rtol=0, atol=1e-5)
    torch.testing.assert_close(encoded[4, 0], torch.tensor([0.0, 0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(encoded[5, 0], torch.tensor([-1.0, 1]), rtol=0, atol=1e-5)


def test_transformer_ignores_padded_tokens() -> None:
    transformer = Transformer(small_config(width=16, heads=2, feedforward_width=32, encoder_layers=2))
    tokens, position, queries = torch.randn(1, 6, 16), torch.randn(1, 6, 16), torch.randn(3, 16)
    padding = torch.tensor([[False, False, False, False, True, True]])
    other_tokens = tokens.clone()
    other_tokens[:, 4:] = 100

    _, objects = transformer(tokens, padding, position, queries)
    _, other_objects = transformer(other_tokens, padding, position, queries)
    _, unpadded_objects = transformer(tokens[:, :4], padding[:, :4], position[:, :4], queries)

    torch.testing.assert_close(other_objects, objects)
    torch.testing.assert_close(unpadded_objects, objects)


def test_stem_and_first_stage_are_not_trained() -> None:
    names = trained_names(Detr(small_config()))

    assert not [name for name in names if name.startswith(("backbone.conv1", "backbone.bn1", "backbone.layer1"))]
    assert "backbone.layer2.0.conv1.weight" in names
    assert not [name for name in names if ".bn" in name]


def test_frozen_batch_norm_keeps_its_statistics_in_training() -> None:
    model = Detr(small_config())
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}

    model.train()(*small_batch())

    assert before
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_whole_backbone_is_trained_on_request() -> None:
    model = Detr(small_config(train_whole_backbone=True))

    assert trained_names(model) == {name for name, _ in model.named_parameters()}
    assert isinstance(model.backbone.bn1, nn.BatchNorm2d)


def test_dilated_basic_blocks_are_an_error() -> None:
    with pytest.raises(ConfigError, match="cannot dilate resnet18"):
        small_config(dilation=True, backbone="resnet18")


MODES = pytest.mark.parametrize(
    "changes",
    [{}, {"masks": True}, {"train_whole_backbone": True}],
    ids=["detector", "masks", "whole_backbone"],
)


@MODES
@pytest.mark.parametrize("counts", [(3, 0), (0, 0)], ids=["boxes", "no_box"])
def test_every_trained_parameter_gets_a_finite_gradient(changes: dict[str, Any], counts: tuple[int, int]) -> None:
    model = Detr(small_config(**changes))

    training_loss(model, *counts, masks="masks" in changes).backward()

    trained = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert [name for name, gradient in trained.items() if gradient is None] == []
    assert all(gradient.isfinite().all() for gradient in trained.values() if gradient is not None)


@pytest.fixture
def _single_process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("_single_process_group")
@MODES
def test_distributed_training_finds_every_parameter_used(changes: dict[str, Any]) -> None:
    model = DistributedDataParallel(Detr(small_config(**changes)), find_unused_parameters=False)

    # DDP complains in the step after the one in which a parameter was left out.
    for counts in ((0, 0), (2, 1)):
        training_loss(model, *counts, masks="masks" in changes).backward()

    gradients = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    assert all(gradient is not None for gradient in gradients)


def test_autocast_trains_with_float32_losses() -> None:
    model = Detr(small_config())
    exact = training_loss(model, 2, 1)

    torch.manual_seed(0)
    model = Detr(small_config())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = training_loss(model, 2, 1)
    loss.backward()

    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.05)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_parameters_may_have_another_precision() -> None:
    images, padding = small_batch()

    output = Detr(small_config(masks=True)).bfloat16()(images.bfloat16(), padding)

    assert {tensor.dtype for tensor in output if tensor is not None} == {torch.float32}


def test_layout_does_not_change_predictions() -> None:
    model = Detr(small_config(masks=True)).eval()
    images, padding = small_batch()
    with torch.inference_mode():
        expected = model(images, padding)
        actual = model.to(memory_format=torch.channels_last)(
            images.contiguous(memory_format=torch.channels_last), padding
        )

    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_backbone_loads_a_classifiers_weights(tmp_path: Path) -> None:
    classifier = torchvision.models.resnet18(weights=None)
    torch.save(classifier.state_dict(), tmp_path / "weights.pth")
    backbone = Backbone(small_config())

    backbone.load_weights(tmp_path / "weights.pth")

    assert torch.equal(backbone.layer4[1].conv2.weight, classifier.layer4[1].conv2.weight)
    assert torch.equal(backbone.bn1.running_var, classifier.bn1.running_var)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"no archive", "cannot be read"),
        ({"conv1.weight": torch.zeros(1)}, "not the weights"),
    ],
    ids=["missing", "broken", "another_model"],
)
def test_unusable_weights_are_an_error_that_names_the_file(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)

    with pytest.raises(DataError, match=message) as caught:
        Backbone(small_config()).load_weights(path)
    assert str(path) in caught.value.message
    assert "torchvision" in str(caught.value.hint)

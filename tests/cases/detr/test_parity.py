"""The same weights, images and targets give what ``transformers``' DETR gives.

Its loss is taken as it is. Its model leaves the reference in three places, and there ours follows the reference:

* With ``auxiliary_loss`` the normalized state of a decoder layer, meant for that layer's predictions only, also enters
  the next layer and is normalized again at the end. Here that option is off, and the predictions of every layer are
  made from the states that its decoder layers return.
* It trains the stem and the first stage of a timm backbone; their gradients are not compared.
* Its defaults drop neither attention weights nor hidden activations of the perceptrons; here nothing is dropped at all.
"""

from __future__ import annotations

import re
from copy import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from chipperf.cases.detr.loss import match, set_loss
from chipperf.cases.detr.model import Detr, DetrConfig, DetrOutput
from detr_examples import random_images, small_config, stack_targets
from torch import nn
from weight_map import translate

CANVAS = (96, 128)
TOLERANCE = 1e-4

VANISHING = r"transformer\.decoder\.0\.self_attention\.in_proj_weight|mask_head\.blocks\.\d\.0\.bias"
"""Parameters whose gradients are rounding errors: the first layer attends to objects that are all 0, and a bias before
a normalization over its channel alone cancels out."""


@pytest.fixture(scope="module", autouse=True)
def _peer() -> None:
    """Import the peer here: of the processes that collect these tests, one runs them."""
    # This version, whose names weight_map.py knows, needs Python 3.11.
    pytest.importorskip("transformers", minversion="5.23")


@dataclass(frozen=True)
class Pair:
    """Our model and the peer's with the same weights, in training mode."""

    ours: Detr
    peer: Any
    config: DetrConfig


def make_pair(config: DetrConfig) -> Pair:
    import transformers

    torch.manual_seed(0)
    backbone: dict[str, Any] = {
        "backbone": config.backbone,
        "use_pretrained_backbone": False,
        "features_only": True,
        "out_indices": [1, 2, 3, 4],
        "output_stride": 16 if config.dilation else 32,
    }
    options: dict[str, Any] = {
        "backbone_config": transformers.TimmBackboneConfig(**backbone),
        "num_labels": config.classes,
        "num_queries": config.queries,
        "d_model": config.width,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "encoder_attention_heads": config.heads,
        "decoder_attention_heads": config.heads,
        "encoder_ffn_dim": config.feedforward_width,
        "decoder_ffn_dim": config.feedforward_width,
        "dropout": 0.0,
    }
    peer: Any = transformers.DetrForSegmentation(transformers.DetrConfig(**options))
    if not config.masks:
        peer = peer.detr
    ours = Detr(config)
    randomize(peer)
    ours.load_state_dict(translate(peer.state_dict()))
    return Pair(ours.train(), peer.train(), config)


def randomize(peer: nn.Module) -> None:
    """Give every weight, bias and frozen statistic a value that matters, without letting activations grow."""
    for parameter in peer.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_uniform_(parameter, a=1)
        else:
            nn.init.normal_(parameter, mean=parameter.detach().mean().item(), std=0.1)
    for module in peer.modules():
        if isinstance(module, nn.Embedding):
            # Large enough for a random decoder to tell its queries apart.
            nn.init.normal_(module.weight, std=8)
    for name, buffer in peer.named_buffers():
        kind = name.rsplit(".", maxsplit=1)[-1]
        if kind in {"weight", "running_var"}:
            buffer.uniform_(0.4, 0.8)
        elif kind in {"bias", "running_mean"}:
            buffer.normal_(std=0.1)


@pytest.fixture(scope="module")
def small_pair() -> Pair:
    return make_pair(small_config(masks=True))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Return two images, the second with padding right and below."""
    torch.manual_seed(1)
    padding = torch.zeros(2, *CANVAS, dtype=torch.bool)
    padding[1, 64:] = padding[1, :, 80:] = True
    return torch.randn(2, 3, *CANVAS).masked_fill(padding[:, None], 0), padding


def peer_output(pair: Pair, images: torch.Tensor, padding: torch.Tensor) -> DetrOutput:
    """Return the peer's predictions of every decoder layer."""
    detector = pair.peer.detr if pair.config.masks else pair.peer
    decoder = detector.model.decoder
    states: list[torch.Tensor] = []
    hooks = [layer.register_forward_hook(lambda *call: states.append(call[-1])) for layer in decoder.layers]
    output = pair.peer(pixel_values=images, pixel_mask=~padding)
    for hook in hooks:
        hook.remove()
    objects = decoder.layernorm(torch.stack(states))
    predicted = DetrOutput(
        logits=detector.class_labels_classifier(objects),
        boxes=detector.bbox_predictor(objects).sigmoid(),
        masks=output.pred_masks if pair.config.masks else None,
    )
    torch.testing.assert_close(predicted.logits[-1], output.logits)
    torch.testing.assert_close(predicted.boxes[-1], output.pred_boxes)
    return predicted


def peer_losses(pair: Pair, output: DetrOutput, images: list[dict[str, Any]]) -> tuple[torch.Tensor, dict[str, Any]]:
    """Return the peer's loss of predictions with masks, and its parts."""
    from transformers.loss import loss_for_object_detection as peer_loss

    config: Any = copy(pair.peer.config)
    config.auxiliary_loss = True
    labels = [{"class_labels": image["labels"], "boxes": image["boxes"], "masks": image["masks"]} for image in images]
    arguments: dict[str, Any] = {
        "logits": output.logits[-1],
        "pred_boxes": output.boxes[-1],
        "pred_masks": output.masks,
        "labels": labels,
        "device": torch.device("cpu"),
        "config": config,
        "outputs_class": output.logits,
        "outputs_coord": output.boxes,
    }
    loss, parts, _ = peer_loss.ForSegmentationLoss(**arguments)
    return loss, {name: value for name, value in parts.items() if not name.startswith("cardinality")}


def our_losses(output: DetrOutput, images: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    targets = stack_targets(images, canvas=CANVAS)
    return set_loss(output, targets, match(output.logits, output.boxes, targets))


@pytest.mark.parametrize(
    "config",
    [
        small_config(masks=True),
        small_config(backbone="resnet50", dilation=True),
        DetrConfig(masks=True, dropout=0.0),
    ],
    ids=["small", "dc5", "full"],
)
def test_predictions_are_the_peers(config: DetrConfig) -> None:
    pair = make_pair(config)

    with torch.inference_mode():
        ours, peer = pair.ours(*batch()), peer_output(pair, *batch())

    # Queries that all say the same would agree too easily.
    assert ours.logits.std(dim=2).mean() > 100 * TOLERANCE
    torch.testing.assert_close(ours, peer, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("counts", [(3, 2), (4, 0), (9, 1)], ids=["boxes", "an_empty_image", "more_boxes_than_queries"])
def test_losses_are_the_peers(small_pair: Pair, counts: tuple[int, int]) -> None:
    with torch.inference_mode():
        output = small_pair.ours(*batch())
    images = random_images(*counts, size=CANVAS)

    ours = our_losses(output, images)
    expected, expected_parts = peer_losses(small_pair, output, images)

    torch.testing.assert_close(ours.pop("loss"), expected, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(ours, expected_parts, rtol=TOLERANCE, atol=TOLERANCE)


def test_gradients_are_the_peers(small_pair: Pair) -> None:
    images = random_images(3, 2, size=CANVAS)

    our_losses(small_pair.ours(*batch()), images)["loss"].backward()
    peer_losses(small_pair, peer_output(small_pair, *batch()), images)[0].backward()

    peer_gradients = translate({name: parameter.grad for name, parameter in small_pair.peer.named_parameters()})
    actual: dict[str, Any] = {name: p.grad for name, p in small_pair.ours.named_parameters() if p.requires_grad}
    for name, gradient in actual.items():
        scale = 1.0 if re.fullmatch(VANISHING, name) else peer_gradients[name].norm()
        assert (gradient - peer_gradients[name]).norm() < TOLERANCE * scale, name

"""DETR: a convolutional backbone, a transformer, and a set of objects.

Carion et al., "End-to-End Object Detection with Transformers" (2020), arXiv:2005.12872. In the forward pass, no shape
depends on data and no operation is specific to an accelerator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import interpolate

from chipperf.cases.detr.backbone import Backbone
from chipperf.cases.detr.position import SinePositionEmbedding
from chipperf.cases.detr.segmentation import MaskAttention, MaskHead
from chipperf.cases.detr.transformer import Transformer
from chipperf.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class DetrConfig:
    """Structure of the model; the defaults are the paper's DETR with a ResNet50 on COCO.

    Attributes:
        classes: Number of category ids, counted from 0. COCO's ids go up to 90, with gaps; panoptic ids go up to 200.
        queries: Number of predicted objects per image.
        width: Channels of the transformer, a multiple of 16 and of ``heads``.
        heads: Attention heads.
        feedforward_width: Hidden channels of the transformer's perceptrons.
        encoder_layers: Layers of the encoder.
        decoder_layers: Layers of the decoder; each layer predicts objects.
        dropout: Dropout probability of an activation of the transformer.
        backbone: torchvision's name of the ResNet.
        dilation: Whether to dilate the backbone's last stage for twice the resolution ("DC5").
        train_whole_backbone: Whether to train the whole backbone with ordinary BatchNorm, without ImageNet weights.
        masks: Whether to predict masks too.
        freeze_detector: Whether to train only the mask branch.

    Raises:
        ConfigError: ``freeze_detector`` is set without ``masks``, so nothing would be trained; or ``dilation`` is set
            for a ResNet of basic blocks, which cannot be dilated.
    """

    classes: int = 91
    queries: int = 100
    width: int = 256
    heads: int = 8
    feedforward_width: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 6
    dropout: float = 0.1
    backbone: str = "resnet50"
    dilation: bool = False
    train_whole_backbone: bool = False
    masks: bool = False
    freeze_detector: bool = False

    def __post_init__(self) -> None:
        if self.freeze_detector and not self.masks:
            raise ConfigError(
                "freeze_detector is set without masks: nothing is left to train",
                hint="set masks too, or leave freeze_detector out",
            )
        if self.dilation and self.backbone in ("resnet18", "resnet34"):
            raise ConfigError(
                f"dilation is set, and torchvision cannot dilate {self.backbone}",
                hint="set backbone to resnet50, or dilation to false",
            )


class DetrOutput(NamedTuple):
    """Predictions of every decoder layer; the last layer gives the result, the others serve the auxiliary losses.

    Attributes:
        logits: Class logits, float32 ``(L, B, Q, classes + 1)``; the last class is "no object".
        boxes: Center and size as fractions of the image without its padding, float32 ``(L, B, Q, 4)``.
        masks: Mask logits of the last layer, float32 ``(B, Q, h, w)`` at a quarter of the padded images' resolution;
            ``None`` without a mask branch.
    """

    logits: torch.Tensor
    boxes: torch.Tensor
    masks: torch.Tensor | None


class Detr(nn.Module):
    """The DETR model, initialized as in the reference, which also loads ImageNet weights for the backbone.

    Args:
        config: Structure of the model.
    """

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.backbone = Backbone(config.backbone, dilation=config.dilation, train_whole=config.train_whole_backbone)
        self.position = SinePositionEmbedding(config.width)
        self.input_projection = nn.Conv2d(self.backbone.channels[-1], config.width, 1)
        self.queries = nn.Embedding(config.queries, config.width)
        self.transformer = Transformer(
            width=config.width,
            heads=config.heads,
            feedforward_width=config.feedforward_width,
            encoder_layers=config.encoder_layers,
            decoder_layers=config.decoder_layers,
            dropout=config.dropout,
        )
        self.class_head = nn.Linear(config.width, config.classes + 1)
        self.box_head = nn.Sequential(
            nn.Linear(config.width, config.width),
            nn.ReLU(),
            nn.Linear(config.width, config.width),
            nn.ReLU(),
            nn.Linear(config.width, 4),
        )
        if config.freeze_detector:
            self.requires_grad_(False)
        self.mask_attention = MaskAttention(config.width, config.heads) if config.masks else None
        finer_channels = self.backbone.channels[-2::-1]
        self.mask_head = MaskHead(config.width, config.heads, finer_channels) if config.masks else None

    def forward(self, images: torch.Tensor, padding: torch.Tensor) -> DetrOutput:
        """Predict a set of objects for each image.

        Args:
            images: Normalized images in the upper left of a common canvas, float ``(B, 3, H, W)``.
            padding: True on padding pixels, bool ``(B, H, W)``.
        """
        features = self.backbone(images)
        source = self.input_projection(features[-1])
        padding = interpolate(padding[:, None].float(), size=source.shape[-2:], mode="nearest").bool()[:, 0]
        position = self.position(padding).to(source.dtype)
        memory, objects = self.transformer(_tokens(source), padding.flatten(1), _tokens(position), self.queries.weight)
        masks = None
        if self.mask_attention is not None and self.mask_head is not None:
            attention = self.mask_attention(objects[-1], memory, padding.flatten(1))
            attention = attention.unflatten(-1, source.shape[-2:])
            masks = self.mask_head(source, attention, features[-2::-1]).float()
        return DetrOutput(
            logits=self.class_head(objects).float(), boxes=self.box_head(objects).float().sigmoid(), masks=masks
        )


def _tokens(maps: torch.Tensor) -> torch.Tensor:
    """Convert maps ``(B, C, H, W)`` to tokens ``(B, H * W, C)``."""
    return maps.flatten(2).transpose(1, 2)

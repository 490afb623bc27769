"""DETR: a convolutional backbone, a transformer, a set of objects, and a mask branch.

Carion et al., "End-to-End Object Detection with Transformers" (2020), arXiv:2005.12872. In the forward pass, no shape
depends on data and no operation is specific to an accelerator. Shapes: ``B`` images, ``S`` tokens of ``C`` channels,
``Q`` object queries, ``L`` decoder layers.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch import nn
from torch.nn.functional import interpolate
from torchvision.ops import FrozenBatchNorm2d

from chipperf.errors import ConfigError, DataError

_TEMPERATURE = 10_000
# Prevents 0 / 0 in columns and rows that are only padding.
_EPSILON = 1e-6
_NORM_GROUPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DetrConfig:
    """Structure of the model; the defaults are the paper's DETR with a ResNet50 on COCO.

    Attributes:
        classes: Number of category ids, counted from 0. COCO's ids go up to 90, with gaps; panoptic ids go up to 200.
        queries: Number of predicted objects per image.
        width: Channels of the transformer, a multiple of 16 and of ``heads``.
        feedforward_width: Hidden channels of the transformer's perceptrons.
        dropout: Dropout probability of an activation or attention weight of the transformer.
        backbone: torchvision's name of the ResNet.
        dilation: Whether to dilate the backbone's last stage instead of striding it, for twice the resolution ("DC5").
        train_whole_backbone: Whether to train the whole backbone with ordinary BatchNorm, without ImageNet weights.
        masks: Whether to predict masks too.

    Raises:
        ConfigError: ``dilation`` is set for a ResNet of basic blocks, which cannot be dilated.
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

    def __post_init__(self) -> None:
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
    """The DETR model, initialized as in the reference, which also loads ImageNet weights for the backbone."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        width = config.width
        self.backbone = Backbone(config)
        self.input_projection = nn.Conv2d(self.backbone.channels[-1], width, 1)
        self.queries = nn.Embedding(config.queries, width)
        self.transformer = Transformer(config)
        self.class_head = nn.Linear(width, config.classes + 1)
        self.box_head = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)
        )
        self.mask_attention = MaskAttention(config) if config.masks else None
        self.mask_head = MaskHead(config, self.backbone.channels[-2::-1]) if config.masks else None

    def forward(self, images: torch.Tensor, padding: torch.Tensor) -> DetrOutput:
        """Predict a set of objects for each image.

        Args:
            images: Normalized images in the upper left of a common canvas, float ``(B, 3, H, W)``.
            padding: True on padding pixels, bool ``(B, H, W)``.
        """
        features = self.backbone(images)
        source = self.input_projection(features[-1])
        padding = interpolate(padding[:, None].float(), size=source.shape[-2:], mode="nearest").bool()[:, 0]
        position = sine_positions(padding, source.shape[1]).to(source.dtype)
        padding = padding.flatten(1)
        memory, objects = self.transformer(_tokens(source), padding, _tokens(position), self.queries.weight)
        masks = None
        if self.mask_attention is not None and self.mask_head is not None:
            attention = self.mask_attention(objects[-1], memory, padding).unflatten(-1, source.shape[-2:])
            masks = self.mask_head(source, attention, features[-2::-1]).float()
        return DetrOutput(
            logits=self.class_head(objects).float(), boxes=self.box_head(objects).float().sigmoid(), masks=masks
        )


def _tokens(maps: torch.Tensor) -> torch.Tensor:
    """Convert maps ``(B, C, H, W)`` to tokens ``(B, H * W, C)``."""
    return maps.flatten(2).transpose(1, 2)


class Backbone(nn.Module):
    """The convolutional stages of a ResNet, with torchvision's names of the weights.

    The reference starts from ImageNet weights, freezes the statistics and scales of every BatchNorm, because the
    batches of a detector are too small to estimate statistics, and does not train the stem and the first stage.

    Attributes:
        channels: Channels of the four stages' feature maps.
    """

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        resnet = torchvision.models.get_model(
            config.backbone,
            weights=None,
            norm_layer=nn.BatchNorm2d if config.train_whole_backbone else FrozenBatchNorm2d,
            replace_stride_with_dilation=[False, False, config.dilation],
        )
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4
        last = resnet.fc.in_features
        self.channels = (last // 8, last // 4, last // 2, last)
        if not config.train_whole_backbone:
            self.conv1.requires_grad_(False)
            self.layer1.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the stages' feature maps of images ``(B, 3, H, W)``, at strides 4, 8, 16 and 32 (16 if dilated)."""
        features = [self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images)))))]
        for stage in (self.layer2, self.layer3, self.layer4):
            features.append(stage(features[-1]))
        return features

    def load_weights(self, path: Path) -> None:
        """Load the weights of a torchvision classifier of the same name, except its last, linear layer.

        Raises:
            DataError: The file cannot be read, or holds the weights of another model.
        """
        hint = "give the state_dict of torchvision's model, for example resnet50-0676ba61.pth"
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise DataError(f"{path}: the backbone's weights cannot be read: {error}", hint=hint) from error
        try:
            self.load_state_dict({name: value for name, value in weights.items() if not name.startswith("fc.")})
        except (AttributeError, RuntimeError) as error:
            raise DataError(f"{path}: not the weights of this backbone: {error}", hint=hint) from error


def sine_positions(padding: torch.Tensor, width: int) -> torch.Tensor:
    """Return the positions of pixels, encoded as sines and cosines of coordinates that are normalized to 0–2π.

    Carion et al. (2020), appendix A.4: half of the channels encode the row, half the column; sine and cosine alternate,
    each pair at a lower frequency. Coordinates count valid pixels, so that an image's encoding does not depend on its
    padding.

    Args:
        padding: True on padding, bool ``(B, H, W)``.
        width: Channels of the result, a multiple of 4.

    Returns:
        The encoding, float32 ``(B, width, H, W)``.
    """
    channels = width // 2
    pairs = torch.arange(channels // 2, dtype=torch.float32, device=padding.device)
    periods = _TEMPERATURE ** (2 * pairs / channels)
    encoded = []
    for axis in (1, 2):
        # The sums use integers, because a float cumulative sum is not deterministic on every accelerator.
        coordinates = (~padding).cumsum(dim=axis).float()
        last = coordinates.narrow(axis, -1, 1)
        angles = (coordinates / (last + _EPSILON) * (2 * math.pi))[..., None] / periods
        encoded.append(torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2))
    return torch.cat(encoded, dim=-1).permute(0, 3, 1, 2)


class Transformer(nn.Module):
    """The encoder-decoder transformer, with normalization after each residual sum.

    It encodes an image's features and decodes all objects in parallel. Carion et al. (2020), figure 10: the positions
    of pixels are added to queries and keys of every encoder layer and to the keys of every cross attention; the object
    queries are added to queries and keys of the decoder's self attention and to the queries of its cross attention.
    Values have no position encoding.
    """

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.decoder_norm = nn.LayerNorm(config.width)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self, tokens: torch.Tensor, padding: torch.Tensor, position: torch.Tensor, queries: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the encoded tokens ``(B, S, C)`` and the normalized objects after each decoder layer ``(L, B, Q, C)``.

        Args:
            tokens: The image's features, ``(B, S, C)``.
            padding: True on padding tokens, bool ``(B, S)``.
            position: Encoded positions of the tokens, ``(B, S, C)``.
            queries: Learned object queries, ``(Q, C)``.
        """
        memory = tokens
        for layer in self.encoder:
            memory = layer(memory, padding, position)
        queries = queries.expand(len(tokens), -1, -1)
        objects, decoded = torch.zeros_like(queries), []
        for layer in self.decoder:
            objects = layer(objects, memory, padding, position, queries)
            decoded.append(self.decoder_norm(objects))
        return memory, torch.stack(decoded)


class EncoderLayer(nn.Module):
    """Self attention over the image, and a perceptron."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.self_attention = _attention(config)
        self.self_attention_norm = nn.LayerNorm(config.width)
        self.feedforward = _feedforward(config)
        self.feedforward_norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: torch.Tensor, padding: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Return the next tokens ``(B, S, C)``; arguments as in :class:`Transformer`."""
        located = tokens + position
        attended, _ = self.self_attention(located, located, tokens, key_padding_mask=padding, need_weights=False)
        tokens = self.self_attention_norm(tokens + self.dropout(attended))
        encoded: torch.Tensor = self.feedforward_norm(tokens + self.dropout(self.feedforward(tokens)))
        return encoded


class DecoderLayer(nn.Module):
    """Self attention among the objects, cross attention to the image, and a perceptron."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.self_attention = _attention(config)
        self.self_attention_norm = nn.LayerNorm(config.width)
        self.cross_attention = _attention(config)
        self.cross_attention_norm = nn.LayerNorm(config.width)
        self.feedforward = _feedforward(config)
        self.feedforward_norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        objects: torch.Tensor,
        memory: torch.Tensor,
        padding: torch.Tensor,
        position: torch.Tensor,
        queries: torch.Tensor,
    ) -> torch.Tensor:
        """Return the next objects ``(B, Q, C)``; arguments as in :class:`Transformer`, ``queries`` ``(B, Q, C)``."""
        located = objects + queries
        attended, _ = self.self_attention(located, located, objects, need_weights=False)
        objects = self.self_attention_norm(objects + self.dropout(attended))
        attended, _ = self.cross_attention(
            objects + queries, memory + position, memory, key_padding_mask=padding, need_weights=False
        )
        objects = self.cross_attention_norm(objects + self.dropout(attended))
        decoded: torch.Tensor = self.feedforward_norm(objects + self.dropout(self.feedforward(objects)))
        return decoded


def _attention(config: DetrConfig) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(config.width, config.heads, dropout=config.dropout, batch_first=True)


def _feedforward(config: DetrConfig) -> nn.Sequential:
    width, hidden = config.width, config.feedforward_width
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(hidden, width))


class MaskAttention(nn.Module):
    """Attention of each object to the encoded image: only the weights, without values.

    Carion et al. (2020), section 4.4 and figure 8, as :class:`MaskHead`.
    """

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        for projection in (self.query, self.key):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(self, objects: torch.Tensor, memory: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        """Return the maps ``(B, Q, heads, S)``; an object's weights sum to 1 over tokens and heads together.

        Args:
            objects: Decoded objects, ``(B, Q, C)``.
            memory: Encoded tokens, ``(B, S, C)``.
            padding: True on padding tokens, bool ``(B, S)``.
        """
        query: torch.Tensor = self.query(objects).unflatten(-1, (self.heads, -1))
        key: torch.Tensor = self.key(memory).unflatten(-1, (self.heads, -1))
        weights = torch.einsum("bqnc,bsnc->bqns", query * query.shape[-1] ** -0.5, key)
        weights = weights.masked_fill(padding[:, None, None, :], float("-inf"))
        maps: torch.Tensor = weights.flatten(2).softmax(dim=-1).unflatten(-1, (self.heads, -1))
        return maps


class MaskHead(nn.Module):
    """Convolutions that convert attention maps to mask logits, and add finer features at each resolution."""

    def __init__(self, config: DetrConfig, feature_channels: Sequence[int]) -> None:
        super().__init__()
        width = config.width
        widths = [width + config.heads, width // 2, width // 4, width // 8, width // 16]
        self.entry = nn.Sequential(_block(widths[0], widths[0]), _block(widths[0], widths[1]))
        self.laterals = nn.ModuleList(
            nn.Conv2d(channels, lateral, 1) for channels, lateral in zip(feature_channels, widths[1:-1], strict=True)
        )
        self.blocks = nn.ModuleList(_block(before, after) for before, after in pairwise(widths[1:]))
        self.exit = nn.Conv2d(widths[-1], 1, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)

    def forward(self, source: torch.Tensor, attention: torch.Tensor, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return mask logits ``(B, Q, h, w)`` at the resolution of the finest features.

        Args:
            source: The transformer's input, ``(B, C, H, W)``.
            attention: Attention maps, ``(B, Q, heads, H, W)``.
            features: The backbone's features, from coarse to fine.
        """
        batch, queries = attention.shape[:2]
        source = source[:, None].expand(-1, queries, -1, -1, -1)
        maps = self.entry(torch.cat([source, attention], dim=2).flatten(0, 1))
        for lateral, block, feature in zip(self.laterals, self.blocks, features, strict=True):
            finer = lateral(feature)
            maps = interpolate(maps, size=finer.shape[-2:], mode="nearest").unflatten(0, (batch, queries))
            maps = block((maps + finer[:, None]).flatten(0, 1))
        logits: torch.Tensor = self.exit(maps).squeeze(1).unflatten(0, (batch, queries))
        return logits


def _block(channels: int, out_channels: int) -> nn.Sequential:
    norm = nn.GroupNorm(math.gcd(_NORM_GROUPS, out_channels), out_channels)
    return nn.Sequential(nn.Conv2d(channels, out_channels, 3, padding=1), norm, nn.ReLU())

"""The mask branch: attention maps of each object, refined with the backbone's finer features.

Carion et al. (2020), section 4.4 and figure 8.
"""

from __future__ import annotations

from itertools import pairwise
from math import gcd
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import interpolate

if TYPE_CHECKING:
    from collections.abc import Sequence

_NORM_GROUPS = 8


class MaskAttention(nn.Module):
    """Attention of each object to the encoded image: only the weights, without values.

    Args:
        width: Channels of objects and encoded tokens.
        heads: Attention maps per object.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
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
    """Convolutions that convert attention maps to mask logits, and add finer features at each resolution.

    Args:
        width: Channels of the transformer, a multiple of 16.
        heads: Attention maps per object.
        feature_channels: Channels of the backbone's features, from coarse to fine.
    """

    def __init__(self, width: int, heads: int, feature_channels: Sequence[int]) -> None:
        super().__init__()
        widths = [width + heads, width // 2, width // 4, width // 8, width // 16]
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
    norm = nn.GroupNorm(gcd(_NORM_GROUPS, out_channels), out_channels)
    return nn.Sequential(nn.Conv2d(channels, out_channels, 3, padding=1), norm, nn.ReLU())

"""Position encoding of pixels: sines and cosines of their coordinates."""

from __future__ import annotations

import math

import torch
from torch import nn

_TEMPERATURE = 10_000
# Prevents 0 / 0 in columns and rows that are only padding.
_EPSILON = 1e-6


class SinePositionEmbedding(nn.Module):
    """The two-dimensional form of the transformer's fixed position encoding, of coordinates normalized to 0–2π.

    Carion et al. (2020), appendix A.4: half of the channels encode the row, half the column. Coordinates count valid
    pixels, so that an image's encoding does not depend on its padding.

    Args:
        width: Channels of the result, a multiple of 4.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self._channels_per_axis = width // 2

    def forward(self, padding: torch.Tensor) -> torch.Tensor:
        """Return the float32 encoding ``(B, width, H, W)`` of a bool mask ``(B, H, W)`` that is true on padding."""
        valid = ~padding
        # The sums use integers, because a float cumulative sum is not deterministic on every accelerator.
        rows = valid.cumsum(dim=1).float()
        columns = valid.cumsum(dim=2).float()
        rows = rows / (rows[:, -1:, :] + _EPSILON) * (2 * math.pi)
        columns = columns / (columns[:, :, -1:] + _EPSILON) * (2 * math.pi)
        encoded = torch.cat([self._encode(rows), self._encode(columns)], dim=-1)
        return encoded.permute(0, 3, 1, 2)

    def _encode(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Return ``(B, H, W, channels)``: alternating sine and cosine, each pair at a lower frequency."""
        pairs = torch.arange(self._channels_per_axis // 2, dtype=torch.float32, device=coordinates.device)
        periods = _TEMPERATURE ** (2 * pairs / self._channels_per_axis)
        angles = coordinates[..., None] / periods
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)

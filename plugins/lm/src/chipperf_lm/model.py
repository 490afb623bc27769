"""GPT-2 of torch's own modules (Radford et al., 2019), without dropout, as nanoGPT trains it.

The layers have the names of OpenAI's weights, so that a checkpoint of GPT-2 fits but for its transposed matrices.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import linear, scaled_dot_product_attention

if TYPE_CHECKING:
    from chipperf_lm.hyperparameters import GptHyperparameters

_DEVIATION = 0.02
"""Standard deviation of all initial weights."""


class CausalSelfAttention(nn.Module):
    """Attention of every position to itself and those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the attended values of ``x``, both ``(batch, positions, width)``."""
        query, key, value = (
            part.unflatten(-1, (self._heads, -1)).transpose(1, 2) for part in self.c_attn(x).chunk(3, dim=-1)
        )
        attended = scaled_dot_product_attention(query, key, value, is_causal=True)
        output: torch.Tensor = self.c_proj(attended.transpose(1, 2).flatten(2))
        return output


class DecoderBlock(nn.Module):
    """Attention and two linear layers, each behind a normalization and added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = CausalSelfAttention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("act", nn.GELU(approximate="tanh"))
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output of the block for ``x``, both ``(batch, positions, width)``."""
        x = x + self.attn(self.ln_1(x))
        output: torch.Tensor = x + self.mlp(self.ln_2(x))
        return output


class Gpt(nn.Module):
    """A decoder-only transformer whose last matrix is the embedding of tokens.

    Weights are drawn as for GPT-2: with a deviation of 0.02, and smaller by the root of their number where a layer adds
    to the stream.
    """

    def __init__(self, h: GptHyperparameters) -> None:
        super().__init__()
        self.wte = nn.Embedding(h.vocabulary, h.width)
        self.wpe = nn.Embedding(h.sequence_length, h.width)
        self.h = nn.ModuleList(DecoderBlock(h.width, h.heads) for _ in range(h.layers))
        self.ln_f = nn.LayerNorm(h.width)
        for name, module in self.named_modules():
            if isinstance(module, (nn.Embedding, nn.Linear)):
                adds = name.endswith("c_proj")
                nn.init.normal_(module.weight, std=_DEVIATION / math.sqrt(2 * h.layers) if adds else _DEVIATION)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the logits of each next token, ``(batch, positions, vocabulary)``, for int64 tokens."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.wte(tokens) + self.wpe(positions)
        for block in self.h:
            x = block(x)
        # A layer that shared this weight would have its own after the move to a device of torch's type privateuse1.
        return linear(self.ln_f(x), self.wte.weight)

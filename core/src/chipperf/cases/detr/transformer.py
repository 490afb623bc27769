"""The encoder-decoder transformer, with normalization after each residual sum.

Carion et al. (2020), figure 10: the positions of pixels are added to queries and keys of every encoder layer and to the
keys of every cross attention; the object queries are added to queries and keys of the decoder's self attention and to
the queries of its cross attention. Values have no position encoding.
"""

from __future__ import annotations

import torch
from torch import nn


class Transformer(nn.Module):
    """Encodes an image's features and decodes all objects in parallel.

    Args:
        width: Channels of every token.
        heads: Attention heads.
        feedforward_width: Hidden channels of the layers' perceptrons.
        encoder_layers: Number of encoder layers, over the image's tokens.
        decoder_layers: Number of decoder layers, over the object queries.
        dropout: Dropout probability of an activation or attention weight.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        feedforward_width: int,
        encoder_layers: int,
        decoder_layers: int,
        dropout: float,
    ) -> None:
        super().__init__()
        layer = (width, heads, feedforward_width, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*layer) for _ in range(encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*layer) for _ in range(decoder_layers))
        self.decoder_norm = nn.LayerNorm(width)
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

    def __init__(self, width: int, heads: int, feedforward_width: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.self_attention_norm = nn.LayerNorm(width)
        self.feedforward = _feedforward(width, feedforward_width, dropout)
        self.feedforward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: torch.Tensor, padding: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Return the next tokens ``(B, S, C)``; arguments as in :class:`Transformer`."""
        located = tokens + position
        attended, _ = self.self_attention(located, located, tokens, key_padding_mask=padding, need_weights=False)
        tokens = self.self_attention_norm(tokens + self.dropout(attended))
        encoded: torch.Tensor = self.feedforward_norm(tokens + self.dropout(self.feedforward(tokens)))
        return encoded


class DecoderLayer(nn.Module):
    """Self attention among the objects, cross attention to the image, and a perceptron."""

    def __init__(self, width: int, heads: int, feedforward_width: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.self_attention_norm = nn.LayerNorm(width)
        self.cross_attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.cross_attention_norm = nn.LayerNorm(width)
        self.feedforward = _feedforward(width, feedforward_width, dropout)
        self.feedforward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

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


def _feedforward(width: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width))

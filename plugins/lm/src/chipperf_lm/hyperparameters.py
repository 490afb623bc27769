"""Hyperparameters and presets of the case ``gpt2``.

Base values come from nanoGPT (https://github.com/karpathy/nanoGPT), which reproduces GPT-2 on OpenWebText: its
``train.py`` and ``config/train_gpt2.py``. Sizes are those of GPT-2's paper (Radford et al., 2019), and the learning
rates of the larger ones those of GPT-3's (Brown et al., 2020, table 2.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from chipperf.cases.base import Hyperparameters, Role
from pydantic import Field

if TYPE_CHECKING:
    from collections.abc import Mapping


class GptHyperparameters(Hyperparameters):
    """Hyperparameters of a decoder-only transformer trained with AdamW on tokens.

    ``batch_size`` counts sequences of ``sequence_length`` tokens; throughputs and numbers of samples count tokens.
    ``target`` is a loss in nats per token. ``lr`` rises linearly for ``warmup_steps`` optimizer steps, then falls as a
    cosine to ``min_lr_factor`` of it at the end of the last epoch.
    """

    target: Annotated[float, Field(gt=0), Role.LOCKED]
    layers: Annotated[int, Field(ge=1), Role.LOCKED] = 12
    heads: Annotated[int, Field(ge=1), Role.LOCKED] = 12
    width: Annotated[int, Field(ge=1), Role.LOCKED] = 768
    sequence_length: Annotated[int, Field(ge=1), Role.LOCKED] = 1024
    vocabulary: Annotated[int, Field(ge=2, le=2**16), Role.LOCKED] = 50304
    optimizer: Annotated[Literal["adamw"], Role.LOCKED] = "adamw"
    beta1: Annotated[float, Field(ge=0, lt=1), Role.LOCKED] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1), Role.LOCKED] = 0.95
    weight_decay: Annotated[float, Field(ge=0), Role.LOCKED] = 0.1
    max_gradient_norm: Annotated[float, Field(gt=0), Role.LOCKED] = 1.0
    min_lr_factor: Annotated[float, Field(ge=0, le=1), Role.LOCKED] = 0.1

    warmup_steps: Annotated[int, Field(ge=0), Role.SCALED] = 2000

    @property
    def samples_per_item(self) -> int:
        """Tokens that a sequence predicts."""
        return self.sequence_length

    @property
    def forward_flops(self) -> float:
        """Floating-point operations of the forward pass of one token.

        Twice the weights of all matrices, of which the embedding of tokens is also the last one, and attention: a token
        has ``2 * width`` operations in each layer for the scores of every position, and as many for their sum. With the
        backward pass that is 6N + 12 * layers * width * sequence_length (Chowdhery et al., 2022, appendix B).
        """
        matrices = self.layers * 12 * self.width**2 + self.vocabulary * self.width
        return 2.0 * matrices + 4.0 * self.layers * self.width * self.sequence_length


BASE = GptHyperparameters(
    model="gpt2",
    dataset="openwebtext",
    # "down to very nice loss of ~2.85": nanoGPT, config/train_gpt2.py, after 600 000 steps of 491 520 tokens.
    target=2.85,
    epochs=33,
    evaluate_every_steps=1000,
    batch_size=12,
    accumulate_steps=5,
    lr=6e-4,
    eval_batch_size=12,
    seed=1337,
)
"""GPT-2 small, 124 M, on eight cards. Its 50257 tokens are rounded up to a multiple of 64, as nanoGPT does."""

_OF_BYTES = {"vocabulary": 256, "evaluate_every_steps": 0, "accumulate_steps": 1}

PRESETS: Mapping[str, Mapping[str, bool | int | float | str]] = {
    "full": {},
    # Targets: the losses of OpenAI's weights on OpenWebText, from the table of baselines in nanoGPT's README.
    "medium": {
        "layers": 24,
        "heads": 16,
        "width": 1024,
        "target": 2.84,
        "batch_size": 4,
        "accumulate_steps": 15,
        "lr": 3e-4,
        "eval_batch_size": 4,
    },
    "large": {
        "layers": 36,
        "heads": 20,
        "width": 1280,
        "target": 2.67,
        "batch_size": 2,
        "accumulate_steps": 30,
        "lr": 2.5e-4,
        "eval_batch_size": 2,
    },
    "demo": {
        **_OF_BYTES,
        "layers": 4,
        "heads": 4,
        "width": 128,
        "sequence_length": 128,
        "epochs": 4,
        "evaluate_every_steps": 50,
        "batch_size": 32,
        "lr": 3e-3,
        "warmup_steps": 50,
        "eval_batch_size": 32,
        "measure_window_steps": 20,
        "measure_core_steps": 5,
    },
    "tiny": {
        **_OF_BYTES,
        "layers": 2,
        "heads": 2,
        "width": 32,
        "sequence_length": 32,
        "epochs": 2,
        "batch_size": 4,
        "lr": 3e-3,
        "warmup_steps": 2,
        "eval_batch_size": 4,
        "measure_warmup_steps": 1,
        "measure_window_steps": 2,
        "measure_core_steps": 1,
    },
}
"""``full``: the benchmark, GPT-2 small. ``medium``, ``large``: its larger sizes. ``demo``: bytes of text, which a small
model learns in minutes on two CPU cores. ``tiny``: only shows that all parts run."""

"""Torch part of the case ``gpt2``: model, token batches, AdamW, and the loss on the whole evaluation text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from chipperf import DataError, TrainingError
from chipperf.cases.workload import Evaluation
from chipperf.cases.workload_parts import HostWorkload, fused_if_possible
from torch.nn.functional import cross_entropy

from chipperf_lm.model import Gpt
from chipperf_lm.tokens import EVAL_FILE, TRAIN_FILE, identify_tokens, open_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from chipperf.cases.workload import WorkloadContext
    from chipperf.run.collectives import Collectives

    from chipperf_lm.hyperparameters import GptHyperparameters

Tokens = tuple[torch.Tensor, ...]
"""Tokens and the token after each of them, two int64 tensors ``(sequences, sequence_length)``."""

_NO_TARGET = -100
"""What stands behind the end of the evaluation text; cross entropy ignores it."""


class GptWorkload(HostWorkload["GptHyperparameters"]):
    """GPT-2 on one worker.

    An item is a sequence: sequence ``i`` predicts the tokens after ``i * sequence_length``. The last tokens of the
    training text, which fill no sequence, are left out; those of the evaluation text are a shorter sequence.
    """

    def __init__(self, context: WorkloadContext[GptHyperparameters]) -> None:
        h, root = context.hyperparameters, context.data_root
        self._train, self._eval = (open_tokens(root / name) for name in (TRAIN_FILE, EVAL_FILE))
        identity = identify_tokens(root, len(self._train), len(self._eval), context.reference)
        super().__init__(
            context,
            identity,
            train_items=identity.train_samples // h.sequence_length,
            eval_items=-(-identity.eval_samples // h.sequence_length),
        )
        self.max_gradient_norm = h.max_gradient_norm

    def build_model(self) -> torch.nn.Module:
        """Return GPT-2 with new weights."""
        return Gpt(self._hyperparameters)

    def build_optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Return AdamW, whose weight decay is of matrices and embeddings, and not of biases and normalizations."""
        h = self._hyperparameters
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        groups = [
            {"params": [each for each in parameters if each.dim() >= 2], "weight_decay": h.weight_decay},
            {"params": [each for each in parameters if each.dim() < 2], "weight_decay": 0.0},
        ]
        return fused_if_possible(torch.optim.AdamW, groups, lr=h.lr, betas=(h.beta1, h.beta2))

    def learning_rates(self, step: int) -> list[float]:
        """Return the rate of both groups: a linear rise, and a cosine to its end at the last step of all epochs."""
        h = self._hyperparameters
        if step < h.warmup_steps:
            return [h.lr * (step + 1) / (h.warmup_steps + 1)] * 2
        falling = h.epochs * self.steps_per_epoch - h.warmup_steps
        share = min(1.0, (step - h.warmup_steps) / falling) if falling > 0 else 1.0
        factor = h.min_lr_factor + (1 - h.min_lr_factor) * (1 + math.cos(math.pi * share)) / 2
        return [h.lr * factor] * 2

    def read(self, items: Sequence[int], *, training: bool) -> Tokens:
        """Return the sequences with these numbers, on the host; another token than the vocabulary's is an error."""
        length, tokens = self._hyperparameters.sequence_length, self._train if training else self._eval
        rows = np.full((len(items), length + 1), _NO_TARGET, np.int64)
        for row, item in zip(rows, items, strict=True):
            part = tokens[item * length : (item + 1) * length + 1]
            row[: len(part)] = part
        if (highest := rows.max()) >= self._hyperparameters.vocabulary:
            raise DataError(
                f"the data have the token {highest}, and the vocabulary {self._hyperparameters.vocabulary} tokens",
                hint="train bytes with the presets demo and tiny, and GPT-2's tokens with the others",
            )
        sequences = torch.from_numpy(rows)
        return sequences[:, :-1].clamp(min=0), sequences[:, 1:].contiguous()

    def sample_count(self, batch: Tokens) -> int:
        """Return the number of predicted tokens."""
        return batch[1].numel()

    def loss(self, model: torch.nn.Module, batch: Tokens) -> torch.Tensor:
        """Return the mean cross entropy of the tokens, in nats."""
        tokens, targets = batch
        # Of half precision, a sum over the vocabulary would lose too much.
        return cross_entropy(model(tokens).flatten(0, 1).float(), targets.flatten(), ignore_index=_NO_TARGET)

    def evaluate(
        self, model: torch.nn.Module, collectives: Collectives, autocast: Callable[[], AbstractContextManager[object]]
    ) -> Evaluation:
        """Return the mean cross entropy of every token but the first of the evaluation text, and its perplexity."""
        sums, counted = [], 0
        with torch.inference_mode():
            for tokens, targets in self.evaluation_batches():
                with autocast():
                    logits = model(tokens).flatten(0, 1)
                sums.append(cross_entropy(logits.float(), targets.flatten(), reduction="sum", ignore_index=_NO_TARGET))
                counted += int((targets != _NO_TARGET).sum())
        of_rank = float(torch.stack(sums).cpu().double().sum()) if sums else 0.0
        ranks = collectives.gather((of_rank, counted))
        total = sum(count for _, count in ranks)
        if total != self.eval_samples:
            raise TrainingError(
                f"evaluation counted {total} tokens, the text has {self.eval_samples}", failure_class="evaluation_count"
            )
        loss = math.fsum(each for each, _ in ranks) / total
        return Evaluation(value=loss, samples=total, details={"perplexity": math.exp(loss)})

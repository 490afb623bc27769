"""Batches, optimizer, schedule and evaluation; and a real run against a plain loop of torch on the same files."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from chipperf import DataError, LoaderOptions, Rank
from chipperf.cases.workload import WorkloadContext
from chipperf.errors import ConfigError
from chipperf.records.store import read_record
from chipperf.run.collectives import Collectives
from chipperf_lm.case import GPT2
from chipperf_lm.hyperparameters import BASE, PRESETS
from chipperf_lm.model import Gpt
from chipperf_lm.tokens import EVAL_FILE, TRAIN_FILE
from chipperf_lm.workload import GptWorkload
from torch.nn.functional import cross_entropy

CPU = torch.device("cpu")
TINY = BASE.model_copy(update=PRESETS["tiny"])


def workload_on(root, rank=None, **changes) -> GptWorkload:
    return GptWorkload(
        WorkloadContext(
            hyperparameters=TINY.model_copy(update=changes),
            reference=GPT2.data.reference,
            data_root=root,
            rank=rank or Rank(),
            device=CPU,
            loader_options=LoaderOptions(),
            loader_workers=0,
        )
    )


def read(path):
    return torch.from_numpy(np.fromfile(path, "<u2").astype(np.int64))


def test_run_has_the_losses_of_a_plain_loop(run, tokens):
    """The loop of every tutorial, on the same batches: same weights, AdamW, cosine, clipping and accumulation."""
    torch.manual_seed(TINY.seed)
    model, train = Gpt(TINY), read(tokens / TRAIN_FILE)
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    sequences = (len(train) - 1) // 32
    per_epoch = sequences // 4 // 2
    record = read_record(run)
    losses = []
    for step in range(record.metrics.steps):
        epoch, place = divmod(step, per_epoch)
        order = np.random.RandomState([TINY.seed, epoch]).permutation(sequences)
        progress = (step - 2) / (2 * per_epoch - 2)
        rate = 3e-3 * (step + 1) / 3 if step < 2 else 3e-4 + 2.7e-3 * (1 + math.cos(math.pi * progress)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        losses.append(0.0)
        for micro in range(2):
            chosen = order[(2 * place + micro) * 4 :][:4]
            inputs = torch.stack([train[i * 32 : i * 32 + 32] for i in chosen])
            targets = torch.stack([train[i * 32 + 1 : i * 32 + 33] for i in chosen])
            loss = cross_entropy(model(inputs).view(-1, 256), targets.view(-1)) / 2
            loss.backward()
            losses[-1] += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    windows = record.metrics.p_train.windows
    assert windows[-1].first_step + windows[-1].steps - 1 == len(losses) == 12
    for window in windows:
        mine = losses[window.first_step - 1 : window.first_step - 1 + window.steps]
        assert window.loss == pytest.approx(sum(mine) / window.steps, rel=1e-5)
        assert window.samples == window.steps * 2 * 4 * 32


def test_every_token_is_evaluated_once(tokens):
    """On several ranks, the contract's checks K8 and K9 compare with one."""
    model = Gpt(TINY).eval()
    text = read(tokens / EVAL_FILE)

    evaluation = workload_on(tokens).evaluate(model, Collectives(Rank(), CPU), nullcontext)

    expected = []
    for start in range(0, len(text) - 1, 32):
        part = text[start : start + 33]
        expected += cross_entropy(model(part[None, :-1])[0], part[1:], reduction="none").tolist()
    # The last sequence is shorter.
    assert len(text) % 32 not in (0, 1)
    assert evaluation.samples == len(expected) == len(text) - 1
    assert evaluation.value == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    assert evaluation.details["perplexity"] == pytest.approx(math.exp(evaluation.value))


def test_only_matrices_decay(tokens):
    model = Gpt(TINY)

    decayed, others = workload_on(tokens).build_optimizer(model).param_groups

    names = {parameter: name for name, parameter in model.named_parameters()}
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert all("ln" in names[each] or "bias" in names[each] for each in others["params"])
    assert not any("ln" in names[each] or "bias" in names[each] for each in decayed["params"])
    assert len(names) == len(decayed["params"]) + len(others["params"])


def test_rate_rises_and_falls_as_a_cosine(tokens):
    workload = workload_on(tokens, warmup_steps=4, epochs=2)
    steps = 2 * workload.steps_per_epoch

    rates = [workload.learning_rates(step)[0] / TINY.lr for step in range(steps + 1)]

    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[4 + (steps - 4) // 2] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1)
    assert workload_on(tokens, warmup_steps=steps).learning_rates(steps) == pytest.approx([0.1 * TINY.lr] * 2)


def test_token_beyond_the_vocabulary_is_named(tokens):
    workload = workload_on(tokens, vocabulary=100)

    with pytest.raises(DataError, match=r"the data have the token \d+, and the vocabulary 100 tokens"):
        list(workload.epoch_batches(0))


def test_loader_processes_are_refused(tokens):
    with pytest.raises(ConfigError, match="workers is 2, but this case reads its data without them"):
        workload_on(tokens, workers=2)


def test_too_little_text_says_so(tokens):
    with pytest.raises(ConfigError, match=r"split has \d+ samples, fewer than one global batch of 400 x 1"):
        workload_on(tokens, batch_size=400)

"""The model against transformers' GPT-2, and its arithmetic against torch's count."""

from __future__ import annotations

import math

import pytest
import torch
from chipperf_lm.case import GPT2
from chipperf_lm.hyperparameters import BASE, PRESETS, GptHyperparameters
from chipperf_lm.model import Gpt
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

SIZES = {"full": 124_475_904, "medium": 354_871_296, "large": 774_090_240}
"""Parameters: those of GPT-2 with 50304 instead of 50257 tokens."""


def of_preset(preset: str) -> GptHyperparameters:
    return BASE.model_copy(update=PRESETS[preset])


@pytest.mark.parametrize("preset", SIZES)
def test_sizes_are_those_of_gpt2(preset):
    with torch.device("meta"):
        model = Gpt(of_preset(preset))

    assert sum(parameter.numel() for parameter in model.parameters()) == SIZES[preset]


def test_logits_and_gradients_are_those_of_transformers():
    transformers = pytest.importorskip("transformers", reason="transformers needs Python 3.11")
    h = of_preset("tiny").model_copy(update={"width": 48, "heads": 3, "layers": 3, "vocabulary": 90})
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=h.vocabulary,
            n_positions=h.sequence_length,
            n_embd=h.width,
            n_layer=h.layers,
            n_head=h.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ours = Gpt(h)
    ours.load_state_dict(
        {
            name.removeprefix("transformer."): value.t() if is_transposed(name) else value
            for name, value in theirs.state_dict().items()
            if name != "lm_head.weight"  # The same as that of the tokens.
        }
    )
    tokens = torch.randint(h.vocabulary, (4, h.sequence_length + 1))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    expected, found = theirs(inputs).logits, ours(inputs)
    for logits in (expected, found):
        cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    gradients = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        wanted = parameter.grad.t() if is_transposed(name) else parameter.grad
        torch.testing.assert_close(gradients[name.removeprefix("transformer.")].grad, wanted, rtol=1e-4, atol=1e-4)


def is_transposed(name: str) -> bool:
    """Tell the matrices that OpenAI's GPT-2 multiplies from the other side."""
    return name.endswith("weight") and any(part in name for part in ("c_attn", "c_proj", "c_fc"))


@pytest.mark.parametrize("preset", ["full", "medium", "tiny"])
def test_arithmetic_is_as_counted(preset):
    h = of_preset(preset)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        logits = Gpt(h)(torch.empty(1, h.sequence_length, dtype=torch.int64))
        forward = counter.get_total_flops()
        logits.sum().backward()

    assert h.forward_flops * h.sequence_length == pytest.approx(forward, rel=1e-6)
    assert 3 * forward == pytest.approx(counter.get_total_flops(), rel=1e-6)


def test_arithmetic_is_six_per_weight_and_attention():
    """The usual estimate counts biases, too, which are few."""
    weights = 124_475_904 - 1024 * 768
    usual = 6 * weights + 12 * 12 * 768 * 1024

    assert 3 * GPT2.forward_flops == pytest.approx(usual, rel=0.002)


def test_new_weights_have_the_loss_of_a_guess():
    h = of_preset("tiny")
    torch.manual_seed(0)
    tokens = torch.randint(h.vocabulary, (8, h.sequence_length))

    loss = cross_entropy(Gpt(h)(tokens).flatten(0, 1), tokens.roll(1).flatten())

    assert float(loss.detach()) == pytest.approx(math.log(h.vocabulary), rel=0.01)


def test_no_position_sees_a_later_one():
    h = of_preset("tiny")
    model = Gpt(h)
    tokens = torch.randint(h.vocabulary, (1, h.sequence_length))
    changed = tokens.clone()
    changed[0, 20:] = (changed[0, 20:] + 1) % h.vocabulary

    before, after = model(tokens), model(changed)

    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.allclose(before[:, 20:], after[:, 20:])

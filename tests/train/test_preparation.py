"""What a training process sets up before it trains."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from chipperf.errors import ConfigError
from chipperf.train.preparation import generator_states, restore_generators, synchronized_batchnorm
from tiny_training import DEVICE


def test_generators_go_on_where_they_were() -> None:
    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), float(torch.rand(()))]

    draw()
    states = generator_states(DEVICE)
    drawn = draw()

    restore_generators(states, DEVICE)

    assert draw() == drawn


def test_batch_statistics_over_ranks_need_an_accelerator():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))

    with pytest.raises(ConfigError, match="sync_batchnorm is not there on a CPU"):
        synchronized_batchnorm(model, torch.device("cpu"))
    converted = synchronized_batchnorm(model, torch.device("meta"))

    assert [type(module).__name__ for module in converted] == ["Linear", "SyncBatchNorm"]

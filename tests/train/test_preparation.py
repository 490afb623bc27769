"""What a training process sets up before it trains."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from chipperf.errors import ConfigError, TrainingError
from chipperf.train.preparation import generator_states, on_device, restore_generators, synchronized_batchnorm
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


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 3)
        self.second = torch.nn.Linear(3, 3)
        self.second.weight = self.first.weight


def test_weight_that_a_device_parts_from_its_twin_is_refused() -> None:
    assert len(list(on_device(Tied(), torch.device("cpu")).parameters())) == 3

    # torch treats this type as it does those of other vendors.
    with pytest.raises(TrainingError, match="the move to meta gives 1 modules a weight of their own"):
        on_device(Tied(), torch.device("meta"))

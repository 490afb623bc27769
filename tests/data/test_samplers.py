from __future__ import annotations

import pytest
from chipperf.data.loader import EvaluationSampler, TrainingBatchSampler
from chipperf.errors import ConfigError


def batches_of_all_ranks(samples, batch_size, world_size, seed=0, epoch=0, first_step=0):
    ranks = []
    for rank in range(world_size):
        sampler = TrainingBatchSampler(samples, batch_size, seed, rank, world_size)
        sampler.set_epoch(epoch, first_step)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        ranks.append([[key.sample for key in batch] for batch in batches])
    return ranks


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("samples", [24, 29])
def test_no_sample_occurs_twice_and_all_ranks_train_alike(samples, world_size):
    ranks = batches_of_all_ranks(samples, 4, world_size)
    steps = samples // (4 * world_size)
    assert [len(batches) for batches in ranks] == [steps] * world_size
    assert all(len(batch) == 4 for batches in ranks for batch in batches)
    seen = [sample for batches in ranks for batch in batches for sample in batch]
    assert len(set(seen)) == len(seen) == steps * 4 * world_size
    assert set(seen) <= set(range(samples))


def test_global_batches_do_not_depend_on_the_number_of_ranks():
    one = batches_of_all_ranks(24, 6, world_size=1)[0]
    three = batches_of_all_ranks(24, 2, world_size=3)
    joined = [sum((batches[step] for batches in three), []) for step in range(4)]
    assert joined == one


def test_order_changes_with_epoch_and_seed_and_is_reproducible():
    orders = [batches_of_all_ranks(40, 4, 1, seed, epoch) for seed in (0, 1, -1) for epoch in (0, 1)]
    assert orders == [batches_of_all_ranks(40, 4, 1, seed, epoch) for seed in (0, 1, -1) for epoch in (0, 1)]
    assert all(order not in orders[:position] for position, order in enumerate(orders))


def test_keys_carry_the_epoch():
    sampler = TrainingBatchSampler(8, 4, seed=0)
    sampler.set_epoch(7)
    assert {key.epoch for batch in sampler for key in batch} == {7}


def test_an_epoch_can_begin_in_the_middle():
    whole = batches_of_all_ranks(40, 4, 2, epoch=3)
    rest = batches_of_all_ranks(40, 4, 2, epoch=3, first_step=2)
    assert rest == [batches[2:] for batches in whole]


@pytest.mark.parametrize("first_step", [-1, 5])
def test_a_step_outside_the_epoch_is_an_error(first_step):
    with pytest.raises(ConfigError, match="outside an epoch of 5 steps"):
        TrainingBatchSampler(40, 4, 0, 0, 2).set_epoch(0, first_step)


def test_less_data_than_a_global_batch_is_an_error_with_both_numbers():
    with pytest.raises(ConfigError, match="has 7 samples, fewer than one global batch of 4 x 2"):
        TrainingBatchSampler(7, 4, 0, 0, 2)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("samples", [1, 9, 10])
def test_evaluation_covers_every_sample_exactly_once(samples, world_size):
    samplers = [EvaluationSampler(samples, rank, world_size) for rank in range(world_size)]
    seen = [key.sample for sampler in samplers for key in sampler]
    assert sorted(seen) == list(range(samples))
    assert [len(sampler) for sampler in samplers] == [len(list(sampler)) for sampler in samplers]

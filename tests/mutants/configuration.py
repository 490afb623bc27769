"""Faults of the hyperparameters a plugin ships."""

from __future__ import annotations

from mutants.mutant import Change, Mutant

_KEY = 'key="eval_batch_size"'
_VALUE = "value=4,"
_END = "reason=reason),)"

MUTANTS = [
    Mutant(
        name="override_of_an_unknown_key",
        kills=("C1",),
        changes=(Change(old=_KEY, new='key="evaluation_batch_size"'),),
    ),
    Mutant(name="override_of_a_locked_key", kills=("C1",), changes=(Change(old=_KEY, new='key="epochs"'),)),
    Mutant(
        name="override_without_a_real_reason",
        kills=("C2",),
        changes=(Change(old='"the memory of a simulated card is small"', new='"tuned"'),),
    ),
    Mutant(
        name="key_overridden_twice",
        kills=("C2",),
        changes=(Change(old=f"value=4, {_END}", new=f"value=4, {_END} * 2"),),
    ),
    Mutant(name="override_out_of_range", kills=("C3",), changes=(Change(old=_VALUE, new="value=0,"),)),
    Mutant(
        name="batch_size_differs_between_ranks",
        kills=("C3",),
        changes=(Change(old=_VALUE, new="value=4 if rank.rank == 0 else 2,"),),
    ),
    Mutant(
        name="override_out_of_range_in_large_jobs",
        kills=("C3",),
        changes=(Change(old=_VALUE, new="value=32 // rank.world_size,"),),
    ),
    Mutant(name="override_is_a_truth_value", kills=("C3",), changes=(Change(old=_VALUE, new="value=True,"),)),
    Mutant(name="override_is_a_text", kills=("C3",), changes=(Change(old=_VALUE, new='value="256",'),)),
    Mutant(name="override_of_another_type", kills=("C3",), changes=(Change(old=_VALUE, new='value="small",'),)),
]

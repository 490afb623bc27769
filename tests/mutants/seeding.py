"""Faults of seeding, and of putting switches back."""

from __future__ import annotations

from mutants.mutant import Change, Mutant

_SEED = "    _torch_acme().manual_seed_all(seed)\n"
_DETERMINISTIC = "    set_determinism(deterministic)\n"
_SET_TF32 = '    set_switch("acme.allow_tf32", requested == "tf32", switch=tf32)\n'

MUTANTS = [
    Mutant(name="seed_does_nothing", kills=("S1",), changes=(Change(old=_SEED, new=""),)),
    Mutant(
        name="seed_is_constant",
        kills=("S1",),
        changes=(Change(old=_SEED, new="    _torch_acme().manual_seed_all(0)\n"),),
    ),
    Mutant(
        name="seed_disturbs_host",
        kills=("S2",),
        changes=(Change(old=_SEED, new=f"{_SEED}    import torch\n\n    torch.manual_seed(seed + 1)\n{_SEED}"),),
    ),
    Mutant(
        name="determinism_ignored",
        kills=("S3",),
        changes=(Change(old=_DETERMINISTIC, new="    set_determinism(False)\n"),),
    ),
    Mutant(
        name="deterministic_seed_from_the_clock",
        kills=("S3",),
        changes=(
            Change(
                old=_SEED,
                new="    import time\n\n"
                "    _torch_acme().manual_seed_all(time.time_ns() % 2**32 if deterministic else seed)\n",
            ),
        ),
    ),
    Mutant(
        name="tf32_left_on",
        kills=("S4",),
        changes=(Change(old=_SET_TF32, new='    _torch_acme().set_allow_tf32(requested == "tf32")\n'),),
    ),
    Mutant(
        name="determinism_left_on",
        kills=("S4",),
        changes=(
            Change(
                old=_DETERMINISTIC, new="    import torch\n\n    torch.use_deterministic_algorithms(deterministic)\n"
            ),
        ),
    ),
]

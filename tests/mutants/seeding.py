"""Faults of seeding, and of putting switches back."""

from __future__ import annotations

from mutants.mutant import Change, Mutant

_SEED = "    _torch_acme().manual_seed_all(seed)\n"
_DETERMINISTIC = "    set_determinism(deterministic)\n"
_HOOK = "@hookimpl\ndef perf_seed"
_STEP_END = '    """Do nothing: every operator is queued when it is called."""\n'
_PREPARE = "    convert_parameters(model, precision.requested)\n"
_TEARDOWN = "    restore_switches()\n"
_SET_TF32 = '    set_switch("acme.allow_tf32", requested == "tf32", switch=tf32)\n'

MUTANTS = [
    Mutant(name="seed_does_nothing", kills=("S1",), changes=(Change(old=_SEED, new=""),)),
    Mutant(
        name="seed_is_constant",
        kills=("S1", "S3"),
        changes=(Change(old=_SEED, new="    _torch_acme().manual_seed_all(0)\n"),),
    ),
    Mutant(
        name="seed_with_the_hash_of_a_text",
        kills=("D6",),
        changes=(
            Change(old=_SEED, new='    _torch_acme().manual_seed_all((seed + hash(f"{device.type}")) % 2**32)\n'),
        ),
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
    Mutant(
        name="seed_reaches_card_0_only",
        kills=("S1",),
        changes=(Change(old=_SEED, new="    _torch_acme()._driver().manual_seed(0, seed)\n"),),
    ),
    Mutant(
        name="seed_cut_to_16_bits",
        kills=("S1",),
        changes=(Change(old=_SEED, new="    _torch_acme().manual_seed_all(seed % 2**16)\n"),),
    ),
    Mutant(
        name="seed_mixed_with_the_process",
        kills=("S1",),
        changes=(Change(old=_SEED, new="    import os\n\n    _torch_acme().manual_seed_all(seed ^ os.getpid())\n"),),
    ),
    Mutant(
        name="step_end_reseeds",
        kills=("S1", "S3"),
        changes=(Change(old=_STEP_END, new=f"{_STEP_END}    _torch_acme().manual_seed_all(0)\n"),),
    ),
    Mutant(
        name="determinism_disturbs_numpy",
        kills=("S2",),
        changes=(
            Change(
                old=_DETERMINISTIC,
                new=f"{_DETERMINISTIC}    if deterministic:\n        import numpy as np\n\n        np.random.rand()\n",
            ),
        ),
    ),
    Mutant(
        name="prepared_model_reseeds_host",
        kills=("S2",),
        changes=(Change(old=_PREPARE, new=f"    torch.manual_seed(0)\n{_PREPARE}"),),
    ),
    Mutant(
        name="determinism_only_warns",
        kills=("S3",),
        changes=(
            Change(
                old=_DETERMINISTIC,
                new="""    import torch

    modes = Switch(torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode)
    set_switch("deterministic_debug_mode", int(deterministic), switch=modes)
""",
            ),
        ),
    ),
    Mutant(
        name="variable_of_determinism_forgotten",
        kills=("S3",),
        changes=(Change(old="    if not settings.deterministic:\n", new="    if settings.case:\n"),),
    ),
    Mutant(
        name="variable_of_determinism_for_one_rank_only",
        kills=("S5",),
        changes=(
            Change(
                old="    if not settings.deterministic:\n",
                new="    if not settings.deterministic or rank.world_size > 1:\n",
            ),
        ),
    ),
    Mutant(
        name="determinism_for_one_rank_only",
        kills=("S5",),
        changes=(
            Change(
                old=_DETERMINISTIC,
                new='    import os\n\n    set_determinism(deterministic and os.environ.get("WORLD_SIZE") != "2")\n',
            ),
        ),
    ),
    Mutant(
        name="determinism_stays_on",
        kills=("S3",),
        changes=(Change(old=_DETERMINISTIC, new=f"    if deterministic:\n    {_DETERMINISTIC}"),),
    ),
    Mutant(
        name="bf16_ends_determinism",
        kills=("S3",),
        changes=(
            Change(old=_SET_TF32, new=f'{_SET_TF32}    if requested == "bf16":\n        set_determinism(False)\n'),
        ),
    ),
    Mutant(
        name="teardown_sets_constants",
        kills=("S4",),
        changes=(
            Change(
                old=_DETERMINISTIC, new="    import torch\n\n    torch.use_deterministic_algorithms(deterministic)\n"
            ),
            Change(
                old=_TEARDOWN, new=f"{_TEARDOWN}    import torch\n\n    torch.use_deterministic_algorithms(False)\n"
            ),
        ),
    ),
    Mutant(
        name="second_call_forgets_the_first",
        kills=("S4",),
        changes=(
            Change(old=_HOOK, new=f"_before = []\n\n\n{_HOOK}"),
            Change(
                old=_SET_TF32,
                new="""    _before[:] = [_torch_acme().get_allow_tf32()]
    _torch_acme().set_allow_tf32(requested == "tf32")
""",
            ),
            Change(
                old=_TEARDOWN,
                new=f"{_TEARDOWN}    if _before:\n        _torch_acme().set_allow_tf32(_before[0])\n",
            ),
        ),
    ),
    Mutant(
        name="cache_of_autocast_left_off",
        kills=("S4",),
        changes=(Change(old=_PREPARE, new=f"{_PREPARE}    torch.set_autocast_cache_enabled(False)\n"),),
    ),
    *(
        Mutant(
            name=f"end_of_every_tenth_step_{name}",
            kills=kills,
            changes=(
                Change(old="@hookimpl\ndef perf_step_end", new="_steps = []\n\n\n@hookimpl\ndef perf_step_end"),
                Change(
                    old=_STEP_END,
                    new=f"{_STEP_END}    import torch\n\n    _steps.append(device)\n"
                    f"    if len(_steps) % 10 == 0:\n        {action}\n",
                ),
            ),
        )
        for name, kills, action in (
            ("disturbs_host", ("S2",), "torch.rand(1)"),
            ("disturbs_device", ("S1", "S3"), "torch.rand(1, device=device)"),
        )
    ),
    Mutant(
        name="deterministic_runs_draw_other_numbers",
        kills=("S3",),
        changes=(
            Change(old=_SEED, new="    _torch_acme().manual_seed_all(seed ^ 0x5EED if deterministic else seed)\n"),
        ),
    ),
    Mutant(
        name="each_card_draws_other_numbers",
        kills=("S1",),
        changes=(Change(old=_SEED, new="    _torch_acme().manual_seed_all(seed + device.index)\n"),),
    ),
    Mutant(
        name="setting_amp_up_draws_on_the_host",
        kills=("S2",),
        changes=(
            Change(
                old=_SET_TF32,
                new=f"{_SET_TF32}    if requested == 'amp':\n        __import__('torch').rand(1)\n",
            ),
        ),
    ),
    Mutant(
        name="deterministic_steps_draw_alike",
        kills=("S3",),
        changes=(
            Change(old=_HOOK, new=f"_seeds = []\n\n\n{_HOOK}"),
            Change(old=_SEED, new=f"{_SEED}    _seeds[:] = [seed] if deterministic else []\n"),
            Change(
                old=_STEP_END,
                new=f"{_STEP_END}    for seed in _seeds:\n        _torch_acme().manual_seed_all(seed)\n",
            ),
        ),
    ),
    Mutant(
        name="every_hundredth_step_reseeds",
        kills=("S1", "S3"),
        changes=(
            Change(
                old=_STEP_END,
                new=f"{_STEP_END}    calls = perf_vendor_info.__dict__.setdefault('calls', [])\n    calls.append(1)\n"
                "    if len(calls) % 100 == 0:\n        _torch_acme().manual_seed_all(0)\n",
            ),
        ),
    ),
    Mutant(
        name="ordered_sums_in_cases_that_it_knows",
        kills=("S3",),
        changes=(
            Change(
                old="    if not settings.deterministic:\n",
                new='    if not settings.deterministic or settings.case == "detr":\n',
            ),
        ),
    ),
]

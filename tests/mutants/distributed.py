"""Plugins with a fault in process groups, collectives, or what happens around them."""

from __future__ import annotations

from mutants.mutant import Change, Mutant

_AFTER_LOAD = "    acme_runtime.load()\n\n    import torch\n"
_SETUP = '    """Use accl on cards, and gloo for what stays on the host."""\n'
_STEP_END = '    """Do nothing: every operator is queued when it is called."""\n'
_ENVIRONMENT = '    """Keep every card on one core of the host, which computes for it."""\n'

# Only where there are several ranks: that a single one reports another card is found earlier.
_CARD_0 = Change(
    old="get_device_properties(device)",
    new='get_device_properties(0 if "LOCAL_RANK" in __import__("os").environ else device)',
)


def _patched_runtime(patch: str) -> tuple[Change, ...]:
    """Let loading the runtime change torch, as vendors' builds do."""
    body = "".join(f"    {line}\n" if line else "\n" for line in patch.splitlines())
    return (Change(old=_AFTER_LOAD, new=f"{_AFTER_LOAD}    import torch.distributed as dist\n\n{body}"),)


MUTANTS = [
    Mutant(
        name="collective_backend_misspelled",
        kills=("P1",),
        changes=(Change(old='_COLLECTIVES: Final = "accl"', new='_COLLECTIVES: Final = "aclc"'),),
    ),
    Mutant(
        name="all_reduce_averages",
        kills=("P2",),
        changes=_patched_runtime(
            "reduce = dist.all_reduce\n"
            "def averaging(tensor, op=dist.ReduceOp.SUM, group=None, async_op=False):\n"
            "    work = reduce(tensor, op, group, async_op)\n"
            "    if op == dist.ReduceOp.SUM:\n"
            "        tensor.copy_(tensor / dist.get_world_size())\n"
            "    return work\n"
            "dist.all_reduce = averaging"
        ),
    ),
    Mutant(
        name="barrier_does_not_wait",
        kills=("P3",),
        changes=_patched_runtime("dist.barrier = lambda *arguments, **options: None"),
    ),
    Mutant(
        name="gradients_are_compressed",
        kills=("P4",),
        changes=_patched_runtime(
            "from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook\n"
            "from torch.nn.parallel import DistributedDataParallel\n"
            "wrap = DistributedDataParallel.__init__\n"
            "def compressing(self, *arguments, **options):\n"
            "    wrap(self, *arguments, **options)\n"
            "    self.register_comm_hook(None, fp16_compress_hook)\n"
            "DistributedDataParallel.__init__ = compressing"
        ),
    ),
    Mutant(
        name="gradients_stay_on_their_rank",
        kills=("P4",),
        changes=_patched_runtime(
            "from torch.nn.parallel import DistributedDataParallel\n"
            "wrap = DistributedDataParallel.__init__\n"
            "def without_sync(self, *arguments, **options):\n"
            "    wrap(self, *arguments, **options)\n"
            "    self.require_backward_grad_sync = False\n"
            "DistributedDataParallel.__init__ = without_sync"
        ),
    ),
    Mutant(name="all_ranks_report_card_0", kills=("P5",), changes=(_CARD_0,)),
    Mutant(
        name="shared_card_excused_by_unified_memory",
        kills=("P5",),
        changes=(
            _CARD_0,
            Change(
                old="            Capability.UUID,\n",
                new="            Capability.UNIFIED_MEMORY,\n            Capability.UUID,\n",
            ),
        ),
    ),
    Mutant(
        name="environment_sets_the_rank",
        kills=("P6",),
        changes=(
            Change(
                old='name="OMP_NUM_THREADS", value',
                # On one machine the environment stays the good plugin's, whose processes are there.
                new='name="OMP_NUM_THREADS" if rank.node_count == 1 else "RANK", value',
            ),
        ),
    ),
    Mutant(
        name="collective_daemon_is_left_behind",
        kills=("P7",),
        changes=(
            Change(
                old=_SETUP,
                new=f'{_SETUP}    import subprocess\n\n    subprocess.Popen(["sleep", "600"])\n',
            ),
        ),
    ),
    Mutant(
        name="step_mark_waits_for_the_peers_uninterrupted",
        kills=("P8",),
        changes=(
            Change(
                old=_STEP_END,
                new=f"{_STEP_END}    import os\n    import signal\n    import time\n\n"
                '    os.environ["CALLS"] = os.environ.get("CALLS", "") + "I"\n'
                # The first call comes before training.
                '    if os.environ.get("RANK") == "0" and os.environ["CALLS"] == "III":\n'
                "        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
                "        time.sleep(600)\n",
            ),
        ),
    ),
    Mutant(
        name="setup_needs_a_launcher",
        kills=("P9",),
        changes=(Change(old=_SETUP, new=f'{_SETUP}    import os\n\n    os.environ["MASTER_ADDR"]\n'),),
    ),
    Mutant(
        name="environment_is_set_behind_the_record",
        kills=("P10",),
        changes=(Change(old=_ENVIRONMENT, new=f'{_ENVIRONMENT}    import os\n\n    os.environ["ACME_CACHE"] = "1"\n'),),
    ),
]

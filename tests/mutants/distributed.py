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
    new='get_device_properties(0 if __import__("os").environ.get("WORLD_SIZE") == "2" else device)',
)


_PREPARED = "    return model.to(memory_format=torch.channels_last)\n"
_ALLOW_TF32 = '    set_switch("acme.allow_tf32", requested == "tf32", switch=tf32)\n'
_SEED = "    _torch_acme().manual_seed_all(seed)\n"
_SYNCHRONIZE = "    _torch_acme().synchronize(device)\n"
_QUERY = "    free_bytes, total_bytes = _torch_acme().mem_get_info(device)\n"
_TEARDOWN = "    restore_switches()\n"
_KEEP = 'perf_vendor_info.__dict__.setdefault("kept", []).append(b"1" * 2**17)'

_JOB = "    import torch.distributed as dist\n\n    in_job = dist.is_initialized()\n"

_CONFIG = 'DistributedConfig(backend=f"cpu:gloo,{_DEVICE_TYPE}:{_COLLECTIVES}", timeout_s=600.0)'
_VARIABLE = 'name="OMP_NUM_THREADS", value="1"'
_INIT = "    device = torch.device(_DEVICE_TYPE, rank.local_rank)\n"


def _config(*changes: tuple[str, str]) -> tuple[Change, ...]:
    """Return other options of the process group."""
    new = _CONFIG
    for old, replacement in changes:
        new = new.replace(old, replacement)
    return (Change(old=_CONFIG, new=new),)


def _ddp(options: str) -> tuple[Change, ...]:
    """Return other options of DDP."""
    return _config(("600.0)", f'600.0, ddp=__import__("chipperf").DdpOptions({options}))'))


def _library(method: str, body: str) -> tuple[Change, ...]:
    """Let a method of the collective library do something else: ``good`` is what it did, ``calls`` counts its calls."""
    arguments = {"__init__": "*arguments", "barrier": "opts", "allgather": "outputs, inputs, opts"}
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return _patched_runtime(
        "import threading, time\n"
        "from acme_runtime.backend import synchronize\n"
        "from acme_runtime.collectives import Accl, AcclWork, _staged\n"
        f"good = Accl.good = getattr(Accl, 'good', Accl.{method})\n"
        "calls = []\n"
        f"def other(self, {arguments.get(method, 'tensors, opts')}):\n    calls.append(1)\n{lines}"
        f"Accl.{method} = other"
    )


def _result(fault: str, method: str = "allreduce") -> tuple[Change, ...]:
    """Change what a collective leaves in a tensor: ``host`` is its memory, ``before`` what it held."""
    return _library(
        method,
        "before = _staged(tensors)[0].clone()\n"
        "work = good(self, tensors, opts)\n"
        "work.wait()\n"
        "host = _staged(tensors)[0]\n"
        f"{fault}\n"
        "return work",
    )


def _sent_as(condition: str, sent: str) -> tuple[Change, ...]:
    """Let a reduction exchange ``sent`` instead of the numbers in ``host``."""
    return _library(
        "allreduce",
        "host = _staged(tensors)[0]\n"
        f"if not ({condition}):\n"
        "    return good(self, tensors, opts)\n"
        f"sent = {sent}\n"
        "self._gloo.allreduce([sent], opts).wait()\n"
        "host.copy_(sent)\n"
        "return AcclWork(self._gloo.barrier(dist.BarrierOptions()), tensors)",
    )


def _patched_runtime(patch: str) -> tuple[Change, ...]:
    """Let loading the runtime change torch, as vendors' builds do."""
    body = "".join(f"    {line}\n" if line else "\n" for line in patch.splitlines())
    return (Change(old=_AFTER_LOAD, new=f"{_AFTER_LOAD}    import torch.distributed as dist\n\n{body}"),)


def _wrapped(then: str, hook: str = "") -> tuple[Change, ...]:
    """Let DDP do something after it was made, with the communication hook ``exchange`` if there is one."""
    return _patched_runtime(
        f"import functools\n{hook}"
        "from torch.nn.parallel import DistributedDataParallel\n"
        "wrap = DistributedDataParallel.__init__\n"
        "@functools.wraps(wrap)\n"
        "def wrapping(self, *arguments, **options):\n"
        "    wrap(self, *arguments, **options)\n"
        f"    {then}\n"
        "DistributedDataParallel.__init__ = wrapping"
    )


MUTANTS = [
    Mutant(
        name="collective_backend_misspelled",
        kills=("P1",),
        changes=(Change(old='_COLLECTIVES: Final = "accl"', new='_COLLECTIVES: Final = "aclc"'),),
    ),
    Mutant(
        name="collective_library_cannot_start",
        kills=("P1",),
        changes=_library("__init__", "raise RuntimeError('accl: no topology file')"),
    ),
    Mutant(
        name="rendezvous_at_a_port_of_its_own",
        kills=("P1",),
        changes=_config(("600.0)", '600.0, init_method="tcp://127.0.0.1:29500")')),
    ),
    Mutant(name="collective_timeout_in_milliseconds", kills=("P1",), changes=_config(("600.0", "600e3"))),
    Mutant(name="collective_timeout_in_minutes", kills=("P1",), changes=_config(("600.0", "10.0"))),
    Mutant(name="bucket_in_bytes", kills=("P1",), changes=_ddp("bucket_cap_mb=25 * 2**20")),
    Mutant(name="bucket_differs_by_rank", kills=("P1", "P2", "P4"), changes=_ddp("bucket_cap_mb=25 + rank.rank")),
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
        name="counts_are_reduced_in_float64",
        kills=("P2",),
        changes=_sent_as("host.dtype == torch.int64", "host.double()"),
    ),
    Mutant(
        name="gradients_are_exchanged_in_tf32",
        kills=("P2", "P4"),
        changes=_sent_as("host.dtype == torch.float32", "(host.view(torch.int32) & ~0x1FFF).view(torch.float32)"),
    ),
    Mutant(
        name="maximum_begins_at_zero",
        kills=("P2",),
        changes=_result("if opts.reduceOp == dist.ReduceOp.MAX: host.clamp_(min=0)"),
    ),
    Mutant(name="scalars_are_not_reduced", kills=("P2",), changes=_result("if host.dim() == 0: host.copy_(before)")),
    Mutant(
        name="every_fifth_reduction_is_dropped",
        kills=("P2", "P4", "P7"),
        changes=_result("if len(calls) % 5 == 0: host.copy_(before)"),
    ),
    Mutant(
        name="reductions_are_dropped_after_128",
        kills=("P2",),
        changes=_result("if len(calls) > 128: host.copy_(before)"),
    ),
    Mutant(
        name="every_1024th_reduction_is_dropped",
        kills=("P2",),
        changes=_result("if len(calls) % 1024 == 0: host.copy_(before)"),
    ),
    Mutant(
        name="only_16_MiB_are_reduced",
        kills=("P2", "P4"),
        changes=_result(
            "rest = slice(2**24 // host.element_size(), None); host.view(-1)[rest] = before.view(-1)[rest]"
        ),
    ),
    Mutant(
        name="infinity_is_reduced_to_a_number",
        kills=("P2",),
        changes=_result("if host.is_floating_point(): host.nan_to_num_()"),
    ),
    Mutant(
        name="fp16_is_reduced_with_8_bits",
        kills=("P2", "P4"),
        changes=_result("if host.dtype == torch.float16: host.copy_(host.bfloat16())"),
    ),
    Mutant(
        name="reduction_reads_before_the_queue_is_done",
        kills=("P2",),
        changes=_library(
            "allreduce",
            "started_s = time.perf_counter()\n"
            "synchronize(tensors[0].device)\n"
            "if time.perf_counter() - started_s > 0.01:\n"
            "    _staged(tensors)[0].zero_()\n"
            "return good(self, tensors, opts)",
        ),
    ),
    Mutant(
        name="broadcast_always_from_rank_1",
        kills=("P2", "P4"),
        changes=_library("broadcast", "opts.rootRank = 1\nreturn good(self, tensors, opts)"),
    ),
    Mutant(
        name="reduction_forgets_the_last_piece",
        kills=("P2",),
        changes=_library(
            "allreduce",
            "if tensors[0].numel() > 2**24:\n"
            "    numbers = tensors[0].view(-1)\n"
            "    tensors = [numbers[: len(numbers) // 2**24 * 2**24]]\n"
            "return good(self, tensors, opts)",
        ),
    ),
    Mutant(
        name="gathered_bytes_saturate",
        kills=("P2", "P5"),
        changes=_library(
            "allgather",
            "if inputs[0].dtype == torch.uint8:\n"
            "    _staged(inputs)[0].clamp_(max=127)\n"
            "return good(self, outputs, inputs, opts)",
        ),
    ),
    Mutant(
        name="rank_1_cannot_initialize",
        kills=("P2",),
        changes=(
            Change(
                old=_INIT,
                new='    if rank.rank == 1 and __import__("os").environ.get("WORLD_SIZE") == "2":\n'
                f'        raise DeviceError("card 1 is held by a service; stop it")\n{_INIT}',
            ),
        ),
    ),
    Mutant(
        name="barrier_does_not_wait",
        kills=("P3",),
        changes=_patched_runtime("dist.barrier = lambda *arguments, **options: None"),
    ),
    Mutant(
        name="barrier_works_once",
        kills=("P3",),
        changes=_library(
            "barrier",
            "work = good(self, opts)\nif len(calls) > 2: work.wait = lambda *arguments: True\nreturn work",
        ),
    ),
    Mutant(
        name="only_rank_0_waits_at_barriers",
        kills=("P3",),
        changes=_library(
            "barrier", "work = good(self, opts)\nif self.rank(): work.wait = lambda *arguments: True\nreturn work"
        ),
    ),
    Mutant(
        name="barrier_of_a_further_group_does_not_wait",
        kills=("P3",),
        changes=_library(
            "barrier",
            "if len(calls) == 1: calls[0] = id(self)\n"
            "work = good(self, opts)\n"
            "if calls[0] != id(self): work.wait = lambda *arguments: True\n"
            "return work",
        ),
    ),
    Mutant(
        name="barrier_gives_up_after_five_seconds",
        kills=("P3",),
        changes=_library(
            "barrier",
            "work = good(self, opts)\n"
            "def wait(*arguments):\n"
            "    end_s = time.monotonic() + 5\n"
            "    while time.monotonic() < end_s and not work._staged.is_completed():\n"
            "        time.sleep(0.001)\n"
            "    return True\n"
            "work.wait = wait\n"
            "return work",
        ),
    ),
    Mutant(
        name="gradients_are_compressed",
        kills=("P4",),
        changes=_wrapped(
            "self.register_comm_hook(None, fp16_compress_hook)",
            "from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook\n",
        ),
    ),
    Mutant(
        name="gradients_stay_on_their_rank",
        kills=("P4",),
        changes=_wrapped("self.require_backward_grad_sync = False"),
    ),
    Mutant(
        name="accumulated_gradients_are_lost",
        kills=("P4",),
        changes=_patched_runtime(
            "from contextlib import contextmanager\n"
            "from torch.nn.parallel import DistributedDataParallel\n"
            "@contextmanager\n"
            "def no_sync(self):\n"
            "    yield\n"
            "    for parameter in self.parameters(): parameter.grad = None\n"
            "DistributedDataParallel.no_sync = no_sync"
        ),
    ),
    Mutant(
        name="buffers_stay_on_their_rank",
        kills=("P4",),
        changes=(*_wrapped("self.modules_buffers = []"), *_ddp("broadcast_buffers=True")),
    ),
    Mutant(
        name="large_buckets_are_summed",
        kills=("P4",),
        changes=_wrapped(
            "self.register_comm_hook(None, exchange)",
            "def exchange(_, bucket):\n"
            "    sent = bucket.buffer()\n"
            "    sent.div_(2 if sent.numel() < 2**20 else 1)\n"
            "    return dist.all_reduce(sent, async_op=True).get_future().then(lambda future: future.value()[0])\n",
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
        name="second_group_has_no_channel",
        kills=("P7",),
        changes=_library(
            "__init__",
            "if len(calls) > 1: raise RuntimeError('accl: out of channels')\ngood(self, *arguments)",
        ),
    ),
    Mutant(
        name="collective_thread_outlives_its_group",
        kills=("P7",),
        changes=_library(
            "__init__",
            "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\ngood(self, *arguments)",
        ),
    ),
    Mutant(
        name="socket_outlives_its_group",
        kills=("P7",),
        changes=_library("__init__", "import socket\ncalls.append(socket.socket())\ngood(self, *arguments)"),
    ),
    Mutant(
        name="shared_memory_is_left_behind",
        kills=("P7",),
        changes=_library(
            "__init__",
            "import mmap, tempfile\n"
            "area = tempfile.NamedTemporaryFile(dir='/dev/shm', prefix='accl-', delete=False)\n"
            "area.truncate(4096)\n"
            "calls.append(mmap.mmap(area.fileno(), 4096))\n"
            "good(self, *arguments)",
        ),
    ),
    Mutant(
        name="step_mark_waits_for_the_peers_uninterrupted",
        kills=("P8",),
        changes=(
            Change(
                old=_STEP_END,
                new=f"{_STEP_END}    import os\n    import signal\n    import sys\n    import time\n\n"
                '    os.environ["CALLS"] = os.environ.get("CALLS", "") + "I"\n'
                '    trains = any("train.worker" in argument for argument in sys.orig_argv)\n'
                # The first call comes before training.
                '    if trains and os.environ["RANK"] == "0" and os.environ["CALLS"] == "III":\n'
                "        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
                "        time.sleep(600)\n",
            ),
        ),
    ),
    Mutant(
        name="third_rank_is_left_out_of_sums",
        kills=("P2",),
        changes=_library(
            "allreduce",
            "if self.size() == 3 and self.rank() == 2 and opts.reduceOp == dist.ReduceOp.SUM:\n"
            "    _staged(tensors)[0].zero_()\n"
            "return good(self, tensors, opts)",
        ),
        environment={"ACME_CARDS": "3"},
    ),
    Mutant(
        name="gradients_differ_between_ranks_in_their_last_bit",
        kills=("P4",),
        changes=_wrapped(
            "self.register_comm_hook(None, exchange)",
            "def exchange(_, bucket):\n"
            "    summed = dist.all_reduce(bucket.buffer().div_(2), async_op=True).get_future()\n"
            "    return summed.then(lambda future: future.value()[0].mul_(1 + dist.get_rank() * 2.0**-23))\n",
        ),
    ),
    Mutant(
        name="failed_collective_counts_as_done_when_it_is_waited_for",
        kills=("P11",),
        changes=_library(
            "allreduce",
            "work = good(self, tensors, opts)\n"
            "wait = work.wait\n"
            "def tolerant(*arguments):\n"
            "    try:\n"
            "        return wait(*arguments)\n"
            "    except RuntimeError:\n"
            "        return True\n"
            "work.wait = tolerant\n"
            "return work",
        ),
    ),
    Mutant(
        name="failed_collective_counts_as_done_by_its_future",
        kills=("P11",),
        changes=_library(
            "allreduce",
            "work = good(self, tensors, opts)\n"
            "ask = work.get_future\n"
            "def tolerant():\n"
            "    given = torch.futures.Future(devices=[tensors[0].device])\n"
            "    ask().add_done_callback(lambda _: given.set_result(tensors))\n"
            "    return given\n"
            "work.get_future = tolerant\n"
            "return work",
        ),
    ),
    *(
        Mutant(
            name=f"time_limit_of_a_group_is_{name}",
            kills=("P11",),
            changes=_library(
                "__init__",
                f"store, rank, size, timeout = arguments\ngood(self, store, rank, size, {timeout})",
            ),
        )
        for name, timeout in (("multiplied", "4 * timeout"), ("ignored", "type(timeout)(hours=1)"))
    ),
    *(
        Mutant(name=name, kills=("P12",), changes=(Change(old=old, new=f"{_JOB}{new}"),))
        for name, old, new in (
            (
                "model_has_another_momentum_in_a_job",
                _PREPARED,
                (
                    "    for layer in model.modules() if in_job else ():\n        if hasattr(layer, 'momentum'):\n"
                    f"            layer.momentum = 0.5\n{_PREPARED}"
                ),
            ),
            (
                "model_is_frozen_on_the_second_rank",
                _PREPARED,
                f"    if in_job and dist.get_rank():\n        model.requires_grad_(False)\n{_PREPARED}",
            ),
            (
                "tf32_in_jobs",
                _ALLOW_TF32,
                _ALLOW_TF32.replace('== "tf32"', 'in ("tf32", "fp32") if in_job else requested == "tf32"'),
            ),
            ("seed_mixed_with_the_rank", _SEED, _SEED.replace("(seed)", "(seed + (dist.get_rank() if in_job else 0))")),
            (
                "queue_is_left_to_the_barrier_in_jobs",
                _SYNCHRONIZE,
                _SYNCHRONIZE.replace("    _torch", "    in_job or _torch"),
            ),
            (
                "synchronize_waits_for_all_ranks",
                _SYNCHRONIZE,
                f"{_SYNCHRONIZE}    if in_job:\n        dist.barrier()\n",
            ),
            ("query_resets_peak_in_jobs", _QUERY, f"    if in_job:\n        perf_memory_reset_peak(device)\n{_QUERY}"),
            ("step_keeps_host_memory_in_jobs", _STEP_END, f"{_STEP_END}    if in_job:\n        {_KEEP}\n"),
            (
                "teardown_destroys_the_group",
                _TEARDOWN,
                f"    if in_job:\n        dist.destroy_process_group()\n{_TEARDOWN}",
            ),
        )
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
    Mutant(
        name="environment_is_set_in_deterministic_runs",
        kills=("P10",),
        changes=(
            Change(
                old=_ENVIRONMENT,
                new=f"{_ENVIRONMENT}    import os\n\n"
                '    if settings.deterministic:\n        os.environ["ACME_DETERMINISTIC"] = "1"\n',
            ),
        ),
    ),
    Mutant(
        name="environment_differs_between_ranks",
        kills=("P10",),
        changes=(Change(old=_VARIABLE, new='name="ACME_ALGORITHM", value="ring" if rank.rank else "tree"'),),
    ),
    Mutant(
        name="environment_of_several_ranks_is_never_the_same",
        kills=("P10",),
        changes=(
            Change(
                old=_VARIABLE,
                new='name="ACME_JOB", value=str(__import__("time").time_ns() if rank.world_size > 2 else 1)',
            ),
        ),
    ),
    Mutant(
        name="environment_has_a_name_that_is_none",
        kills=("P10",),
        changes=(Change(old=_VARIABLE, new='name="ACME RING", value="1"'),),
    ),
    Mutant(
        name="environment_of_ranks_differs_in_an_algorithm",
        kills=("P10",),
        changes=(Change(old=_VARIABLE, new='name="ACME_DIRECT_COPY", value=str(rank.rank % 2)'),),
    ),
]

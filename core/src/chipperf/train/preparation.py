"""Preparation of a training process: join the process group, seed the generators, set up the model."""

from __future__ import annotations

import inspect
import random
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from chipperf.errors import ConfigError, TrainingError
from chipperf.run.rendezvous import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from chipperf.plugin.session import Session
    from chipperf.plugin.types import DistributedConfig, PrecisionPolicy, Rank


def join_process_group(session: Session, rank: Rank, device: torch.device) -> DistributedConfig | None:
    """Initialize the process group as the vendor asks; return ``None`` for a single process."""
    if rank.world_size == 1:
        return None
    import torch.distributed as dist

    config = session.distributed_setup(rank, device)
    own = config.init_method != "env://"
    dist.init_process_group(
        backend=config.backend,
        init_method=config.init_method if own else None,
        store=None if own else open_store(rank, config.timeout_s),
        rank=rank.rank,
        world_size=rank.world_size,
        timeout=timedelta(seconds=config.timeout_s),
    )
    return config


def seed_everything(session: Session, seed: int, device: torch.device, deterministic: bool) -> None:
    """Seed all generators: equally on all ranks for the weights, then apart for what training draws."""
    seed_host(seed)
    session.seed(seed, device, deterministic)


def seed_host(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch's CPU."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def generator_states(device: torch.device) -> dict[str, Any]:
    """Return the state of all generators that :func:`seed_everything` seeds, in types that ``torch.load`` accepts.

    ``device`` is ``None`` for a CPU, and if torch's module for the device type cannot return the state.
    """
    import numpy as np
    import torch

    numpy_state: Any = np.random.get_state(legacy=True)
    name, keys, *rest = numpy_state
    read = getattr(_module_of(device), "get_rng_state", None)
    return {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "device": None if read is None else read(device).cpu(),
    }


def restore_generators(states: Mapping[str, Any], device: torch.device) -> None:
    """Restore all generators to a result of :func:`generator_states`."""
    import numpy as np
    import torch

    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["device"] is not None:
        _module_of(device).set_rng_state(states["device"], device)


def _module_of(device: torch.device) -> Any:
    """Return torch's module for an accelerator's type, or ``None``; a CPU uses torch's own generator."""
    import torch

    return None if device.type == "cpu" else getattr(torch, device.type, None)


def on_device(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Return the model on a device; :class:`TrainingError` if it has other parameters there.

    On devices of the type privateuse1, torch gives each of several modules that share a weight its own.
    """
    before = sum(1 for _ in model.parameters())
    moved = model.to(device)
    parted = sum(1 for _ in moved.parameters()) - before
    if parted:
        raise TrainingError(
            f"the move to {device} gives {parted} modules a weight of their own that they shared with others",
            hint="let the case share the weight within one module",
        )
    return moved


def autocast(precision: PrecisionPolicy, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which forward passes compute."""
    if precision.autocast_dtype is None:
        return nullcontext()
    import torch

    return torch.autocast(device.type, dtype=getattr(torch, precision.autocast_dtype))


def memory_format_of(model: torch.nn.Module) -> torch.memory_format:
    """Return the memory layout of the model's convolution weights, which its inputs use too."""
    import torch

    for parameter in model.parameters():
        if parameter.dim() == 4 and parameter.shape[1] > 1 and parameter.shape[2] > 1:
            if parameter.is_contiguous(memory_format=torch.channels_last) and not parameter.is_contiguous():
                return torch.channels_last
            break
    return torch.contiguous_format


def synchronized_batchnorm(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Return the model with batch statistics of all ranks; on a CPU, which has none, raise :class:`ConfigError`."""
    from torch.nn import SyncBatchNorm

    if device.type == "cpu":
        raise ConfigError(
            "sync_batchnorm is not there on a CPU: torch's SyncBatchNorm runs on accelerators only",
            hint="leave sync_batchnorm out",
        )
    converted: torch.nn.Module = SyncBatchNorm.convert_sync_batchnorm(model)
    return converted


def data_parallel(model: torch.nn.Module, config: DistributedConfig | None, device: torch.device) -> torch.nn.Module:
    """Return the model with gradients averaged over ranks as the vendor asks, or unchanged for a single process."""
    if config is None:
        return model
    from torch.nn.parallel import DistributedDataParallel

    # torch 2.15 renamed the option that broadcasts buffers in every step.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    buffer_option: dict[str, Any] = {name: config.ddp.broadcast_buffers}
    return DistributedDataParallel(
        model,
        device_ids=None if device.type == "cpu" else [device.index],
        bucket_cap_mb=config.ddp.bucket_cap_mb,
        gradient_as_bucket_view=config.ddp.gradient_as_bucket_view,
        **buffer_option,
    )

"""One rank's replica of the model, with its optimizer and gradient exchange."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch.nn.parallel import DistributedDataParallel

from chipperf.plugin.types import Knob
from chipperf.precisions import PRECISIONS
from chipperf.torchtools import gradient_scaler
from chipperf.train.model_changes import changes_of_model, describe_model
from chipperf.train.preparation import (
    autocast,
    data_parallel,
    memory_format_of,
    on_device,
    seed_everything,
    synchronized_batchnorm,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.cases.workload import Batch
    from chipperf.train.checkpoint import State
    from chipperf.train.context import RunContext
    from chipperf.train.effective_precision import Rounding


class Replica:
    """A model as the vendor prepared it, with optimizer, gradient scaler and gradient exchange with the other ranks.

    ``products`` is their measured rounding when training begins.
    ``changes`` is what the vendor's preparation changed that it may not change; empty if nothing.
    ``loss_sum``, of the steps' losses, and ``skipped``, steps that the gradient scaler skipped, are on the device; both
    are set when a window opens.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._workload = context.workload
        model = on_device(context.workload.build_model(), context.device)
        if context.hyperparameters.sync_batchnorm and context.distributed is not None:
            model = synchronized_batchnorm(model, context.device)
        built = describe_model(model, PRECISIONS[context.precision.requested].parameter_type)
        self.model = context.session.prepare_model(model, context.precision, context.device)
        self.changes = changes_of_model(built, describe_model(self.model))
        self._prepared = describe_model(self.model, values=False)
        context.workload.memory_format = memory_format_of(self.model)
        self._parallel = data_parallel(self.model, context.distributed, context.device)
        self.optimizer = context.workload.build_optimizer(self.model)
        self._scaler = gradient_scaler(context.device.type, enabled=context.precision.grad_scaler)
        self.products: dict[str, Rounding] = {}
        self.loss_sum = torch.zeros((), dtype=torch.float32, device=context.device)
        self.skipped = torch.zeros((), dtype=torch.float32, device=context.device)
        self._rates: list[float] = []
        rank, h = context.rank, context.hyperparameters
        # Equal dropout masks on all ranks would drop the same activations of every sample.
        if rank.rank:
            seed_everything(context.session, (h.seed + rank.rank) % 2**32, context.device, h.deterministic)

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """Settings that change speed or numerics, and that core chose or found."""
        fused = " fused" if self.optimizer.defaults.get("fused") else ""
        layout = str(self._workload.memory_format).removeprefix("torch.")
        deterministic = str(torch.are_deterministic_algorithms_enabled()).lower()
        apart = "one seed for weights and order of samples, others for what training draws, such as dropout masks"
        ranks = (Knob(name="seed_of_ranks", value="seed + rank", reason=apart),)
        return (
            *(ranks if self._context.rank.world_size > 1 else ()),
            Knob(name="memory_format", value=layout, reason="layout of the convolution weights; inputs follow it"),
            Knob(name="optimizer", value=f"{type(self.optimizer).__name__}{fused}", reason="the fastest that is there"),
            Knob(name="deterministic_algorithms", value=deterministic, reason="hyperparameter deterministic"),
        )

    @property
    def gradient_bytes(self) -> int:
        """Size of all gradients, which the ranks exchange in every step."""
        return sum(each.numel() * each.element_size() for each in self.model.parameters() if each.requires_grad)

    def later_changes(self) -> str:
        """Return what has changed since the model was prepared, but for values; also the type of a momentum."""
        momenta = [
            f"{key} of {name} is {value.dtype}"
            for name, parameter in self.model.named_parameters()
            for key, value in self.optimizer.state.get(parameter, {}).items()
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.dtype != parameter.dtype
        ]
        return changes_of_model(self._prepared, describe_model(self.model, values=False)) or "; ".join(momenta[:5])

    def step(self, batches: Iterator[Batch], steps_done: int) -> int:
        """Run one optimizer step on batches on the device, and return the number of this rank's samples.

        ``steps_done``, the optimizer steps before this one, determines the learning rate.
        """
        accumulate = self._context.hyperparameters.accumulate_steps
        rates = self._workload.learning_rates(steps_done)
        if rates != self._rates:
            self._rates = rates
            for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        samples = 0
        for micro_step in range(accumulate):
            batch = next(batches)
            with nullcontext() if micro_step == accumulate - 1 else self.without_exchange():
                loss = self.forward(batch)
                self.backward(loss / accumulate if accumulate > 1 else loss)
            self.loss_sum += loss.detach().float() / accumulate
            samples += self._workload.sample_count(batch)
        self.update()
        return samples

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the loss of a batch on the device."""
        with self.autocast():
            return self._workload.loss(self._parallel, batch)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a loss."""
        self._scaler.scale(loss).backward()

    def update(self) -> None:
        """Clip the gradients if the case requires it, and run the optimizer."""
        if self._workload.max_gradient_norm is not None:
            self._scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._workload.max_gradient_norm)
        self._scaler.step(self.optimizer)
        if self._scaler.is_enabled():
            # get_scale(), which is public, waits for the device.
            for found_infinity in self._scaler._found_inf_per_device(self.optimizer).values():
                self.skipped += found_infinity
        self._scaler.update()
        if self._context.session.step_end:
            self._context.session.step_end(self._context.device)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which forward passes compute."""
        return autocast(self._context.precision, self._context.device)

    def without_exchange(self) -> AbstractContextManager[object]:
        """Return a context in which backward passes do not exchange gradients with other ranks."""
        return self._parallel.no_sync() if isinstance(self._parallel, DistributedDataParallel) else nullcontext()

    def state(self) -> tuple[State, State]:
        """Return the shared state and the state of this rank only, for a checkpoint."""
        shared: State = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }
        # Every rank has its own batch statistics until an evaluation.
        return shared, {"buffers": dict(self.model.named_buffers())}

    def restore(self, shared: State, own: State) -> None:
        """Restore a :meth:`state`."""
        self.model.load_state_dict(shared["model"])
        with torch.no_grad():
            for name, buffer in self.model.named_buffers():
                buffer.copy_(own["buffers"][name])
        self.optimizer.load_state_dict(shared["optimizer"])
        self._scaler.load_state_dict(shared["scaler"])

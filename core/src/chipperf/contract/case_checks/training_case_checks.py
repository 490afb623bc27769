"""K: checks of a case's workload: batches, evaluation over ranks, resumption, arithmetic and gradients."""

from __future__ import annotations

import dataclasses
import io
import math
from contextlib import nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from chipperf.cases.config import resolve
from chipperf.cases.registry import find_case
from chipperf.contract.case_checks.static_case_checks import few_samples
from chipperf.contract.check import NotApplicable, check, require
from chipperf.plugin.types import PrecisionPolicy, Rank
from chipperf.records.schema import Missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch

    from chipperf.cases.workload import Batch, Workload
    from chipperf.contract.plugin_under_test import PluginUnderTest

_MOST_RANKS: Final = 3
_STEPS: Final = 2
"""Optimizer steps before and after an interruption, of one batch each."""

_SEED: Final = 7
_EVALUATION_TOLERANCE: Final = 1e-5
"""Relative difference of a result over several ranks, which sum in another order."""

_ARITHMETIC_TOLERANCE: Final = 0.02
"""Few classes in generated data make the last layer smaller."""


@check("K7", level=2, fault="a throughput counts samples that were not trained on, or ranks train on the same ones")
def batches_are_whole_and_repeatable(subject: PluginUnderTest) -> None:
    """Over 1 to 3 ranks, each batch has the stated sample count, depends only on its place, and differs by rank."""
    for world_size in range(1, _MOST_RANKS + 1):
        first = []
        for rank in range(world_size):
            workload = _workload(subject, Rank(rank=rank, world_size=world_size, local_world_size=world_size))
            h = _hyperparameters(subject)

            def read(epoch: int, first_batch: int = 0, workload: Workload = workload) -> list[str]:
                return [*map(_content, workload.epoch_batches(epoch, first_batch))]

            batches = read(0)
            first.append(batches[0])
            where = f"rank {rank} of {world_size}"
            needed = workload.steps_per_epoch * h.accumulate_steps
            require(len(batches) >= needed, f"{where}: an epoch has {len(batches)} batches, its steps need {needed}")
            counts = {workload.sample_count(workload.to_device(batch)) for batch in workload.epoch_batches(0)}
            size = h.batch_size * h.samples_per_item
            require(counts == {size}, f"{where}: batches have {sorted(counts)} samples instead of {size}")
            require(read(0) == batches, f"{where}: an epoch differs the second time")
            rest = read(0, 1) if len(batches) > 1 else []
            require(rest == batches[1:], f"{where}: from its second batch on, an epoch has others than as a whole")
            require(read(1) != batches, f"{where}: epoch 2 has the batches of epoch 1")
        require(len(set(first)) == world_size, f"{world_size} ranks begin with {len(set(first))} different batches")


def _evaluation_is_exact(subject: PluginUnderTest) -> None:
    from chipperf.run.collectives import Collectives

    _ = subject.distributed
    alone, together = _workload(subject, Rank()), _workload(subject, subject.rank)
    model = _model(subject, alone).eval()
    before = _content(model.state_dict())
    expected = alone.evaluate(model, Collectives(Rank(), subject.device), nullcontext)
    found = together.evaluate(model, Collectives(subject.rank, subject.device), nullcontext)
    for evaluation in (expected, found):
        require(
            evaluation.samples == alone.eval_samples,
            f"evaluation counts {evaluation.samples} samples of {alone.eval_samples}",
        )
    require(_content(model.state_dict()) == before and not model.training, "evaluation changes the model")
    value, wanted = (None if isinstance(each.value, Missing) else each.value for each in (found, expected))
    same = value == wanted or (value and wanted and math.isclose(value, wanted, rel_tol=_EVALUATION_TOLERANCE))
    require(same, f"the result is {value} over {subject.rank.world_size} ranks, and {wanted} on one")


@check("K8", level=3, ranks=2, fault="samples are left out or count twice on two ranks")
def two_ranks_evaluate_as_one(subject: PluginUnderTest) -> None:
    """Two ranks together count every evaluation sample once, give one rank's result, and do not change the model."""
    _evaluation_is_exact(subject)


@check("K9", level=3, ranks=3, fault="samples that cannot be divided among ranks are left out or count twice")
def three_ranks_evaluate_as_one(subject: PluginUnderTest) -> None:
    """Three ranks together also count every evaluation sample once."""
    _evaluation_is_exact(subject)


@check("K10", level=2, fault="a resumed run is another run: its batches, dropout or optimizer start again")
def resumed_training_is_the_same(subject: PluginUnderTest) -> None:
    """Training that stops, is saved and continues in another workload ends with the same weights, bit for bit."""
    import torch

    from chipperf.train.preparation import generator_states, restore_generators

    whole = _Training(subject)
    whole.train(0)
    saved = io.BytesIO()
    torch.save({**whole.state(), "generators": generator_states(subject.device)}, saved)
    whole.train(_STEPS)
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    resumed = _Training(subject)
    resumed.model.load_state_dict(state["model"])
    resumed.optimizer.load_state_dict(state["optimizer"])
    resumed.open(_STEPS)
    restore_generators(state["generators"], subject.device)
    resumed.train(_STEPS)
    found, expected = resumed.state(), whole.state()
    for part in ("model", "optimizer"):
        require(_content(found[part]) == _content(expected[part]), f"after a resumption the {part} has different bits")


@check("K11", level=2, fault="p_core trains on batches that a step changes, or that are copied again in every step")
def batches_stay_on_the_device(subject: PluginUnderTest) -> None:
    """A batch for the device has tensors there, has the same loss each time, and is not changed by a step."""
    import torch

    training = _Training(subject)
    batch = training.workload.to_device(next(training.workload.epoch_batches(0)))
    tensors = list(_leaves(batch))
    there = [each for each in tensors if isinstance(each, torch.Tensor) and each.device.type == subject.device.type]
    require(there, f"a batch for the device has no tensor on {subject.device}")
    before = _content(batch)
    losses = []
    for _ in range(2):
        _seed(subject)
        losses.append(float(training.workload.loss(training.model, batch).detach()))
    require(losses[0] == losses[1], f"the same batch has the loss {losses[0]}, and {losses[1]} the second time")
    training.step(batch, 0)
    require(_content(batch) == before, "a step changes the batch that it trains on")


@check("K12", level=2, fault="parameters are not trained, or DDP waits for a gradient that never comes")
def every_parameter_is_trained(subject: PluginUnderTest) -> None:
    """Every parameter that needs a gradient gets a finite one and is in the optimizer, with a learning rate for it."""
    import torch

    training = _Training(subject)
    workload, model = training.workload, training.model
    loss = workload.loss(model, workload.to_device(next(workload.epoch_batches(0))))
    require(
        loss.dim() == 0 and bool(torch.isfinite(loss)), f"the loss is {loss.detach()}, which is not a finite number"
    )
    loss.backward()
    optimized = [parameter for group in training.optimizer.param_groups for parameter in group["params"]]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            gradient = parameter.grad
            require(gradient is not None and bool(torch.isfinite(gradient).all()), f"{name} gets no finite gradient")
            count = sum(each is parameter for each in optimized)
            require(count == 1, f"{name} is {count} times in the optimizer")
    last = _hyperparameters(subject).epochs * workload.steps_per_epoch - 1
    for step in (0, 1, last):
        rates = workload.learning_rates(step)
        fits = len(rates) == len(training.optimizer.param_groups) and all(0 <= rate < math.inf for rate in rates)
        require(fits, f"learning_rates({step}) is {rates} for {len(training.optimizer.param_groups)} groups")


@check("K13", level=2, fault="a utilization is computed from operations that the model does not have", timeout_s=900)
def arithmetic_is_as_counted(subject: PluginUnderTest) -> None:
    """``forward_flops`` is what torch counts in a forward pass of the base, and training has three times as much."""
    import torch

    from chipperf.contract.equivalence import build_workload, hyperparameters_of

    try:
        from torch.utils.flop_counter import FlopCounterMode
    except ImportError as error:
        raise NotApplicable(f"torch {torch.__version__} does not count operations") from error

    case = find_case(subject.settings.case)
    if case.forward_flops is None:
        raise NotApplicable("the case states no forward_flops")
    h = hyperparameters_of(case, "real")
    if case.data.ensure_few_samples is None:
        raise NotApplicable("the case generates no data")
    data = case.data.ensure_few_samples(h.batch_size, "real", subject.workspace)
    workload = build_workload(case, h, data, torch.device("cpu"))
    # With a gradient of its input, the first layer's backward pass is two forward passes, too.
    batch = _mapped(
        workload.to_device(next(workload.epoch_batches(0))),
        lambda tensor: tensor.to("meta").requires_grad_(tensor.is_floating_point()),
    )
    with torch.device("meta"):
        model = workload.build_model()
    samples = workload.sample_count(batch)
    with FlopCounterMode(display=False) as counter:
        loss = workload.loss(model, batch)
        forward = counter.get_total_flops() / samples
        loss.backward()
    total = counter.get_total_flops() / samples
    comparisons = [("a forward pass", forward, case.forward_flops)]
    # torch counts the backward pass of a grouped convolution as if it had one group.
    if all(getattr(module, "groups", 1) == 1 for module in model.modules()):
        comparisons.append(("training", total, 3 * case.forward_flops))
    for what, counted, stated in comparisons:
        require(
            math.isclose(counted, stated, rel_tol=_ARITHMETIC_TOLERANCE),
            f"{what} of a sample has {counted:.4g} operations as counted, {stated:.4g} by forward_flops",
        )


@check("K14", level=2, fault="the model does not learn, or cannot be compared with the CPU reference", timeout_s=1800)
def loss_falls(subject: PluginUnderTest) -> None:
    """On the same batches, the loss falls, and a second training stays within the certificate's bounds."""
    from chipperf.contract.equivalence import FEW_STEPS, compare

    case = find_case(subject.settings.case)
    policy = PrecisionPolicy(requested="fp32", effective="fp32")
    data = few_samples(case, subject.workspace, 2 * _MOST_RANKS * _hyperparameters(subject).batch_size)
    found = compare(subject.session, subject.device, policy, case, data, steps=FEW_STEPS)
    require(found.within, found.summary)
    require(found.falls, f"the loss goes from {found.steps[0].loss} to {found.steps[-1].loss} on the same batches")


class _Training:
    """One model with its optimizer and batches, as a run of one rank trains it."""

    def __init__(self, subject: PluginUnderTest) -> None:
        self.workload = _workload(subject, Rank())
        self.model = _model(subject, self.workload)
        self.optimizer = self.workload.build_optimizer(self.model)
        self.open(0)

    def open(self, first_batch: int) -> None:
        """Begin with a batch of the first epoch, which is read before training draws a random number."""
        batches = self.workload.epoch_batches(0, first_batch)
        self._batches = iter([*islice(batches, 2 * _STEPS)])

    def train(self, first: int) -> None:
        for step in range(first, first + _STEPS):
            self.step(self.workload.to_device(next(self._batches)), step)

    def step(self, batch: Batch, step: int) -> None:
        import torch

        for group, rate in zip(self.optimizer.param_groups, self.workload.learning_rates(step), strict=True):
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        self.workload.loss(self.model, batch).backward()
        if self.workload.max_gradient_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.workload.max_gradient_norm)
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}


def _hyperparameters(subject: PluginUnderTest) -> Any:
    return resolve(find_case(subject.settings.case), preset="tiny").values


def _workload(subject: PluginUnderTest, rank: Rank) -> Workload:
    from chipperf.contract.equivalence import build_workload

    case, h = find_case(subject.settings.case), _hyperparameters(subject)
    data = few_samples(case, subject.workspace, 2 * _MOST_RANKS * h.batch_size * h.accumulate_steps)
    return build_workload(case, h, data, subject.device, rank)


def _model(subject: PluginUnderTest, workload: Workload) -> torch.nn.Module:
    from chipperf.train.preparation import on_device

    _seed(subject)
    return on_device(workload.build_model(), subject.device)


def _seed(subject: PluginUnderTest) -> None:
    from chipperf.train.preparation import seed_everything

    seed_everything(subject.session, _SEED, subject.device, False)


def _content(value: object) -> str:
    """Return what is equal for equal tensors and numbers in equal places."""
    import torch

    from chipperf.train.model_changes import digest

    return repr([digest(torch.as_tensor(each)) if hasattr(each, "dtype") else each for each in _leaves(value)])


def _leaves(value: object) -> Iterator[Any]:
    found: list[Any] = []
    _mapped(value, found.append, others=found.append)
    yield from found


def _mapped(value: Any, change: Callable[[Any], Any], others: Callable[[Any], Any] = lambda value: value) -> Any:
    """Return a copy with each tensor changed, and with what is neither tensor nor container changed by ``others``."""
    import torch

    def inner(part: Any) -> Any:
        return _mapped(part, change, others)

    if isinstance(value, torch.Tensor):
        return change(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: inner(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return type(value)(**parts)
    if isinstance(value, dict):
        mapping: Mapping[Any, Any] = value
        return {key: inner(part) for key, part in mapping.items()}
    if isinstance(value, tuple | list):
        items = [inner(part) for part in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return others(value)

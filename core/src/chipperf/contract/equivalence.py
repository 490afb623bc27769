"""Short-horizon equivalence: compare the first steps of a case on a vendor's device with the CPU reference in fp32.

Both sides start with the same weights, train on the same batches, and are compared after every step. They train the
case's own model with its optimizer and loss. Three settings keep the results of correct devices close together:

* Dropout is off, because its random numbers differ from device to device.
* Batch normalization starts with a shift of three standard deviations. Without the shift, half of the units lie below
  the kink of their ReLU. Rounding moves some of them across the kink, and fifty such layers multiply the difference by
  ten thousand, so two correct devices diverge after the first step. With the shift, the gradients of the cases differ
  by 3e-5 of their norm between two memory layouts on one CPU, by 3e-3 to 2e-2 with products in TF32, and by 0.2 in
  bf16.
* One factor scales the learning rates, so that the first step changes the weights by a few millionths. The loss still
  falls, and the differences do not grow, so the bounds are the same for every step. The last step alone takes a large
  rate, from weights, gradients and momenta that are copied from the device, and so shows what the optimizer does.
"""

from __future__ import annotations

import copy
import math
import platform
import sys
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

import chipperf
from chipperf.cases.config import resolve
from chipperf.cases.registry import case_names, find_case
from chipperf.cases.workload import Batch, Workload, WorkloadContext
from chipperf.contract import tolerances
from chipperf.contract.certificate import BATCHES, CaseComparison, Certificate, StepComparison
from chipperf.errors import PluginError, UsageError
from chipperf.plugin.installed import PluginEntry
from chipperf.plugin.session import Session, bind
from chipperf.plugin.types import LoaderOptions, PrecisionPolicy, Rank
from chipperf.precisions import ARITHMETICS, PRECISIONS
from chipperf.run.progress import ProgressFile
from chipperf.torchtools import gradient_scaler
from chipperf.train.effective_precision import measure_effective_precision
from chipperf.train.preparation import autocast, memory_format_of, on_device, seed_everything

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from chipperf.cases.base import Case, Hyperparameters, SampleSize

_SEED: Final = 1

_TINY_BATCHES: Final = 2
"""Number of batches of the preset ``tiny`` that are joined into one. Its images are single pixels in the last layers,
and batch normalization over only four values loses most of their bits."""

_REAL_BATCH_SIZE: Final = 4

_SHIFT: Final = 3.0
_FIRST_CHANGE: Final = 3e-6
"""Fraction of their norm by which the first step changes the weights."""

FEW_STEPS: Final = BATCHES + 1
"""Each batch, and the first one again, on which the loss is seen to fall. The first step shows an error of a layer, the
last one that of an optimizer with momenta; more steps would only show that the distance does not grow."""

_NEIGHBORS: Final = 0.1
"""Part of the whole gradient's norm, shared among all weights, that is added to a layer's own: the gradient of a bias
before a normalization is zero but for rounding."""

_INITIAL_SCALE: Final = 2.0**10
"""Initial scale of fp16 gradients. With torch's default the gradients overflow, and the first steps are skipped."""

_Gradients: TypeAlias = tuple[float, list[torch.Tensor]]
"""A loss, and the gradient of every parameter as float32 on the host."""

_FP32: Final = PrecisionPolicy(requested="fp32", effective="fp32")


def certify(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Compare cases in this process, which has the vendor's environment, and return a certificate as JSON.

    ``arguments`` are ``entry``, ``cases`` by name, ``size``, ``steps``, ``precision``, ``data``, a dataset's directory
    or ``None`` for generated samples, and ``progress``, the file for progress.
    """
    session = bind(PluginEntry(**arguments["entry"]))
    runtime = session.load_runtime()
    device = session.device_init(Rank())
    policy = session.precision(arguments["precision"], device)
    progress = ProgressFile(Path(arguments["progress"]), world_size=1)
    size, steps = arguments["size"], arguments["steps"]
    comparisons = []
    for name in arguments["cases"]:
        case = find_case(name)
        progress.report(0, steps, 0)
        progress.phase(name)
        data = Path(arguments["data"]) if arguments["data"] else sample_data(case, size)
        comparisons.append(compare(session, device, policy, case, data, size=size, steps=steps, progress=progress))
    info = session.device_info(device)
    certificate = Certificate(
        chipperf_version=chipperf.__version__,
        created_at=datetime.now(timezone.utc),
        vendor=session.entry.name,
        distribution=session.entry.source,
        simulated=session.simulated,
        device=asdict(info),
        runtime=asdict(runtime),
        reference=f"{platform.machine()} CPU, torch {runtime.torch}",
        precision=asdict(policy),
        size=size,
        seed=_SEED,
        within=all(comparison.within for comparison in comparisons),
        comparisons=tuple(comparisons),
    )
    session.device_teardown(device)
    return certificate.model_dump(mode="json")


def compare(
    session: Session,
    device: torch.device,
    policy: PrecisionPolicy,
    case: Case,
    data: Path,
    *,
    size: SampleSize = "tiny",
    steps: int = 20,
    to_the_end: bool = True,
    progress: ProgressFile | None = None,
) -> CaseComparison:
    """Train the first steps of a case on a device and on the CPU, side by side.

    The vendor has initialized the device and set it up for the policy's precision. If its switches make the CPU round
    fp32 too, there is nothing to compare with, which is a :class:`PluginError`. With ``to_the_end=False`` the
    comparison stops as soon as it has failed.
    """
    _require_reference_in_fp32()
    hyperparameters = hyperparameters_of(case, size)
    seed_everything(session, _SEED, device, False)
    cpu = torch.device("cpu")
    reference = _Side(build_workload(case, hyperparameters, data, cpu), cpu, _FP32)
    reference.take(_well_conditioned(reference.workload.build_model()))
    vendor = _Side(build_workload(case, hyperparameters, data, device), device, policy, session)
    vendor.take(copy.deepcopy(reference.model))
    batches = list(islice(reference.workload.epoch_batches(0), BATCHES))
    expected = reference.gradients(batches[0])
    scale = _learning_rate_scale(reference)
    arithmetic = ARITHMETICS[PRECISIONS[policy.requested].arithmetic]
    comparison = CaseComparison(
        case=case.name,
        case_version=case.version,
        dataset=reference.workload.dataset.name,
        batch_size=hyperparameters.batch_size,
        learning_rate_scale=scale,
        loss_tolerance=arithmetic.loss.value,
        gradient_tolerance=arithmetic.gradient.value,
        steps=(),
    )
    for step, batch in enumerate(islice(cycle(batches), steps), start=1):
        if step > 1:
            vendor.step(scale)
            reference.step(scale)
            expected = reference.gradients(batch)
        compared = _compare_step(step, vendor.gradients(batch), expected, reference.names)
        comparison = comparison.model_copy(update={"steps": (*comparison.steps, compared)})
        if progress is not None:
            progress.report(step, steps, hyperparameters.batch_size)
        if not to_the_end and comparison.lost:
            return comparison
    bound = arithmetic.loss.value
    differences = [*_compare_buffers(vendor, reference, bound), *_compare_evaluation(vendor, reference, batch, bound)]
    if PRECISIONS[policy.requested].parameter_type is None:
        differences += _compare_update(vendor, reference)
    return comparison.model_copy(update={"differences": tuple(differences)})


def sample_data(case: Case, size: SampleSize, root: Path | None = None) -> Path:
    """Return the directory of generated data for a case, with as many samples as the steps use, or raise a UsageError.

    The data is in ``root``, by default the user's cache directory.
    """
    if case.data.ensure_few_samples is None:
        raise UsageError(
            f"no data can be generated for case {case.name}, which trains on {case.data.reference.name}",
            hint="name a directory with --data",
        )
    return case.data.ensure_few_samples(BATCHES * hyperparameters_of(case, size).batch_size, size, root)


def covering_case(case: Case, root: Path | None = None) -> str | None:
    """Return a case whose training has the same workload, and at least the same kinds of layers, or ``None``.

    The other one comes later in the list if both have the same kinds.
    """
    after = False
    for other in map(find_case, case_names()):
        after |= other.name == case.name
        if other.load_workload is case.load_workload and other.name != case.name and other.data.ensure_few_samples:
            own, theirs = (_kinds_of_layers(name, root) for name in (case.name, other.name))
            if own < theirs or (own == theirs and after):
                return other.name
    return None


@cache
def _kinds_of_layers(name: str, root: Path | None) -> set[type[nn.Module]]:
    case = find_case(name)
    data = sample_data(case, "tiny", root)
    with torch.device("meta"):
        model = build_workload(case, hyperparameters_of(case, "tiny"), data, torch.device("cpu")).build_model()
    return set(map(type, model.modules()))


def hyperparameters_of(case: Case, size: SampleSize) -> Hyperparameters:
    """Return the hyperparameters with which a comparison trains a case."""
    tiny = resolve(case, preset="tiny").values
    if size == "tiny":
        return tiny.model_copy(update={"batch_size": _TINY_BATCHES * tiny.batch_size})
    # String values in the preset name files, such as pretrained weights, which do not exist for generated data.
    texts = {key: value for key, value in tiny.model_dump().items() if isinstance(value, str)}
    return case.base.model_copy(update={**texts, "batch_size": _REAL_BATCH_SIZE, "accumulate_steps": 1})


def build_workload(
    case: Case, hyperparameters: Hyperparameters, data: Path, device: torch.device, rank: Rank | None = None
) -> Workload:
    """Return the workload of a rank, by default of a single process, that loads its data itself."""
    context = WorkloadContext(
        hyperparameters=hyperparameters,
        reference=case.data.reference,
        data_root=data,
        rank=rank or Rank(),
        device=device,
        loader_options=LoaderOptions(),
        loader_workers=0,
    )
    return case.load_workload()(context)


@dataclass(eq=False)
class _Side:
    """One side of a comparison: model, optimizer and batches on one device. Only the vendor's side has a session."""

    workload: Workload
    device: torch.device
    policy: PrecisionPolicy
    session: Session | None = None

    def __post_init__(self) -> None:
        enabled = self.policy.grad_scaler
        self.scaler = gradient_scaler(self.device.type, init_scale=_INITIAL_SCALE, enabled=enabled)

    def take(self, model: torch.nn.Module) -> None:
        """Use ``model`` for training. The vendor may change its memory layout."""
        self.model = on_device(model, self.device).train()
        if self.session is not None:
            self.model = self.session.prepare_model(self.model, self.policy, self.device)
        self.workload.memory_format = memory_format_of(self.model)
        self.optimizer = self.workload.build_optimizer(self.model)

    def gradients(self, batch: Batch) -> _Gradients:
        """Return the loss and gradients of a batch; zeros for a parameter that has none."""
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.policy, self.device):
            loss = self.workload.loss(self.model, self.workload.to_device(batch))
        self.scaler.scale(loss).backward()
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        gradients = [
            torch.zeros(parameter.shape) if parameter.grad is None else parameter.grad.detach().float().cpu()
            for parameter in self.model.parameters()
        ]
        return float(loss.detach()), gradients

    def step(self, scale: float) -> None:
        self.clip()
        self.update(scale)

    def clip(self) -> None:
        if self.workload.max_gradient_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.workload.max_gradient_norm)

    def update(self, scale: float) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.workload.learning_rates(0), strict=True):
            group["lr"] = scale * rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.session is not None and self.session.step_end:
            self.session.step_end(self.device)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.model.named_parameters()]

    def evaluate(self, batch: Batch) -> float:
        """Return the loss of a batch in evaluation, which uses the running statistics."""
        self.model.eval()
        with torch.inference_mode(), autocast(self.policy, self.device):
            loss = float(self.workload.loss(self.model, self.workload.to_device(batch)))
        self.model.train()
        return loss

    def state(self, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return the parameters, by their names on the CPU reference, and what the optimizer keeps of each."""
        found: dict[str, torch.Tensor] = {}
        for name, parameter in zip(names, self.model.parameters(), strict=True):
            found[name] = parameter.detach()
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, torch.Tensor):
                    found[f"{key} of {name}"] = value
        return found


def _well_conditioned(model: torch.nn.Module) -> torch.nn.Module:
    """Set the shift of batch normalization and switch dropout off, as the docstring of the module explains."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.bias is not None:
            nn.init.constant_(module.bias, _SHIFT)
        elif isinstance(module, _DropoutNd):
            module.p = 0.0
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    return model


def _learning_rate_scale(side: _Side) -> float:
    """Return the factor with which the first step, whose gradients are there, changes the weights by
    :data:`_FIRST_CHANGE`. Restores weights, gradients and optimizer.
    """
    parameters = list(side.model.parameters())
    weights = [parameter.detach().clone() for parameter in parameters]
    gradients = [parameter.grad for parameter in parameters]
    # The step clips gradients in place.
    _assign(parameters, weights, [None if gradient is None else gradient.clone() for gradient in gradients])
    side.step(1.0)
    change = _norm([parameter.detach() - old for parameter, old in zip(parameters, weights, strict=True)])
    _assign(parameters, weights, gradients)
    side.optimizer = side.workload.build_optimizer(side.model)
    return _FIRST_CHANGE * _norm(weights) / change


def _assign(
    parameters: Sequence[torch.Tensor], weights: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor | None]
) -> None:
    with torch.no_grad():
        for parameter, weight, gradient in zip(parameters, weights, gradients, strict=True):
            parameter.copy_(weight)
            parameter.grad = gradient


def _require_reference_in_fp32() -> None:
    cpu = torch.device("cpu")
    found = {seen.name for seen in measure_effective_precision(cpu, lambda: autocast(_FP32, cpu)).values()}
    if found != {"fp32"}:
        raise PluginError(
            f"with the plugin's switches the CPU computes in {' and '.join(sorted(found))}: there is no fp32 reference "
            "for the comparison",
            hint="set only switches of the vendor's device, not switches of all devices",
        )


def _compare_step(step: int, found: _Gradients, reference: _Gradients, names: Sequence[str]) -> StepComparison:
    (loss, gradients), (reference_loss, reference_gradients) = found, reference
    differences = [float((mine - other).norm()) for mine, other in zip(gradients, reference_gradients, strict=True)]
    norms = [float(gradient.norm()) for gradient in reference_gradients]
    reference_norm = math.hypot(*norms)
    # Rounding errors of a layer's neighbors reach it too, which matters where its own gradient is nearly zero.
    total = sum(gradient.numel() for gradient in gradients)
    shares = [reference_norm * math.sqrt(gradient.numel() / total) for gradient in gradients]
    distances = [
        difference / (norm + _NEIGHBORS * share)
        for difference, norm, share in zip(differences, norms, shares, strict=True)
    ]
    worst = max(range(len(names)), key=lambda index: (not math.isfinite(distances[index]), distances[index]))
    return StepComparison(
        step=step,
        loss=_finite(loss),
        reference_loss=reference_loss,
        gradient_norm=_finite(_norm(gradients)),
        reference_gradient_norm=reference_norm,
        gradient_distance=_finite(math.hypot(*differences) / reference_norm),
        layer=names[worst],
        layer_distance=_finite(distances[worst]),
    )


def _compare_buffers(vendor: _Side, reference: _Side, bound: float) -> Iterator[str]:
    """Yield in which buffers, such as running statistics, the sides differ."""
    pairs = zip(vendor.model.buffers(), reference.model.named_buffers(), strict=True)
    for found, (name, expected) in pairs:
        distance = _distance(found, expected)
        if not distance <= (bound if expected.is_floating_point() else 0):
            yield f"after the last step the buffer {name} differs by {distance:.1e} of its norm"


def _compare_evaluation(vendor: _Side, reference: _Side, batch: Batch, bound: float) -> Iterator[str]:
    """Yield how the losses in evaluation differ."""
    loss, expected = vendor.evaluate(batch), reference.evaluate(batch)
    if not abs(loss - expected) <= bound * abs(expected):
        yield f"after the last step the loss in evaluation is {loss:.6g}, and {expected:.6g} on the CPU reference"


def _compare_update(vendor: _Side, reference: _Side) -> Iterator[str]:
    """Yield what a step does otherwise than on the CPU, from the same weights, gradients and momenta.

    Its learning rate is one. In fp32, the vendor's smaller steps would not show a missing weight decay.
    """
    parameters = list(vendor.model.parameters())
    yield from (
        f"{name} has the type {value.dtype} and is on {value.device}"
        for name, value in vendor.state(reference.names).items()
        if value.dim() and (value.dtype != torch.float32 or value.device.type != vendor.device.type)
    )
    gradients = [None if each.grad is None else _copy(each.grad) for each in parameters]
    if not all(gradient is None or bool(gradient.isfinite().all()) for gradient in gradients):
        return
    _assign(list(reference.model.parameters()), parameters, gradients)
    state = {
        index: {key: _copy(value) if isinstance(value, torch.Tensor) else value for key, value in each.items()}
        for index, each in vendor.optimizer.state_dict()["state"].items()
    }
    reference.optimizer.load_state_dict({**reference.optimizer.state_dict(), "state": state})
    scale = 1 / max(reference.workload.learning_rates(0))
    for side in (vendor, reference):
        side.clip()
        side.update(scale)
    found = vendor.state(reference.names)
    for name, expected in reference.state(reference.names).items():
        distance = _distance(found.get(name), expected)
        if not distance <= tolerances.UPDATE:
            yield f"a step with the same gradients changes {name} otherwise, by {distance:.1e} of its norm"


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy on the CPU in the layout of the reference: torch's fused optimizers take tensors of one layout."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)


def _distance(found: torch.Tensor | None, expected: torch.Tensor) -> float:
    """Return the norm of a difference as a fraction of the expected norm; infinite without a tensor of that shape."""
    if found is None or found.shape != expected.shape:
        return math.inf
    exact = expected.detach().double()
    return float((found.detach().cpu().double() - exact).norm() / exact.norm().clamp(min=sys.float_info.min))


def _norm(tensors: Iterable[torch.Tensor]) -> float:
    return math.hypot(*(float(tensor.norm()) for tensor in tensors))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

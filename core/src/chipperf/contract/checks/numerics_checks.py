"""N: checks of the arithmetic in every precision, of training against the CPU reference, and of prepared models."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from chipperf.cases.registry import case_names, find_case
from chipperf.contract import tolerances
from chipperf.contract.check import NotApplicable, NotRun, check, each_case, each_precision, not_run_on, require
from chipperf.contract.devices import read_switches
from chipperf.contract.isolation import call_in_new_interpreter
from chipperf.errors import PluginError, UnsupportedPrecision
from chipperf.plugin.types import Capability, Knob, PrecisionPolicy
from chipperf.precisions import PRECISIONS, Precision, precisions_by_capability
from chipperf.torchtools import gradient_scaler
from chipperf.train.preparation import autocast

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import torch

    from chipperf.cases.base import Case
    from chipperf.contract.operators import Operator
    from chipperf.contract.plugin_under_test import PluginUnderTest

_SEED: Final = 11
_SCALE: Final = 2.0**10
_READ_TIMEOUT_S: Final = 300.0
_HONESTY: Final = "run what was asked for, or raise UnsupportedPrecision"

_check_each_precision = partial(check, level=2, settings=each_precision)


@check("N1", level=2, fault="fp32 runs as TF32 or 16-bit fixed point, or the backward pass is wrong")
def fp32_is_fp32(subject: PluginUnderTest) -> None:
    """In fp32, products have the precision of fp32, and operators agree with float64 on the CPU, also backward."""
    from chipperf.contract.operators import ARITHMETIC

    for kind, arithmetic in _arithmetic(subject, _fp32_policy(subject)).items():
        require(
            arithmetic == "fp32",
            f"fp32 was asked for, but the {kind}, is computed in {arithmetic}: switch it off in perf_precision",
        )
    _require_close(ARITHMETIC, subject.device)


@_check_each_precision("N2", fault="a switch or variable changes numerics, and the record does not list it")
def knobs_are_declared(subject: PluginUnderTest) -> None:
    """Every switch and environment variable that changes numerics is declared as a knob with its current value."""
    device_type = subject.info.device_type
    switches, variables = read_switches(device_type), dict(os.environ)
    runtime = subject.runtime
    _require_declared_variables("perf_load_runtime", variables, runtime.knobs)
    _ = subject.device
    requested, variables = subject.settings.precision, dict(os.environ)
    policy = _policy(subject, requested)
    if policy is None:
        return
    knobs = (*runtime.knobs, *policy.knobs)
    _require_declared_variables(f"perf_precision({requested!r})", variables, knobs)
    after = read_switches(device_type)
    for knob in knobs:
        found = after.get(knob.name, os.environ.get(knob.name))
        require(
            found is None or str(found).casefold() == knob.value.casefold(),
            f"in {requested} the knob {knob.name} is declared as {knob.value}, but its value is {found}",
        )
    _require_declared_switches(requested, knobs, switches, after)


@_check_each_precision("N3", fault="fp16 runs as fp32 but is reported as fp16, or a declared capability is missing")
def precision_is_honored(subject: PluginUnderTest) -> None:
    """Each precision runs as requested or is refused with UnsupportedPrecision, as the capabilities declare."""
    requested = subject.settings.precision
    policy = _policy(subject, requested)
    if policy is None:
        require(requested != "fp32", "fp32 is refused: every vendor runs it, because results are compared in it")
    else:
        wanted = PRECISIONS[requested].arithmetic
        require(
            policy.effective == wanted,
            f"{requested} was asked for and {policy.effective!r} is declared effective: {_HONESTY}",
        )
        wanted_weights = PRECISIONS[requested].parameter_type or "float32"
        parameters = _prepared_model(subject, policy).parameters()
        weights = next(str(weight.dtype) for weight in parameters if weight.dim() > 1).removeprefix("torch.")
        require(
            weights == wanted_weights,
            f"{requested} trains parameters in {wanted_weights}, and perf_prepare_model leaves them in {weights}: "
            "chipperf.torchtools.convert_parameters converts them",
        )
        # N1 checks the arithmetic of fp32.
        for kind, arithmetic in _arithmetic(subject, policy).items() if requested != "fp32" else ():
            require(
                arithmetic == wanted,
                f"{requested} was accepted, but the {kind}, is computed in {arithmetic}, not in {wanted}: {_HONESTY}",
            )
    for value, precisions in precisions_by_capability().items():
        if requested not in precisions:
            continue
        # A plugin that declares the capability supports at least one of its precisions.
        runs = [precision for precision in precisions if _policy(subject, precision) is not None]
        capability = Capability(value)
        declared = capability in subject.info.capabilities
        require(
            bool(runs) == declared,
            f"Capability.{capability.name} is declared, but {' and '.join(precisions)} are refused"
            if declared
            else f"perf_precision accepts {' and '.join(runs)}, but Capability.{capability.name} is not declared",
        )


@_check_each_precision("N4", fault="weights become NaN at the first overflow in fp16")
def overflow_skips_step(subject: PluginUnderTest) -> None:
    """With fp16 autocast, a step with infinite gradients changes no weight; bf16 and fp32 scale no gradients."""
    import torch

    requested = subject.settings.precision
    policy = _policy(subject, requested)
    needs_scaler = PRECISIONS[requested].scales_gradients
    require(
        policy is None or policy.grad_scaler == needs_scaler,
        f"{requested} must {'' if needs_scaler else 'not '}scale gradients: "
        f"let PrecisionPolicy.grad_scaler be {needs_scaler}",
    )
    if not needs_scaler:
        return
    if policy is None:
        raise NotApplicable(f"{requested} is not supported, and no other precision scales gradients")
    device = subject.device
    weight = torch.nn.Parameter(torch.ones(8, device=device))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = gradient_scaler(device.type, init_scale=_SCALE)

    def step(loss: torch.Tensor) -> None:
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    step((weight * float("inf")).sum())
    require(bool((weight.detach().cpu() == 1).all()), f"a step with infinite gradients gave the weights {weight[:3]}")
    require(scaler.get_scale() < _SCALE, "the scale of the gradients was not lowered after they overflowed")
    step(weight.sum())
    require(
        bool((weight.detach().cpu() == 0).all()),
        f"a step with gradients of 1 and a learning rate of 1 took weights of 1 to {weight[:3]} instead of 0",
    )


@check(
    "N5",
    level=2,
    settings=each_case,
    fault="an error in the backward pass, optimizer or memory layout changes the training",
    timeout_s=1800,
)
def training_follows_reference(subject: PluginUnderTest) -> None:
    """Twenty fp32 steps of every case that generates data stay near the CPU reference, and the loss falls."""
    from chipperf.contract.equivalence import compare

    policy = _true_fp32_policy(subject)
    case = find_case(subject.settings.case)
    data = _sample(subject, case)
    if data is None:
        return
    try:
        comparison = compare(subject.session, subject.device, policy, case, data, to_the_end=False)
    except PluginError as error:
        raise NotRun(f"{error.message}; see N2") from error
    require(comparison.within, comparison.summary)
    require(
        comparison.falls,
        f"{case.name}: over {len(comparison.steps)} steps on the same batches the loss does not fall: it goes from "
        f"{comparison.steps[0].loss:.6g} to {comparison.steps[-1].loss:.6g}",
    )


@check("N6", level=2, fault="a kernel works only for one layout, index type or size")
def every_form_of_input_is_taken(subject: PluginUnderTest) -> None:
    """Results are right with int64 labels, strided and channels-last tensors, varying image sizes and boolean masks."""
    from chipperf.contract.operators import FORMS

    _true_fp32_policy(subject)
    _require_close(FORMS, subject.device)


@check("N7", level=2, fault="only the vendor's stack can read the checkpoint, or the checkpoint loses bits")
def checkpoint_loads_on_the_cpu(subject: PluginUnderTest) -> None:
    """A process without the vendor's stack loads a checkpoint from the device with every bit the same."""
    import torch

    path, device, policy = subject.workspace / "checkpoint.pt", subject.device, _fp32_policy(subject)
    torch.manual_seed(_SEED)
    layers = (torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 5))
    model = subject.session.prepare_model(torch.nn.Sequential(*layers).to(device), policy, device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(4, 3, 8, 8).to(device)).square().mean().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    # The plugin may have changed what state_dict returns.
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    expected = _bits({"model": tensors, "optimizer": optimizer.state_dict()})
    outcome = call_in_new_interpreter(read_checkpoint, str(path), timeout_s=_READ_TIMEOUT_S)
    require(
        outcome.fault is None,
        f"a process without the vendor's stack cannot read a checkpoint that was saved on the device: {outcome.fault}",
    )
    missing = sorted(set(expected) ^ set(outcome.value))
    require(not missing, f"only one of checkpoint and device has {', '.join(missing)}")
    for name, (kind, digest) in expected.items():
        loaded_kind, loaded_digest = outcome.value[name]
        require(loaded_kind == kind, f"{name} is {loaded_kind} in the checkpoint, and {kind} on the device")
        require(loaded_digest == digest, f"the bits of {name} differ between the checkpoint and the device")


def read_checkpoint(path: str) -> dict[str, list[str]]:
    """Return the bits of the checkpoint in a file, which is loaded on the CPU. Called in another process."""
    import torch

    return _bits(torch.load(path, map_location="cpu", weights_only=True))


@_check_each_precision("N8", fault="the plugin changes the model, so its results belong to another model")
def prepared_model_keeps_its_structure(subject: PluginUnderTest) -> None:
    """``perf_prepare_model`` keeps modules, parameters, buffers and values of every case with generated data."""
    import torch

    from chipperf.contract.equivalence import build_workload, hyperparameters_of
    from chipperf.train.model_changes import changes_of_model, describe_model

    requested = subject.settings.precision
    policy = _policy(subject, requested)
    if policy is None:
        return
    for case in map(find_case, case_names()):
        data = _sample(subject, case)
        if data is None:
            continue
        model = build_workload(case, hyperparameters_of(case, "tiny"), data, torch.device("cpu")).build_model()
        before = describe_model(model, PRECISIONS[requested].parameter_type)
        prepared = subject.session.prepare_model(model.to(subject.device), policy, subject.device)
        changes = changes_of_model(before, describe_model(prepared))
        require(
            not changes,
            f"perf_prepare_model changes the structure of {case.name} in {requested}: {changes}: it may change "
            "layouts only",
        )


def _policy(subject: PluginUnderTest, requested: Precision) -> PrecisionPolicy | None:
    """Set up a precision and return its policy, or ``None`` if the plugin does not run it."""
    try:
        return subject.session.precision(requested, subject.device)
    except UnsupportedPrecision:
        return None


def _fp32_policy(subject: PluginUnderTest) -> PrecisionPolicy:
    with not_run_on(UnsupportedPrecision, "fp32 is refused, see N3"):
        return subject.session.precision("fp32", subject.device)


def _true_fp32_policy(subject: PluginUnderTest) -> PrecisionPolicy:
    policy = _fp32_policy(subject)
    found = _arithmetic(subject, policy)
    if set(found.values()) != {"fp32"}:
        raise NotRun(f"fp32 is {' and '.join(sorted(set(found.values())))}, see N1")
    return policy


def _arithmetic(subject: PluginUnderTest, policy: PrecisionPolicy) -> dict[str, str]:
    """Return the arithmetic of each kind of product in a model that the plugin has prepared."""
    from chipperf.train.effective_precision import measure_effective_precision

    model = _prepared_model(subject, policy)
    found = measure_effective_precision(subject.device, lambda: autocast(policy, subject.device), model)
    return {name: seen.name for name, seen in found.items()}


def _prepared_model(subject: PluginUnderTest, policy: PrecisionPolicy) -> torch.nn.Module:
    """Return a model with the products of the cases, as the plugin prepares it."""
    from chipperf.train.effective_precision import standard_layers

    return subject.session.prepare_model(standard_layers().to(subject.device), policy, subject.device)


def _require_close(operators: Iterable[Operator], device: torch.device) -> None:
    from chipperf.contract.operators import largest_error

    faults = []
    for operator in operators:
        try:
            error = largest_error(operator, device, _SEED)
        except (RuntimeError, TypeError, ValueError) as problem:
            faults.append(f"{operator.name} raises {type(problem).__name__}: {str(problem).splitlines()[0]}")
            continue
        if not error <= tolerances.FP32_OPERATOR:
            faults.append(f"{operator.name} is off by {error:.1e}")
    require(
        not faults,
        f"compared with float64 on the CPU, as a fraction of the norm of an output or gradient, where fp32 allows "
        f"{tolerances.FP32_OPERATOR:.0e}: {'; '.join(faults)}",
    )


def _require_declared_variables(hook: str, before: Mapping[str, str], knobs: Iterable[Knob]) -> None:
    hidden = {name for name, _ in before.items() ^ os.environ.items()} - {knob.name for knob in knobs}
    require(
        not hidden,
        f"{hook} changes the environment variables {', '.join(sorted(hidden))}, which no knob mentions: "
        "return them from perf_environment, or declare a Knob of that name",
    )


def _require_declared_switches(
    requested: Precision, knobs: Iterable[Knob], before: Mapping[str, object], after: Mapping[str, object]
) -> None:
    changed = {name for name, value in after.items() if name in before and before[name] != value}
    declared = {knob.name for knob in knobs}
    # torch keeps several switches of one product in step.
    products = {_product(name) for name in changed & declared}
    hidden = sorted(name for name in changed - declared if _product(name) not in products)
    require(
        not hidden,
        f"perf_precision({requested!r}) changes {', '.join(f'{name} to {after[name]}' for name in hidden)}, which no "
        "knob mentions: declare a Knob of that name",
    )


def _product(switch: str) -> str:
    if "matmul" in switch:
        return "matmul"
    return "convolution" if switch.startswith(("cudnn", "mkldnn.conv")) and "32" in switch else switch


def _sample(subject: PluginUnderTest, case: Case) -> Path | None:
    """Return the directory of a case's generated data; ``None`` if it generates none and cannot be trained here."""
    from chipperf.contract.equivalence import sample_data

    return sample_data(case, "tiny", subject.workspace) if case.data.ensure_few_samples else None


def _bits(checkpoint: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return, for each tensor of a model and of its optimizer's momentum, type with shape, and a digest of its bits."""
    from chipperf.train.model_changes import digest

    momenta = {f"momentum {key}": state["momentum_buffer"] for key, state in checkpoint["optimizer"]["state"].items()}
    bits = {}
    for name, tensor in {**checkpoint["model"], **momenta}.items():
        bits[name] = [f"{tensor.dtype} {tuple(tensor.shape)}", digest(tensor)]
    return bits

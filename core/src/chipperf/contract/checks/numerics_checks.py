"""N: checks of the arithmetic in every precision, of training against the CPU reference, and of prepared models."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from chipperf.cases.registry import case_names, find_case
from chipperf.contract import tolerances
from chipperf.contract.check import NotApplicable, NotRun, check, each_case, each_precision, not_run_on, require
from chipperf.contract.devices import TRAINED_CASE, read_switches
from chipperf.contract.isolation import call_in_fork, call_in_new_interpreter
from chipperf.errors import PluginError, UnsupportedPrecision
from chipperf.plugin.types import Capability, EnvironmentSettings, Knob, PrecisionPolicy
from chipperf.precisions import ARITHMETICS, PRECISIONS, Precision, precisions_by_capability
from chipperf.torchtools import gradient_scaler
from chipperf.train.preparation import autocast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import torch

    from chipperf.cases.base import Case
    from chipperf.contract.operators import Operator
    from chipperf.contract.plugin_under_test import PluginUnderTest

T = TypeVar("T")

_SEED: Final = 11
_SCALE: Final = 2.0**10
_READ_TIMEOUT_S: Final = 300.0
_HONESTY: Final = "run what was asked for, or raise UnsupportedPrecision"

_check_each_precision = partial(check, level=2, settings=each_precision)


@check("N1", level=2, fault="fp32 runs as TF32 or 16-bit fixed point, or the backward pass is wrong")
def fp32_is_fp32(subject: PluginUnderTest) -> None:
    """In fp32, products have the precision of fp32, and operators agree with float64 on the CPU, also backward.

    Those are the operators that the cases train with, sums of a million terms, and dropout.
    """
    from chipperf.contract.operators import ARITHMETIC, dropout_faults

    policy = _fp32_policy(subject)
    faults: list[str] = []
    missing: list[str] = []
    for operator in ARITHMETIC:
        try:
            faults += _operator_faults([operator], subject.device, policy)
        except NotImplementedError as error:
            missing.append(f"{operator.name} ({str(error).splitlines()[0]})")
    require(not missing, f"the device lacks operators that the cases train with: {'; '.join(missing)}")
    for kind, arithmetic in _arithmetic(subject, policy).items():
        require(
            arithmetic == "fp32",
            f"fp32 was asked for, but the {kind}, is computed in {arithmetic}: switch it off in perf_precision",
        )
    _require_no_faults(faults or dropout_faults(subject.device, _SEED))


@_check_each_precision("N2", fault="a switch or variable changes numerics, and the record does not list it")
def knobs_are_declared(subject: PluginUnderTest) -> None:
    """Every switch and environment variable that changes numerics is declared as a knob with its current value."""
    device_type, requested = subject.info.device_type, subject.settings.precision
    changes: list[tuple[str, dict[str, object], dict[str, object]]] = []

    def watched(hook: str, call: Callable[[], T]) -> T:
        switches, variables = read_switches(device_type), dict(os.environ)
        result = call()
        # The runtime brings switches of its own.
        after = {name: value for name, value in read_switches(device_type).items() if name in switches}
        changes.append((hook, _changed(switches, after), _changed(variables, os.environ)))
        return result

    outcome = call_in_fork(_knobs_of_user, subject, timeout_s=math.inf)
    require(not outcome.value, f"{outcome.value}: read the variable after the user may have set it")
    runtime = watched("perf_load_runtime", lambda: subject.runtime)
    watched("perf_device_init", lambda: subject.device)
    policy = watched(f"perf_precision({requested!r})", lambda: _policy(subject, requested))
    if policy is not None:
        watched("perf_prepare_model", lambda: _prepared_model(subject, policy))
    knobs = (*runtime.knobs, *(policy.knobs if policy else ()))
    for hook, switches, variables in changes:
        _require_declared(hook, knobs, switches, variables)
    if policy is None:
        return
    in_force = read_switches(device_type)
    for knob in knobs:
        found = in_force.get(knob.name, os.environ.get(knob.name))
        require(
            found is None or str(found).casefold() == knob.value.casefold(),
            f"in {requested} the knob {knob.name} is declared as {knob.value}, but its value is {found}",
        )
    for other in (*PRECISIONS, requested):
        _policy(subject, other)
    changed = _changed(_facts(policy), _facts(_policy(subject, requested)))
    require(
        not changed,
        f"perf_precision({requested!r}) returns another policy after calls for other precisions, with "
        f"{', '.join(f'{name}={value}' for name, value in changed.items())}: set every switch in each call, and read "
        "the value of a knob after that",
    )


def _knobs_of_user(subject: PluginUnderTest) -> str:
    """Say which knob has not the value that a user has given its variable, another number than the plugin asks for."""
    asked = subject.session.environment(subject.rank, subject.settings)
    os.environ.update({each.name: str(int(each.value) + 1) for each in asked if each.value.isdecimal()})
    variables, policy = dict(os.environ), _policy(subject, subject.settings.precision) if subject.device else None
    wrong = [
        f"the user set {knob.name}={variables[knob.name]}, and its knob is declared as {knob.value}"
        for knob in (*subject.runtime.knobs, *(policy.knobs if policy else ()))
        if variables.get(knob.name) not in (None, knob.value)
    ]
    return "; ".join(wrong)


@_check_each_precision("N3", fault="fp16 runs as fp32 but is reported as fp16, or a declared capability is missing")
def precision_is_honored(subject: PluginUnderTest) -> None:
    """Each precision runs as requested or is refused with UnsupportedPrecision, as the capabilities declare."""
    from chipperf.contract.operators import ARITHMETIC

    requested = subject.settings.precision
    # N1 checks the arithmetic of fp32 alone.
    alone = _arithmetic(subject, _fp32_policy(subject)) if requested == "fp32" else {}
    # What other runs have set must be undone.
    for other in PRECISIONS:
        _policy(subject, other)
    policy = _policy(subject, requested)
    # As every rank but the first does after its model is prepared.
    subject.session.seed(_SEED, subject.device, False)
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
        for kind, arithmetic in _arithmetic(subject, policy).items():
            require(
                arithmetic in (wanted, alone.get(kind)),
                f"{requested} was accepted, but the {kind}, is computed in {arithmetic}, not in {wanted}"
                f"{', after calls for other precisions' if alone else ''}: {_HONESTY}",
            )
        if not alone:
            faults = {operator: [*_operator_faults([operator], subject.device, policy)] for operator in ARITHMETIC}
            # N1 tells what is wrong in fp32 too.
            fp32 = _fp32_policy(subject)
            own = [
                found
                for operator, found in faults.items()
                if found and not [*_operator_faults([operator], subject.device, fp32)]
            ]
            _require_no_faults([fault for found in own for fault in found])
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
    weights = [torch.nn.Parameter(torch.ones(shape, device=device)) for shape in ((8,), (3, 70), (1,))]
    optimizer = torch.optim.SGD(({"params": [weight]} for weight in weights), lr=1.0)
    scaler = gradient_scaler(device.type, init_scale=_SCALE)
    scaler.set_growth_interval(1)

    def step(*gradients: float) -> list[float]:
        """Take a step with gradients of one, but for the last value of each weight. Return all weights."""
        optimizer.zero_grad()
        pairs = zip(weights, gradients, strict=True)
        losses = [weight.sum() + weight.flatten()[-1] * (gradient - 1) for weight, gradient in pairs]
        scaler.scale(torch.stack(losses).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        return torch.cat([weight.detach().flatten().cpu() for weight in weights]).tolist()

    for bad in (float("inf"), float("-inf"), float("nan")):
        for place in range(len(weights)):
            scale = scaler.get_scale()
            found = step(*(bad if place == index else 1.0 for index, _ in enumerate(weights)))
            require(
                set(found) == {1.0},
                f"a step with a gradient of {bad} in parameter {place} of {len(weights)} changed weights of 1 to "
                f"{sorted(set(found))[:3]}: it must be skipped",
            )
            require(scaler.get_scale() < scale, f"the scale of gradients was not lowered after a gradient of {bad}")
    scale, found = scaler.get_scale(), step(1.0, 1.0, 1.0)
    require(
        set(found) == {0.0},
        f"a step with gradients of 1 and a learning rate of 1 took weights of 1 to {sorted(set(found))[:3]} instead "
        "of 0",
    )
    require(scaler.get_scale() > scale, "the scale of gradients was not raised after a step without an overflow")


def _trainings() -> tuple[EnvironmentSettings, ...]:
    """Return one run in fp32 of each case, and one of a small case in each other precision."""
    others = [EnvironmentSettings(case=TRAINED_CASE, precision=other) for other in PRECISIONS if other != "fp32"]
    return (*others, *each_case())


@check(
    "N5",
    level=2,
    settings=_trainings,
    fault="an error in the backward pass, optimizer, statistics or memory layout changes the training",
    timeout_s=1800,
)
def training_follows_reference(subject: PluginUnderTest) -> None:
    """Gradients, statistics, evaluation and updates of some steps stay near the CPU reference, and the loss falls.

    A case that generates no data is left out, and so is one whose kinds of layers another one has too.
    """
    from chipperf.contract.equivalence import FEW_STEPS, compare

    requested = subject.settings.precision
    policy = _true_fp32_policy(subject) if requested == "fp32" else _policy(subject, requested)
    case = find_case(subject.settings.case)
    data = _sample(subject, case)
    if policy is None or data is None:
        return
    try:
        comparison = compare(subject.session, subject.device, policy, case, data, steps=FEW_STEPS, to_the_end=False)
    except PluginError as error:
        raise NotRun(f"{error.message}; see N2") from error
    require(comparison.within, f"in {requested}, {comparison.summary}")
    # The steps are too small for a loss of 16 bits.
    require(
        comparison.falls or requested != "fp32",
        f"{case.name}: over {len(comparison.steps)} steps on the same batches the loss does not fall: it goes from "
        f"{comparison.steps[0].loss:.6g} to {comparison.steps[-1].loss:.6g}",
    )


@check("N6", level=2, fault="a kernel works only for one layout, index type or size, or ignores an argument")
def every_form_of_input_is_taken(subject: PluginUnderTest) -> None:
    """Results are right with int64 labels, strided, channels-last and large tensors, any image size, boolean masks.

    So they are with the arguments that cases of other packages may give, as far as the device has the operator.
    """
    from chipperf.contract.operators import FORMS, LARGE, OPTIONS

    policy = _true_fp32_policy(subject)
    faults = [*_operator_faults((*FORMS, *LARGE), subject.device, policy)]
    for operator in OPTIONS:
        # No case of core needs it, and a run of another that does ends at once.
        with suppress(NotImplementedError):
            faults += _operator_faults([operator], subject.device, policy)
    _require_no_faults(faults)


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

    from chipperf.contract.equivalence import build_workload, covering_case, hyperparameters_of, sample_data

    requested = subject.settings.precision
    policy = _policy(subject, requested)
    if policy is None:
        return
    for case in map(find_case, case_names()):
        data = sample_data(case, "tiny", subject.workspace) if case.data.ensure_few_samples else None
        # A precision treats kinds of layers alike, whatever model they are in.
        if data is None or (requested != "fp32" and covering_case(case, subject.workspace)):
            continue
        workload = build_workload(case, hyperparameters_of(case, "tiny"), data, torch.device("cpu"))
        require_model_kept(subject, policy, workload.build_model(), case.name)


def require_model_kept(subject: PluginUnderTest, policy: PrecisionPolicy, model: torch.nn.Module, which: str) -> None:
    """Check that ``perf_prepare_model`` changes nothing but layouts of a model."""
    from chipperf.train.model_changes import changes_of_model, describe_model

    model.to(subject.device)
    # A case may train a part of its model only.
    next(model.parameters()).requires_grad_(False)
    next(model.children()).eval()
    before = describe_model(model, PRECISIONS[policy.requested].parameter_type)
    prepared = subject.session.prepare_model(model, policy, subject.device)
    changes = changes_of_model(before, describe_model(prepared))
    require(
        not changes,
        f"perf_prepare_model changes the structure of {which} in {policy.requested}: {changes}: it may change "
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


def _operator_faults(operators: Iterable[Operator], device: torch.device, policy: PrecisionPolicy) -> Iterator[str]:
    """Yield which operators are further from float64 than a precision allows, or give a type that it does not."""
    import torch

    from chipperf.contract.operators import errors_of

    half = getattr(torch, policy.autocast_dtype) if policy.autocast_dtype else torch.float32
    arithmetic = PRECISIONS[policy.requested].arithmetic
    unit = 0.0 if arithmetic == "fp32" else 2.0 ** -ARITHMETICS[arithmetic].fraction_bits
    for operator in operators:
        exact = tolerances.fp32_operator(operator.terms)
        bound = exact + tolerances.ROUNDED_OPERATOR * unit
        bounds = (exact + tolerances.ROUNDED_LOSS * unit if operator.role == "loss" else bound, bound)
        inputs = half if operator.role == "loss" else torch.float32
        try:
            found = errors_of(operator, device, _SEED, lambda: autocast(policy, device), inputs)
        except NotImplementedError:
            raise
        except (RuntimeError, TypeError, ValueError) as problem:
            if _on_the_cpu(operator, inputs, policy) == (type(problem), str(problem)):
                continue
            yield f"{operator.name} raises {type(problem).__name__}: {str(problem).splitlines()[0]}"
            continue
        errors = ("output", found.output, bounds[0]), ("gradients", found.gradients, bounds[1])
        for what, error, allowed in errors:
            if not error <= allowed:
                yield f"{operator.name}: {what} off by {error:.1e}, {allowed:.0e} is allowed"
        wanted = {"product": half, "loss": torch.float32}.get(operator.role, found.output_type)
        if found.output_type != wanted and found.output_type != _on_the_cpu(operator, inputs, policy):
            yield f"{operator.name}: output of type {found.output_type}, not {wanted}"


def _on_the_cpu(operator: Operator, inputs: torch.dtype, policy: PrecisionPolicy) -> object:
    """Return the type that torch gives an operator's output on the CPU, or the type and the words of its refusal.

    torch before 2.2 refuses attention with a mask under autocast, and 2.1 computes attention in fp32 there.
    """
    import torch

    from chipperf.contract.operators import errors_of

    cpu = torch.device("cpu")
    try:
        return errors_of(operator, cpu, _SEED, lambda: autocast(policy, cpu), inputs).output_type
    except Exception as refusal:
        return type(refusal), str(refusal)


def _require_no_faults(faults: Sequence[str]) -> None:
    require(
        not faults,
        f"compared with float64 on the CPU, as a fraction of the norm of an output or gradient: {'; '.join(faults)}",
    )


def _facts(policy: PrecisionPolicy | None) -> dict[str, object]:
    """Return what a policy says, each knob by its name; nothing for a precision that is refused."""
    return (
        {} if policy is None else {**asdict(policy), "knobs": None, **{knob.name: knob.value for knob in policy.knobs}}
    )


def _changed(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, object]:
    """Return what has another value than before, or is new or gone."""
    return {name: after.get(name) for name in {**before, **after} if before.get(name) != after.get(name)}


def _require_declared(
    hook: str, knobs: Iterable[Knob], switches: Mapping[str, object], variables: Mapping[str, object]
) -> None:
    declared = {knob.name for knob in knobs}
    hidden = sorted(variables.keys() - declared)
    require(
        not hidden,
        f"{hook} changes the environment variables {', '.join(hidden)}, which no knob mentions: return them from "
        "perf_environment, or declare a Knob of that name",
    )
    # torch keeps several switches of one product in step.
    products = {_product(name) for name in switches.keys() & declared}
    hidden = sorted(name for name in switches.keys() - declared if _product(name) not in products)
    require(
        not hidden,
        f"{hook} changes {', '.join(f'{name} to {switches[name]}' for name in hidden)}, which no knob mentions: "
        "declare a Knob of that name",
    )


def _product(switch: str) -> str:
    if "matmul" in switch:
        return "matmul"
    return "convolution" if switch.startswith(("cudnn", "mkldnn.conv")) and "32" in switch else switch


def _sample(subject: PluginUnderTest, case: Case) -> Path | None:
    """Return the directory of a case's generated data.

    ``None`` if it generates none and cannot be trained here, or if another case has all its kinds of layers.
    """
    from chipperf.contract.equivalence import covering_case, sample_data

    if case.data.ensure_few_samples is None or covering_case(case, subject.workspace):
        return None
    return sample_data(case, "tiny", subject.workspace)


def _bits(checkpoint: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return, for each tensor of a model and of its optimizer's momentum, type with shape, and a digest of its bits."""
    from chipperf.train.model_changes import digest

    momenta = {f"momentum {key}": state["momentum_buffer"] for key, state in checkpoint["optimizer"]["state"].items()}
    bits = {}
    for name, tensor in {**checkpoint["model"], **momenta}.items():
        bits[name] = [f"{tensor.dtype} {tuple(tensor.shape)}", digest(tensor)]
    return bits

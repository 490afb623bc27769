"""S: checks that seeds control every random generator, and that a teardown restores global switches."""

from __future__ import annotations

import hashlib
import math
import os
import random
import time
from collections import defaultdict
from contextlib import nullcontext, suppress
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from chipperf.cases.registry import case_names
from chipperf.contract import tolerances
from chipperf.contract.check import (
    Failed,
    NotApplicable,
    check,
    deterministic,
    each_precision,
    fail,
    not_run_on,
    require,
)
from chipperf.contract.devices import (
    SEED,
    UNTRAINED_STEPS,
    begin_run,
    call_between_steps,
    probed_devices,
    read_global_state,
    set_other_switches,
    small_network,
    train,
)
from chipperf.contract.isolation import call_in_fork
from chipperf.contract.sample_records import RANKS
from chipperf.errors import PerfError, PluginError, UnsupportedPrecision
from chipperf.plugin.types import Capability, Rank
from chipperf.precisions import PRECISIONS
from chipperf.run.ranks import job_ranks, rank_variables
from chipperf.run.rendezvous import LOOPBACK
from chipperf.train.preparation import autocast, generator_states, seed_everything, seed_host

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from chipperf.contract.operators import Operator
    from chipperf.contract.plugin_under_test import PluginUnderTest
    from chipperf.plugin.types import PrecisionPolicy

_SAMPLES: Final = 4096
_STEPS: Final = 3
_REPEATS: Final = 4
_LARGEST_SEED: Final = 2**32 - 1
"""Of those that a run may have."""

_SEEDS: Final = 2000
"""Number of seeds that are compared: among as many, some are alike if fewer than a million are told apart."""

_COMPARED_SAMPLES: Final = 8

_APART_S: Final = 1.1
"""Time between the starts of two processes that draw with the same seed: a clock in whole seconds goes on."""

_SECOND_RANK: Final = rank_variables(job_ranks(2)[1], LOOPBACK, 1)
"""What the environment of a job's second rank has."""

_SHOWN: Final = 5
"""Number of findings that a message names."""


@check("S1", level=1, fault="perf_seed does nothing, ignores a part of the seed, or reaches only one device")
def seed_controls_device(subject: PluginUnderTest) -> None:
    """On every device the same seed gives the same random numbers in any process, and another seed different ones."""
    cards = [device.name for device in probed_devices(subject)]
    count = len(cards) if Capability.MULTI_DEVICE in subject.info.capabilities else 1
    drawn: list[dict[str, Any]] = []
    begun_s = time.monotonic()
    for variables in ({}, _SECOND_RANK):
        if drawn:
            time.sleep(max(0.0, begun_s + _APART_S - time.monotonic()))
        # The time limit of the check ends this process too.
        outcome = call_in_fork(_draw_everything, (subject, count), timeout_s=math.inf, environment=variables)
        fault = outcome.fault or outcome.value.get("fault")
        if fault:
            fail(fault)
        drawn.append(outcome.value)
    different = [name for name, numbers in drawn[0].items() if drawn[1][name] != numbers]
    require(
        not different,
        f"in two processes the same seed gave different random numbers: {', '.join(different[:_SHOWN])}: neither the "
        "time nor the process nor its rank may take part",
    )
    # Kernels of another product may deal the numbers out otherwise.
    apart = [name for name, numbers in drawn[0].items() if len(set(numbers)) > 1 and len(set(cards[:count])) == 1]
    require(
        not apart,
        f"the same seed gave other random numbers on each of {count} equal devices: {', '.join(apart[:_SHOWN])}: the "
        "number of the device may not take part",
    )


@check("S2", level=1, fault="a hook reseeds or advances the host's generators")
def seed_controls_host(subject: PluginUnderTest) -> None:
    """No hook from seeding until the end of the first steps changes the generators of Python, NumPy and torch's CPU."""
    device = subject.device
    for variables in ({}, _SECOND_RANK):
        os.environ.update(variables)
        for seed, wanted in product((SEED, _LARGEST_SEED), (False, True)):
            seed_host(seed)
            seeded = _host_generators()
            subject.session.seed(seed, device, wanted)
            _require_unchanged(seeded, f"perf_seed({seed}, deterministic={wanted})")
    model = small_network().to(device)
    seed_host(SEED)
    seeded = _host_generators()
    begin_run(subject, device)
    call_between_steps(subject, device, UNTRAINED_STEPS)
    for precision in PRECISIONS:
        with suppress(UnsupportedPrecision):
            policy = subject.session.precision(precision, device)
            subject.session.prepare_model(model, policy, device)
    _require_unchanged(seeded, "perf_seed, perf_precision, perf_prepare_model or a hook between steps")


@check(
    "S3",
    level=1,
    capability=Capability.DETERMINISTIC,
    settings=deterministic,
    fault="the plugin ignores the request for determinism, or the results still differ",
)
def deterministic_runs_are_equal(subject: PluginUnderTest) -> None:
    """In deterministic runs of every precision, operators, their gradients and short trainings are bit-equal."""
    import torch

    from chipperf.contract.operators import ARITHMETIC, FORMS

    _require_same_variables(subject)
    weights = []
    for _ in range(2):
        policy = begin_run(subject, subject.device)
        _require_determinism()
        weights.append(train(subject, _STEPS))
    different = sum(not torch.equal(one, other) for one, other in zip(*weights, strict=True))
    require(
        different == 0,
        f"two deterministic runs of {_STEPS} steps with seed {SEED} differ in {different} of {len(weights[0])} "
        "parameters: choose deterministic kernels, and seed every generator that they use",
    )
    unequal = []
    if policy is not None:
        unequal = [each.name for each in (*ARITHMETIC, *FORMS) if not _repeats(subject, each, policy)]
    require(
        not unequal,
        f"in a deterministic run, the output or a gradient differs from call to call: {', '.join(unequal)}: choose "
        "deterministic kernels, and return the variables that they need from perf_environment",
    )
    _require_determinism()
    drawn = []
    for seed in (SEED, SEED + 1):
        seed_everything(subject.session, seed, subject.device, True)
        drawn.append(torch.rand(_SAMPLES, device=subject.device).cpu())
    require(not torch.equal(*drawn), "in a deterministic run, two seeds give the same random numbers")
    following = torch.rand(_SAMPLES, device=subject.device).cpu()
    seed_everything(subject.session, SEED + 1, subject.device, True)
    torch.rand(_SAMPLES, device=subject.device)
    call_between_steps(subject, subject.device, UNTRAINED_STEPS)
    require(
        torch.equal(following, torch.rand(_SAMPLES, device=subject.device).cpu()),
        "in a deterministic run, the hooks between two steps change the next random numbers: only perf_seed may",
    )
    seed_everything(subject.session, SEED, subject.device, False)
    require(
        torch.equal(drawn[0], torch.rand(_SAMPLES, device=subject.device).cpu()),
        f"seed {SEED} gives other random numbers in a deterministic run than in others: nothing else may take part",
    )
    require(
        not torch.are_deterministic_algorithms_enabled(),
        "perf_seed was called without determinism after a call with it, and torch's deterministic mode is still on",
    )


@check(
    "S4",
    level=1,
    settings=each_precision,
    fault="the teardown does not restore TF32, autotuning or determinism, or sets them to constants",
)
def teardown_restores_switches(subject: PluginUnderTest) -> None:
    """A teardown restores every global switch that the plugin's hooks changed, whatever its value was before."""
    _ = subject.runtime
    _require_restored(subject, "a run", repeats=1)
    set_other_switches(subject.info.device_type)
    _require_restored(subject, "a run that set itself up twice and failed", repeats=2)


@check(
    "S5",
    level=3,
    capability=Capability.DETERMINISTIC,
    ranks=2,
    settings=lambda: deterministic()[:1],
    fault="the plugin asks for determinism in jobs of one rank only",
)
def deterministic_jobs_are_equal(subject: PluginUnderTest) -> None:
    """In deterministic jobs of two ranks, operators, their gradients and short trainings are bit-equal on each rank."""
    if Capability.DISTRIBUTED not in subject.info.capabilities:
        raise NotApplicable("the plugin runs no job of two ranks")
    with not_run_on(PluginError, "the process group cannot be joined, see P1 and P2"):
        _ = subject.distributed
    deterministic_runs_are_equal.function(subject)


def _draw_everything(arguments: tuple[PluginUnderTest, int]) -> dict[str, Any]:
    """Return digests of the numbers that each sampler draws on the devices, or the first ``fault``."""
    subject, count = arguments
    drawn: dict[str, list[str]] = defaultdict(list)
    try:
        for rank in job_ranks(count):
            _ = subject.runtime
            device = subject.session.device_init(rank)
            begin_run(subject, device)
            for name, sample in _samplers().items():
                with suppress(NotImplementedError):
                    drawn[name].append(_draw(subject, device, name, sample))
    except Failed as fault:
        return {"fault": str(fault)}
    return drawn


def _samplers() -> dict[str, Callable[[torch.device], torch.Tensor]]:
    """Return what draws numbers in the cases: dropout and the initialization of weights, and the operators below."""
    import torch
    from torch.nn import functional

    def attend(device: torch.device) -> torch.Tensor:
        alike = torch.zeros(1, 64, 64, device=device)
        return functional.scaled_dot_product_attention(alike, alike, torch.eye(64)[None].to(device), dropout_p=0.5)

    return {
        "rand": lambda device: torch.rand(_SAMPLES, device=device),
        "randn": lambda device: torch.randn(_SAMPLES, device=device),
        "randint": lambda device: torch.randint(2**31 - 1, (_SAMPLES,), device=device),
        "randperm": lambda device: torch.randperm(_SAMPLES, device=device),
        "uniform_": lambda device: torch.empty(_SAMPLES, device=device).uniform_(-1, 1),
        "normal_": lambda device: torch.empty(_SAMPLES, device=device).normal_(),
        "bernoulli_": lambda device: torch.empty(_SAMPLES, device=device).bernoulli_(0.5),
        "multinomial": lambda device: torch.ones(64, device=device).multinomial(_SAMPLES, replacement=True),
        "dropout": lambda device: functional.dropout(torch.ones(_SAMPLES, device=device), 0.5),
        "attention with dropout": attend,
    }


def _draw(
    subject: PluginUnderTest, device: torch.device, name: str, sample: Callable[[torch.device], torch.Tensor]
) -> str:
    """Check the numbers that a sampler draws with several seeds, and return a digest of some."""
    import torch

    host_seeds = False

    def seed(value: int) -> None:
        # Not torch.manual_seed, which seeds most devices as well. Where the device's numbers come from the host, core's
        # seed is what controls them; else the host's must not.
        torch.default_generator.manual_seed(value if host_seeds else 0)
        subject.session.seed(value, device, False)

    def draw() -> torch.Tensor:
        return sample(device).cpu()

    seed(1)
    host = torch.default_generator.get_state()
    draw()
    host_seeds = not torch.equal(host, torch.default_generator.get_state())
    seed(2)
    other = draw()
    seed(1)
    first, second = draw(), draw()
    seed(1)
    again = draw()
    require(torch.equal(first, again), f"seeding twice with 1 gave different random numbers by {name} on {device}")
    call_between_steps(subject, device, UNTRAINED_STEPS if name == "rand" else 1)
    require(
        torch.equal(second, draw()),
        f"the hooks between two steps change the next random numbers by {name} on {device}: only perf_seed may",
    )
    for what, numbers in (("seeds 1 and 2", other), ("two draws in a row", second)):
        require(
            float((first == numbers).double().mean()) <= tolerances.ALIKE_DRAWS,
            f"{what} gave the same random numbers by {name} on {device}",
        )
    if name == "rand":
        require(
            float(torch.isin(first, other).double().mean()) <= tolerances.SHARED_DRAWS,
            f"seeds 1 and 2 gave the same random numbers on {device} in another order",
        )
        _require_different_numbers(device, seed)
    return _digest([first, second, other])


def _require_different_numbers(device: torch.device, seed: Callable[[int], None]) -> None:
    """Check seeds that differ in one bit, among them such as a float does not tell apart, and others of any size."""
    import torch

    bits = [2**bit for bit in range(_LARGEST_SEED.bit_length())]
    scattered = random.Random(SEED)
    others = (scattered.randrange(_LARGEST_SEED) for _ in range(_SEEDS))
    seen: dict[str, int] = {}
    for value in dict.fromkeys((0, *bits, _LARGEST_SEED, *(_LARGEST_SEED - bit for bit in bits), *others)):
        seed(value)
        same = seen.setdefault(_digest([torch.rand(_COMPARED_SAMPLES, device=device).cpu()]), value)
        require(same == value, f"seeds {same} and {value} gave the same random numbers on {device}")


def _digest(tensors: list[torch.Tensor]) -> str:
    return hashlib.sha256(b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)).hexdigest()


def _host_generators() -> dict[str, object]:
    import torch

    states = generator_states(torch.device("cpu"))
    name, keys, *rest = states["numpy"]
    numpy_state = (name, keys.tolist(), *rest)
    return {"Python": states["python"], "NumPy": numpy_state, "torch on the CPU": states["torch"].tolist()}


def _require_unchanged(expected: dict[str, object], hooks: str) -> None:
    found = _host_generators()
    changed = [name for name, state in expected.items() if found[name] != state]
    require(not changed, f"{hooks} changes the random numbers of {', '.join(changed)}, which core seeds")


def _require_same_variables(subject: PluginUnderTest) -> None:
    """Check that the variables of deterministic runs are asked for in those of every case.

    The check trains one network with them, and a user may train cases that no plugin knows.
    """
    for rank in RANKS:
        own, others = (
            {
                case: {variable.name for variable in subject.session.environment(rank, replace(settings, case=case))}
                for case in case_names()
            }
            for settings in (replace(subject.settings, deterministic=each) for each in (True, False))
        )
        needed = set[str]().union(*(own[case] - others[case] for case in own))
        for case, names in own.items():
            missing = ", ".join(sorted(needed - names))
            require(
                not missing,
                f"perf_environment asks for {missing} in deterministic runs of other cases, and not in those of {case} "
                f"on {rank.topology}: what makes operators deterministic is needed in every case",
            )


def _require_determinism() -> None:
    import torch

    require(
        torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled(),
        "perf_seed was asked for determinism, but torch's deterministic mode is off or only warns: call "
        "torch.use_deterministic_algorithms(True), so that torch refuses operators without a deterministic kernel",
    )


def _repeats(subject: PluginUnderTest, operator: Operator, policy: PrecisionPolicy) -> bool:
    """Return whether an operator gives equal bits in every call, or is refused."""
    import torch

    device = subject.device
    generator = torch.Generator().manual_seed(SEED)
    inputs = [torch.randn(shape, generator=generator) for shape in operator.shapes]
    seen = set()
    # An operator without a deterministic kernel is refused, one that is missing or fails is a finding of N1 or N6.
    with suppress(RuntimeError):
        for _ in range(_REPEATS):
            # Not torch.manual_seed, which takes longer than most operators.
            torch.default_generator.manual_seed(SEED)
            subject.session.seed(SEED, device, True)
            leaves = [tensor.to(device).requires_grad_() for tensor in inputs]
            with autocast(policy, device):
                output = operator.apply(*leaves)
            output.float().square().sum().backward()
            gradients: list[Any] = [leaf.grad for leaf in leaves if leaf.grad is not None]
            seen.add(_digest([tensor.detach().float().cpu() for tensor in (output, *gradients)]))
    return len(seen) <= 1


def _require_restored(subject: PluginUnderTest, what: str, repeats: int) -> None:
    before = _switches(subject)
    _run_and_tear_down(subject, repeats)
    after = _switches(subject)
    changed = [
        f"{name} was {value} and is {after.get(name)}" for name, value in before.items() if after.get(name) != value
    ]
    require(
        not changed,
        f"{what} in {subject.settings.precision} and its teardown changed {'; '.join(changed[:_SHOWN])}: "
        "perf_device_teardown has to restore what perf_device_init, perf_seed, perf_precision and perf_prepare_model "
        "change, to what it was",
    )


def _run_and_tear_down(subject: PluginUnderTest, repeats: int) -> None:
    """Call the hooks that a run calls from initialization to teardown; each repeatedly, with a failure between them."""
    import torch

    session = subject.session
    for _ in range(repeats):
        device = _initialize(subject)
        if session.has("perf_seed"):
            session.seed(SEED, device, False)
            session.seed(SEED, device, True)
        if session.has("perf_precision"):
            with suppress(UnsupportedPrecision):
                policy = session.precision(subject.settings.precision, device)
                session.prepare_model(torch.nn.Linear(2, 2).to(device), policy, device)
    if repeats > 1:
        with suppress(RuntimeError):
            torch.mm(torch.ones(2, 3, device=device), torch.ones(2, 3, device=device))
    for _ in range(repeats):
        session.device_teardown(device)


def _initialize(subject: PluginUnderTest) -> torch.device:
    with not_run_on(PerfError, "the device cannot be initialized after a teardown, see D5"):
        return subject.session.device_init(Rank())


def _switches(subject: PluginUnderTest) -> dict[str, object]:
    """Return torch's global switches by name, and the arithmetic of fp32 products, which shows other settings."""
    from chipperf.train.effective_precision import measure_effective_precision

    found = read_global_state(subject.info.device_type)
    # N1 reports an operator that is missing. The initialization may change the switches, so it comes after them.
    with suppress(NotImplementedError):
        products = measure_effective_precision(_initialize(subject), nullcontext)
        found |= {f"arithmetic of the fp32 {name}": seen.name for name, seen in products.items()}
    return found

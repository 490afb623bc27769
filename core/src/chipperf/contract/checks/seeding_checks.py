"""S: checks that seeds control every random generator, and that a teardown restores global switches."""

from __future__ import annotations

import random
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Final

from chipperf.contract.check import check, deterministic, each_precision, not_run_on, require
from chipperf.contract.devices import read_switches, train
from chipperf.errors import PerfError, UnsupportedPrecision
from chipperf.plugin.types import Capability, Rank
from chipperf.train.preparation import seed_everything

if TYPE_CHECKING:
    import torch

    from chipperf.contract.plugin_under_test import PluginUnderTest

_SAMPLES: Final = 4096
_STEPS: Final = 3
_SEED: Final = 7


@check("S1", level=1, fault="perf_seed does nothing, or always uses the same seed")
def seed_controls_device(subject: PluginUnderTest) -> None:
    """The same seed gives the same random numbers on the device; another seed gives different numbers."""
    first, again, other = (_draw(subject, seed) for seed in (1, 1, 2))
    require(bool((first == again).all()), "seeding twice with 1 gave different random numbers on the device")
    require(bool((first != other).any()), "seeds 1 and 2 gave the same random numbers on the device")


@check("S2", level=1, fault="the hook reseeds or advances the host's generators")
def seed_controls_host(subject: PluginUnderTest) -> None:
    """After seeding, the generators of Python, NumPy and torch on the CPU give the numbers of that seed."""
    import numpy as np
    import torch

    random.seed(_SEED)
    np.random.seed(_SEED)
    torch.manual_seed(_SEED)
    expected = (random.random(), float(np.random.random()), float(torch.rand(())))
    for _ in range(2):
        seed_everything(subject.session, _SEED, subject.device, False)
        drawn = (random.random(), float(np.random.random()), float(torch.rand(())))
        require(drawn == expected, f"seed {_SEED} should give {expected} on the host, it gave {drawn}")


@check(
    "S3",
    level=1,
    capability=Capability.DETERMINISTIC,
    settings=deterministic,
    fault="the plugin ignores the request for determinism, or the results still differ",
)
def deterministic_runs_are_equal(subject: PluginUnderTest) -> None:
    """Two short deterministic trainings end with bit-equal weights, and torch's deterministic mode is on."""
    import torch

    weights = []
    for _ in range(2):
        seed_everything(subject.session, _SEED, subject.device, True)
        require(
            torch.are_deterministic_algorithms_enabled(),
            "perf_seed was asked for determinism, but torch.are_deterministic_algorithms_enabled() is False: call "
            "torch.use_deterministic_algorithms(True), so that torch refuses operators without a deterministic kernel",
        )
        weights.append(train(subject, _STEPS))
    different = sum(not torch.equal(one, other) for one, other in zip(*weights, strict=True))
    require(
        different == 0,
        f"two deterministic runs of {_STEPS} steps with seed {_SEED} differ in {different} of {len(weights[0])} "
        "parameters: choose deterministic kernels, and seed every generator that they use",
    )


@check(
    "S4",
    level=1,
    settings=each_precision,
    fault="the teardown does not restore TF32, autotuning or determinism",
)
def teardown_restores_switches(subject: PluginUnderTest) -> None:
    """A teardown restores every global switch that the plugin's hooks changed."""
    session, precision = subject.session, subject.settings.precision
    _ = subject.runtime
    before = _switches(subject)
    # The hooks that a run calls from initialization to teardown.
    device = _initialize(subject)
    if session.has("perf_seed"):
        session.seed(_SEED, device, True)
    if session.has("perf_precision"):
        with suppress(UnsupportedPrecision):
            session.precision(precision, device)
    session.device_teardown(device)
    after = _switches(subject)
    changed = [f"{name} was {value} and is {after[name]}" for name, value in before.items() if after[name] != value]
    require(
        not changed,
        f"a run in {precision} and its teardown changed {'; '.join(changed)}: perf_device_teardown has to restore "
        "what perf_device_init, perf_seed and perf_precision change",
    )


def _draw(subject: PluginUnderTest, seed: int) -> torch.Tensor:
    import torch

    # Core seeds the CPU's generator before it calls the hook. torch.manual_seed would seed most other devices as well.
    torch.default_generator.manual_seed(seed)
    subject.session.seed(seed, subject.device, False)
    return torch.rand(_SAMPLES, device=subject.device).cpu()


def _initialize(subject: PluginUnderTest) -> torch.device:
    with not_run_on(PerfError, "the device cannot be initialized after a teardown, see D5"):
        return subject.session.device_init(Rank())


def _switches(subject: PluginUnderTest) -> dict[str, object]:
    """Return torch's global switches by name, and the arithmetic of fp32 products, which shows other settings."""
    import torch

    from chipperf.train.effective_precision import measure_effective_precision

    found = read_switches(subject.info.device_type) | {
        "torch.is_grad_enabled()": torch.is_grad_enabled(),
        "torch.get_num_threads()": torch.get_num_threads(),
    }
    # The initialization may change the switches, so it comes after they were read.
    products = measure_effective_precision(_initialize(subject), nullcontext)
    return found | {f"arithmetic of the fp32 {name}": seen.name for name, seen in products.items()}

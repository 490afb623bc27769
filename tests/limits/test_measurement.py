"""What the measurements count, on the CPU, with a clock that the test sets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from chipperf.limits import measurement
from chipperf.limits.measurement import (
    WINDOW_S,
    WINDOWS,
    Clock,
    array_bytes,
    best_product,
    host_link_rate,
    is_narrower,
    memory_rates,
    product_flops,
)
from chipperf.records.machine_limits import HOST_LINKS
from chipperf.train.effective_precision import Rounding, product_rounding

if TYPE_CHECKING:
    from collections.abc import Callable

CPU = torch.device("cpu")
FP32, TF32, BF16 = Rounding(23, True), Rounding(10, True), Rounding(7, True)


class Time:
    """A clock that only the measured operations advance; a synchronization takes no time."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s

    def operation(self, seconds: float) -> Callable[[], None]:
        def advance() -> None:
            self.now_s += seconds

        return advance


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    found = Time()
    monkeypatch.setattr(measurement, "time", found)
    return found


@pytest.mark.parametrize("seconds", [1e-5, 0.01, 0.7])
def test_rate_is_the_amount_over_the_time_of_a_call(clock: Time, seconds: float) -> None:
    rate = Clock(lambda: None).rate(clock.operation(seconds), 1000)

    assert rate.median == pytest.approx(1000 / seconds)
    assert len(rate.windows) == WINDOWS
    assert all(window.seconds > 0.9 * WINDOW_S for window in rate.windows)
    assert all(window.samples == 1000 * window.steps for window in rate.windows)


def test_first_call_is_in_no_window(clock: Time) -> None:
    durations = iter([60.0])

    def operation() -> None:
        clock.now_s += next(durations, 0.02)

    assert Clock(lambda: None).rate(operation, 1).median == pytest.approx(50)


def test_device_is_synchronized_at_edges_only(clock: Time) -> None:
    edges = []
    measured = Clock(lambda: edges.append(clock.now_s))

    measured.window_s(clock.operation(0.1), 5)

    assert edges == [0.0, pytest.approx(0.5)]


def test_memory_counts_every_array_once(monkeypatch: pytest.MonkeyPatch) -> None:
    amounts = {}

    def rate(self: Clock, operation: Callable[[], Any], amount: int) -> Any:
        result = operation()
        amounts[float(result[0])] = amount
        return None

    monkeypatch.setattr(Clock, "rate", rate)

    memory_rates(CPU, 32 * 4096, Clock(lambda: None))

    # Arrays of ones: a copy is 1, a sum is 2.
    assert amounts == {1.0: 2 * 4096, 2.0: 3 * 4096}


@pytest.mark.parametrize("link", HOST_LINKS[2:])
def test_link_counts_the_bytes_that_go_over_it(link: str, monkeypatch: pytest.MonkeyPatch) -> None:
    amounts = []
    monkeypatch.setattr(Clock, "rate", lambda self, operation, amount: (operation(), amounts.append(amount)))

    host_link_rate(CPU, 32 * 4096, link, Clock(lambda: None))

    assert amounts == [4096]


def test_array_is_part_of_the_memory() -> None:
    assert array_bytes(64 * 2**30) == 2**30
    assert array_bytes(2**30) == 2**25
    assert array_bytes(None) == measurement._ARRAY_BYTES_IF_UNTOLD


def test_product_counts_a_multiplication_and_an_addition() -> None:
    assert product_flops((2, 3, 5)) == 60


def policy(dtype: str | None = None) -> Any:
    return SimpleNamespace(autocast_dtype=dtype)


def test_best_of_the_sweep_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {(256, 256, 256): 1e9, (512, 512, 512): 9e9, (1024, 512, 512): 12e9, (512, 512, 256): 2e9}
    monkeypatch.setattr(measurement, "_LARGEST_SIDE", 512)
    monkeypatch.setattr(measurement, "_swept", lambda device, dtype, shape, clock: rates[shape])
    measured = []

    def rate(self: Clock, operation: Callable[[], Any], amount: int) -> Any:
        measured.append(amount)
        return SimpleNamespace(median=amount)

    monkeypatch.setattr(Clock, "rate", rate)

    best = best_product(CPU, policy(), None, Clock(lambda: None))

    assert best.shape == (1024, 512, 512)
    assert sorted(measured) == sorted([product_flops((512, 512, 512)), product_flops((1024, 512, 512))])


def test_sweep_ends_where_a_product_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    swept = []

    def slow(device: Any, dtype: Any, shape: tuple[int, int, int], clock: Clock) -> float:
        swept.append(shape)
        return 1e9

    monkeypatch.setattr(measurement, "_swept", slow)
    monkeypatch.setattr(Clock, "rate", lambda self, operation, amount: SimpleNamespace(median=1.0))

    best_product(CPU, policy(), None, Clock(lambda: None))

    # At 1 GFLOP/s, 512 x 512 x 512 take a quarter of a second. The others are those around the fastest.
    assert swept == [(256, 256, 256), (512, 512, 512), (512, 256, 256), (256, 256, 128)]


@pytest.mark.parametrize(
    ("dtype", "name"), [(torch.float32, "fp32"), (torch.bfloat16, "bf16"), (torch.float16, "fp16")]
)
def test_rounding_is_that_of_the_type(dtype: torch.dtype, name: str) -> None:
    assert product_rounding(CPU, dtype, (64, 32, 16)).name == name


def test_product_in_a_narrower_format_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    multiply = torch.mm
    monkeypatch.setattr(torch, "mm", lambda x, w: multiply(x.bfloat16(), w.bfloat16()).float())

    assert product_rounding(CPU, torch.float32, (64, 32, 16)).name == "bf16"


@pytest.mark.parametrize(
    ("rounding", "precision", "narrower"),
    [
        (FP32, "fp32", False),
        (Rounding(18, True), "fp32", False),
        (TF32, "fp32", True),
        (TF32, "tf32", False),
        (FP32, "tf32", False),
        (BF16, "amp", True),
        (BF16, "bf16", False),
    ],
)
def test_narrower_than_the_precision(rounding: Rounding, precision: Any, narrower: bool) -> None:
    assert is_narrower(rounding, precision) is narrower

"""What plugins share: switches that are put back, precisions that are refused, memory that may be unknown."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from chipperf import Capability, DeviceError, Rank, UnsupportedPrecision, torchtools
from chipperf.plugin.torch_helpers import HOST_VARIABLES
from chipperf.precisions import PRECISIONS
from chipperf.torchtools import Switch
from chipperf.visible import either

if TYPE_CHECKING:
    from collections.abc import Iterator

CPU = torch.device("cpu")
ALL = frozenset(means.capability for means in PRECISIONS.values() if means.capability)


@pytest.fixture(autouse=True)
def switches_put_back() -> Iterator[None]:
    yield
    torchtools.restore_switches()


def test_import_loads_no_torch() -> None:
    program = "import sys, chipperf.torchtools; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        (torchtools.CUDNN_BENCHMARK, True, lambda: torch.backends.cudnn.benchmark),
        (torchtools.CUDNN_DETERMINISTIC, True, lambda: torch.backends.cudnn.deterministic),
        (torchtools.DETERMINISTIC_ALGORITHMS, True, torch.are_deterministic_algorithms_enabled),
        (torchtools.MATMUL_PRECISION, "medium", torch.get_float32_matmul_precision),
    ],
)
def test_switch_is_set_read_back_and_restored(name: str, value: Any, read: Any) -> None:
    before = read()
    assert before != value
    assert torchtools.set_switch(name, value) == value == read()
    torchtools.set_switch(name, before)
    torchtools.set_switch(name, value)
    torchtools.restore_switches()
    torchtools.restore_switches()
    assert read() == before == torchtools.read_switch(name)


def test_switch_that_has_the_value_is_not_touched() -> None:
    values = []
    switch = Switch(lambda: "on", values.append)
    assert torchtools.set_switch("acme.turbo", "on", switch=switch) == "on"
    torchtools.restore_switches()
    assert values == []


def test_switch_that_stays_is_told() -> None:
    assert torchtools.set_switch("acme.turbo", True, switch=Switch(lambda: False, lambda value: None)) is False


def test_switch_of_another_library_is_restored() -> None:
    values = ["off"]
    switch = Switch(lambda: values[-1], values.append)
    torchtools.set_switch("acme.turbo", "on", switch=switch)
    torchtools.restore_switches()
    assert values == ["off", "on", "off"]


def test_knobs_have_the_values_in_force() -> None:
    torchtools.set_switch(torchtools.CUDNN_BENCHMARK, True)
    (knob,) = torchtools.switch_knobs({torchtools.CUDNN_BENCHMARK: "why"})
    assert (knob.name, knob.value, knob.reason) == ("cudnn.benchmark", "True", "why")


@pytest.mark.parametrize("enabled", [True, False])
def test_tf32_is_switched_by_the_names_that_torch_prefers(enabled: bool) -> None:
    wanted = torchtools.set_tf32(enabled)
    assert {name: torchtools.read_switch(name) for name in wanted} == wanted
    assert set(wanted.values()) <= {True, False, "tf32", "ieee"}


OLDER_NAMES = """
import torch
from chipperf.torchtools import set_tf32
assert set_tf32(True, older_names=True) == {"cuda.matmul.allow_tf32": True, "cudnn.allow_tf32": True}
assert torch.backends.cuda.matmul.allow_tf32
assert torch.backends.cudnn.allow_tf32
"""


def test_tf32_is_switched_by_the_older_names_if_the_caller_wants_them() -> None:
    # In a process of its own: torch lets none use both sets of names.
    assert subprocess.run([sys.executable, "-c", OLDER_NAMES], timeout=120, check=False).returncode == 0


@pytest.mark.parametrize(
    ("deterministic", "cudnn", "autotune", "expected"),
    [
        (True, True, True, (True, True, False)),
        (False, True, True, (False, False, True)),
        (False, True, False, (False, False, False)),
        (True, False, True, (True, False, False)),
    ],
)
def test_determinism_excludes_autotuning(
    deterministic: bool, cudnn: bool, autotune: bool, expected: tuple[bool, ...]
) -> None:
    torchtools.set_determinism(deterministic, cudnn=cudnn, autotune=autotune)
    names = (torchtools.DETERMINISTIC_ALGORITHMS, torchtools.CUDNN_DETERMINISTIC, torchtools.CUDNN_BENCHMARK)
    assert tuple(map(torchtools.read_switch, names)) == expected


@pytest.mark.parametrize("requested", PRECISIONS)
def test_policy_is_the_tables(requested: Any) -> None:
    torchtools.require_precision(requested, ALL, who="Acme")
    policy = torchtools.precision_policy(requested)
    means = PRECISIONS[requested]
    assert (policy.requested, policy.effective) == (requested, means.arithmetic)
    assert (policy.autocast_dtype, policy.grad_scaler) == (means.autocast_type, means.scales_gradients)


def test_stack_that_was_told_to_compute_otherwise_says_so() -> None:
    assert torchtools.precision_policy("fp32", effective="fp32, but convolutions in int16").effective.endswith("int16")


@pytest.mark.parametrize(
    ("requested", "capabilities", "message", "hint"),
    [
        ("bf16", (), "the Acme A1 does not run bf16: its units are old", "use --precision fp32"),
        ("tf32", {Capability.BF16}, "the Acme A1 does not run tf32", "use --precision fp32 or bf16"),
        ("fp12", ALL, "the Acme A1 does not run fp12", f"use --precision {either(PRECISIONS)}"),
    ],
    ids=["with a reason", "not declared", "unknown"],
)
def test_precision_is_refused(requested: Any, capabilities: Any, message: str, hint: str) -> None:
    with pytest.raises(UnsupportedPrecision) as caught:
        torchtools.require_precision(requested, capabilities, who="the Acme A1", reasons={"bf16": "its units are old"})
    assert (caught.value.message, caught.value.hint) == (message, hint)


def small_model() -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 2)
    )


@pytest.mark.parametrize("requested", PRECISIONS)
def test_parameters_have_the_type_of_the_precision_but_those_of_batch_normalization(requested: Any) -> None:
    model = small_model()
    assert torchtools.convert_parameters(model, requested) is model
    half = {name for name, parameter in model.named_parameters() if parameter.dtype == torch.float16}
    assert half == ({"0.weight", "0.bias", "3.weight", "3.bias"} if requested == "fp16" else set())
    assert {buffer.dtype for buffer in model.buffers()} == {torch.float32, torch.int64}


def fake_module(**results: Any) -> Any:
    calls: list[tuple[Any, ...]] = []

    def fake(name: str, result: Any) -> Any:
        return lambda *arguments: (calls.append((name, *arguments)), result)[1]

    functions = {name: fake(name, result) for name, result in results.items()}
    return SimpleNamespace(__name__="torch.acme", calls=calls, **functions)


def test_device_of_the_local_rank_is_made_current_before_its_counters_are_read() -> None:
    module = fake_module(device_count=4, set_device=None, init=None)
    rank = Rank(rank=7, local_rank=3, world_size=8, local_world_size=4, node_rank=1)
    device = torchtools.use_device(module, "cuda", rank, called="GPU", visible_devices_env=("ACME_CARDS",))
    assert device == torch.device("cuda", 3)
    assert module.calls == [("device_count",), ("set_device", device), ("init",)]


@pytest.mark.parametrize(
    ("count", "variable", "message", "hint"),
    [
        (2, None, "torch sees 2 GPU(s); ACME_CARDS is not set", "use --nproc 2, or show more devices"),
        (0, "", "torch sees 0 GPU(s); CUDA_VISIBLE_DEVICES=", "'perf doctor' says what the probe finds"),
    ],
)
def test_missing_device_is_counted_and_not_touched(
    monkeypatch: pytest.MonkeyPatch, count: int, variable: str | None, message: str, hint: str
) -> None:
    variables = ("ACME_CARDS", "CUDA_VISIBLE_DEVICES")
    for name in variables:
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    module = fake_module(device_count=count)
    with pytest.raises(DeviceError) as caught:
        torchtools.use_device(module, "cuda", Rank(local_rank=2), called="GPU", visible_devices_env=variables)
    assert (caught.value.message, caught.value.hint) == (f"local rank 2 has no device: {message}", hint)
    assert module.calls == [("device_count",)]


COUNTERS = {
    "allocated_bytes.all.current": 1,
    "allocated_bytes.all.peak": 2,
    "reserved_bytes.all.current": 3,
    "reserved_bytes.all.peak": 4,
}


def test_memory_is_the_allocators_and_the_devices() -> None:
    stats = torchtools.read_memory(fake_module(memory_stats=COUNTERS, mem_get_info=(10, 16)), CPU)
    assert (stats.allocated_bytes, stats.peak_allocated_bytes) == (1, 2)
    assert (stats.reserved_bytes, stats.peak_reserved_bytes) == (3, 4)
    assert (stats.used_bytes, stats.total_bytes) == (6, 16)
    assert stats.source == "torch.acme allocator; used and total: torch.acme.mem_get_info"


def test_memory_of_the_device_may_come_from_a_better_source() -> None:
    module = fake_module(memory_stats=COUNTERS)
    stats = torchtools.read_memory(module, CPU, device_bytes=(5, 9), device_source="ACMEML 2")
    assert (stats.used_bytes, stats.total_bytes) == (5, 9)
    assert stats.source == "torch.acme allocator; used and total: ACMEML 2"


@pytest.mark.parametrize("module", [fake_module(), fake_module(memory_stats={}, mem_get_info=(None, None))])
def test_memory_that_the_stack_does_not_count_is_unknown(module: Any) -> None:
    stats = torchtools.read_memory(module, CPU)
    values = {getattr(stats, name) for name in stats.__slots__ if name != "source"}
    assert values == {None}
    assert stats.source == "torch.acme.mem_get_info"


def test_variables_of_the_user_are_told_with_what_they_do() -> None:
    environment = {"ACME_TF32": "0", "ACME_NEW": "x", "HOME": "/root", "OMP": "1"}
    meanings = {"ACME_*": "not known", "OMP": "threads", "ACME_TF32": "forbids TF32", "ABSENT": "no"}
    knobs = torchtools.user_variables(meanings, environment=environment)
    assert [(knob.name, knob.value) for knob in knobs] == [("OMP", "1"), ("ACME_TF32", "0"), ("ACME_NEW", "x")]
    assert [knob.reason for knob in knobs][:2] == ["threads", "forbids TF32"]
    assert "not known" in knobs[2].reason


@pytest.mark.parametrize(
    "name",
    [
        *("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "ONEDNN_MAX_CPU_ISA", "OMP_PLACES", "KMP_AFFINITY"),
        *("MKL_CBWR", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "PYTORCH_ALLOC_CONF", "ATEN_CPU_CAPABILITY"),
        *("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_ARENA_MAX", "TCMALLOC_SAMPLE_PARAMETER", "BLIS_NUM_THREADS"),
    ],
)
def test_variables_of_the_host_are_found_by_prefix(name: str) -> None:
    environment = {name: "x", "TORCHELASTIC_RUN_ID": "1", "HOME": "/root", "LD_LIBRARY_PATH": "/lib"}
    (knob,) = torchtools.user_variables(HOST_VARIABLES, environment=environment)
    assert (knob.name, knob.value) == (name, "x")
    assert ("AMX" in knob.reason) == ("FPMATH" in name)

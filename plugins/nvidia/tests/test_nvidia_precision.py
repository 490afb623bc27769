"""Precisions: what is switched, what is reported, what is refused, and that all is put back."""

from __future__ import annotations

import sys
from operator import attrgetter
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from chipperf import EnvironmentSettings, PrecisionPolicy, Rank, UnsupportedPrecision, torchtools
from chipperf.torchtools import read_switch
from chipperf_nvidia.plugin import (
    perf_device_teardown,
    perf_environment,
    perf_precision,
    perf_prepare_model,
    perf_seed,
)
from chipperf_nvidia.run_settings import AUTOTUNE_VARIABLE

CUDA_0 = torch.device("cuda", 0)
TF32_NAMES: tuple[str, ...]
TF32_ON: str | bool
TF32_OFF: str | bool
if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
    TF32_NAMES = ("cuda.matmul.fp32_precision", "cudnn.conv.fp32_precision", "cudnn.rnn.fp32_precision")
    TF32_ON, TF32_OFF = "tf32", "ieee"
else:
    TF32_NAMES = ("cuda.matmul.allow_tf32", "cudnn.allow_tf32")
    TF32_ON, TF32_OFF = True, False

pytestmark = pytest.mark.usefixtures("switches_put_back")


@pytest.fixture
def capability(monkeypatch: pytest.MonkeyPatch) -> None:
    set_capability(monkeypatch, (9, 0))


def set_capability(monkeypatch: pytest.MonkeyPatch, value: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: value)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100-SXM2-32GB")


def knobs(policy: PrecisionPolicy) -> dict[str, str]:
    assert all(knob.reason for knob in policy.knobs)
    return {knob.name: knob.value for knob in policy.knobs}


@pytest.mark.usefixtures("capability")
@pytest.mark.parametrize(
    ("requested", "effective", "autocast", "scaler"),
    [
        ("fp32", "fp32", None, False),
        ("tf32", "tf32", None, False),
        ("amp", "fp16", "float16", True),
        ("fp16", "fp16", "float16", False),
        ("bf16", "bf16", "bfloat16", False),
    ],
)
def test_policy(requested: Any, effective: str, autocast: str | None, scaler: bool) -> None:
    policy = perf_precision(requested, CUDA_0)
    assert (policy.requested, policy.effective) == (requested, effective)
    assert (policy.autocast_dtype, policy.grad_scaler) == (autocast, scaler)
    expected = TF32_ON if requested == "tf32" else TF32_OFF
    assert [attrgetter(name)(torch.backends) for name in TF32_NAMES] == [expected] * len(TF32_NAMES)
    assert {name: knobs(policy)[name] for name in TF32_NAMES} == dict.fromkeys(TF32_NAMES, str(expected))


@pytest.mark.usefixtures("capability")
def test_fp32_that_cublas_emulates_is_not_called_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_EMULATE_SINGLE_PRECISION", "1")
    assert perf_precision("fp32", CUDA_0).effective == "fp32, but cuBLAS may compute products in bf16 parts"
    assert perf_precision("tf32", CUDA_0).effective == "tf32"


@pytest.mark.usefixtures("capability")
def test_knobs_are_read_back_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chipperf.plugin.torch_helpers.set_switch", lambda name, value: None)
    backend, _, attribute = TF32_NAMES[1].rpartition(".")
    setattr(attrgetter(backend)(torch.backends), attribute, TF32_ON)
    assert knobs(perf_precision("fp32", CUDA_0))[TF32_NAMES[1]] == str(TF32_ON)


@pytest.mark.usefixtures("capability")
def test_teardown_puts_every_switch_back_and_may_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AUTOTUNE_VARIABLE, "1")
    names = (*TF32_NAMES, *torchtools.KERNEL_SWITCHES)
    before = {name: read_switch(name) for name in names}
    perf_seed(1, True)
    perf_precision("tf32", CUDA_0)
    perf_seed(1, False)
    perf_precision("fp32", CUDA_0)
    assert {name: read_switch(name) for name in names} != before
    perf_device_teardown()
    perf_device_teardown()
    assert {name: read_switch(name) for name in names} == before


@pytest.mark.parametrize(("requested", "needed"), [("bf16", "8.0"), ("tf32", "8.0")])
@pytest.mark.parametrize("value", [(7, 0), (7, 5)])
def test_format_the_gpu_lacks_is_refused_before_anything_is_switched(
    monkeypatch: pytest.MonkeyPatch, requested: Any, needed: str, value: tuple[int, int]
) -> None:
    set_capability(monkeypatch, value)
    before = read_switch(TF32_NAMES[1])
    with pytest.raises(UnsupportedPrecision, match=rf"V100.* {value[0]}\.{value[1]}; {requested} needs {needed}"):
        perf_precision(requested, CUDA_0)
    assert read_switch(TF32_NAMES[1]) == before


@pytest.mark.usefixtures("capability")
def test_precision_the_plugin_does_not_know_is_refused_before_anything_is_switched() -> None:
    before = read_switch(TF32_NAMES[1])
    unknown: Any = "fp8"
    with pytest.raises(UnsupportedPrecision, match="the NVIDIA plugin does not run fp8"):
        perf_precision(unknown, CUDA_0)
    assert read_switch(TF32_NAMES[1]) == before


@pytest.mark.parametrize("requested", ["fp32", "amp", "fp16"])
def test_older_gpus_run_the_other_precisions(monkeypatch: pytest.MonkeyPatch, requested: Any) -> None:
    set_capability(monkeypatch, (7, 0))
    assert perf_precision(requested, CUDA_0).requested == requested


@pytest.mark.usefixtures("capability")
def test_tf32_that_the_environment_forbids_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert perf_precision("fp32", CUDA_0).effective == "fp32"
    with pytest.raises(UnsupportedPrecision, match="NVIDIA_TF32_OVERRIDE=0"):
        perf_precision("tf32", CUDA_0)


class StrictBackend:
    """A backend of a torch before 2.9: reading or writing what it does not have fails."""

    values: dict[str, object]

    def __init__(self, **values: object) -> None:
        object.__setattr__(self, "values", values)

    def __getattr__(self, name: str) -> object:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: object) -> None:
        assert name in self.values, f"{name} belongs to the other set of switches"
        self.values[name] = value


@pytest.fixture
def torch_2_4(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    reductions = {f"allow_{kind}_reduced_precision_reduction": True for kind in ("fp16", "bf16")}
    fake = ModuleType("torch")
    matmul = StrictBackend(allow_tf32=False, **reductions)
    cudnn = StrictBackend(allow_tf32=True, benchmark=False, deterministic=False)
    fake.backends = SimpleNamespace(cuda=SimpleNamespace(matmul=matmul), cudnn=cudnn)
    fake.cuda = SimpleNamespace(
        get_device_capability=lambda device: (8, 0),
        get_device_name=lambda device: "NVIDIA A100-SXM4-40GB",
        manual_seed_all=lambda seed: None,
    )
    fake.are_deterministic_algorithms_enabled = lambda: False
    fake.use_deterministic_algorithms = lambda mode: None
    monkeypatch.setitem(sys.modules, "torch", fake)
    return fake


@pytest.mark.parametrize(("requested", "enabled"), [("fp32", False), ("tf32", True), ("bf16", False)])
def test_older_torch_is_switched_by_its_own_names_only(torch_2_4: Any, requested: Any, enabled: bool) -> None:
    policy = perf_precision(requested, CUDA_0)
    backends = torch_2_4.backends
    assert (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32) == (enabled, enabled)
    names = ("cuda.matmul.allow_tf32", "cudnn.allow_tf32")
    assert {name: knobs(policy)[name] for name in names} == dict.fromkeys(names, str(enabled))
    torchtools.restore_switches()
    assert (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32) == (False, True)


@pytest.mark.parametrize(
    ("case", "deterministic", "expected"),
    [
        ("resnet50", False, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", AUTOTUNE_VARIABLE: "1"}),
        ("mobilenetv2", False, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", AUTOTUNE_VARIABLE: "1"}),
        ("detr", False, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", AUTOTUNE_VARIABLE: "0"}),
        (
            "resnet50",
            True,
            {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", AUTOTUNE_VARIABLE: "0"},
        ),
    ],
)
def test_environment_of_a_worker(case: str, deterministic: bool, expected: dict[str, str]) -> None:
    settings = EnvironmentSettings(case=case, precision="fp32", deterministic=deterministic)
    variables = perf_environment(Rank(), settings)
    assert {variable.name: variable.value for variable in variables} == expected
    assert all(variable.reason for variable in variables)


@pytest.mark.parametrize(("ranks", "local", "interface"), [(1, 1, None), (8, 8, "lo"), (16, 8, None)])
def test_nccl_listens_on_loopback_if_all_ranks_are_here(ranks: int, local: int, interface: str | None) -> None:
    settings = EnvironmentSettings(case="resnet50", precision="fp32")
    variables = perf_environment(Rank(world_size=ranks, local_world_size=local), settings)
    assert {variable.name: variable.value for variable in variables}.get("NCCL_SOCKET_IFNAME") == interface


@pytest.mark.parametrize(
    ("variable", "deterministic", "benchmark"),
    [("1", False, True), ("1", True, False), ("0", False, False), (None, False, False)],
)
def test_autotuning_needs_the_variable_and_no_determinism(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, deterministic: bool, benchmark: bool
) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    monkeypatch.delenv(AUTOTUNE_VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(AUTOTUNE_VARIABLE, variable)
    perf_seed(7, deterministic)
    assert seeds == [7]
    assert torch.backends.cudnn.benchmark is benchmark
    assert torch.backends.cudnn.deterministic is deterministic
    assert torch.are_deterministic_algorithms_enabled() is deterministic


def small_model() -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 2)
    )


@pytest.mark.parametrize("requested", ["fp32", "tf32", "amp", "fp16", "bf16"])
def test_prepared_model_keeps_its_parameters_and_takes_the_layout_of_tensor_cores(requested: Any) -> None:
    model = small_model()
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    prepared: Any = perf_prepare_model(model, PrecisionPolicy(requested=requested, effective="any"))
    assert {name: parameter.shape for name, parameter in prepared.named_parameters()} == shapes
    weight = prepared[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == (requested != "fp32")
    half = {name for name, parameter in prepared.named_parameters() if parameter.dtype == torch.float16}
    assert half == ({"0.weight", "0.bias", "3.weight", "3.bias"} if requested == "fp16" else set())
    assert prepared[1].running_var.dtype == torch.float32


def test_fp16_parameters_train_on_fp32_images_under_autocast() -> None:
    model: Any = perf_prepare_model(small_model(), PrecisionPolicy(requested="fp16", effective="fp16"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model[3].weight.detach().clone()
    with torch.autocast("cpu", dtype=torch.float16):
        output = model(torch.rand(4, 3, 8, 8))
        loss = torch.nn.functional.cross_entropy(output.float(), torch.tensor([0, 1, 0, 1]))
    loss.backward()
    optimizer.step()
    assert output.dtype == model[3].weight.grad.dtype == torch.float16
    assert not torch.equal(model[3].weight, before)

"""What the plugin does to torch, and reads from it; torch.cuda is replaced where a device is needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from chipperf import DeviceError, EnvironmentSettings, PluginError, Rank, UnsupportedPrecision
from chipperf.torchtools import (
    CUDNN_TF32,
    KERNEL_SWITCHES,
    MATMUL_TF32,
    Switch,
    read_switch,
    restore_switches,
    set_switch,
)
from chipperf_metax import plugin
from chipperf_metax.plugin import (
    AUTOTUNE_VARIABLE,
    environment_knobs,
    installed_versions,
    perf_device_info,
    perf_device_init,
    perf_environment,
    perf_load_runtime,
    perf_precision,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from chipperf import Knob, Precision
    from fake_machine import FakeMachine

CPU = torch.device("cpu")
SETTINGS = EnvironmentSettings(case="resnet50", precision="fp32")


def switches() -> dict[str, bool]:
    return {name: read_switch(name) for name in (MATMUL_TF32, CUDNN_TF32, *KERNEL_SWITCHES)}


def values(knobs: tuple[Knob, ...]) -> dict[str, str]:
    return {knob.name: knob.value for knob in knobs}


@pytest.fixture(autouse=True)
def switches_as_before() -> Iterator[None]:
    before = switches()
    yield
    restore_switches()
    assert switches() == before


@pytest.mark.parametrize(
    ("requested", "effective", "tf32", "autocast", "scaler"),
    [
        ("fp32", "fp32", False, None, False),
        ("tf32", "tf32", True, None, False),
        ("amp", "fp16", False, "float16", True),
        ("fp16", "fp16", False, "float16", False),
        ("bf16", "bf16", False, "bfloat16", False),
    ],
)
def test_tf32_runs_only_when_it_is_asked_for(
    requested: Precision, effective: str, tf32: bool, autocast: str | None, scaler: bool
) -> None:
    set_switch(CUDNN_TF32, not tf32)
    policy = perf_precision(requested, CPU)
    assert (policy.requested, policy.effective) == (requested, effective)
    assert (policy.autocast_dtype, policy.grad_scaler) == (autocast, scaler)
    knobs = values(policy.knobs)
    assert knobs["cuda.matmul.allow_tf32"] == knobs["cudnn.allow_tf32"] == str(tf32)
    assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is tf32


def test_precision_that_the_environment_prevents_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    set_switch(MATMUL_TF32, True)
    with monkeypatch.context() as forced:
        stuck = Switch(lambda: True, lambda value: None)
        forced.setattr("chipperf.plugin.torch_helpers._switch_of_torch", lambda name: stuck)
        with pytest.raises(
            UnsupportedPrecision, match=r"fp32 cannot be run: .*matmul\.allow_tf32 stays True"
        ) as caught:
            perf_precision("fp32", CPU)
    assert caught.value.hint is not None
    assert "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE" in caught.value.hint


def test_precision_the_plugin_does_not_know_is_refused_before_anything_is_switched() -> None:
    before = switches()
    unknown: Any = "fp8"
    with pytest.raises(UnsupportedPrecision, match="the MetaX plugin does not run fp8"):
        perf_precision(unknown, CPU)
    assert switches() == before


@pytest.mark.parametrize(
    ("deterministic", "autotune", "benchmark"),
    [(False, "1", True), (False, "0", False), (True, "1", False)],
    ids=["autotuned", "default", "reproducible"],
)
def test_every_switch_is_reported_as_it_is_and_put_back(
    monkeypatch: pytest.MonkeyPatch, deterministic: bool, autotune: str, benchmark: bool
) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setenv(AUTOTUNE_VARIABLE, autotune)
    before = switches()
    plugin.perf_seed(seed=7, deterministic=deterministic)
    knobs = values(plugin.perf_precision(requested="tf32", device=CPU).knobs)
    assert seeds == [7]
    assert knobs["cudnn.deterministic"] == knobs["use_deterministic_algorithms"] == str(deterministic)
    assert knobs["cudnn.benchmark"] == str(benchmark)
    assert {name: knobs[name] for name in before} == {name: str(value) for name, value in switches().items()}
    plugin.perf_device_teardown()
    plugin.perf_device_teardown()
    assert switches() == before


@pytest.mark.parametrize(("layout", "expected"), [(torch.contiguous_format, "contiguous"), (torch.channels_last,) * 2])
def test_layout_of_copies_is_found_by_copying(
    monkeypatch: pytest.MonkeyPatch, layout: torch.memory_format, expected: object
) -> None:
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: tensor.contiguous(memory_format=layout))
    knobs = values(perf_precision("fp32", CPU).knobs)
    assert knobs["layout of 4-D tensors copied to the device"] == str(expected).removeprefix("torch.")


@pytest.mark.parametrize(
    ("nchw", "requested", "channels_last", "dtype"),
    [
        (None, "fp32", True, torch.float32),
        (None, "fp16", True, torch.float16),
        (None, "amp", True, torch.float32),
        ("1", "fp32", False, torch.float32),
        ("0", "bf16", False, torch.float32),
    ],
)
def test_model_follows_the_layout_and_the_precision(
    monkeypatch: pytest.MonkeyPatch, nchw: str | None, requested: Precision, channels_last: bool, dtype: torch.dtype
) -> None:
    if nchw is None:
        monkeypatch.delenv("PYTORCH_DEFAULT_NCHW", raising=False)
    else:
        monkeypatch.setenv("PYTORCH_DEFAULT_NCHW", nchw)
    policy = perf_precision(requested, CPU)
    model = plugin.perf_prepare_model(model=torch.nn.Conv2d(2, 3, 3), precision=policy)
    parameters = dict(model.named_parameters())
    assert list(parameters) == ["weight", "bias"]
    assert parameters["weight"].is_contiguous() is not channels_last
    assert parameters["weight"].dtype == dtype


def test_fp16_model_keeps_its_batch_statistics_in_fp32() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    policy = perf_precision("fp16", CPU)
    prepared = plugin.perf_prepare_model(model=model, precision=policy)
    with torch.autocast("cpu", dtype=torch.float16):
        output = prepared(torch.rand(2, 3, 8, 8))
    assert output.isfinite().all()
    dtypes = {name: tensor.dtype for name, tensor in prepared.state_dict().items() if tensor.is_floating_point()}
    assert {name for name, dtype in dtypes.items() if dtype == torch.float16} == {"0.weight", "0.bias"}


def test_layout_switch_is_reported_in_any_case() -> None:
    assert values(environment_knobs({})) == {"PYTORCH_DEFAULT_NCHW": "not set"}
    assert values(environment_knobs({"PYTORCH_DEFAULT_NCHW": "0"})) == {
        "PYTORCH_DEFAULT_NCHW": "'0': on, whatever its value"
    }


def test_variables_that_are_set_are_reported() -> None:
    environment = {"METAX_USE_TF32": "1", "MCDNN_USE_DETERMINISTIC_ALGO": "1", "HOME": "/root"}
    knobs = {knob.name: knob.reason for knob in environment_knobs(environment)}
    assert set(knobs) == {"PYTORCH_DEFAULT_NCHW", "METAX_USE_TF32", "MCDNN_USE_DETERMINISTIC_ALGO"}
    assert "no effect" in knobs["METAX_USE_TF32"]


@pytest.mark.parametrize(
    "name",
    [
        "FORCE_ACTIVE_WAIT",
        "FORCE_ACTIVATE_WAIT",
        "MACA_DIRECT_DISPATCH",
        "MCCL_MAX_NCHANNELS",
        "METAX_SOMETHING_NEW",
        "MHA_BWD_NO_ATOMIC_F64",
        "SET_DEVICE_NUMA_PREFERRED",
    ],
)
def test_every_variable_of_metax_software_is_reported(name: str) -> None:
    assert values(environment_knobs({name: "1"}))[name] == "1"


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("has_sdk", [False, True])
def test_worker_is_told_the_sdk_and_determinism(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_sdk: bool, deterministic: bool
) -> None:
    monkeypatch.setattr(plugin, "_MACA_HOME", tmp_path if has_sdk else tmp_path / "absent")
    settings = EnvironmentSettings(case="resnet50", precision="fp32", deterministic=deterministic)
    variables = {variable.name: variable.value for variable in perf_environment(settings)}
    expected = {AUTOTUNE_VARIABLE: "0"} | ({"MACA_PATH": str(tmp_path)} if has_sdk else {})
    if deterministic:
        expected |= {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
        expected |= {"MCDNN_USE_DETERMINISTIC_ALGO": "1", "ENABLE_BLAS_DETERMINISTIC_MODE": "1"}
    assert variables == expected


def test_flagperf_switch_of_tf32_is_not_carried_over() -> None:
    settings = EnvironmentSettings(case="resnet50", precision="tf32", deterministic=True)
    names = {variable.name for variable in perf_environment(settings)}
    assert not {name for name in names if "TF32" in name}


@pytest.mark.parametrize("count", [0, 2])
def test_rank_without_device_is_told_how_many_there_are(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    monkeypatch.delenv("MACA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(DeviceError, match=rf"local rank 2 .* {count} MetaX device\(s\); CUDA_VISIBLE_DEVICES=4,5"):
        perf_device_init(Rank(rank=2, local_rank=2, world_size=3, local_world_size=3))


def test_library_that_counting_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def count() -> int:
        raise OSError("libmxsml.so: cannot open shared object file")

    monkeypatch.setattr(torch.cuda, "device_count", count)
    with pytest.raises(DeviceError, match=r"libmxsml\.so") as caught:
        perf_device_init(Rank())
    assert caught.value.hint == "add /opt/mxdriver/lib to LD_LIBRARY_PATH"


def test_device_is_made_current_and_has_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    made_current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "set_device", made_current.append)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    device = perf_device_init(Rank(rank=11, local_rank=3, world_size=16, local_world_size=8, node_rank=1))
    assert device == torch.device("cuda", 3)
    assert made_current == [device]


@pytest.mark.parametrize(
    ("properties", "uuid", "address"),
    [
        (
            {"uuid": "00000000-0000-0000-0000-000000000003", "pci_domain_id": 0, "pci_bus_id": 55, "pci_device_id": 0},
            "GPU-00000000-0000-0000-0000-000000000003",
            "0000:37:00.0",
        ),
        ({}, None, None),
    ],
    ids=["2.8", "2.0"],
)
def test_device_is_identified_as_mx_smi_lists_it(
    monkeypatch: pytest.MonkeyPatch, properties: dict[str, Any], uuid: str | None, address: str | None
) -> None:
    known = SimpleNamespace(name="MetaX C500", total_memory=16341008384, **properties)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: known)
    info = perf_device_info(torch.device("cuda", 1))
    assert (info.index, info.name, info.total_bytes) == (1, "MetaX C500", 16341008384)
    assert (info.uuid, info.pci_bus_id, info.part) == (uuid, address, None)


@pytest.mark.parametrize(("last_digit", "part"), [("3", "sGPU 25% 15.625gb"), ("1", None), ("9", None)])
def test_slice_is_identified_as_a_part(
    machine: FakeMachine,
    recorded: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    last_digit: str,
    part: str | None,
) -> None:
    machine.add_tool("mx-smi", recorded("list-2.2.12-sgpu"))
    uuid = f"00000000-0000-0000-0000-00000000000{last_digit}"
    known = SimpleNamespace(name="MetaX C500", total_memory=16341008384, uuid=uuid)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: known)
    assert perf_device_info(torch.device("cuda", 0)).part == part


def test_memory_is_the_allocators_and_the_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = {
        "allocated_bytes.all.current": 1,
        "allocated_bytes.all.peak": 2,
        "reserved_bytes.all.current": 3,
        "reserved_bytes.all.peak": 4,
    }
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: counters)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 16))
    stats = plugin.perf_memory_query(device=torch.device("cuda", 0))
    assert (stats.allocated_bytes, stats.peak_allocated_bytes) == (1, 2)
    assert (stats.reserved_bytes, stats.peak_reserved_bytes) == (3, 4)
    assert (stats.used_bytes, stats.total_bytes) == (6, 16)


def test_torch_of_somebody_else_is_refused() -> None:
    with pytest.raises(PluginError, match=r"torch .* is not a MetaX build"):
        perf_load_runtime()


@pytest.mark.parametrize(
    ("version", "maca", "sdk"),
    [
        ("2.8.0+metax3.5.3.9", "3.5.3.9", "MACA 3.5.3.20 (torch built with 3.5.3.9)"),
        ("2.0.0+mc2.18.0.8", None, "MACA 3.5.3.20 (torch built with 2.18.0.8)"),
    ],
)
def test_runtime_states_both_sdks_and_the_builds_defaults(
    machine: FakeMachine,
    recorded: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    maca: str | None,
    sdk: str,
) -> None:
    machine.add_tool("mx-smi", recorded("show-version-2.2.12"))
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(torch.version, "maca", maca, raising=False)
    monkeypatch.delenv("PYTORCH_DEFAULT_NCHW", raising=False)
    set_switch(CUDNN_TF32, False)
    runtime = perf_load_runtime()
    assert (runtime.torch, runtime.driver, runtime.sdk) == (version, "3.8.30", sdk)
    assert runtime.framework == f"pytorch-{version}"
    knobs = values(runtime.knobs)
    assert knobs["cudnn.allow_tf32 (default)"] == "False"
    assert knobs["PYTORCH_DEFAULT_NCHW"] == "not set"


@pytest.mark.parametrize(
    ("recording", "driver", "maca"),
    [
        ("show-version-2.2.12", "3.8.30", "3.5.3.20"),
        ("summary-2.2.12", "3.8.30", "3.5.3.20"),
        ("table-2.2.4", "2.15.9", "2.32.0.6"),
        ("table-ht-smi-2.2.9", "3.4.4", "3.3.0.15"),
        ("parse-error-2.2.12", "3.0.0", None),
    ],
)
def test_versions_are_the_drivers_and_the_sdks(
    machine: FakeMachine, recorded: Callable[[str], str], recording: str, driver: str, maca: str | None
) -> None:
    machine.add_file("sys/module/metax/version", "3.0.0\n")
    machine.add_tool("mx-smi", recorded(recording))
    assert installed_versions(machine.root) == (driver, maca)


def test_versions_are_unknown_where_nobody_tells(machine: FakeMachine) -> None:
    assert installed_versions(machine.root) == (None, None)


def test_torch_knows_the_collectives_as_nccl() -> None:
    assert plugin.perf_distributed_setup(rank=Rank(), device=torch.device("cuda", 0)).backend == "nccl"

"""The hooks of both stacks, with the vendor's functions replaced by fakes in this process."""

from __future__ import annotations

import sys
from collections import OrderedDict
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from chipperf import (
    Capability,
    CaseOverrides,
    DeviceError,
    EnvironmentSettings,
    PluginError,
    PrecisionPolicy,
    Rank,
    UnsupportedPrecision,
)
from chipperf.cases.config import resolve
from chipperf.cases.registry import find_case
from chipperf.plugin import installed
from chipperf.plugin.session import bind
from chipperf.plugin.vendor_files import read_case_configs
from chipperf.precisions import PRECISIONS
from chipperf_kunlunxin import plugin
from chipperf_kunlunxin import probe as kernel
from chipperf_kunlunxin.stacks import HAZARDS, STACKS, read_stack_versions
from fake_machine import ACCELERATOR
from kunlunxin_tool import P800_BYTES, add_xpu_smi, query_of, recorded

if TYPE_CHECKING:
    from pathlib import Path

    from fake_machine import FakeMachine

MIB = 2**20
VARIABLES = (*HAZARDS, "CUDA_VISIBLE_DEVICES", "XPU_VISIBLE_DEVICES", "PERF_KUNLUNXIN_BACKEND", "XACC_ARGS")
CUDA_DEVICE = torch.device("cuda", 0)
XPU_DEVICE = torch.device("xpu", 0)
ROWS = read_case_configs(plugin._CONFIGS).rows


class Calls(list[tuple[Any, ...]]):
    """Records what fakes are called with."""

    def fake(self, name: str, result: Any = None) -> Any:
        def call(*arguments: Any) -> Any:
            self.append((name, *arguments))
            return result

        return call


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("XDNN_CONV_GEMM_DTYPE", raising=False)
    monkeypatch.delenv("XDNN_FC_GEMM_DTYPE", raising=False)


@pytest.fixture
def r300(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, calls: Calls) -> FakeMachine:
    """A machine with two R300, whose torch extension is a fake."""
    for number, address in enumerate(("0000:53:00.0", "0000:56:00.0")):
        machine.add_pci(address, 0x1D22, 0x3685, ACCELERATOR)
        machine.add_file(f"dev/xpu{number}")
    machine.add_file("proc/kunlun/version", "4.0.25\n")
    add_xpu_smi(machine, table=recorded("xpu_smi-table-r300"))
    extension = ModuleType("torch_xmlir")
    extension.device = calls.fake("device", XPU_DEVICE)  # type: ignore[attr-defined]
    functions = ("manual_seed_all", "xpu_synchronize", "empty_cache")
    extension.xpu = SimpleNamespace(**{name: calls.fake(name) for name in functions})  # type: ignore[attr-defined]
    use(machine, extension, monkeypatch, "r300")
    return machine


@pytest.fixture
def p800(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, calls: Calls) -> FakeMachine:
    """A machine with two P800, whose torch answers as Kunlunxin's."""
    for number, address in enumerate(("0000:03:00.0", "0000:16:00.0")):
        machine.add_pci(address, 0x1D22, 0x3688, ACCELERATOR)
        machine.add_file(f"dev/xpu{number}")
    query = query_of(("00000000:16:00.0", "GPU-A1"), ("00000000:03:00.0", "GPU-B2"))
    add_xpu_smi(machine, m=recorded("xpu-smi-m-p800"), q=query)
    extension = ModuleType("torch_xmlir")
    extension.__version__ = OrderedDict(  # type: ignore[attr-defined]
        [("XPYTORCH", "XMLIR--bc1b1dc6f-dev+2026032411"), ("XTDK", "3.6.0.1"), ("XRE", "5.13.0.0")]
    )
    use(machine, extension, monkeypatch, "p800")
    counters = {"allocated_bytes.all.current": 5, "allocated_bytes.all.peak": 7}
    counters |= {"reserved_bytes.all.current": 11, "reserved_bytes.all.peak": 13}
    results = {
        "device_count": 2,
        "empty_cache": None,
        "get_device_properties": SimpleNamespace(name="GPU", uuid="b2", total_memory=P800_BYTES),
        "init": None,
        "manual_seed_all": None,
        "mem_get_info": (103_045_660_672, P800_BYTES),
        "memory_stats": counters,
        "reset_peak_memory_stats": None,
        "set_device": None,
        "synchronize": None,
    }
    for name, result in results.items():
        monkeypatch.setattr(torch.cuda, name, calls.fake(name, result))
    return machine


def use(machine: FakeMachine, extension: ModuleType, monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    monkeypatch.setattr(kernel, "MACHINE_ROOT", machine.root)
    monkeypatch.setitem(sys.modules, "torch_xmlir", extension)
    monkeypatch.setenv("PERF_KUNLUNXIN_PROFILE", profile)


def knobs_of(holder: Any) -> dict[str, str]:
    return {knob.name: knob.value for knob in holder.knobs}


def variables(case: str = "resnet50", rank: Rank | None = None) -> dict[str, str]:
    settings = EnvironmentSettings(case=case, precision="fp32")
    return {variable.name: variable.value for variable in plugin.perf_environment(rank or Rank(), settings)}


@pytest.mark.parametrize("profile", STACKS)
def test_plugin_fulfils_the_specification_in_both_profiles(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERF_KUNLUNXIN_PROFILE", profile)
    info = bind(installed.find_vendor("kunlunxin")).vendor_info()
    assert info.device_type == STACKS[profile].device_type
    assert {Capability.DISTRIBUTED, Capability.TELEMETRY} <= info.capabilities
    assert not {Capability.TF32, Capability.DETERMINISTIC} & info.capabilities


@pytest.mark.parametrize(
    ("case", "overrides"), [(case, overrides) for (case, *_), overrides in ROWS.items() if case != "detr"]
)
def test_overrides_are_keys_of_the_case(case: str, overrides: CaseOverrides) -> None:
    values = resolve(find_case(case), vendor="kunlunxin", vendor_overrides=overrides).values
    assert {o.key: getattr(values, o.key) for o in overrides.overrides} == {o.key: o.value for o in overrides.overrides}


@pytest.mark.parametrize(
    ("case", "switches"),
    [("resnet50", {}), ("mobilenetv2", {"XACC_ENABLE": "1"}), ("detr", {"XACC": "1", "OMP_NUM_THREADS": "1"})],
)
def test_r300_environment_is_flagperfs_without_int16(
    case: str, switches: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERF_KUNLUNXIN_PROFILE", "r300")
    alone = {"XMLIR_D_XPU_L3_SIZE": "66060288", **switches}
    assert variables(case) == alone
    collectives = {"BKCL_PCIE_RING": "1", "BKCL_TIMEOUT": "1800"}
    assert variables(case, Rank(world_size=8, local_world_size=8)) == alone | collectives


def test_p800_environment_follows_topology_and_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERF_KUNLUNXIN_PROFILE", "p800")
    two_machines = Rank(world_size=16, local_world_size=8)
    assert variables() == {"CUDART_DUMMY_REGISTER": "1"}
    assert variables(rank=two_machines) == {"CUDART_DUMMY_REGISTER": "1", "BKCL_ENABLE_XDR": "1"}
    monkeypatch.setenv("PERF_KUNLUNXIN_BACKEND", "cpu:gloo,cuda:flagcx")
    assert variables(rank=two_machines)["FLAGCX_ADAPTOR"] == "klx"


@pytest.mark.parametrize("profile", STACKS)
def test_harmful_variables_are_never_set(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERF_KUNLUNXIN_PROFILE", profile)
    for case in ("resnet50", "mobilenetv2", "detr"):
        assert not set(HAZARDS) & set(variables(case, Rank(world_size=16, local_world_size=8)))


@pytest.mark.usefixtures("r300")
def test_r300_runtime_states_what_is_known() -> None:
    info = plugin.perf_load_runtime()
    assert (info.torch, info.driver, info.collectives, info.sdk) == (torch.__version__, "4.0.25", "XCCL", None)


@pytest.mark.usefixtures("p800")
def test_p800_runtime_reads_the_parts_of_the_version() -> None:
    info = plugin.perf_load_runtime()
    assert (info.driver, info.sdk, info.compiler) == ("5.0.21.47", "XRE 5.13.0.0", "XTDK 3.6.0.1")
    assert info.framework == "XPyTorch XMLIR--bc1b1dc6f-dev+2026032411"
    assert knobs_of(info)["float64"] == "computed as float32"


@pytest.mark.parametrize(
    ("stated", "framework", "sdk"),
    [
        (OrderedDict([("XPYTORCH", "X"), ("XRE", "5")]), "XPyTorch X", "XRE 5"),
        (OrderedDict(), None, None),
        ("0.0.1", "xmlir 0.0.1", None),
        (None, None, None),
    ],
)
def test_version_may_be_a_mapping_a_string_or_missing(stated: object, framework: str | None, sdk: str | None) -> None:
    versions = read_stack_versions(stated)
    assert (versions.get("framework"), versions.get("sdk")) == (framework, sdk)


@pytest.mark.usefixtures("p800")
def test_harmful_and_stray_variables_are_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("XPU_EVENT_KL3_ENABLE", "XPU_RUN_MODE", "XTORCHRUN_CLEAN", "XMLIR_ENABLE_FAST_FC"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("XPU_VISIBLE_DEVICES", "0")
    knobs = knobs_of(plugin.perf_load_runtime())
    assert knobs.items() >= {"XPU_RUN_MODE": "1", "XTORCHRUN_CLEAN": "1", "XMLIR_ENABLE_FAST_FC": "1"}.items()
    assert knobs["XPU_VISIBLE_DEVICES"] == "0"
    assert [message.partition(" is set")[0] for message in caplog.messages] == [
        "XPU_EVENT_KL3_ENABLE=1",
        "XPU_RUN_MODE=1",
        "XTORCHRUN_CLEAN=1",
    ]


@pytest.mark.usefixtures("p800")
@pytest.mark.parametrize(
    "name",
    [
        "BKCL_SOMETHING_NEW",
        "CUDA_DEVICE_ORDER",
        "CUDART_MODULE_LOADING",
        "GPU_NAME",
        "TORCH_NN_INIT_IS_GPU_ALIGNED",
        "XMLIR_SOMETHING_NEW",
        "XPYTORCH_REPRODUCE_SEED",
    ],
)
def test_every_variable_of_kunlunxins_software_is_reported(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "OAM_ID")
    assert knobs_of(plugin.perf_load_runtime())[name] == "OAM_ID"


@pytest.mark.parametrize("profile", STACKS)
def test_missing_extension_is_an_error_with_a_remedy(
    profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERF_KUNLUNXIN_PROFILE", profile)
    (tmp_path / "torch_xmlir.py").write_text("raise OSError('libbkcl.so: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match=r"torch_xmlir cannot be imported: OSError: libbkcl\.so") as caught:
        plugin.perf_load_runtime()
    assert "upstream torch has no Kunlunxin devices" in str(caught.value.hint)


@pytest.mark.usefixtures("p800")
def test_backend_that_is_not_installed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERF_KUNLUNXIN_BACKEND", "cpu:gloo,cuda:flagcx")
    with pytest.raises(PluginError, match="flagcx cannot be imported"):
        plugin.perf_load_runtime()


@pytest.mark.usefixtures("r300")
def test_r300_device_is_made_by_the_extension(calls: Calls) -> None:
    assert plugin.perf_device_init(Rank(local_rank=1, rank=1, world_size=2, local_world_size=2)) is XPU_DEVICE
    assert calls == [("device", "xpu:1")]


@pytest.mark.usefixtures("p800")
def test_p800_device_is_made_current_and_initialized(calls: Calls) -> None:
    device = plugin.perf_device_init(Rank(local_rank=1, rank=1, world_size=2, local_world_size=2))
    assert device == torch.device("cuda", 1)
    assert calls == [("device_count",), ("set_device", device), ("init",)]


def test_rank_without_a_device_is_told_how_many_there_are(
    r300: FakeMachine, monkeypatch: pytest.MonkeyPatch, calls: Calls
) -> None:
    with pytest.raises(DeviceError, match=r"local rank 2 has no device: 2 XPU\(s\) are visible"):
        plugin.perf_device_init(Rank(local_rank=2))
    monkeypatch.setenv("XPU_VISIBLE_DEVICES", "1")
    with pytest.raises(DeviceError, match=r"local rank 1 has no device: 1 XPU\(s\) are visible"):
        plugin.perf_device_init(Rank(local_rank=1))
    assert calls == []


@pytest.mark.usefixtures("p800")
def test_p800_is_counted_before_it_is_touched(calls: Calls) -> None:
    with pytest.raises(DeviceError, match=r"local rank 2 has no device: torch sees 2 XPU\(s\)"):
        plugin.perf_device_init(Rank(local_rank=2))
    assert calls == [("device_count",)]


@pytest.mark.usefixtures("r300")
def test_r300_is_identified_by_its_place_among_the_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPU_VISIBLE_DEVICES", "1,0")
    info = plugin.perf_device_info(XPU_DEVICE)
    assert (info.name, info.pci_bus_id, info.uuid, info.total_bytes) == ("R300", "0000:56:00.0", None, 32768 * MIB)
    assert plugin.perf_probe().devices[0].pci_bus_id == info.pci_bus_id


@pytest.mark.usefixtures("p800")
def test_p800_is_identified_by_its_uuid() -> None:
    info = plugin.perf_device_info(CUDA_DEVICE)
    assert (info.name, info.uuid, info.pci_bus_id, info.total_bytes) == ("P800 OAM", "b2", "0000:03:00.0", P800_BYTES)


@pytest.mark.usefixtures("p800")
def test_p800_that_the_tool_does_not_list_gets_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="GPU", uuid="c3", total_memory=P800_BYTES, pci_bus_id=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    info = plugin.perf_device_info(CUDA_DEVICE)
    assert (info.name, info.uuid, info.pci_bus_id) == ("P800 OAM", "c3", None)


def test_device_without_a_tool_keeps_the_name_of_its_pci_id(p800: FakeMachine) -> None:
    (p800.bin / "xpu-smi").unlink()
    info = plugin.perf_device_info(CUDA_DEVICE)
    assert (info.name, info.uuid, info.pci_bus_id) == ("P800 OAM", "b2", None)


def test_r300_memory_is_the_tools_and_has_no_peak(r300: FakeMachine) -> None:
    stats = plugin.perf_memory_query(XPU_DEVICE)
    assert (stats.source, stats.used_bytes, stats.total_bytes) == (
        "xpu-smi, sampled device memory",
        28653 * MIB,
        32768 * MIB,
    )
    assert (stats.allocated_bytes, stats.peak_allocated_bytes) == (None, None)
    (r300.bin / "xpu-smi").unlink()
    stats = plugin.perf_memory_query(XPU_DEVICE)
    assert (stats.source, stats.used_bytes, stats.total_bytes) == ("unknown: xpu-smi is not installed", None, None)


@pytest.mark.usefixtures("p800")
def test_p800_memory_is_the_allocators(calls: Calls) -> None:
    stats = plugin.perf_memory_query(CUDA_DEVICE)
    assert (stats.allocated_bytes, stats.peak_allocated_bytes) == (5, 7)
    assert (stats.reserved_bytes, stats.peak_reserved_bytes) == (11, 13)
    assert (stats.used_bytes, stats.total_bytes) == (32 * MIB, P800_BYTES)
    assert {name for name, *_ in calls} == {"memory_stats", "mem_get_info"}
    plugin.perf_memory_reset_peak(CUDA_DEVICE)
    assert calls[-1] == ("reset_peak_memory_stats", CUDA_DEVICE)


@pytest.mark.usefixtures("p800")
def test_counters_that_are_not_there_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: {})
    stats = plugin.perf_memory_query(CUDA_DEVICE)
    assert (stats.source, stats.peak_allocated_bytes, stats.total_bytes) == (
        "torch.cuda.mem_get_info",
        None,
        P800_BYTES,
    )
    for name in ("memory_stats", "mem_get_info", "reset_peak_memory_stats"):
        monkeypatch.delattr(torch.cuda, name)
    assert plugin.perf_memory_query(CUDA_DEVICE).total_bytes is None
    plugin.perf_memory_reset_peak(CUDA_DEVICE)


@pytest.mark.parametrize(
    ("profile", "override", "backend"),
    [
        ("r300", None, "xccl"),
        ("p800", None, "nccl"),
        ("p800", "cpu:gloo,cuda:flagcx", "cpu:gloo,cuda:flagcx"),
        ("r300", "bkcl", "bkcl"),
    ],
)
def test_backend_can_be_overridden(
    profile: str, override: str | None, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERF_KUNLUNXIN_PROFILE", profile)
    if override:
        monkeypatch.setenv("PERF_KUNLUNXIN_BACKEND", override)
    assert plugin.perf_distributed_setup(Rank(world_size=2), CUDA_DEVICE).backend == backend


@pytest.mark.parametrize("profile", STACKS)
def test_collectives_are_refused_with_event_timing(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERF_KUNLUNXIN_PROFILE", profile)
    monkeypatch.setenv("XPU_EVENT_KL3_ENABLE", "1")
    with pytest.raises(PluginError, match="XPU_EVENT_KL3_ENABLE=1 is set: .* collectives on a P800 hang") as caught:
        plugin.perf_distributed_setup(Rank(world_size=2), CUDA_DEVICE)
    assert caught.value.hint == "unset XPU_EVENT_KL3_ENABLE and start the run again"


@pytest.mark.parametrize("requested", [precision for precision in PRECISIONS if precision != "fp32"])
def test_r300_refuses_everything_but_fp32(requested: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERF_KUNLUNXIN_PROFILE", "r300")
    with pytest.raises(UnsupportedPrecision, match=f"chipperf on the R300 does not run {requested}: "):
        plugin.perf_precision(requested, XPU_DEVICE)


@pytest.mark.parametrize(
    ("variable", "value", "effective"),
    [
        (None, "", "fp32"),
        ("XDNN_CONV_GEMM_DTYPE", "float32", "fp32"),
        ("XDNN_CONV_GEMM_DTYPE", "int16", "fp32, but convolutions in int16"),
        ("XDNN_FC_GEMM_DTYPE", "float16", "fp32, but linear layers in float16"),
        ("XACC_ARGS", "-L amp", "fp32, but mixed by the xacc compiler"),
        ("XACC_ARGS", "-L auto_tune", "fp32"),
    ],
)
@pytest.mark.parametrize("profile", STACKS)
def test_fp32_says_in_what_its_products_are_computed(
    profile: str, variable: str | None, value: str, effective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERF_KUNLUNXIN_PROFILE", profile)
    if variable:
        monkeypatch.setenv(variable, value)
    policy = plugin.perf_precision("fp32", CUDA_DEVICE)
    assert (policy.effective, policy.autocast_dtype, policy.grad_scaler) == (effective, None, False)
    expected = value if variable == "XDNN_CONV_GEMM_DTYPE" else "not set"
    assert knobs_of(policy)["XDNN_CONV_GEMM_DTYPE"] == expected


@pytest.mark.parametrize(
    ("requested", "effective", "autocast_dtype", "grad_scaler"),
    [("amp", "fp16", "float16", True), ("fp16", "fp16", "float16", False), ("bf16", "bf16", "bfloat16", False)],
)
def test_p800_precisions(
    requested: Any, effective: str, autocast_dtype: str | None, grad_scaler: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERF_KUNLUNXIN_PROFILE", "p800")
    policy = plugin.perf_precision(requested, CUDA_DEVICE)
    assert (policy.effective, policy.autocast_dtype, policy.grad_scaler) == (effective, autocast_dtype, grad_scaler)


@pytest.mark.parametrize("profile", STACKS)
def test_precision_no_stack_knows_is_refused(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERF_KUNLUNXIN_PROFILE", profile)
    unknown: Any = "fp8"
    with pytest.raises(UnsupportedPrecision, match=f"chipperf on the {profile.upper()} does not run fp8"):
        plugin.perf_precision(unknown, CUDA_DEVICE)


def test_p800_has_no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERF_KUNLUNXIN_PROFILE", "p800")
    with pytest.raises(UnsupportedPrecision, match="no TF32 mode"):
        plugin.perf_precision("tf32", CUDA_DEVICE)


@pytest.mark.usefixtures("p800")
def test_torch_switches_are_read_back_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "allow_tf32", True)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        knobs = knobs_of(plugin.perf_precision("fp32", CUDA_DEVICE))
        assert (knobs["cudnn.allow_tf32"], knobs["float32_matmul_precision"]) == ("False", "highest")
        assert (cudnn.allow_tf32, torch.get_float32_matmul_precision()) == (False, "highest")
        plugin.perf_device_teardown(CUDA_DEVICE)
        plugin.perf_device_teardown(CUDA_DEVICE)
        assert (cudnn.allow_tf32, torch.get_float32_matmul_precision()) == (True, "high")
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("p800")
def test_p800_seeds_its_devices_and_sets_determinism(monkeypatch: pytest.MonkeyPatch, calls: Calls) -> None:
    monkeypatch.setattr(torch, "use_deterministic_algorithms", calls.fake("use_deterministic_algorithms"))
    plugin.perf_seed(7, CUDA_DEVICE, True)
    assert calls == [("manual_seed_all", 7), ("use_deterministic_algorithms", True)]
    assert torch.backends.cudnn.deterministic
    plugin.perf_device_teardown(CUDA_DEVICE)
    assert calls[2:] == [("empty_cache",), ("use_deterministic_algorithms", False)]
    assert not torch.backends.cudnn.deterministic


@pytest.mark.usefixtures("r300")
def test_r300_calls_go_to_the_extension(calls: Calls) -> None:
    plugin.perf_seed(7, XPU_DEVICE, False)
    plugin.perf_synchronize(XPU_DEVICE)
    plugin.perf_device_teardown(XPU_DEVICE)
    assert calls == [("manual_seed_all", 7), ("xpu_synchronize",), ("empty_cache",)]


@pytest.mark.usefixtures("p800")
def test_p800_synchronizes_the_given_device(calls: Calls) -> None:
    plugin.perf_synchronize(CUDA_DEVICE)
    assert calls == [("synchronize", CUDA_DEVICE)]


def test_fp16_model_takes_fp32_inputs_and_keeps_its_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERF_KUNLUNXIN_PROFILE", "p800")
    model = torch.nn.Linear(3, 2)
    names = [name for name, _ in model.named_parameters()]
    policy = PrecisionPolicy(requested="fp16", effective="fp16")
    prepared = bind(installed.find_vendor("kunlunxin")).prepare_model(model, policy, CUDA_DEVICE)
    with torch.autocast("cpu", dtype=torch.float16):
        assert prepared(torch.ones(1, 3)).dtype == torch.float16
    assert [name for name, _ in prepared.named_parameters()] == names
    assert {parameter.dtype for parameter in prepared.parameters()} == {torch.float16}


@pytest.mark.parametrize(("profile", "requested"), [("r300", "fp32"), ("p800", "fp32"), ("p800", "amp")])
def test_model_stays_as_it_is_otherwise(profile: str, requested: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERF_KUNLUNXIN_PROFILE", profile)
    model = torch.nn.Linear(3, 2)
    policy = PrecisionPolicy(requested=requested, effective="fp32")
    assert bind(installed.find_vendor("kunlunxin")).prepare_model(model, policy, CUDA_DEVICE) is model
    assert model.weight.dtype == torch.float32


@pytest.mark.parametrize(("profile", "pin_memory"), [("r300", False), ("p800", True)])
def test_pinned_memory_where_it_is_known_to_work(
    profile: str, pin_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERF_KUNLUNXIN_PROFILE", profile)
    assert plugin.perf_loader_options(CUDA_DEVICE).pin_memory is pin_memory

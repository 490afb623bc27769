"""What each hook does through the façade: the vendor's answer, and core's default where there is none.

A meta-test in test_hook_docs.py demands one test per hook, called ``test_hook_`` and the hook's name without prefix.
"""

import sys

import chipperf
import pytest
import torch
from chipperf import Capability, Rank, UnsupportedPrecision
from chipperf.errors import VendorHookError
from chipperf.plugin.session import bind
from chipperf.run.directory import RunDirectory
from chipperf.run.telemetry_process import TelemetrySampler, read_telemetry
from chipperf.torchtools import restore_switches
from hook_events import EVENTS
from support import events_of

CPU = torch.device("cpu", 0)
CUDA = torch.device("cuda", 1)
FP32 = chipperf.PrecisionPolicy(requested="fp32", effective="fp32")
AMP = chipperf.PrecisionPolicy(requested="amp", effective="fp16", autocast_dtype="float16", grad_scaler=True)


@pytest.fixture
def session(plugins):
    """A vendor with the required hooks only."""
    return bind(plugins.vendor("plain"))


@pytest.fixture
def bind_with(plugins):
    """Bind a vendor with one more hook, given as its signature and body."""

    def bind_with(signature, body, *, info="", name="acme"):
        source = f"@hookimpl\ndef {signature}:\n    {body}\n"
        return bind(plugins.vendor(name, info=info, **{signature.partition("(")[0]: source}))

    return bind_with


def calls_of(session):
    return sys.modules[session.entry.value].calls


def test_hook_vendor_info(plugins):
    session = bind(plugins.vendor("acme", info="capabilities=frozenset({chipperf.Capability.BF16})"))

    assert session.vendor_info().name == "acme"
    assert session.vendor_info().capabilities == {Capability.BF16}
    assert session.vendor_info() is session.vendor_info()


def test_hook_probe(session):
    assert session.probe().devices == (chipperf.ProbedDevice(index=0, name="A1"),)


def test_hook_environment(session, bind_with):
    settings = chipperf.EnvironmentSettings(case="resnet50", precision="bf16")
    tuned = bind_with(
        "perf_environment(settings, rank)",
        "return (chipperf.EnvironmentVariable(name=settings.case, value=str(rank.rank), reason='why'),)",
    )

    (variable,) = tuned.environment(Rank(rank=3), settings)

    assert (variable.name, variable.value) == ("resnet50", "3")
    assert session.environment(Rank(), settings) == ()


def test_hook_environment_must_be_a_tuple(bind_with):
    settings = chipperf.EnvironmentSettings(case="resnet50", precision="bf16")

    with pytest.raises(VendorHookError, match="returned dict instead of tuple of EnvironmentVariable"):
        bind_with("perf_environment()", "return {'A': '1'}").environment(Rank(), settings)


def test_hook_load_runtime(session):
    assert session.load_runtime() == chipperf.RuntimeInfo(torch="2.9", sdk="acme 3")


def test_hook_device_init(bind_with):
    session = bind_with(
        "perf_device_init(rank)",
        "import torch; return torch.device('cuda', rank.local_rank)",
        info="device_type='cuda'",
    )

    assert session.device_init(Rank(rank=9, local_rank=1)) == CUDA


def test_hook_device_info(bind_with):
    session = bind_with("perf_device_info(device)", "return chipperf.DeviceInfo(index=device.index, name='A1')")

    assert session.device_info(CUDA) == chipperf.DeviceInfo(index=1, name="A1")


def test_hook_synchronize(session):
    assert session.synchronize(CUDA) is None
    assert calls_of(session) == [("synchronize", CUDA)]


def test_hook_memory_query(session):
    assert session.memory_query(CPU).used_bytes == 5
    assert session.memory_query(CPU).peak_allocated_bytes is None


def test_hook_memory_reset_peak(session):
    session.memory_reset_peak(CPU)

    assert calls_of(session) == [("reset", CPU)]


def test_hook_distributed_setup(session, bind_with):
    tuned = bind_with(
        "perf_distributed_setup(rank, device)",
        "return chipperf.DistributedConfig(backend='cpu:gloo,cuda:nccl', timeout_s=60 * rank.world_size)",
        info="capabilities=frozenset({chipperf.Capability.DISTRIBUTED})",
    )

    assert tuned.distributed_setup(Rank(world_size=2), CUDA).timeout_s == 120
    assert session.distributed_setup(Rank(), CPU).backend == "gloo"
    with pytest.raises(VendorHookError, match=r"'plain' \(perf-plain 1\.2\): .*cuda devices") as caught:
        session.distributed_setup(Rank(), CUDA)
    assert "perf_distributed_setup" in caught.value.hint


def test_hook_seed(bind_with):
    session = bind_with("perf_seed(deterministic, seed)", "import torch; torch.manual_seed(seed + deterministic)")

    session.seed(40, CPU, True)
    drawn = torch.rand(3)

    assert torch.equal(drawn, torch.rand(3, generator=torch.Generator().manual_seed(41)))


def test_hook_seed_default_uses_the_device_module(session, monkeypatch):
    seeds = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)

    try:
        session.seed(7, CUDA, True)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        session.seed(8, CPU, False)

    assert seeds == [7]
    assert not torch.are_deterministic_algorithms_enabled()


def test_hook_seed_default_refuses_a_device_it_cannot_seed(session):
    with pytest.raises(VendorHookError, match=r"torch\.meta\.manual_seed_all does not exist") as caught:
        session.seed(7, torch.device("meta"), False)
    assert "perf_seed" in caught.value.hint


def test_hook_precision(session, bind_with):
    tuned = bind_with(
        "perf_precision(requested)", "return chipperf.PrecisionPolicy(requested=requested, effective='bf16')"
    )

    assert tuned.precision("bf16", CPU).effective == "bf16"
    assert session.precision("fp32", CPU).effective == "fp32"
    with pytest.raises(UnsupportedPrecision, match="vendor 'plain'.*does not run bf16"):
        session.precision("bf16", CPU)


def test_hook_precision_default_runs_true_fp32_and_says_how(session, monkeypatch):
    # Its old name cannot be read where somebody has set convolutions and recurrent layers differently by the new ones.
    torch.backends.cudnn.allow_tf32 = True
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")

    try:
        policy = session.precision("fp32", CUDA)
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("highest", False)
    finally:
        restore_switches()
        torch.set_float32_matmul_precision(before)

    assert {knob.name: knob.value for knob in policy.knobs} == {
        "float32_matmul_precision": "highest",
        "cudnn.allow_tf32": "False",
    }


def test_hook_precision_never_answers_another_request(bind_with):
    tuned = bind_with("perf_precision()", "return chipperf.PrecisionPolicy(requested='fp32', effective='fp32')")

    with pytest.raises(VendorHookError, match="perf_precision was asked for bf16 and answered fp32"):
        tuned.precision("bf16", CPU)


def test_hook_prepare_model(session, bind_with):
    model = torch.nn.Conv2d(3, 4, 2)
    tuned = bind_with(
        "perf_prepare_model(model, precision)", "return model.half() if precision.autocast_dtype else 'none'"
    )

    assert session.prepare_model(model, FP32, CPU) is model
    assert tuned.prepare_model(model, AMP, CPU).weight.dtype == torch.float16
    with pytest.raises(VendorHookError, match=r"returned str instead of a torch\.nn\.Module"):
        tuned.prepare_model(model, FP32, CPU)


def test_hook_loader_options(session, bind_with):
    tuned = bind_with("perf_loader_options(device)", "return chipperf.LoaderOptions(pin_memory=device.type == 'cuda')")

    assert tuned.loader_options(CUDA).pin_memory is True
    assert session.loader_options(CPU) == chipperf.LoaderOptions()


def test_hook_case_overrides(session, bind_with):
    tuned = bind_with(
        "perf_case_overrides(case, rank, device_name)",
        "return chipperf.CaseOverrides(overrides=(chipperf.CaseOverride(key='lr', value=0.1, reason=f'{case} on "
        "{rank.world_size} {device_name}'),))",
    )

    (override,) = tuned.case_overrides("resnet50", Rank(world_size=8), "A1").overrides

    assert (override.key, override.value, override.reason) == ("lr", 0.1, "resnet50 on 8 A1")
    assert session.case_overrides("resnet50", Rank(), "A1") == chipperf.CaseOverrides()


def test_hook_telemetry(session, bind_with):
    device = chipperf.DeviceInfo(index=0, name="A1", uuid="u-1")
    measuring = bind_with(
        "perf_telemetry(device)",
        "return chipperf.TelemetrySample(source=device.uuid, power_w=61, temperature_c=38.5)",
        info="capabilities=frozenset({chipperf.Capability.TELEMETRY})",
    )

    assert (measuring.has("perf_telemetry"), session.has("perf_telemetry")) == (True, False)
    assert measuring.telemetry(device) == chipperf.TelemetrySample(source="u-1", power_w=61, temperature_c=38.5)
    with pytest.raises(VendorHookError, match="perf_telemetry is needed here"):
        session.telemetry(device)


def test_telemetry_is_first_sampled_when_its_library_is_open(plugins, bind_with, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(plugins.root))
    asked, path = tmp_path / "asked", tmp_path / "telemetry.jsonl"
    slow = bind_with(
        "perf_telemetry(device)",
        f"""from pathlib import Path
    asked = Path({str(asked)!r})
    print("opening")
    if not asked.exists():
        asked.touch()
        raise chipperf.DeviceError("the library is not open yet", hint="wait")
    return chipperf.TelemetrySample(source="acme", power_w=61)""",
        info="capabilities=frozenset({chipperf.Capability.TELEMETRY})",
    )
    sampler = TelemetrySampler(slow, path, [chipperf.DeviceInfo(index=0, name="A1")], {})
    sampler.open()

    with sampler:
        assert asked.exists()

    assert {each["source"] for each in read_telemetry(path) if "mark" not in each} == {"acme"}
    assert sampler.fault == ""


def test_mistake_in_a_later_hook_ends_the_run_before_its_first_step(plugins, image_folder, tmp_path, perf):
    source = "@hookimpl\ndef perf_memory_query(device):\n    return {'used_bytes': 5}"
    plugins.vendor("acme", perf_memory_query=source)

    process = perf(
        *("train", "mobilenetv2", "--vendor", "acme", "--preset", "tiny", "--data", image_folder),
        *("--out", tmp_path / "run", "--set", "workers=0"),
        PYTHONPATH=str(plugins.root),
    )

    assert process.returncode == 3, process.stderr
    assert "perf_memory_query returned" in process.stderr
    events = [event["event"] for event in events_of(RunDirectory(tmp_path / "run"))]
    assert "RUN_START" not in events


def test_hook_tool_commands(session, bind_with):
    commands = "(chipperf.ToolCommand(name='query', argv=('acme-smi', '-q')),)"
    assert bind_with("perf_tool_commands()", f"return {commands}").tool_commands() == (
        chipperf.ToolCommand(name="query", argv=("acme-smi", "-q")),
    )
    assert session.tool_commands() == ()
    with pytest.raises(VendorHookError, match="perf_tool_commands"):
        bind_with("perf_tool_commands()", "return ['acme-smi -q']", name="other").tool_commands()


def test_hook_peak_flops(session, bind_with):
    tuned = bind_with(
        "perf_peak_flops(device_name, precision)",
        "return chipperf.PeakFlops(flops_per_s=2e14, source=device_name) if precision == 'bf16' else None",
    )

    assert tuned.peak_flops("A1", "bf16") == chipperf.PeakFlops(flops_per_s=2e14, source="A1")
    assert tuned.peak_flops("A1", "fp32") is None
    assert session.peak_flops("A1", "bf16") is None
    with pytest.raises(VendorHookError, match=r"returned 1\.0 \(float\) instead of PeakFlops"):
        bind_with("perf_peak_flops()", "return float(1)", name="other").peak_flops("A1", "bf16")


def test_hook_step_end(session, bind_with):
    lazy = bind_with("perf_step_end(device)", "calls.append(('step', device))")

    assert lazy.step_end(CPU) is None
    assert calls_of(lazy) == [("step", CPU)]
    assert (session.step_end, session.has("perf_step_end"), lazy.has("perf_step_end")) == (None, False, True)


def test_hook_device_teardown(session, bind_with, monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    tidy = bind_with("perf_device_teardown(device)", "calls.append(('teardown', device))")

    tidy.device_teardown(CUDA)
    session.device_teardown(CPU)
    assert (calls_of(tidy), emptied) == ([("teardown", CUDA)], [])

    session.device_teardown(CUDA)
    assert emptied == [True]


@pytest.fixture
def assert_observed(plugins):
    """Notify an observer that implements one hook, and require that it saw the event once."""

    def assert_observed(hook):
        observer = plugins.observer("watcher", f"seen = []\n\n@hookimpl\ndef {hook}(event):\n    seen.append(event)\n")
        session = bind(plugins.vendor("acme"), observers=[observer])
        session.notify(EVENTS[hook])
        assert sys.modules[observer.value].seen == [EVENTS[hook]]

    return assert_observed


def test_hook_run_started(assert_observed):
    assert_observed("perf_run_started")


def test_hook_window_finished(assert_observed):
    assert_observed("perf_window_finished")


def test_hook_epoch_finished(assert_observed):
    assert_observed("perf_epoch_finished")


def test_hook_evaluation_finished(assert_observed):
    assert_observed("perf_evaluation_finished")


def test_hook_run_finished(assert_observed):
    assert_observed("perf_run_finished")


def test_hook_run_failed(assert_observed):
    assert_observed("perf_run_failed")

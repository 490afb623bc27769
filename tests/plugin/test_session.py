"""What bind demands of a vendor, and what the façade demands of its results."""

import pytest
from chipperf import DeviceError, Rank, UnsupportedPrecision
from chipperf.errors import PluginError, PluginLoadError, VendorHookError
from chipperf.plugin import session as session_module
from chipperf.plugin.session import bind

WHO = "vendor 'acme' (perf-acme 1.2)"


def test_all_missing_required_hooks_are_named_at_once(plugins):
    entry = plugins.vendor("acme", perf_probe=None, perf_synchronize=None, perf_load_runtime=None)

    with pytest.raises(PluginLoadError) as caught:
        bind(entry)
    assert str(caught.value) == f"{WHO} lacks required hooks: perf_probe, perf_load_runtime, perf_synchronize"
    assert entry.value in caught.value.hint


def test_inspection_needs_only_identity_and_probe(plugins):
    entry = plugins.vendor("acme", perf_synchronize=None, perf_device_init=None)

    session = bind(entry, purpose="inspect")

    assert session.vendor_info().name == "acme"
    assert session.probe().available
    with pytest.raises(VendorHookError, match="perf_synchronize is needed here, but the plugin does not implement it"):
        session.synchronize(None)


@pytest.mark.parametrize(
    ("device", "name", "part"),
    [
        ('name="ACME A1", total_bytes=64 * 2**30', "ACME A1", None),
        # ECC takes a sixteenth, and a sheet may count in powers of ten.
        ('name="ACME A1", total_bytes=60 * 2**30', "ACME A1", None),
        ('name="ACME A1", total_bytes=56 * 2**30', "ACME A1", None),
        ('name="ACME A1", total_bytes=48 * 2**30', "ACME A1 part with 48.0 GiB", "part with 48.0 GiB"),
        ('name="acme a1", total_bytes=2**30', "acme a1 part with 1.0 GiB", "part with 1.0 GiB"),
        ('name="ACME A1"', "ACME A1", None),
        ('name="ACME B2", total_bytes=2**30', "ACME B2", None),
        ('name="ACME B2 VF"', "ACME B2 VF virtual function", "virtual function"),
        ('name="ACME A1VF"', "ACME A1VF", None),
        ('name="ACME A1", part="slice 25%", total_bytes=2**30', "ACME A1 slice 25%", "slice 25%"),
        ('name="ACME A1 Slice 1", part="slice 1"', "ACME A1 Slice 1", "slice 1"),
    ],
)
def test_part_of_a_card_is_never_named_like_the_card(plugins, device, name, part):
    known = 'known_devices=(chipperf.KnownDevice(name="ACME A1", short_name="A1", memory_bytes=64 * 2**30),)'
    found = f"chipperf.ProbedDevice(index=0, {device})"
    entry = plugins.vendor(
        info=known,
        perf_probe=f"""
        @hookimpl
        def perf_probe():
            return chipperf.ProbeResult(available=True, reason="one", devices=({found},))
        """,
        perf_device_info=f"""
        @hookimpl
        def perf_device_info(device):
            return chipperf.DeviceInfo(index=0, {device})
        """,
    )
    session = bind(entry)

    for found in (*session.probe().devices, session.device_info(None)):
        assert (found.name, found.part) == (name, part)


def test_inspection_still_demands_the_probe(plugins):
    with pytest.raises(PluginLoadError, match="lacks required hooks: perf_probe$"):
        bind(plugins.vendor("acme", perf_probe=None), purpose="inspect")


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (
            "@hookimpl\ndef perf_sychronize(device): ...",
            "perf_sychronize is not a hook (did you mean 'perf_synchronize'?)",
        ),
        ("@hookimpl\ndef pref_seed(device): ...", "pref_seed is not a hook (did you mean 'perf_seed'?)"),
        ("@hookimpl(optionalhook=True)\ndef perf_other(): ...", "perf_other is not a hook"),
        ("def perf_seed(seed): ...", "perf_seed lacks @hookimpl and would never be called"),
        ("import functools\nperf_seed = functools.partial(print)", "perf_seed lacks @hookimpl"),
        ("@hookimpl\ndef perf_seed(seed, device=None): ...", "perf_seed gives 'device' a default"),
        (
            "@hookimpl\ndef perf_seed(sed): ...",
            "perf_seed takes 'sed', but the hook passes (seed, device, deterministic)",
        ),
        ("@hookimpl\ndef perf_seed(*args): ...", "perf_seed takes *args: name the arguments"),
        ("@hookimpl\ndef perf_seed(*, seed): ...", "perf_seed takes seed: name the arguments"),
        ("@hookimpl(wrapper=True)\ndef perf_seed(seed):\n    yield", "perf_seed uses wrapper: "),
        ("@hookimpl(hookwrapper=True)\ndef perf_seed(seed):\n    yield", "perf_seed uses hookwrapper: "),
        ("@hookimpl(tryfirst=True)\ndef perf_seed(seed): ...", "perf_seed uses tryfirst: "),
        ("@hookimpl(trylast=True)\ndef perf_seed(seed): ...", "perf_seed uses trylast: "),
        ("@hookimpl\ndef perf_run_started(event): ...", "perf_run_started is an observer's hook"),
    ],
)
def test_faults_of_the_module_are_found_at_bind_time(plugins, source, fault):
    entry = plugins.vendor("acme", addition=source)

    with pytest.raises(PluginLoadError) as caught:
        bind(entry)
    assert str(caught.value).startswith(f"{WHO} does not fulfill the hook specification: ")
    assert fault in str(caught.value)


def test_every_fault_of_a_module_is_listed(plugins):
    entry = plugins.vendor("acme", a="@hookimpl\ndef perf_sed(): ...", b="@hookimpl\ndef perf_seed(seed=1): ...")

    with pytest.raises(PluginLoadError, match="perf_sed is not a hook.*; perf_seed gives 'seed' a default"):
        bind(entry)


def test_hook_cannot_be_implemented_twice_under_another_name(plugins):
    second = "@hookimpl(specname='perf_probe')\ndef perf_probe_quickly(): ..."

    with pytest.raises(PluginLoadError, match="perf_probe_quickly uses specname: a hook is one function of its name"):
        bind(plugins.vendor("acme", addition=second))


def test_imported_helpers_are_no_hooks(plugins):
    entry = plugins.vendor("acme", addition="from time import perf_counter")

    assert not bind(entry).has("perf_counter")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("name='other'", "VendorInfo.name is 'other', but the entry point is called 'acme'"),
        ("name='Acme-1'", "VendorInfo.name 'Acme-1' is not of the form"),
        ("api_version='2.0'", "it is written for API version 2.0, this chipperf has 1."),
        ("capabilities=frozenset({chipperf.Capability.DISTRIBUTED})", "does not implement perf_distributed_setup"),
        ("capabilities=frozenset({chipperf.Capability.TELEMETRY})", "does not implement perf_telemetry"),
    ],
)
def test_vendor_info_must_agree_with_entry_point_core_and_hooks(plugins, change, fault):
    entry = plugins.vendor("acme", info=change)

    with pytest.raises(PluginLoadError) as caught:
        bind(entry)
    assert fault in str(caught.value)


@pytest.mark.parametrize("hook", ["perf_telemetry", "perf_distributed_setup"])
def test_implemented_hook_must_be_declared_as_capability(plugins, hook):
    entry = plugins.vendor("acme", addition=f"@hookimpl\ndef {hook}(): ...")

    with pytest.raises(PluginLoadError, match=rf"it implements {hook}, but does not declare Capability\."):
        bind(entry)


def test_unfinished_vendor_with_declared_capabilities_can_be_inspected(plugins):
    entry = plugins.vendor("acme", info="capabilities=frozenset({chipperf.Capability.DISTRIBUTED})")

    assert bind(entry, purpose="inspect").vendor_info().name == "acme"


def test_hook_that_raises_gives_an_error_that_names_plugin_and_hook(plugins):
    session = bind(plugins.vendor("acme", perf_device_info="@hookimpl\ndef perf_device_info():\n    1 / 0"))

    with pytest.raises(VendorHookError) as caught:
        session.device_info(None)
    assert str(caught.value) == f"{WHO}: perf_device_info raised ZeroDivisionError: division by zero"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "perf-acme" in caught.value.hint


def test_foreign_distribution_that_keeps_torch_from_loading_is_named(plugins):
    load = "@hookimpl\ndef perf_load_runtime():\n    import importlib.metadata\n    importlib.metadata.entry_points()"
    session = bind(plugins.vendor("acme", perf_load_runtime=load))
    plugins.distribution("foreign", "[console_scripts]\nno equals sign\n")

    with pytest.raises(VendorHookError) as caught:
        session.load_runtime()
    assert f"{WHO}: perf_load_runtime raised " in str(caught.value)
    assert f"the entry points of {plugins.root / 'foreign-1.2.dist-info'} cannot be read" in str(caught.value)
    assert "pip uninstall" in caught.value.hint


def test_torch_below_the_oldest_that_works_is_refused_before_its_import(plugins):
    load = "@hookimpl\ndef perf_load_runtime():\n    raise ImportError('what an old torch lacks')"
    session = bind(plugins.vendor("acme", perf_load_runtime=load))
    plugins.distribution("torch", "")

    with pytest.raises(PluginError, match=r"^torch 1\.2 in \S+ is too old: .* 2\.0 or later; use an image"):
        session.load_runtime()


@pytest.mark.parametrize("found", ["2.0.0+mc2.29", "2.14.1", "main"])
def test_torch_that_may_work_is_loaded(plugins, monkeypatch, found):
    monkeypatch.setattr(session_module, "version", lambda name: found)
    load = "@hookimpl\ndef perf_load_runtime():\n    return chipperf.RuntimeInfo(torch='as its metadata says')"
    assert bind(plugins.vendor("acme", perf_load_runtime=load)).load_runtime().torch == "as its metadata says"


def test_hook_that_exits_does_not_end_the_run_silently(plugins):
    session = bind(plugins.vendor("acme", perf_synchronize="@hookimpl\ndef perf_synchronize():\n    raise SystemExit"))

    with pytest.raises(VendorHookError, match="perf_synchronize raised SystemExit"):
        session.synchronize(None)


def test_interrupt_is_not_a_vendor_s_fault(plugins):
    source = "@hookimpl\ndef perf_synchronize():\n    raise KeyboardInterrupt"
    session = bind(plugins.vendor("acme", perf_synchronize=source))

    with pytest.raises(KeyboardInterrupt):
        session.synchronize(None)


@pytest.mark.parametrize("error", [DeviceError, UnsupportedPrecision])
@pytest.mark.parametrize("message", ["rank 9 of 8 devices", f"{WHO}: rank 9 of 8 devices"])
def test_errors_of_chipperf_keep_class_and_hint_and_name_the_plugin_once(plugins, error, message):
    source = f"""
    calls = []

    @hookimpl
    def perf_synchronize():
        from chipperf import {error.__name__}
        raise {error.__name__}({message!r}, hint="use fewer")
    """
    session = bind(plugins.vendor("acme", perf_synchronize=source))

    with pytest.raises(error) as caught:
        session.synchronize(None)
    assert (str(caught.value), caught.value.message) == (f"{WHO}: rank 9 of 8 devices",) * 2
    assert caught.value.hint == "use fewer"


@pytest.mark.parametrize(
    ("result", "fault"),
    [
        ("{'source': 'x'}", "returned dict instead of MemoryStats"),
        ("None", "returned None instead of MemoryStats"),
        ("chipperf.MemoryStats(source='')", "returned a MemoryStats whose source is blank"),
        ("chipperf.MemoryStats(source=None)", "returned a MemoryStats whose source is None instead of str"),
        (
            "chipperf.MemoryStats(source='x', used_bytes=1.5)",
            "returned a MemoryStats whose used_bytes is 1.5 (float) instead of int",
        ),
        (
            "chipperf.MemoryStats(source='x', used_bytes=True)",
            "returned a MemoryStats whose used_bytes is True (bool) instead of int",
        ),
        (
            "chipperf.MemoryStats(source='x', total_bytes=0)",
            "returned a MemoryStats whose total_bytes is 0, outside 1 to inf",
        ),
        ("type('Mine', (chipperf.MemoryStats,), {})(source='x')", "returned Mine instead of MemoryStats"),
    ],
)
def test_results_of_another_type_or_unit_are_refused(plugins, result, fault):
    source = f"@hookimpl\ndef perf_memory_query():\n    return {result}"
    session = bind(plugins.vendor("acme", perf_memory_query=source))

    with pytest.raises(VendorHookError) as caught:
        session.memory_query(None)
    assert str(caught.value) == f"{WHO}: perf_memory_query {fault}"
    assert "docs/hooks.md" in caught.value.hint


def test_void_hook_may_not_return_anything(plugins):
    source = "calls = []\n@hookimpl\ndef perf_synchronize():\n    return 0.5"
    session = bind(plugins.vendor("acme", perf_synchronize=source))

    with pytest.raises(VendorHookError, match="perf_synchronize returned float, but it has no result"):
        session.synchronize(None)


@pytest.mark.parametrize(
    ("result", "fault"),
    [
        ("torch.device('cuda', 0)", "returned a device of type 'cuda', but declares 'cpu'"),
        ("'cpu'", "returned 'cpu' (str) instead of device"),
    ],
)
def test_device_is_a_torch_device_of_the_declared_type(plugins, result, fault):
    source = f"@hookimpl\ndef perf_device_init():\n    import torch\n    return {result}"
    session = bind(plugins.vendor("acme", perf_device_init=source))

    with pytest.raises(VendorHookError) as caught:
        session.device_init(Rank())
    assert str(caught.value) == f"{WHO}: perf_device_init {fault}"


def test_accelerator_index_is_the_local_rank(plugins):
    source = "@hookimpl\ndef perf_device_init():\n    import torch\n    return torch.device('cuda', 0)"
    session = bind(plugins.vendor("acme", info="device_type='cuda'", perf_device_init=source))

    assert str(session.device_init(Rank(local_rank=0))) == "cuda:0"
    with pytest.raises(VendorHookError, match="returned cuda:0 for local rank 1"):
        session.device_init(Rank(rank=1, local_rank=1))


def test_sessions_are_independent(plugins):
    entry = plugins.vendor("acme")

    first, second = bind(entry), bind(entry)

    assert first.vendor_info() == second.vendor_info()
    assert first is not second

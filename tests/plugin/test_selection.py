"""Choosing a vendor: by option, by environment, automatically; and probes that misbehave."""

import time

import pytest
from chipperf.errors import PluginError, PluginLoadError, VendorHookError, VendorSelectionError
from chipperf.plugin import installed, probe_process
from chipperf.plugin.installed import PluginEntry
from chipperf.plugin.probe_process import ask, ask_all, probe_vendor
from chipperf.plugin.selection import select_vendor
from chipperf.plugin.session import bind
from chipperf.plugin.types import PeakFlops, PluginDescription, ProbeResult

RAISES_ON_IMPORT = "raise RuntimeError('this plugin must not be imported')"


@pytest.fixture(params=["fork", "interpreter"])
def child(request, monkeypatch):
    """What asks: both must withstand a plugin alike."""
    monkeypatch.setattr(probe_process, "_may_fork", lambda _: request.param == "fork")


def probe_that(body):
    return f"@hookimpl\ndef perf_probe():\n    {body}\n"


def test_explicit_name_touches_no_other_plugin(plugins, tmp_path):
    witness = tmp_path / "imported"
    plugins.plugin("bystander", f"open({str(witness)!r}, 'w').close()")
    acme = plugins.vendor("acme")

    selection = select_vendor("acme")

    assert (selection.entry, selection.origin) == (acme, "option")
    assert selection.probe.devices[0].name == "A1"
    assert not witness.exists()


def test_environment_names_the_vendor_and_the_option_overrides_it(plugins, monkeypatch):
    plugins.vendor("acme")
    plugins.vendor("other")
    monkeypatch.setenv("PERF_VENDOR", "other")

    assert (select_vendor().entry.name, select_vendor().origin) == ("other", "environment")
    assert select_vendor("acme").entry.name == "acme"


@pytest.mark.parametrize("value", ["", "auto"])
def test_environment_may_ask_for_auto(plugins, monkeypatch, value):
    plugins.vendor("acme")
    monkeypatch.setenv("PERF_VENDOR", value)

    assert select_vendor().origin == "auto"


def test_auto_option_overrides_the_environment(plugins, monkeypatch):
    plugins.vendor("acme")
    monkeypatch.setenv("PERF_VENDOR", "nobody")

    assert select_vendor("auto").entry.name == "acme"


def test_explicit_but_unavailable_gives_the_probe_s_reason(plugins):
    plugins.vendor("acme", perf_probe=plugins.unavailable)

    with pytest.raises(VendorSelectionError, match=r"\(perf-acme 1\.2\) is not available: no /dev/acme0: load"):
        select_vendor("acme")


def test_explicit_but_broken_is_a_load_error(plugins):
    plugins.plugin("acme", "import a_module_nobody_has")

    with pytest.raises(PluginLoadError, match="a_module_nobody_has"):
        select_vendor("acme")


def test_auto_chooses_the_only_available_vendor_past_broken_ones(plugins):
    acme = plugins.vendor("acme")
    plugins.vendor("absent", perf_probe=plugins.unavailable)
    plugins.plugin("broken", RAISES_ON_IMPORT)
    plugins.vendor("double", distribution="perf-double")
    plugins.vendor("double", distribution="double-bench")

    selection = select_vendor()

    assert (selection.entry, selection.origin) == (acme, "auto")


def test_auto_with_several_available_lists_them(plugins):
    plugins.vendor("acme")
    plugins.vendor("other")

    with pytest.raises(VendorSelectionError, match="'acme' .*one A1.*'other' .*one A1") as caught:
        select_vendor()
    assert "--vendor NAME or PERF_VENDOR" in caught.value.hint


def test_auto_with_none_available_lists_every_reason(plugins):
    plugins.vendor("absent", perf_probe=plugins.unavailable)
    plugins.plugin("broken", RAISES_ON_IMPORT)
    plugins.vendor("raising", perf_probe=probe_that("raise OSError('driver says no')"))
    plugins.vendor("double", distribution="perf-double")
    plugins.vendor("double", distribution="double-bench")

    with pytest.raises(VendorSelectionError, match="no vendor is available") as caught:
        select_vendor()
    for reason in ("no /dev/acme0", "must not be imported", "OSError: driver says no", "provided more than once"):
        assert reason in str(caught.value)


def test_auto_without_any_plugin(plugins):
    with pytest.raises(VendorSelectionError, match="no vendor plugin is installed"):
        select_vendor()


def test_auto_never_takes_the_reference(plugins):
    plugins.vendor(installed.REFERENCE_VENDOR)
    plugins.vendor("absent", perf_probe=plugins.unavailable)

    with pytest.raises(VendorSelectionError, match="no vendor is available: vendor 'absent'"):
        select_vendor()
    assert select_vendor(installed.REFERENCE_VENDOR).probe.available


def test_probing_needs_no_training_hooks(plugins):
    entry = plugins.vendor("acme", perf_synchronize=None, perf_load_runtime=None, perf_memory_reset_peak=None)

    assert probe_vendor(entry).available


@pytest.mark.usefixtures("child")
def test_probe_result_crosses_the_process_unchanged(plugins):
    entry = plugins.vendor(
        "acme",
        perf_probe=probe_that(
            "return chipperf.ProbeResult(available=True, reason='发现', driver_version='535', devices=("
            "chipperf.ProbedDevice(index=0, name='A1', uuid='u-0', pci_bus_id='0000:3b:00.0', total_bytes=2**36),))"
        ),
    )

    result = probe_vendor(entry)

    assert (result.reason, result.driver_version) == ("发现", "535")
    assert result.devices[0].uuid == "u-0"
    assert result.devices[0].total_bytes == 2**36


@pytest.mark.usefixtures("child")
def test_probe_may_quote_a_variable_that_is_no_text(plugins):
    body = "return chipperf.ProbeResult(available=False, reason='VISIBLE=0,' + chr(0xDCFF))"

    assert probe_vendor(plugins.vendor("acme", perf_probe=probe_that(body))).reason == "VISIBLE=0,?"


@pytest.mark.usefixtures("child")
def test_hanging_probe_is_killed_with_what_it_started(plugins, tmp_path):
    marker = tmp_path / "survivor"
    script = f"import time; time.sleep(2.5); open({str(marker)!r}, 'w').close()"
    entry = plugins.vendor(
        "acme",
        perf_probe=probe_that(
            f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {script!r}]); time.sleep(60)"
        ),
    )

    with pytest.raises(VendorHookError, match=r"\(perf-acme 1\.2\): perf_probe did not return within 1\.5 s"):
        probe_vendor(entry, timeout_s=1.5)
    time.sleep(1.5)
    assert not marker.exists()


@pytest.mark.usefixtures("child")
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import os; os._exit(3)", "exit status 3: it printed nothing"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "exit status -11"),
        ("raise SystemExit(0)", "perf_probe raised SystemExit: 0"),
        ("return {'available': True}", "perf_probe returned dict instead of ProbeResult"),
        ("return None", "perf_probe returned None instead of ProbeResult"),
        ("while True: print('flood' * 1000)", "perf_probe prints more than 1 MiB"),
        *(
            (f"import os; os.write(3, b{text!r}); os._exit(0)", "the answer of perf_probe is not valid")
            for text in ('{"fault": "os"}', "[]", "{}", "[{}]", "null", "1", '{"fault": "SystemExit", "message": ""}')
        ),
    ],
)
def test_misbehaving_probe_is_a_fault_that_names_the_plugin(plugins, body, message):
    entry = plugins.vendor("acme", perf_probe=probe_that(body))

    with pytest.raises(VendorHookError) as caught:
        probe_vendor(entry)
    assert str(caught.value).startswith("vendor 'acme' (perf-acme 1.2): ")
    assert message in str(caught.value)
    assert "perf-acme" in caught.value.hint or entry.value in caught.value.hint


@pytest.mark.usefixtures("child")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import os; os._exit(0)", "its import ended its process with exit status 0: it printed nothing"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "exit status -11"),
        ("while True: print('flood' * 1000)", "its import prints more than 1 MiB"),
        ("import time; time.sleep(60)", "its import did not return within 1.5 s"),
        ("raise OSError('gone')", "OSError: gone"),
    ],
)
def test_what_cannot_be_imported_is_found_without_importing_it(plugins, source, message):
    entry = plugins.plugin("acme", source, group="chipperf.cases")

    with pytest.raises(PluginError, match=r"case 'acme' \(perf-acme 1\.2\): ") as caught:
        ask(entry, "load", None, timeout_s=1.5)
    assert message in str(caught.value)


@pytest.mark.usefixtures("child")
def test_an_answer_is_what_the_plugin_said(plugins):
    entry = plugins.vendor("acme", perf_memory_query=None, info="capabilities=frozenset({chipperf.Capability.BF16})")

    assert ask(entry, "describe", PluginDescription) == bind(entry, purpose="inspect").describe()
    assert ask(entry, "peak_flops", PeakFlops | None, "A1", "fp32") is None


@pytest.mark.usefixtures("child")
def test_what_a_probe_prints_does_not_disturb_its_result(plugins, capfd):
    entry = plugins.vendor(
        "acme",
        perf_probe=probe_that(
            "import os; print('}{ banner'); os.system('echo tool output'); device = chipperf.ProbedDevice(index=0, "
            "name='A1'); return chipperf.ProbeResult(available=True, reason='found', devices=(device,))"
        ),
    )

    assert probe_vendor(entry).reason == "found"
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("child")
def test_thread_left_by_a_probe_does_not_keep_the_child(plugins):
    body = "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); raise OSError('gone')"
    entry = plugins.vendor("acme", perf_probe=probe_that(body))

    with pytest.raises(VendorHookError, match="OSError: gone"):
        probe_vendor(entry, timeout_s=5)


def test_outcomes_keep_the_order_and_carry_fault_or_result(plugins):
    entries = [plugins.plugin("broken", RAISES_ON_IMPORT), plugins.vendor("acme")]

    (broken, fault), (acme, result) = ask_all(entries, "probe", ProbeResult)

    assert [broken, acme] == entries
    assert isinstance(fault, PluginLoadError)
    assert "must not be imported" in fault.message
    assert (result.available, result.reason) == (True, "one A1")


def test_entry_names_itself():
    entry = PluginEntry(group="chipperf.vendors", name="acme", value="m", distribution="perf-acme", version="1.2")

    assert str(entry) == "vendor 'acme' (perf-acme 1.2)"

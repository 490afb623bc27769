"""Which plugins are listed, and what an import error says."""

import logging
import sys

import pytest
from chipperf.cases.registry import case_names
from chipperf.errors import PluginLoadError, VendorSelectionError
from chipperf.hardware import distribution_version
from chipperf.plugin import installed
from chipperf.records.environment import read_distributions


def test_listing_reads_metadata_and_imports_nothing(plugins):
    acme = plugins.plugin("acme", "raise RuntimeError('imported')")
    watcher = plugins.observer("watcher", "raise RuntimeError('imported')")

    assert installed.vendors() == (acme,)
    assert installed.observers() == (watcher,)
    assert acme.value not in sys.modules


def test_vendors_are_ordered_by_name(plugins):
    for name in ("zeta", "acme", "mid"):
        plugins.vendor(name)

    assert [entry.name for entry in installed.vendors()] == ["acme", "mid", "zeta"]


def test_distribution_twice_on_the_path_counts_once_and_the_first_wins(plugins, tmp_path, monkeypatch):
    plugins.distribution("perf-acme", "[chipperf.vendors]\nacme = shadowed\n", version="1.0")
    first = tmp_path / "first"
    plugins.distribution("Perf.Acme", "[chipperf.vendors]\nacme = winner\n", version="2.0", root=first)
    monkeypatch.syspath_prepend(first)

    assert [(entry.value, entry.version) for entry in installed.vendors()] == [("winner", "2.0")]


@pytest.mark.parametrize(
    "content",
    [b"[chipperf.vendors]\na line without an equals sign\n", b"[chipperf.vendors]\nacme = \xff\xfe\n"],
    ids=["malformed", "not UTF-8"],
)
def test_unreadable_metadata_hides_no_other_vendor(plugins, caplog, content):
    acme = plugins.vendor("acme")
    plugins.distribution("perf-torn")
    (plugins.root / "perf_torn-1.2.dist-info" / "entry_points.txt").write_bytes(content)

    with caplog.at_level(logging.WARNING, logger="chipperf.plugin.installed"):
        assert installed.vendors() == (acme,)
    assert "ignored" in caplog.text


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("METADATA", "Metadata-Version: 2.1\nName: foreign\nVersion: 1\nAuthor: André\n".encode("latin-1")),
        ("METADATA", b""),
        ("entry_points.txt", "[console_scripts]\nandré = x:y\n".encode("latin-1")),
        ("entry_points.txt", b"[console_scripts]\nno equals sign\n"),
    ],
)
def test_foreign_distribution_that_is_broken_concerns_nobody(plugins, caplog, file, content):
    acme = plugins.vendor("acme")
    plugins.distribution("foreign")
    (plugins.root / "foreign-1.2.dist-info" / file).write_bytes(content)

    assert installed.vendors() == (acme,)
    assert "resnet50" in case_names()
    assert "torch" in {each.name for each in read_distributions()}
    assert distribution_version("foreign") in ("1.2", None)
    assert caplog.text == ""


def test_name_in_two_distributions_names_both_with_versions(plugins):
    plugins.vendor("acme", distribution="perf-acme", version="1.0")
    plugins.vendor("acme", distribution="acme-bench", version="3.1")

    assert len(installed.vendors()) == 2
    with pytest.raises(VendorSelectionError, match=r"acme-bench 3\.1 .* and perf-acme 1\.0") as caught:
        installed.find_vendor("acme")
    assert "pip uninstall" in caught.value.hint


def test_duplicate_name_does_not_touch_other_vendors(plugins):
    plugins.vendor("acme", distribution="perf-acme")
    plugins.vendor("acme", distribution="acme-bench")
    other = plugins.vendor("other")

    assert installed.find_vendor("other") == other


def test_unknown_name_suggests_the_nearest_and_lists_the_installed(plugins):
    plugins.vendor("acme")
    plugins.vendor("other")

    with pytest.raises(VendorSelectionError, match=r"'amce' \(did you mean 'acme'\?\); installed: acme, other"):
        installed.find_vendor("amce")


def test_unknown_name_with_nothing_installed(plugins):
    with pytest.raises(VendorSelectionError, match="installed: none"):
        installed.find_vendor("acme")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import a_module_nobody_has", "ModuleNotFoundError: No module named 'a_module_nobody_has'"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit('no licence')", "SystemExit: no licence"),
    ],
)
def test_failing_import_says_who_what_and_how_to_repair_it(plugins, source, message):
    entry = plugins.plugin("acme", source)

    with pytest.raises(PluginLoadError) as caught:
        installed.load(entry)
    assert str(caught.value).startswith(f"vendor 'acme' (perf-acme 1.2): importing '{entry.value}' failed: ")
    assert message in str(caught.value)
    assert "pip install --force-reinstall perf-acme" in caught.value.hint
    assert caught.value.__cause__ is not None


def test_entry_point_must_name_a_module(plugins):
    entry = plugins.plugin("acme", "class Vendor: pass")
    entry = installed.PluginEntry(
        group=entry.group, name="acme", value=f"{entry.value}:Vendor", distribution="perf-acme", version="1.2"
    )

    with pytest.raises(PluginLoadError, match="names a type, not a module") as caught:
        installed.load(entry)
    assert caught.value.hint.startswith(f"write 'acme = \"{entry.value.removesuffix(':Vendor')}\"'")

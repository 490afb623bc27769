"""``perf record-tools`` keeps what tools print and nothing that identifies the machine."""

import json
import platform

import pytest
from chipperf.cli.record_tools import Anonymizer
from chipperf.plugin.types import ToolCommand

PLUGIN = """
from chipperf import ProbeResult, Title, ToolCommand, VendorInfo, hookimpl

@hookimpl
def perf_vendor_info():
    title = Title(zh="艾克米", en="ACME")
    return VendorInfo(name="acme", title=title, report_title=title, device_type="cuda")

@hookimpl
def perf_probe():
    return ProbeResult(available=False, reason="no card")

@hookimpl
def perf_tool_commands():
    return (
        ToolCommand(name="query", argv=({tool!r}, "-q"), private_patterns=(r"SN[0-9]+",)),
        ToolCommand(name="missing", argv=("/nowhere/acme-smi",)),
    )
"""
UUID = "12345678-9abc-def0-1234-56789abcdef0"


@pytest.fixture
def acme(distributions, tmp_path):
    tool = tmp_path / "acme-smi"
    tool.write_text(f"#!/bin/sh\necho 'A1 | SN1234 | GPU-{UUID} | '$(uname -n)' | SN1234 |'\n")
    tool.chmod(0o755)
    (distributions.root / "acme_plugin.py").write_text(PLUGIN.format(tool=str(tool)))
    distributions.add("chipperf-acme", "[chipperf.vendors]\nacme = acme_plugin\n")
    return str(distributions.root)


def test_outputs_are_kept_without_what_identifies_the_machine(acme, perf, tmp_path):
    result = perf("record-tools", "acme", "--out", tmp_path / "recording", PYTHONPATH=acme)
    recorded = (tmp_path / "recording" / "query.txt").read_text()
    assert UUID not in recorded
    assert "SN1234" not in recorded
    assert platform.node() not in recorded
    assert recorded.startswith("A1 | ")
    manifest = json.loads((tmp_path / "recording" / "manifest.json").read_text())
    assert [entry["file"] for entry in manifest["commands"]] == ["query.txt", None]
    assert "cannot be run" in manifest["commands"][1]["problem"]
    # One tool is missing: the other's output is kept, and the exit code tells.
    assert result.returncode == 4
    assert "missing" in result.stderr


def test_without_any_output_nothing_is_left(acme, perf, tmp_path):
    (tmp_path / "acme-smi").unlink()
    result = perf("record-tools", "acme", "--out", tmp_path / "recording", PYTHONPATH=acme)
    assert result.returncode == 4
    assert "nothing was recorded" in result.stderr
    assert not (tmp_path / "recording").exists()


def test_a_directory_that_holds_something_is_not_overwritten(acme, perf, tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    result = perf("record-tools", "acme", "--out", tmp_path, PYTHONPATH=acme)
    assert (result.returncode, (tmp_path / "kept.txt").read_text()) == (2, "mine")


def test_a_vendor_without_tools_says_so(perf, tmp_path):
    result = perf("record-tools", "cpu", "--out", tmp_path / "recording")
    assert result.returncode == 2
    assert "lists no tools" in result.stderr


def test_substitutes_keep_length_and_tell_different_texts_apart():
    command = ToolCommand(name="query", argv=("acme-smi",), private_patterns=(r"SN[0-9]+", "(?i)board [a-z]+"))
    anonymous = Anonymizer((command,))
    text = f"|SN1234|SN9999|SN1234|GPU-{UUID}|Board X|"
    replaced = anonymous(text)
    assert len(replaced) == len(text)
    first, second, third = replaced.split("|")[1:4]
    assert first == third != second
    assert replaced.split("|")[4].startswith("GPU-00000000-0000-")
    assert "Board X" not in replaced


def test_place_that_cannot_be_written_is_a_line(acme, perf, tmp_path):
    (tmp_path / "file").write_text("mine")
    result = perf("record-tools", "acme", "--out", tmp_path / "file" / "tools", PYTHONPATH=acme)
    assert result.returncode == 2
    assert result.stderr.startswith(f"perf: error: cannot use {tmp_path}/file/tools: Not a directory\n  hint: ")

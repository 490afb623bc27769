"""Listings for people and for programs, and the help of every command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import chipperf
import pytest
import typer
from chipperf.cli.main import app

if TYPE_CHECKING:
    from pathlib import Path

    from invocation import Invoke
    from support import FakeDistributions


def commands() -> list[tuple[str, ...]]:
    def below(command: Any, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        subcommands: dict[str, Any] = getattr(command, "commands", {})
        if not subcommands:
            return [path]
        # A default command is typed without its name.
        default = getattr(command, "default_command", None)
        return [
            leaf
            for name in subcommands
            for leaf in below(command.get_command(None, name), path if name == default else (*path, name))
        ]

    return below(typer.main.get_command(app), ())


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_help_has_an_example(invoke: Invoke, command: tuple[str, ...]) -> None:
    ended = invoke(*command, "--help")

    assert ended.code == 0
    assert f"Example: perf {' '.join(command)}" in " ".join(ended.out.split())


def test_help_and_version_of_the_program(invoke: Invoke) -> None:
    assert "Example: perf train" in invoke("--help").out
    assert invoke("--version").out == f"chipperf {chipperf.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "name"), [(("cases",), "mobilenetv2"), (("plugins",), "cpu")], ids=["cases", "plugins"]
)
def test_listing_for_people_and_for_programs(invoke: Invoke, arguments: tuple[str, ...], name: str) -> None:
    assert name in invoke(*arguments).out

    entries = json.loads(invoke(*arguments, "--json").out)
    assert name in {entry["name"] for entry in entries}


def test_case_is_listed_with_roles_base_values_and_presets(invoke: Invoke) -> None:
    content = json.loads(invoke("cases", "resnet50", "--json").out)

    assert content["hyperparameters"]["epochs"] == {"role": "locked", "base": 100}
    assert content["hyperparameters"]["lr"] == {"role": "scaled", "base": 0.1}
    assert content["presets"]["full"] == {}
    assert "preset full: the base values" in invoke("cases", "resnet50").out


def test_broken_case_hides_no_other(invoke: Invoke, distributions: FakeDistributions) -> None:
    distributions.add("perf-cases", "[chipperf.cases]\nbroken = no_such_module:CASE\n")

    entries = {entry["name"]: entry for entry in json.loads(invoke("cases", "--json").out)}

    assert entries["broken"]["version"] == "broken"
    assert "case 'broken' (perf-cases 1.2)" in entries["broken"]["summary"]
    assert "resnet50" in entries


def test_doctor_speaks_of_every_vendor(invoke: Invoke) -> None:
    findings = json.loads(invoke("doctor", "--json").out)

    vendors = {vendor["name"]: vendor for vendor in findings["vendors"]}
    assert vendors["cpu"]["available"] is True
    assert vendors["cpu"]["trains"] is True
    assert all(vendor["reason"] for vendor in vendors.values())
    assert findings["chipperf"] == chipperf.__version__


def test_doctor_says_which_perf_is_on_the_path(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profiler = tmp_path / "perf"
    profiler.write_text("#!/bin/sh\n")
    profiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    findings = json.loads(invoke("doctor", "--json").out)

    assert findings["perf"] == {"on_path": str(profiler), "is_this": False}
    assert any(str(profiler) in warning for warning in findings["warnings"])


def test_data_sample_prints_the_directory_it_made(invoke: Invoke, tmp_path: Path) -> None:
    arguments = ("--out", tmp_path, "--classes", 2, "--train-per-class", 1, "--val-per-class", 1)

    ended = invoke("data", "sample", *arguments)

    directory = tmp_path / ended.out.strip().rpartition("/")[2]
    assert ended.code == 0
    assert (directory / "dataset.json").is_file()


def test_data_check_of_a_good_directory(invoke: Invoke, image_folder: Path) -> None:
    ended = invoke("data", "check", "mobilenetv2", image_folder, "--any-size", "--full")

    assert ended.code == 0
    assert "24 training and 9 evaluation images in 3 classes; decoded 33" in ended.out


def test_data_check_of_a_directory_of_another_size(invoke: Invoke, image_folder: Path) -> None:
    ended = invoke("data", "check", "mobilenetv2", image_folder)

    assert ended.code == 4
    assert "1281167" in ended.out.replace(" ", "").replace(",", "")
    assert "perf: error: " in ended.err


@pytest.mark.parametrize("layout", ["empty", "no-classes"])
def test_data_check_of_a_directory_that_is_none(invoke: Invoke, tmp_path: Path, layout: str) -> None:
    directory = tmp_path / layout
    directory.mkdir()
    if layout == "no-classes":
        (directory / "train").mkdir()
        (directory / "val").mkdir()

    ended = invoke("data", "check", "mobilenetv2", directory, "--json")

    assert ended.code == 4
    content = json.loads(ended.out)
    assert content["ok"] is False
    assert str(directory) in json.dumps(content)

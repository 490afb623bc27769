"""Facts about machines that are not here."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from typing import TYPE_CHECKING

import pytest
from chipperf.plugin import installed
from chipperf.plugin.session import bind
from chipperf.records import environment
from chipperf.records.schema import Missing
from chipperf.run.planned_record import planned_record

if TYPE_CHECKING:
    from pathlib import Path

    from support import MakePlan


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("files", "machine"),
    [
        ({"sys_vendor": "Acme Inc.\n", "product_name": "R5300 G5\n"}, "Acme Inc. R5300 G5"),
        ({"sys_vendor": "\n", "product_name": "R5300 G5\n"}, "R5300 G5"),
        ({"product_name": "R5300 G5"}, "R5300 G5"),
    ],
)
def test_machine_is_read_from_the_firmware(tmp_path: Path, files: dict[str, str], machine: str) -> None:
    write(tmp_path, {f"sys/class/dmi/id/{name}": text for name, text in files.items()})

    assert environment.read_machine(tmp_path) == machine


def test_cpu_is_the_model_name(tmp_path: Path) -> None:
    write(tmp_path, {"proc/cpuinfo": "processor\t: 0\nvendor_id : X\nmodel name\t: Acme(R)  X9   CPU @ 2.00GHz\n"})

    assert environment.read_cpu(tmp_path) == "Acme(R) X9 CPU @ 2.00GHz"


def test_cpu_without_a_model_name_is_its_architecture(tmp_path: Path) -> None:
    write(tmp_path, {"proc/cpuinfo": "processor : 0\n"})

    assert environment.read_cpu(tmp_path) not in ("", None)


def test_os_is_the_pretty_name(monkeypatch: pytest.MonkeyPatch) -> None:
    release = {"NAME": "Acme", "PRETTY_NAME": "Acme Linux 22.04 (x)"}
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)

    assert environment.read_os() == "Acme Linux 22.04 (x)"


def test_os_release_without_a_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"NAME": "Acme"})

    assert isinstance(environment.read_os(), Missing)


@pytest.mark.parametrize(("marker", "engine"), [(".dockerenv", "docker"), ("run/.containerenv", "podman")])
def test_container_engine_by_its_marker(tmp_path: Path, marker: str, engine: str) -> None:
    write(tmp_path, {marker: ""})

    assert environment.read_container(tmp_path) == engine


def test_container_engine_by_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("container", "lxc")
    assert environment.read_container(tmp_path) == "lxc"

    monkeypatch.delenv("container")
    assert environment.read_container(tmp_path) == Missing(missing="not_applicable", reason="not in a container")


def rdma(card: str, port: int, rate: str, *, state: str = "4: ACTIVE", link: str = "InfiniBand") -> dict[str, str]:
    folder = f"sys/class/infiniband/{card}/ports/{port}"
    return {f"{folder}/rate": f"{rate}\n", f"{folder}/state": f"{state}\n", f"{folder}/link_layer": f"{link}\n"}


@pytest.mark.parametrize(
    ("files", "network"),
    [
        (rdma("mlx5_0", 1, "200 Gb/sec (4X HDR)"), "1x InfiniBand 200 Gb/sec (4X HDR)"),
        (rdma("a", 1, "200 Gb/sec") | rdma("b", 1, "200 Gb/sec"), "2x InfiniBand 200 Gb/sec"),
        (rdma("a", 1, "200 Gb/sec") | rdma("b", 1, "10 Gb/sec", state="1: DOWN"), "1x InfiniBand 200 Gb/sec"),
        (rdma("a", 1, "100 Gb/sec", link="Ethernet"), "1x RoCE 100 Gb/sec"),
        (
            rdma("a", 1, "10 Gb/sec", state="1: DOWN")
            | {"sys/class/net/eth0/device/x": "", "sys/class/net/eth0/speed": "1000"},
            "Ethernet, 1 Gb/s",
        ),
        (
            {"sys/class/net/eth0/device/x": "", "sys/class/net/eth0/speed": "25000\n", "sys/class/net/lo/y": ""},
            "Ethernet, 25 Gb/s",
        ),
        (
            {
                "sys/class/net/eth0/device/x": "",
                "sys/class/net/eth0/speed": "2500",
                "sys/class/net/docker0/speed": "10000",
            },
            "Ethernet, 2.5 Gb/s",
        ),
    ],
)
def test_network_is_what_has_a_link(tmp_path: Path, files: dict[str, str], network: str) -> None:
    write(tmp_path, files)

    assert environment.read_network(tmp_path) == network


def test_link_that_is_down_has_no_speed(tmp_path: Path) -> None:
    write(tmp_path, {"sys/class/net/eth0/device/x": "", "sys/class/net/eth0/speed": "-1\n"})

    assert isinstance(environment.read_network(tmp_path), Missing)


@pytest.mark.parametrize("read", [environment.read_machine, environment.read_network])
def test_machine_that_says_nothing_is_unknown(tmp_path: Path, read) -> None:  # type: ignore[no-untyped-def]
    assert read(tmp_path) == Missing(missing="unknown", reason="the machine does not say")


def test_binary_firmware_field_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, {"sys/class/dmi/id/sys_vendor": "Acme"})
    (tmp_path / "sys/class/dmi/id/product_name").write_bytes(b"\xff\xff\xff")

    assert environment.read_machine(tmp_path) == "Acme"


def test_this_machine_has_memory_cores_and_a_system() -> None:
    assert environment.read_memory_bytes() > 2**20
    cores = environment.read_cores()
    assert isinstance(cores, Missing) or 1 <= cores <= (os.cpu_count() or 1)
    assert environment.read_os() not in ("", None)


def test_versions_of_what_takes_part_are_recorded() -> None:
    found = {item.name: item.version for item in environment.read_distributions()}

    assert found["chipperf"] == importlib.metadata.version("chipperf")
    assert found["pydantic"] == importlib.metadata.version("pydantic")
    assert set(found) <= set(environment.RECORDED_DISTRIBUTIONS) | {n for n in found if n.startswith("chipperf-")}


def test_what_the_user_states_replaces_what_was_read(make_plan: MakePlan) -> None:
    plan = make_plan(stated_environment={"machine": "R5300", "network": "InfiniBand, 2x200 Gb/s"})

    record = planned_record(plan, bind(installed.find_vendor("cpu")), metric="top1")

    assert (record.environment.machine, record.environment.network) == ("R5300", "InfiniBand, 2x200 Gb/s")
    assert record.environment.stated == ["machine", "network"]


def test_a_planned_run_names_a_sample_and_no_directory(make_plan: MakePlan, image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    cpu = bind(installed.find_vendor("cpu"))
    sample, own = (
        planned_record(make_plan(data_root=root), cpu, metric="top1").dataset
        for root in (image_folder, tmp_path / "images")
    )

    manifest = json.loads((image_folder / "dataset.json").read_text(encoding="utf-8"))
    assert (sample.name, sample.version, sample.is_sample) == (manifest["name"], manifest["version"], True)
    assert (own.name, own.is_sample) == ("unknown", False)
    assert isinstance(own.version, Missing)
    assert isinstance(sample.fingerprint, Missing)

"""What a vendor states as data, hyperparameters and products: what counts, and what is wrong with a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chipperf import (
    Capability,
    CaseOverride,
    CaseOverrides,
    KnownDevice,
    PeakFlops,
    PluginError,
    Rank,
    read_case_overrides,
    read_products,
    read_variables,
    read_vendor_info,
)

if TYPE_CHECKING:
    from pathlib import Path

FILE = """
without_row = "Nobody has a configuration"
notes = ["of every row"]

[[config]]
case = "resnet50"
topology = "1x8"
batch_size = { value = 256, reason = "27 GiB of 40 in use" }
sync_batchnorm = { value = true, reason = "the batch is small" }
notes = ["published with 512"]

[[config]]
case = "resnet50"
topology = "1x8"
card = ["ACME A2", "ACME A2 Max"]
lr = { value = 0.8, reason = "8 times the base lr" }
"""
ONE_BY_EIGHT = Rank(world_size=8, local_world_size=8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "configs.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


def test_row_of_the_case_and_topology_counts(file: Path) -> None:
    assert read_case_overrides(file, "resnet50", ONE_BY_EIGHT, "ACME A1") == CaseOverrides(
        overrides=(
            CaseOverride(key="batch_size", value=256, reason="27 GiB of 40 in use"),
            CaseOverride(key="sync_batchnorm", value=True, reason="the batch is small"),
        ),
        notes=("of every row", "published with 512"),
    )


@pytest.mark.parametrize("name", ["ACME A2", "acme a2 max"])
def test_row_of_the_card_comes_first(file: Path, name: str) -> None:
    found = read_case_overrides(file, "resnet50", ONE_BY_EIGHT, name)
    assert [override.key for override in found.overrides] == ["lr"]


@pytest.mark.parametrize(("case", "rank"), [("detr", ONE_BY_EIGHT), ("resnet50", Rank())])
def test_without_a_row_there_is_a_note(file: Path, case: str, rank: Rank) -> None:
    note = f"Nobody has a configuration of {case} on {rank.topology}: the case's base values apply"
    assert read_case_overrides(file, case, rank, "ACME A1") == CaseOverrides(notes=(note,))


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        (
            "without_row =",
            "withoutrow =",
            "unknown key 'withoutrow' (did you mean 'without_row'?)",
            "keys: without_row",
        ),
        ("without_row = ", "without_row = 3 #", "without_row is not a text", "FlagPerf"),
        ("[[config]]", "[config]", "is not TOML", "correct"),
        (FILE[FILE.index("[[config]]") :], "config = 3", "'config' is not a list of tables", "[[config]]"),
        ('case = "resnet50"', "", "[[config]] 1: case is not a text", "case ="),
        ('topology = "1x8"', 'topology = "8"', "[[config]] 1: topology is '8'", "nodes x devices"),
        ("256, reason", "[256], reason", "1 (resnet50 on 1x8): batch_size: the value is not a number", "write KEY"),
        ('"27 GiB of 40 in use"', '" "', "1 (resnet50 on 1x8): batch_size: the reason is not a text", "why"),
        ('{ value = 0.8, reason = "8 times the base lr" }', "0.8", "2 (resnet50 on 1x8): lr is not a value", "reason"),
        ('["ACME A2", "ACME A2 Max"]', "[2]", "2 (resnet50 on 1x8): card: not every entry is a text", "list of texts"),
        ('["of every row"]', "[3]", "notes: not every entry is a text", "list of texts"),
        ('card = ["ACME A2", "ACME A2 Max"]', "", "two rows are of resnet50 on 1x8", "leave one"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_fault_names_file_place_and_remedy(file: Path, old: str, new: str, message: str, hint: str) -> None:
    file.write_text(FILE.replace(old, new), encoding="utf-8")
    with pytest.raises(PluginError) as caught:
        read_case_overrides(file, "resnet50", ONE_BY_EIGHT)
    assert str(file) in caught.value.message
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_missing_file_is_a_fault_of_the_plugin(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="cannot read") as caught:
        read_case_overrides(tmp_path / "configs.toml", "resnet50", Rank())
    assert caught.value.hint == "reinstall the plugin"


PRODUCTS = """
[data_sheet.A1]
title = "ACME A1 data sheet, May 2026"
tflops = { fp32 = 20, fp16 = 312.5 }

[[product]]
name = "ACME A1 40GB"
short_name = "A1"
memory_gib = 40
data_sheet = "A1"

[[product]]
name = "ACME A0"
short_name = "A0"
"""


def test_products_are_known_devices_with_the_peaks_of_their_data_sheet(tmp_path: Path) -> None:
    path = tmp_path / "products.toml"
    path.write_text(PRODUCTS, encoding="utf-8")
    products = read_products(path)
    assert products.known_devices == (
        KnownDevice(name="ACME A1 40GB", short_name="A1", memory_bytes=40 * 2**30),
        KnownDevice(name="ACME A0", short_name="A0"),
    )
    assert products.peak_flops("ACME A1 40GB", "fp16") == PeakFlops(
        flops_per_s=312.5e12, source="ACME A1 data sheet, May 2026"
    )
    assert products.peak_flops("ACME A1 40GB", "bf16") is None
    assert products.peak_flops("ACME A0", "fp32") is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('short_name = "A1"', "short_name = 1", "[[product]] 1: name and short_name are not both texts"),
        ("memory_gib = 40", "memory_gib = -1", "[[product]] 1 (ACME A1 40GB): memory_gib is -1"),
        ("memory_gib", "memory_gb", "unknown key 'memory_gb' (did you mean 'memory_gib'?)"),
        ('data_sheet = "A1"', 'data_sheet = "B1"', "there is no data sheet 'B1'"),
        ('title = "ACME A1 data sheet, May 2026"', "", "data sheet A1 lacks its title or its rates"),
        ("fp16 = 312.5", "half = 312.5", "data sheet A1: half = 312.5 is no rate"),
        ("fp16 = 312.5", "fp16 = true", "data sheet A1: fp16 = True is no rate"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_fault_of_a_product_names_file_place_and_remedy(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "products.toml"
    path.write_text(PRODUCTS.replace(old, new), encoding="utf-8")
    with pytest.raises(PluginError) as caught:
        read_products(path)
    assert str(path) in caught.value.message
    assert message in caught.value.message
    assert caught.value.hint


VENDOR = """
[vendor]
name = "acme"
title = { en = "ACME", zh = "ACME" }
report_title = { en = "ACME cards", zh = "ACME cards" }
device_type = "cuda"
visible_devices_env = ["ACME_VISIBLE_DEVICES"]
capabilities = ["fp16"]

[[product]]
name = "ACME A1"
short_name = "A1"
"""


def test_vendor_is_read_with_its_products(tmp_path: Path) -> None:
    path = tmp_path / "products.toml"
    path.write_text(VENDOR, encoding="utf-8")

    info = read_vendor_info(path, device_type="acme")

    assert (info.name, info.title.en, info.device_type) == ("acme", "ACME", "acme")
    assert info.visible_devices_env == ("ACME_VISIBLE_DEVICES",)
    assert info.capabilities == {Capability.FP16}
    assert [device.short_name for device in info.known_devices] == ["A1"]


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ('name = "acme"\n', "", "'name'"),
        ("[vendor]", "[vendor]\ncolor = 1", "'color'"),
        ('["fp16"]', '["fp17"]', "'fp17'"),
        ('title = { en = "ACME", zh = "ACME" }\n', "", "'title'"),
    ],
    ids=["missing", "unknown", "no capability", "no title"],
)
def test_wrong_vendor_is_an_error(tmp_path: Path, before: str, after: str, problem: str) -> None:
    path = tmp_path / "products.toml"
    path.write_text(VENDOR.replace(before, after, 1), encoding="utf-8")

    with pytest.raises(PluginError, match=rf"products\.toml: \[vendor\] lacks an attribute or .*{problem}") as caught:
        read_vendor_info(path)
    assert "capabilities" in (caught.value.hint or "")


def test_variables_are_meanings_and_settings(tmp_path: Path) -> None:
    path = tmp_path / "variables.toml"
    path.write_text('[a]\nONE = "slow"\n[b]\nTWO = { value = "1", reason = "order" }\n', encoding="utf-8")

    variables = read_variables(path)

    assert variables.meanings == {"a": {"ONE": "slow"}, "b": {}}
    assert [(v.name, v.value, v.reason) for v in variables.settings["b"]] == [("TWO", "1", "order")]
    assert variables.settings["a"] == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ONE = 1", "ONE is not a table"),
        ("[a]\nONE = 1", r"a\.ONE is neither a text nor a value with its reason"),
        ('[a]\nONE = { value = "1" }', r"a\.ONE is neither"),
        ('[a]\nONE = { value = 1, reason = "x" }', r"a\.ONE is neither"),
        ('[a]\nONE = ""', r"a\.ONE is neither"),
    ],
)
def test_wrong_variables_are_an_error(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "variables.toml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(PluginError, match=problem):
        read_variables(path)

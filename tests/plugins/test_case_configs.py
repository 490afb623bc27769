"""A vendor's hyperparameters as data: which row counts, and what is wrong with a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chipperf import CaseOverride, CaseOverrides, PluginError, Rank, read_case_overrides

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
        ("256, reason", "[256], reason", "1 (resnet50 on 1x8): batch_size: the value is neither", "write KEY"),
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

"""Bad input: one line that names it, a hint, the right exit code, and no trace of a run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from invocation import Invoke
    from support import FakeDistributions

TRAIN = ("train", "mobilenetv2", "--vendor", "cpu")


@pytest.mark.parametrize(
    ("arguments", "code", "error", "hint"),
    [
        (("train", "resnet5"), 2, "unknown case 'resnet5' (did you mean 'resnet50'?)", "installed cases: "),
        (("train", "resnet50", "--vendor", "cup"), 3, "no vendor is called 'cup' (did you mean 'cpu'?)", "--vendor"),
        ((*TRAIN, "--precision", "fp23"), 2, "unknown precision 'fp23' (did you mean 'fp32'?)", "precisions: fp32"),
        ((*TRAIN, "--preset", "tny"), 2, "has no preset 'tny'", "did you mean 'tiny'?"),
        ((*TRAIN, "--set", "lrr=1"), 2, "sets unknown hyperparameter 'lrr'", "did you mean 'lr'?"),
        ((*TRAIN, "--set", "lr"), 2, "--set 'lr' is not key=value", "--set lr=0.2"),
        ((*TRAIN, "--set", "epochs=1"), 2, "sets 'epochs', which case mobilenetv2 locks", "--max-epochs"),
        ((*TRAIN, "--set", "lr=fast"), 2, "hyperparameter 'lr' cannot be 'fast'", "perf cases mobilenetv2"),
        ((*TRAIN, "--config", "none.toml"), 2, "cannot read none.toml: No such file or directory", "--config"),
        ((*TRAIN, "--data", "none"), 2, "the dataset directory none does not exist", "--data"),
        (("cases", "resnet5"), 2, "did you mean 'resnet50'?", "installed cases"),
        (("report", "none"), 2, "no record at none", "perf train"),
        (("data", "check", "resnet5", "."), 2, "did you mean 'resnet50'?", "installed cases"),
    ],
)
def test_bad_input_is_one_line_and_a_hint(
    invoke: Invoke, tmp_path: Path, arguments: tuple[str, ...], code: int, error: str, hint: str
) -> None:
    ended = invoke(*arguments)

    lines = ended.err.strip().splitlines()
    assert ended.code == code
    assert lines[-2].startswith("perf: error: ")
    assert error in lines[-2]
    assert lines[-1].startswith("  hint: ")
    assert hint in lines[-1]
    assert "Traceback" not in ended.err
    assert ended.out == ""
    assert list(tmp_path.iterdir()) == []


def test_path_that_is_not_utf_8_is_a_line(invoke: Invoke, tmp_path: Path) -> None:
    data = tmp_path / os.fsdecode(b"\xff")
    for part in ("train", "val"):
        (data / part).mkdir(parents=True)

    ended = invoke(*TRAIN, "--preset", "tiny", "--data", data, "--out", tmp_path / "run")

    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("perf: error: a path or an argument is not valid UTF-8\n  hint: ")
    assert list(tmp_path.iterdir()) == [data]


@pytest.mark.parametrize(
    "arguments",
    [
        ("train",),
        ("trian",),
        (*TRAIN, "--sed", "1"),
        (*TRAIN, "--seed", "-1"),
        (*TRAIN, "--nproc", "0"),
        (*TRAIN, "--max-steps", "0"),
        ("report", "x", "--lang", "fr"),
    ],
)
def test_command_line_that_makes_no_sense(invoke: Invoke, arguments: tuple[str, ...]) -> None:
    ended = invoke(*arguments)

    assert ended.code == 2
    assert "Traceback" not in ended.err


def test_traceback_is_shown_on_request(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERF_DEBUG", "1")

    ended = invoke("cases", "resnet5")

    assert ended.code == 2
    assert ended.err.startswith("Traceback (most recent call last):")
    assert "perf: error: unknown case 'resnet5'" in ended.err


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_output_directory_that_cannot_be_written(
    invoke: Invoke, tmp_path: Path, place: str, image_folder: Path
) -> None:
    (tmp_path / "file").write_text("mine")

    ended = invoke(*TRAIN, "--preset", "tiny", "--data", image_folder, "--out", place)

    assert ended.code == 2
    assert f"perf: error: cannot write to {place}" in ended.err
    assert "hint: choose another directory with --out" in ended.err
    assert (tmp_path / "file").read_text() == "mine"


def test_run_is_never_overwritten(invoke: Invoke, tmp_path: Path, image_folder: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "record.json").write_text("mine")

    ended = invoke(*TRAIN, "--preset", "tiny", "--data", image_folder, "--out", "run")

    assert ended.code == 2
    assert "perf: error: run already holds a run" in ended.err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["record.json"]
    assert (tmp_path / "run" / "record.json").read_text() == "mine"


def test_record_of_a_newer_version(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"schema_version": 9, "chipperf_version": "4.0"}')

    ended = invoke("report", tmp_path)

    assert ended.code == 2
    assert "has schema_version 9; this chipperf reads up to 2" in ended.err
    assert "chipperf 4.0" in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        TRAIN,
        ("limits", "--vendor", "cpu"),
        ("qualify", "--vendor", "cpu"),
        ("contract", "run", "--vendor", "cpu"),
        ("contract", "run", "--vendor", "cpu", "--check", "D1"),
        ("contract", "certify", "--vendor", "cpu", "--out", "certificate"),
        ("contract", "case", "mobilenetv2"),
    ],
    ids=" ".join,
)
def test_torch_below_the_oldest_that_works_is_refused_with_the_remedy_before_anything_is_written(
    distributions: FakeDistributions, invoke: Invoke, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    distributions.add("torch", "")
    before = set(tmp_path.iterdir())
    result = invoke(*arguments)
    assert (result.code, result.out) == (3, "")
    assert "torch 1.2 in " in result.err
    assert "use an image of the vendor with a newer one" in result.err
    assert set(tmp_path.iterdir()) == before


def test_checks_that_need_no_torch_run_beside_one_that_is_too_old(
    distributions: FakeDistributions, invoke: Invoke
) -> None:
    distributions.add("torch", "")
    assert invoke("contract", "run", "--vendor", "cpu", "--check", "A1").code == 0


def test_doctor_warns_of_a_torch_that_is_too_old(distributions: FakeDistributions, invoke: Invoke) -> None:
    distributions.add("torch", "")
    assert "warning: torch 1.2 in " in invoke("doctor").out

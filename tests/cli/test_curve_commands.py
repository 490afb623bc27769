"""``perf report`` and ``perf compare`` with curves: files, notes, and what they refuse."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.languages import LANGUAGES, read_translation
from chipperf.report import figures

if TYPE_CHECKING:
    from collections.abc import Callable

    from invocation import Invoke
    from support import Perf

REPORT_TESTS = Path(__file__).parents[1] / "report"
make_record = runpy.run_path(str(REPORT_TESTS / "factory.py"))["make_record"]
make = runpy.run_path(str(REPORT_TESTS / "curve_records.py"))
curve, losses = make["curve"], make["losses"]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., str]:
    """Write a run with curves of both kinds, and changes; return its directory's name."""

    def write(name: str, **changes: Any) -> str:
        (tmp_path / name).mkdir()
        values = {"run_id": name, "vendor__name": "cpu", **losses([2.0, 1.5, 1.2, 1.0]), **curve([0.1, 0.2])}
        record = make_record(**values | changes)
        (tmp_path / name / "record.json").write_text(record.model_dump_json(), encoding="utf-8")
        return name

    return write


@pytest.fixture
def english_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_CHINESE_FAMILIES", ())


def test_report_is_written_with_its_picture_and_points(invoke: Invoke, tmp_path: Path, run: Callable[..., str]) -> None:
    ended = invoke("report", run("a"), "--baseline", run("b"), "--lang", "en", "--out", "README.md")

    assert ended.code == 0
    assert "![acc](acc.png)" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert {"acc.png", "acc.svg", "acc.csv"} < {path.name for path in tmp_path.iterdir()}
    assert [line.removeprefix("wrote ") for line in ended.err.splitlines()] == [
        "acc.csv",
        "acc.png",
        "acc.svg",
        "README.md.provenance.json",
        "README.md",
    ]


def test_reports_in_one_directory_keep_their_own_pictures(invoke: Invoke, run: Callable[..., str]) -> None:
    run("a")
    for language in LANGUAGES:
        assert invoke("report", "a", "--lang", language, "--out", f"report.{language}.md").code == 0

    for language in LANGUAGES:
        text = Path(f"report.{language}.md").read_text(encoding="utf-8")
        assert f"![acc](report.{language}-acc.png)" in text
        assert Path(f"report.{language}-acc.png").is_file()


def test_report_is_the_same_twice(invoke: Invoke, tmp_path: Path, run: Callable[..., str]) -> None:
    def written() -> dict[str, bytes]:
        assert invoke("report", "a", "--out", "README.md").code == 0
        return {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    run("a")
    assert written() == written()


def test_report_on_standard_output_has_the_verdict_and_no_picture(invoke: Invoke, run: Callable[..., str]) -> None:
    ended = invoke("report", run("a"), "--lang", "en")

    assert "Below the target" in ended.out
    assert "![" not in ended.out
    assert ended.err == "note: without --out there is no picture of the convergence curves\n"


def test_report_says_that_no_chinese_font_was_found(
    invoke: Invoke, run: Callable[..., str], english_only: None
) -> None:
    ended = invoke("report", run("a"), "--lang", "zh", "--out", "README.md")

    assert "no font for the language 'zh' was found" in ended.err
    assert "图中文字为英文" in Path("README.md").read_text(encoding="utf-8")


def test_report_without_matplotlib_has_the_points_and_no_picture(
    invoke: Invoke, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chipperf.report.figures.has_matplotlib", lambda: False)
    ended = invoke("report", run("a"), "--lang", "en", "--out", "README.md")

    assert ended.code == 0
    assert "chipperf[plot]" in ended.err
    text = Path("README.md").read_text(encoding="utf-8")
    assert "[CSV](acc.csv)" in text
    assert "![" not in text
    assert not Path("acc.png").exists()


def test_report_that_cannot_write_its_picture_writes_no_report(invoke: Invoke, run: Callable[..., str]) -> None:
    run("a")
    Path("acc.png").mkdir()
    ended = invoke("report", "a", "--out", "README.md")

    assert ended.code == 1
    assert "cannot write acc.png: Is a directory" in ended.err
    assert not Path("README.md").exists()


def test_report_whose_template_is_broken_writes_nothing(
    invoke: Invoke, tmp_path: Path, run: Callable[..., str]
) -> None:
    run("a")
    Path("templates").mkdir()
    Path("templates/report.md.j2").write_text("{{ nothing }}", encoding="utf-8")
    ended = invoke("report", "a", "--templates", "templates", "--out", "README.md")

    assert ended.code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "templates"]


def test_compare_prints_a_table_with_ratios(invoke: Invoke, run: Callable[..., str]) -> None:
    ended = invoke("compare", run("a"), run("b", environment__row_label="B2", metrics__p_whole=8950.0))

    assert ended.code == 0
    assert "2: B2 1x8 fp32, b" in ended.out
    assert "8950 (2x)" in ended.out


def test_compare_prints_many_runs_a_few_at_a_time(invoke: Invoke, run: Callable[..., str]) -> None:
    ended = invoke("compare", *(run(f"run-{number}", seed=number) for number in range(9)))

    assert ended.out.count("p_core (samples/s)") == 3


def test_compare_gives_programs_every_value(invoke: Invoke, run: Callable[..., str]) -> None:
    content = json.loads(invoke("compare", run("a"), run("b", metrics__p_core={"missing": "unknown"}), "--json").out)

    (p_core,) = (measure for measure in content["measures"] if measure["name"] == "p_core")
    assert content["schema_version"] == 1
    assert [entry["runs"] for entry in content["columns"]] == [["a"], ["b"]]
    assert [cell["value"] for cell in p_core["cells"]] == [4659.0, {"missing": "unknown", "reason": ""}]
    assert [cell["ratio"] for cell in p_core["cells"]] == [1.0, None]


@pytest.mark.parametrize(("name", "start"), [("c.svg", b"<?xml"), ("c.png", b"\x89PNG"), ("c.csv", b"curve,name")])
@pytest.mark.parametrize("quantity", ["accuracy", "loss"])
def test_compare_writes_curves(invoke: Invoke, run: Callable[..., str], quantity: str, name: str, start: bytes) -> None:
    ended = invoke("compare", run("a"), run("b", seed=7), "--curve", quantity, "--lang", "en", "--out", name)

    assert ended.code == 0
    assert Path(name).read_bytes().startswith(start)
    assert "that all curves have" in ended.out


def test_compare_shows_a_part_of_a_long_curve(invoke: Invoke, run: Callable[..., str]) -> None:
    ended = invoke("compare", run("a", **losses([2.0] * 10_000, steps_per_epoch=5000)), "--curve", "loss")

    assert "Medians at 20 of 10000 steps" in ended.out
    assert len(ended.out.splitlines()) < 30
    assert ended.out.splitlines()[-1].startswith("50000")


def test_compare_gives_programs_the_curves(invoke: Invoke, run: Callable[..., str]) -> None:
    content = json.loads(invoke("compare", run("a"), "--curve", "accuracy", "--axis", "time", "--json").out)

    assert (content["quantity"], content["axis"], content["common_places"]) == ("quality", "time", [60.0, 120.0])
    assert content["curves"][0]["positions"][1] == {"place": 120.0, "low": 0.2, "median": 0.2, "high": 0.2}


def test_compare_says_which_axis_it_took_and_why(invoke: Invoke, run: Callable[..., str]) -> None:
    other = losses([2.0, 1.0], steps_per_epoch=5)
    ended = invoke("compare", run("a"), run("b", **other), "--curve", "loss")

    assert "note: the axis is the epoch, because an epoch has 10 steps in run a, 5 steps in run b" in ended.err


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("--out", "c.svg"), 2, "--out c.svg: only a curve has a picture"),
        (("--out", "none/c.md"), 2, "none is not a directory"),
        (("--json", "--format", "csv"), 2, "--json contradicts --format csv"),
        (("--curve", "loss", "--format", "markdown"), 2, "--format markdown does not apply to a curve"),
        (("--topology", "9x9"), 2, "no run or row is on this topology"),
        (("--axis", "step"), 2, "--axis belongs to a curve"),
        (("--curve", "loss", "--out", "c.jpg"), 2, "does not end in .svg, .png or .csv"),
        (("--curve", "loss", "--out", "c"), 2, "does not end in .svg, .png or .csv"),
        (("--curve", "loss", "--out", "none/c.svg"), 2, "none is not a directory"),
        (("--curve", "loss", "--out", "/proc/c.svg"), 1, "cannot write /proc/c.svg"),
        (("--curve", "loss", "--axis", "time"), 2, "no time axis"),
        (("other",), 2, "the records are of several datasets: imagenet2012 1, other 1"),
        (("none",), 2, "no record at none"),
        (("empty", "--curve", "accuracy"), 2, "run empty has too few evaluations for a curve: 0"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_a_hint(
    invoke: Invoke, tmp_path: Path, run: Callable[..., str], arguments: tuple[str, ...], code: int, error: str
) -> None:
    run("a")
    run("other", dataset__name="other")
    run("empty", metrics__curve=[])
    ended = invoke("compare", "a", *arguments)

    assert ended.code == code
    assert error in ended.err.splitlines()[-2]
    assert ended.err.splitlines()[-1].startswith("  hint: ")
    assert "Traceback" not in ended.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "empty", "other"]


def test_compare_without_matplotlib_says_how_to_get_it(
    invoke: Invoke, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "find_spec", lambda name: None)
    ended = invoke("compare", run("a"), "--curve", "loss", "--out", "c.svg")

    assert ended.code == 3
    assert "matplotlib is not installed" in ended.err
    assert "chipperf[plot]" in ended.err
    assert not Path("c.svg").exists()


def test_picture_is_in_chinese_with_a_font_that_was_just_installed(
    perf: Perf, tmp_path: Path, run: Callable[..., str]
) -> None:
    run("a", environment__row_label="昆仑芯")
    write_chinese_font(tmp_path / "share" / "fonts", "".join(read_translation("zh").spellings("picture")) + "昆仑芯")
    ended = perf(
        *("report", tmp_path / "a", "--out", tmp_path / "README.md"),
        XDG_DATA_HOME=str(tmp_path / "share"),
        PYTHONWARNINGS="error",
    )

    assert ended.returncode == 0, ended.stderr
    picture = (tmp_path / "acc.svg").read_text(encoding="utf-8")
    assert "<!-- 训练轮次（epoch） -->" in picture
    assert "1: 昆仑芯 1x8 fp32（1 次运行）" in picture
    assert "图中文字为英文" not in (tmp_path / "README.md").read_text(encoding="utf-8")


def write_chinese_font(directory: Path, characters: str) -> None:
    """Write a font of a family that matplotlib is asked for, in which every character is the same square."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    corners = [(0, 0), (0, 500), (500, 500), (500, 0)]
    pen.moveTo(corners[0])
    for corner in corners[1:]:
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(character): "square" for character in characters})
    builder.setupGlyf({".notdef": square, "square": square})
    builder.setupHorizontalMetrics({".notdef": (600, 0), "square": (600, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "WenQuanYi Micro Hei", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    directory.mkdir(parents=True)
    builder.save(directory / "chinese.ttf")


def test_comparing_imports_neither_torch_nor_matplotlib(perf: Perf, tmp_path: Path, run: Callable[..., str]) -> None:
    run("a")
    code = (
        "import atexit, sys; from chipperf.cli.main import main; "
        "atexit.register(lambda: print('heavy:', *{'torch', 'matplotlib', 'numpy'} & set(sys.modules))); main()"
    )
    command = [sys.executable, "-c", code, "compare", str(tmp_path / "a"), "--curve", "loss"]
    ended = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "heavy:"

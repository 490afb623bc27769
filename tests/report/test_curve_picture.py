"""The picture of curves: what it says, in which font, and the same bytes for the same records."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from chipperf.cases.classification.case import RESNET50
from chipperf.report import figures
from chipperf.report.curve_files import draw_curves, make_curve_files, points_csv, time_unit
from chipperf.report.curves import CurveRuns, build_curves, read_points
from chipperf.report.view import build_convergence
from curve_records import curve, losses
from factory import UNKNOWN, make_record

PROFILE = RESNET50.report


@pytest.fixture
def no_chinese_font(monkeypatch):
    monkeypatch.setattr(figures, "_CHINESE_FAMILIES", ())


def curves_of(*records, baseline=()):
    found = build_convergence(records, (), baseline, RESNET50)
    assert found
    return found.curves


def drawn(curves, language="en", picture_format="svg"):
    return draw_curves(curves, PROFILE, language, [picture_format])


def texts(picture):
    """Return the texts of a picture: matplotlib writes each as a comment above its shapes."""
    return re.findall(r"<!-- (.*?) -->", picture.files["svg"].decode())


def test_axes_legend_and_title_say_what_is_shown():
    baseline = [make_record(run_id="b", environment__row_label="B2", **curve([0.2, 0.3]))]
    picture = drawn(curves_of(make_record(**curve([0.1, 0.2])), baseline=baseline))

    assert {"epoch", "acc (%)", "resnet50, imagenet2012", "target 75.5%"} <= set(texts(picture))
    assert {"1: A1 1x8 fp32 (1 run)", "2: B2 1x8 fp32, baseline (1 run)"} <= set(texts(picture))


def test_repeats_say_what_line_and_band_are():
    runs = tuple(read_points(make_record(seed=seed, **curve([0.1, seed / 10])), "quality") for seed in (1, 2))
    curves = build_curves([CurveRuns(name="A1", baseline=False, runs=runs)], "quality")

    assert "1: A1 (2 runs: median, lowest to highest)" in texts(drawn(curves))


def test_repeats_without_a_common_place_have_no_band():
    later = curve([0.1, 0.2])
    for point in later["metrics__curve"]:
        point["elapsed_s"] += 1
    runs = tuple(read_points(make_record(**changes), "quality") for changes in (curve([0.1, 0.2]), later))
    curves = build_curves([CurveRuns(name="A1", baseline=False, runs=runs)], "quality", axis="time")

    assert {"1: A1 (2 runs)", "training time (min)"} <= set(texts(drawn(curves)))


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"kind": "simulated"}, "simulated"), ({"dataset__is_sample": True}, "sample dataset")],
)
def test_a_picture_that_leaves_its_report_says_that_it_is_no_benchmark(changes, word):
    assert any(word in text for text in texts(drawn(curves_of(make_record(**curve([0.1, 0.2]), **changes)))))


def test_losses_have_no_target():
    runs = (read_points(make_record(**losses([2.0, 1.0])), "loss"),)
    written = texts(drawn(build_curves([CurveRuns(name="A1", baseline=False, runs=runs)], "loss")))

    assert {"training loss", "optimizer step"} <= set(written)
    assert not any("target" in text for text in written)


@pytest.mark.parametrize("picture_format", ["svg", "png"])
def test_the_same_records_give_the_same_bytes(picture_format):
    first, second = (
        drawn(curves_of(make_record(**curve([0.1, 0.2]))), picture_format=picture_format).files[picture_format]
        for _ in range(2)
    )
    assert first == second
    assert not re.search(rb"20\d\d-\d\d-\d\d|Matplotlib v", first)


def test_settings_of_the_user_do_not_show():
    import matplotlib

    plain = drawn(curves_of(make_record(**curve([0.1, 0.2]))))
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "svg.hashsalt": None, "text.usetex": False}):
        assert drawn(curves_of(make_record(**curve([0.1, 0.2])))).files == plain.files


def test_without_a_chinese_font_the_labels_are_english_and_the_picture_says_so(no_chinese_font):
    picture = drawn(curves_of(make_record(**curve([0.1, 0.2]))), language="zh")

    assert picture.language == "en"
    assert "epoch" in texts(picture)


def test_a_name_that_no_font_can_write_is_left_to_its_number(no_chinese_font):
    picture = drawn(curves_of(make_record(environment__row_label="昆仑芯R300", **curve([0.1, 0.2]))))

    assert picture.unwritten == (1,)
    assert "1 (1 run)" in texts(picture)


@pytest.mark.parametrize("name", ["$x^{$", "_hidden", "a\nb\tc", "<&>\"'--", "\\frac", "x" * 5000, "\x07", "مرحبا"])
def test_no_name_stops_the_picture(name):
    picture = drawn(curves_of(make_record(environment__row_label=name, **curve([0.1, 0.2]))))

    assert picture.files["svg"].count(b"</svg>") == 1
    assert all(len(text) < 120 for text in texts(picture))


@pytest.mark.parametrize("count", [8, 60])
def test_every_curve_is_in_the_legend(count):
    groups = [
        CurveRuns(name=f"A{number}", baseline=False, runs=(read_points(make_record(**curve([0.1, 0.2])), "quality"),))
        for number in range(count)
    ]
    written = texts(drawn(build_curves(groups, "quality")))

    assert f"{count}: A{count - 1} (1 run)" in written


def test_ten_thousand_windows_are_drawn():
    record = make_record(**losses([2 + (step % 7) / 10 for step in range(10_000)], steps_per_epoch=5000))
    runs = (read_points(record, "loss"),)
    picture = drawn(build_curves([CurveRuns(name="A1", baseline=False, runs=runs)], "loss"))

    assert len(picture.files["svg"]) < 2_000_000


@pytest.mark.parametrize(
    ("seconds", "unit"), [(119.0, ("s", 1.0)), (120.0, ("min", 60.0)), (7199.0, ("min", 60.0)), (7200.0, ("h", 3600.0))]
)
def test_time_is_given_in_a_unit_that_is_easily_read(seconds, unit):
    assert time_unit(seconds) == unit


def test_points_are_written_as_csv():
    record = make_record(environment__row_label='A,1 "x"', seed=UNKNOWN, **curve([0.1, 0.2]))
    baseline = [make_record(run_id="b", **curve([0.25, 0.3]))]

    assert points_csv(curves_of(record, baseline=baseline)).splitlines() == [
        "curve,name,baseline,run,seed,epoch,step,elapsed_s,quality",
        f'1,"A,1 ""x"" 1x8 fp32",no,{record.run_id},,1.0,10,60.0,0.1',
        f'1,"A,1 ""x"" 1x8 fp32",no,{record.run_id},,2.0,20,120.0,0.2',
        "2,A1 1x8 fp32,yes,b,42,1.0,10,60.0,0.25",
        "2,A1 1x8 fp32,yes,b,42,2.0,20,120.0,0.3",
    ]


@pytest.mark.parametrize(
    ("report", "metric", "name"),
    [
        ("README.md", "mAP", "mAP"),
        ("report.zh.md", "mAP", "report.zh-mAP"),
        ("mAP.png", "mAP", "mAP-mAP"),
        ("README.md", "../../etc/x y", "_etc_x_y"),
        ("README.md", "m" * 300, "m" * 40),
    ],
)
def test_files_are_named_after_metric_and_report(tmp_path, report, metric, name):
    profile = replace(PROFILE, quality_column=metric)
    _, files = make_curve_files(curves_of(make_record(**curve([0.1, 0.2]))), profile, "en", tmp_path / report)

    assert set(files) == {f"{name}.png", f"{name}.svg", f"{name}.csv"}
    assert {(tmp_path / file).parent for file in files} == {tmp_path}


def test_a_link_is_one_whatever_the_report_is_called(tmp_path):
    links, _ = make_curve_files(
        curves_of(make_record(**curve([0.1, 0.2]))), PROFILE, "en", tmp_path / "报告 (1) [x] #?.md"
    )

    assert re.fullmatch(r"[A-Za-z0-9%._-]+\.png", links.png)


def test_without_matplotlib_there_are_the_points_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("chipperf.report.figures.has_matplotlib", lambda: False)
    links, files = make_curve_files(curves_of(make_record(**curve([0.1, 0.2]))), PROFILE, "en", tmp_path / "README.md")

    assert list(files) == ["acc.csv"]
    assert links.png is None


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ('=HYPERLINK("http://x")', '"\'=HYPERLINK(""http://x"")"'),
        *((f"{sign}1 card", f"'{sign}1 card") for sign in "+-@"),
        ("\t=1", "'=1"),
        ("\r\n@x", "'@x"),
        ("A100", "A100"),
    ],
)
def test_no_cell_of_the_points_begins_a_formula(name, cell):
    curves = curves_of(make_record(**curve([0.1, 0.2])))
    (one,) = curves.curves
    lines = points_csv(replace(curves, curves=(replace(one, name=name),))).splitlines()
    assert lines[1].startswith(f"1,{cell},no,")
    assert lines[1].endswith(",1.0,10,60.0,0.1")

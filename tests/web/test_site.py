"""A directory of records becomes a directory of pages, whatever is in it."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from chipperf.errors import PerfError, RecordError, UsageError
from chipperf.web import pages, site_files
from chipperf.web.site_files import build_site
from web_records import failed, make_run, write_runs

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'`{{ 7*7 }}[a](javascript:alert(3))"
VOID = {"meta", "link", "img", "br", "wbr"}


class Outline(HTMLParser):
    """Elements of a page; fails where one is closed that is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text.append(data)


def outline(text):
    page = Outline()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


@pytest.fixture
def no_charts(monkeypatch):
    monkeypatch.setattr(pages, "has_matplotlib", lambda: False)
    pages._environment.cache_clear()
    yield
    pages._environment.cache_clear()


@pytest.fixture
def build(tmp_path):
    def built(*records, language="en", **options):
        source = tmp_path / "runs"
        write_runs(source, records)
        return build_site(source, tmp_path / "site", language=language, **options)

    return built


def test_every_run_has_a_row_and_a_page(build):
    made = build(make_run(run_id="a"), make_run(run_id="b", case__name="mobilenetv2"), failed(run_id="c"))
    index = made.index.read_text(encoding="utf-8")
    links = re.findall(r'<th scope="row"[^>]*><a href="([^"]+)"', index)

    assert made.runs == len(set(links)) == 3
    for link in links:
        page = (made.index.parent / link).read_text(encoding="utf-8")
        assert 'href="../index.html"' in page
        outline(page)
    outline(index)


def test_all_values_and_the_records_can_be_downloaded(build, tmp_path):
    made = build(make_run(run_id="=1+1"), failed(run_id="b"), failed(run_id="b"))
    site = made.index.parent
    rows = list(csv.DictReader((site / "runs.csv").read_text(encoding="utf-8").splitlines()))
    links = {row["run_id"]: row["file"] for row in rows}

    assert '<a href="runs.csv" download>' in made.index.read_text(encoding="utf-8")
    assert set(links) == {"'=1+1", "b"}
    assert [(row["p_whole_samples_per_s"], row["p_whole_missing"]) for row in rows] == [
        ("9200.0", ""),
        ("", "failed: oom"),
    ]
    for row in rows:
        content = (site / row["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row["sha256"]
        assert content in [path.read_bytes() for path in (tmp_path / "runs").rglob("record.json")]
        page = (site / "runs" / f"{Path(row['file']).stem}.html").read_text(encoding="utf-8")
        assert f'<a href="../{row["file"]}" download>record.json</a>' in page
    assert str(tmp_path) not in (site / "runs.csv").read_text(encoding="utf-8")


def test_records_of_an_earlier_site_are_removed(build, tmp_path):
    build(make_run(run_id="a"))
    shutil.rmtree(tmp_path / "runs")
    site = build(make_run(run_id="b")).index.parent

    assert [path.name[:2] for path in (site / "records").iterdir()] == ["b-"]


def test_other_files_in_a_site_stay(build, tmp_path):
    site = build(make_run(run_id="a")).index.parent
    others = [site / "records" / "mine.json", site / "records" / f"mine-{'0' * 12}.json", site / "runs" / "mine.html"]
    for other in others:
        other.write_text("mine")
    shutil.rmtree(tmp_path / "runs")
    build(make_run(run_id="b"))

    assert [other.read_text() for other in others] == ["mine"] * 3


@pytest.mark.parametrize(
    "table", ["mine", "run_id,file\n", "run_id,file\na,runs/a/record.json\n", 'a,"' + "x" * 200_000, "\0\n\0"]
)
def test_table_of_others_is_left_alone(build, tmp_path, table):
    index = build(make_run()).index
    (index.parent / "runs.csv").write_text(table)
    before = index.read_bytes()

    with pytest.raises(UsageError, match=r"runs\.csv is not a table of perf site"):
        build_site(tmp_path / "runs", tmp_path / "site", language="zh")
    assert (index.parent / "runs.csv").read_text() == table
    assert index.read_bytes() == before


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_text("changed")])
def test_record_that_changes_meanwhile_is_copied_as_shown(build, tmp_path, monkeypatch, change):
    def render(*arguments, **options):
        change(tmp_path / "runs" / "run0000" / "record.json")
        return pages.render_runs(*arguments, **options)

    monkeypatch.setattr(site_files, "render_runs", render)
    [copy] = (build(make_run()).index.parent / "records").iterdir()

    assert hashlib.sha256(copy.read_bytes()).hexdigest().startswith(copy.stem.rpartition("-")[2])


@pytest.mark.parametrize("reason", ["oom", "o" * 50_000])
def test_own_table_is_replaced(build, tmp_path, reason):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "record.json").write_text("{")
    table = build().index.with_name("runs.csv")
    assert table.read_text() == ""

    build(make_run(metrics__p_core={"missing": "failed", "reason": reason}))
    build_site(tmp_path / "runs", tmp_path / "site", language="en")
    assert reason in table.read_text(encoding="utf-8")


def test_runs_that_failed_are_folded(build):
    text = build(make_run(), failed(run_id="b"), failed(run_id="c")).index.read_text(encoding="utf-8")
    folded = text.partition('<details class="failed">')[2].partition("</details>")[0]

    assert folded.count("<tr data-record") == 2
    assert 'Runs that did not complete: <b class="count">2</b>' in folded
    assert "p_whole" not in folded
    assert "failed (oom)" in folded
    assert text.count("failed (oom)") == 2


def test_changes_that_need_a_second_line_are_folded(build):
    changes = [{"key": f"k{number}", "base": 1, "value": 2, "origin": "file"} for number in range(6)]
    made = build(*(make_run(run_id=f"{count}", hyperparameters__changes=changes[:count]) for count in (3, 6)))
    text = made.index.read_text(encoding="utf-8")

    assert text.count('<td class="fix_hp"><details>') == 1
    assert "k0=2,<wbr>k1=2" in text
    assert "changes: 6" in text


def test_bars_are_named_and_as_long_as_they_say(build):
    made = build(make_run(metrics__p_core=10_000.0), make_run(run_id="b", vendor__name="b", metrics__p_core=2500.0))
    bars = made.index.read_text(encoding="utf-8").partition('<figure class="chart bars">')[2].partition("</figure>")[0]
    core = [
        (part, text) for part, text in re.findall(r'title="p_core"><span style="--part: (.*?)"></span>(.*?)<', bars)
    ]

    assert core == [("1.0", "10000"), ("0.25", "2500")]
    assert bars.count(">A1 1x8 fp32</a>") == 2


def test_pages_hold_both_languages_and_nothing_from_elsewhere(build):
    made = build(make_run(), language="zh")
    for path in made.index.parent.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        page = outline(text)
        addresses = {attrs[name] for _, attrs in page.tags for name in ("src", "href", "action") if attrs.get(name)}

        assert '<html lang="zh">' in text
        assert {attrs.get("lang") for _, attrs in page.tags} >= {"zh", "en"}
        assert not [each for each in addresses if each.startswith(("http", "//"))]
        assert "@import" not in text


@pytest.mark.parametrize(
    "field", ["environment__row_label", "vendor__name", "run_id", "case__name", "dataset__name", "precision__requested"]
)
def test_text_of_a_record_is_only_text(build, field):
    hyperparameters = {"values": {EVIL: EVIL}, "changes": [{"key": EVIL, "base": 1, "value": EVIL, "origin": "file"}]}
    made = build(
        make_run(**{field: EVIL}, hyperparameters={**hyperparameters, "global_batch_size": 1}, warnings=[EVIL])
    )

    for path in made.index.parent.rglob("*.html"):
        page = outline(path.read_text(encoding="utf-8"))
        assert [tag for tag, _ in page.tags].count("script") == 1
        assert "img" not in [tag for tag, _ in page.tags]
        assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
        assert "alert(1)" in "".join(page.text)


@pytest.mark.parametrize("run_id", ["../../etc/passwd", "/abs", "..", "", "a" * 5000, "con\0\n"])
def test_run_id_is_no_path(build, run_id):
    made = build(make_run(run_id=run_id))

    assert len(list((made.index.parent / "runs").iterdir())) == 1
    assert {path.name for path in made.index.parent.parent.iterdir()} == {"runs", "site"}


def test_record_that_cannot_be_read_is_listed_with_its_place(build, tmp_path):
    contents = {
        "not json": b"{",
        "not a record": b"[]",
        "newer": b'{"schema_version": 99, "chipperf_version": "9"}',
        "bytes": b"\xff\xfe\x00",
        "empty": b"",
        "deep": b"[" * 200_000,
        "<b>": b"{}",
    }
    for name, content in contents.items():
        (tmp_path / "runs" / "bad" / name).mkdir(parents=True)
        (tmp_path / "runs" / "bad" / name / "record.json").write_bytes(content)
    (tmp_path / "runs" / "bad" / "directory" / "record.json").mkdir(parents=True)
    made = build(make_run())
    text = made.index.read_text(encoding="utf-8")

    assert made.runs == 1
    assert {problem.place for problem in made.problems} == {f"bad/{name}/record.json" for name in contents}
    assert '<code>bad/not json/record.json</code>: <span lang="zh">record.json:1:2：不是 JSON：' in text
    assert '<span lang="en">record.json is not a record: schema_version is missing</span>' in text
    assert "<code>bad/&lt;b&gt;/record.json</code>" in text
    assert str(tmp_path) not in text


def test_run_without_a_curve_stands_beside_one_with(build):
    made = build(make_run(run_id="a", metrics__curve=[]), make_run(run_id="b"))
    legend = made.index.read_text(encoding="utf-8").partition("<ol>")[2].partition("</ol>")[0]

    assert legend.count("<li>") == 2


def test_window_that_took_no_time_is_in_no_chart(build):
    window = {"epoch": 0, "first_step": 1, "steps": 50, "samples": 3200}
    windows = [{**window, "seconds": seconds} for seconds in (0.0, 4.0, 5.0)]
    throughput = {"median": 720.0, "iqr": 0.0, "mean_of_totals": 720.0, "windows": windows}

    made = build(make_run(metrics__p_train=throughput))

    [page] = (made.index.parent / "runs").iterdir()
    assert "p_train of 2 measurement windows" in page.read_text(encoding="utf-8")


def test_site_of_unreadable_records_only_says_so(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "record.json").write_text("{")
    made = build_site(tmp_path / "runs", tmp_path / "site", language="en")

    assert made.runs == 0
    assert "There are no runs to show." in made.index.read_text(encoding="utf-8")


def test_copies_are_listed_once(build):
    made = build(make_run(), make_run(), make_run(run_id="other"))

    assert (made.runs, made.copies) == (2, 1)
    assert "Copies of other records, left out: 1." in made.index.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "simulated"}, ("Simulated: no number on this page", "本页的数值不是在真实设备上测得的")),
        ({"dataset__is_sample": True}, ("Sample dataset: these runs", "样例数据集：本页的结果")),
    ],
)
def test_what_is_no_measurement_of_the_real_thing_says_so_first(build, changes, words):
    alone = build(make_run(**changes)).index.parent
    for path in alone.rglob("*.html"):
        content = path.read_text(encoding="utf-8").partition("<main>")[2]
        assert content.lstrip().startswith('<p class="banner">')
        assert all(word in content.partition("</p>")[0] for word in words)


def test_page_with_some_simulated_runs_says_some(build):
    text = build(make_run(), make_run(run_id="s", kind="simulated")).index.read_text(encoding="utf-8")

    assert "Some results on this page are simulated" in text
    assert "no number on this page was measured" not in text


def test_without_matplotlib_pages_say_that_charts_are_missing(build, no_charts):
    made = build(make_run())
    for path in made.index.parent.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert "No chart: matplotlib is not installed" in text
        assert "<svg" not in text
        outline(text)


def test_former_site_is_replaced(build, tmp_path):
    first = build(make_run(run_id="first"))
    (tmp_path / "runs" / "run0000" / "record.json").unlink()
    write_runs(tmp_path / "runs" / "more", [make_run(run_id="second")])
    build_site(tmp_path / "runs", tmp_path / "site", language="en")

    assert [path.name.rpartition("-")[0] for path in (first.index.parent / "runs").iterdir()] == ["second"]


@pytest.mark.parametrize("name", ["notes.txt", "index.html"])
def test_directory_with_something_else_is_left_alone(build, tmp_path, name):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / name).write_text("mine")

    with pytest.raises(UsageError, match="contains files that are not a site"):
        build(make_run())
    assert [(path.name, path.read_text()) for path in (tmp_path / "site").iterdir()] == [(name, "mine")]


def test_file_in_the_way(build, tmp_path):
    (tmp_path / "site").write_text("mine")

    with pytest.raises(UsageError, match="cannot use"):
        build(make_run())


@pytest.mark.parametrize("place", ["none", "empty"])
def test_directory_without_records(tmp_path, place):
    (tmp_path / "empty").mkdir()

    with pytest.raises(UsageError, match="is not a directory|there is no record.json in"):
        build_site(tmp_path / place, tmp_path / "site", language="en")
    assert not (tmp_path / "site").exists()


def test_full_disk_is_said(small_disk, tmp_path):
    records = [make_run(run_id=str(number), warnings=["w" * 100_000] * 150) for number in range(2)]
    write_runs(tmp_path / "runs", records)

    with pytest.raises(RecordError, match="the disk is full"):
        build_site(tmp_path / "runs", small_disk, language="en")


def test_links_to_directories_are_not_followed(build, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "loop").symlink_to(tmp_path / "runs")

    assert build(make_run()).runs == 1


def test_many_records_stay_bounded(tmp_path, monkeypatch):
    """Hundreds of records with a curve each: every one has its row and page, and only a few have charts."""
    monkeypatch.setattr(site_files, "MOST_CHARTED_PAGES", 2)
    monkeypatch.setattr(site_files, "MOST_ROWS", 180)
    template = json.loads(make_run().model_dump_json())
    for number in range(300):
        directory = tmp_path / "runs" / f"run{number}"
        directory.mkdir(parents=True)
        content = template | {"run_id": f"run-{number}", "seed": number}
        (directory / "record.json").write_text(json.dumps(content), encoding="utf-8")
    made = build_site(tmp_path / "runs", tmp_path / "site", language="en")
    index = made.index.read_text(encoding="utf-8")
    run_pages = list((tmp_path / "site" / "runs").iterdir())

    assert (made.runs, made.uncharted, len(run_pages)) == (300, 298, 300)
    boards, trends = index.split('<section class="trends">')
    assert (boards.count("<tr data-record"), trends.count("<tr data-record")) == (180, 30)
    assert "Older runs that only the picture shows: 150." in trends
    assert "because a page has only so many rows: 120." in index
    assert len(index) < 600_000
    assert sum("<svg" in page.read_text(encoding="utf-8") for page in run_pages) == 2
    assert max(page.stat().st_size for page in run_pages) < 100_000


def test_template_of_the_user_comes_first(tmp_path, build):
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "resnet50.html.j2").write_text(
        '{% extends "core/report.html.j2" %}{% block footer %}of {{ runs[0].row.run_id }}{% endblock %}'
    )
    made = build(make_run(run_id="x<y"), make_run(run_id="m", case__name="mobilenetv2"), user_templates=templates)
    texts = [path.read_text(encoding="utf-8") for path in (made.index.parent / "runs").iterdir()]

    assert sum("<footer>of x&lt;y</footer>" in text for text in texts) == 1
    assert sum("also: user/resnet50.html.j2." in text.partition("</body>")[0] for text in texts) == 1
    assert sum("own templates" in text for text in texts) == 1


def test_whole_page_of_a_user_names_its_template(tmp_path, build):
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "leaderboard.html.j2").write_text("<!doctype html><title>Mine</title><p>{{ boards | length }}")
    made = build(make_run(), user_templates=templates)

    assert "user/leaderboard.html.j2" in made.index.read_text(encoding="utf-8")


def test_template_of_a_user_names_the_window(build, tmp_path):
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "report.html.j2").write_text(
        '{% extends "core/report.html.j2" %}{% set title = both("训练", "Training") %}', encoding="utf-8"
    )
    made = build(make_run(), user_templates=templates)
    texts = [path.read_text(encoding="utf-8") for path in (made.index.parent / "runs").iterdir()]

    title = '<title data-zh="训练 · chipperf" data-en="Training · chipperf"'
    assert sum(title in text and ">Training · chipperf</title>" in text for text in texts) == 1


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            '{% extends "core/report.html.j2" %}{% block title_en %}Mine{% endblock %}',
            "report.html.j2 has a block title_zh or title_en",
        ),
        ("{{ nothing }}", r"report.html.j2, line 1: 'nothing' is undefined"),
        ("{% if %}", r"report.html.j2, line 1"),
        ('{% extends "core/none.html.j2" %}', "core/none.html.j2.*does not exist"),
        ("{{ runs | length }}", "does not say that results are simulated"),
    ],
)
def test_broken_template_is_named(tmp_path, build, template, message):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "report.html.j2").write_text(template)

    with pytest.raises(PerfError, match=message):
        build(make_run(kind="simulated"), user_templates=tmp_path / "templates")

"""What `perf verify` finds in a report that somebody changed."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from chipperf.cli.main import app
from chipperf.errors import DocumentError, PerfError
from chipperf.languages import LANGUAGES
from chipperf.report.templating import CORE_TEMPLATES
from chipperf.run.directory import RunDirectory
from chipperf.verify.named_records import RecordFinder
from chipperf.verify.report_verification import Templates, verify_report
from curve_records import curve
from factory import make_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from publishing import Published, publish
from typer.testing import CliRunner


@pytest.fixture(scope="module", params=LANGUAGES)
def pristine(request, tmp_path_factory):
    return publish(tmp_path_factory.mktemp("published"), request.param)


@pytest.fixture
def published(pristine, tmp_path):
    """A copy that may be changed."""
    shutil.copytree(pristine.directory, tmp_path / "copy")
    return Published(tmp_path / "copy")


def perf(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_an_untouched_report_equals_its_records(published):
    result = published.verify()
    assert (result.differences, result.notes, result.with_provenance) == ([], [], True)
    assert set(result.records) == {"first", "second", "old", "third"}
    assert result.cells > 150


def test_without_the_provenance_the_pages_short_hashes_are_enough(published):
    published.provenance.unlink()
    result = published.verify()
    assert result.differences == []
    assert not result.with_provenance
    assert "short hashes" in result.notes[0]
    assert set(result.records) == {"first", "second", "old", "third"}


@pytest.mark.parametrize("with_provenance", [True, False])
@pytest.mark.parametrize(
    ("old", "new", "field", "run"),
    [
        ("| 28661 |", "| 28651 |", "$.metrics.e2e_time_s", "first"),
        ("| 9001 |", "| 9011 |", "$.metrics.p_core.median", "second"),
        ("21.0/64.0", "21.0/65.0", "$.metrics.memory.device_peak_bytes", "first"),
        ("| ACME_TF32 | 0 |", "| ACME_TF32 | 1 |", "$.knobs[0].value", "first"),
        ("| 128116700 |", "| 128116701 |", "$.metrics.train_samples", "first"),
    ],
)
def test_a_changed_digit_is_found_with_its_place_and_field(published, old, new, field, run, with_provenance):
    if not with_provenance:
        published.provenance.unlink()
    published.edit(published.page, old, new)
    (difference,) = published.verify().differences
    line = published.page.read_text(encoding="utf-8").split("\n")[difference.line - 1]
    assert line[difference.column - 1 :].startswith(difference.found)
    assert new.strip("| ").endswith(difference.found)
    assert old.strip("| ").endswith(difference.expected)
    assert (difference.kind, difference.fields[0].field, difference.fields[0].run_id) == ("cell", field, run)


def test_a_changed_fact_is_found_with_its_place(published):
    published.edit(published.page, "9.9", "9.8")
    (difference,) = published.verify().differences
    assert difference.kind == "line"
    assert "$.environment.driver of third" in [str(field) for field in difference.fields]


def test_swapped_rows_are_found(published):
    lines = published.page.read_text(encoding="utf-8").split("\n")
    first, second = [number for number, line in enumerate(lines) if "| 28661 |" in line][:2]
    lines[first], lines[second] = lines[second], lines[first]
    published.page.write_text("\n".join(lines), encoding="utf-8")
    differences = published.verify().differences
    assert [difference.kind for difference in differences] == ["moved"]
    assert differences[0].line in (first + 1, second + 1)


def test_a_removed_and_an_added_row_are_found(published):
    lines = published.page.read_text(encoding="utf-8").split("\n")
    (row,) = (number for number, line in enumerate(lines) if "1x1" in line and "| 28661 |" in line)
    removed = "\n".join(lines[:row] + lines[row + 1 :])
    published.page.write_text(removed, encoding="utf-8")
    (difference,) = published.verify().differences
    assert (difference.kind, difference.expected, difference.fields[0].run_id) == ("removed", lines[row], "third")

    published.page.write_text(
        "\n".join([*lines[:row], lines[row].replace("28661", "2"), *lines[row:]]), encoding="utf-8"
    )
    (difference,) = published.verify().differences
    assert (difference.kind, difference.line) == ("added", row + 1)


def test_a_sentence_of_ones_own_is_found(published):
    with published.page.open("a", encoding="utf-8") as file:
        file.write("\nThe fastest card of all.\n")
    (difference,) = published.verify().differences
    assert (difference.kind, difference.found) == ("added", "The fastest card of all.")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.removesuffix("\n"),
    ],
)
def test_line_ends_and_a_byte_order_mark_are_no_difference(published, change):
    published.page.write_bytes(change(published.page.read_text(encoding="utf-8")).encode())
    assert published.verify().differences == []


@pytest.mark.parametrize("with_provenance", [True, False])
def test_an_edited_record_is_found_and_what_it_changes(published, with_provenance):
    if not with_provenance:
        published.provenance.unlink()
    published.edit(published.record("first"), "4475.0", "4476.0")
    differences = published.verify().differences
    assert differences[0].kind == "record"
    assert "was edited" in differences[0].message
    assert str(published.record("first")) in differences[0].message
    assert [(each.found, each.expected) for each in differences if each.kind == "cell"][0] == ("4475", "4476")


def test_a_record_that_says_the_same_in_other_bytes_is_found(published):
    file = published.record("first")
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8"))), encoding="utf-8")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    differences = published.verify().differences
    assert {difference.kind for difference in differences} == {"record", "cell", "provenance"}
    assert [difference.expected for difference in differences if difference.kind == "cell"] == [digest[:12]]


@pytest.mark.parametrize("with_provenance", [True, False])
@pytest.mark.parametrize("run", ["first", "old"])
def test_a_missing_record_is_found(published, run, with_provenance):
    if not with_provenance:
        published.provenance.unlink()
    published.record(run).unlink()
    (difference,) = published.verify().differences
    assert (difference.kind, bool(difference.line)) == ("record", not with_provenance)
    assert f"there is no record of run {run}" in difference.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('"metrics_version": 0', "metrics version 0 of run first"),
        ('"metrics_version": 7', "metrics_version 7; this chipperf reads up to 1"),
    ],
)
def test_a_record_of_another_metrics_version_is_found(published, content, message):
    published.edit(published.record("first"), '"metrics_version": 1', content)
    assert any(message in difference.message for difference in published.verify().differences)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"text": "4475"', '"text": "4474"', "says 4474 in line"),
        ("$.metrics.p_whole", "$.metrics.p_core", "has other sources"),
        ('"metrics_version": 1', '"metrics_version": 2', "$.metrics_version differs from the records"),
        ('"language"', '"sprache"', "language: Field required"),
    ],
)
def test_an_edited_provenance_is_found(published, old, new, message):
    published.edit(published.provenance, old, new)
    differences = published.verify().differences
    assert {difference.kind for difference in differences} == {"provenance"}
    assert message in differences[0].message
    assert differences[0].file == str(published.provenance)


def test_a_provenance_that_names_fewer_records_is_found(published):
    content = json.loads(published.provenance.read_text(encoding="utf-8"))
    del content["records"][2]
    published.provenance.write_text(json.dumps(content), encoding="utf-8")
    assert any(difference.kind in ("line", "added") for difference in published.verify().differences)


def test_points_and_pictures_of_the_curve_are_checked(published):
    (points,) = published.directory.glob("*.csv")
    published.edit(points, "0.7561", "0.7661")
    (picture,) = published.directory.glob("*.svg")
    picture.unlink()
    differences = published.verify().differences
    assert sorted((each.kind, Path(each.file).name) for each in differences) == [
        ("file", points.name),
        ("file", picture.name),
    ]


def test_points_are_checked_without_a_provenance_too(published):
    published.provenance.unlink()
    (points,) = published.directory.glob("*.csv")
    published.edit(points, "0.7561", "0.7661")
    assert [difference.kind for difference in published.verify().differences] == ["file"]


def test_a_baseline_is_verified_with_the_report(tmp_path):
    points = curve([0.3, 0.7], samples=50_000)
    base = make_record(run_id="base", vendor__name="other", environment__row_label="B2", **points)
    (tmp_path / "runs" / "base").mkdir(parents=True)
    RunDirectory(tmp_path / "runs" / "base").write_record(base)
    published = publish(tmp_path, options=("--baseline", str(tmp_path / "runs" / "base")))
    assert published.verify().differences == []
    published.provenance.unlink()
    assert published.verify(baseline=[tmp_path / "runs" / "base"]).differences == []
    assert published.verify().differences != []


def test_templates_of_ones_own_are_named_where_they_are_missing(tmp_path):
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "report.md.j2").write_text('{% extends "core/report.md.j2" %}{% block licence %}\nMIT\n{% endblock %}')
    published = publish(tmp_path, options=("--templates", str(templates)))
    assert published.verify(templates=templates).differences == []
    result = published.verify()
    assert result.differences
    assert "user/report.md.j2" in result.notes[0]


@pytest.mark.parametrize("value", ["145.20", "71%", "\u200b145.20"])
def test_a_number_that_a_template_states_is_a_difference(tmp_path, value):
    templates = tmp_path / "templates"
    templates.mkdir()
    source = (CORE_TEMPLATES / "report.md.j2").read_text()
    [cell] = re.findall(r"{{ row\.shown\(column, .*?in_unit.*?}}", source)
    forged = f"{{% if column.key == 'p_core' %}}{value}{{% else %}}{cell}{{% endif %}}"
    (templates / "report.md.j2").write_text(source.replace(cell, forged))
    published = publish(tmp_path, options=("--templates", str(templates)))
    result = published.verify(templates=templates)
    assert result.differences
    for difference in result.differences:
        assert "is from no record: it stands in user/report.md.j2" in difference.message
        assert published.page.read_text().split("\n")[difference.line - 1][difference.column - 1 :].startswith(value)
    assert "these templates are not core's: user/report.md.j2" in result.notes[0]


def test_a_page_that_names_no_record_is_no_report(published):
    published.provenance.unlink()
    published.page.write_text("# Acme\n\nfast\n", encoding="utf-8")
    (difference,) = published.verify().differences
    assert "names no record" in difference.message


@pytest.mark.parametrize(
    ("content", "fault"), [(b"\xff\xfe", "1:1: the file is UTF-16"), (b"| a |\n\xe4", "2:1: byte 0xe4 is not UTF-8")]
)
def test_a_page_that_is_no_text_is_an_error_with_the_place(published, content, fault):
    published.page.write_bytes(content)
    with pytest.raises(DocumentError, match=rf"README\.md:{fault}"):
        published.verify()


def test_the_command_says_what_differs_and_exits_with_4(published):
    assert perf("verify", published.page, "--runs", published.runs).exit_code == 0
    published.edit(published.page, "| 4475 |", "| 4476 |")
    result = perf("verify", published.page, published.page, "--runs", published.runs)
    assert result.exception.exit_code == 4
    message = r"README\.md:\d+:\d+: the page says 4476, the record says 4475 \(\$\.metrics\.p_whole of first\)"
    assert re.search(message, result.output)
    listing = perf("verify", published.page, "--runs", published.runs, "--json")
    (described,) = json.loads(listing.stdout[: listing.stdout.rindex("]") + 1])
    assert (described["equal"], described["differences"][0]["found"]) == (False, "4476")


def test_runs_that_do_not_exist_are_refused(published):
    result = perf("verify", published.page, "--runs", published.directory / "absent")
    assert result.exception.exit_code == 2
    assert "absent does not exist" in result.exception.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_bytes_lead_to_anything_but_differences_and_errors(published, data):
    """Of page, provenance and record, each piece by piece: cut, overwritten, or of another form."""
    file = data.draw(st.sampled_from([published.page, published.provenance, published.record("first")]))
    content = file.read_bytes()
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 40)))
    piece = data.draw(st.binary(max_size=12) | JSON.map(lambda value: json.dumps(value).encode()))
    changed = content[:start] + piece + content[end:]
    file.write_bytes(changed)
    with suppress(PerfError):
        published.verify()
    file.write_bytes(content)


def test_a_record_nobody_can_read_is_passed_over(published):
    (published.runs / "a").mkdir()
    (published.runs / "a" / "record.json").write_bytes(b"[" * 100_000)
    (published.runs / "b" / "record.json").mkdir(parents=True)
    published.edit(published.record("first"), '"run_id": "first"', '"run_id": "other"')
    assert "there is no record of run first" in published.verify().differences[0].message


def test_a_long_page_is_compared_in_bounded_time(published):
    published.page.write_text(
        published.page.read_text(encoding="utf-8") + "\n".join(f"line {number % 7}" for number in range(30_000)),
        encoding="utf-8",
    )
    assert len(published.verify().differences) > 29_000


def _row(lines):
    return next(number for number, line in enumerate(lines) if "| 28661 |" in line)


def _with_blank_line(lines):
    return [*lines[: _row(lines)], "", *lines[_row(lines) :]]


def _without_blank_line(lines):
    first = lines.index("")
    return lines[:first] + lines[first + 1 :]


def _with_indented_row(lines):
    return [f"    {line}" if number == _row(lines) else line for number, line in enumerate(lines)]


def _with_spaces_in_a_row(lines):
    return [line.replace("| 28661 |", "|28661|") for line in lines]


@pytest.mark.parametrize("with_provenance", [True, False])
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (_with_blank_line, "added"),
        (_without_blank_line, "removed"),
        (_with_indented_row, "line"),
        (lambda lines: [*lines, ""], "added"),
    ],
)
def test_spaces_and_blank_lines_are_differences(published, change, kind, with_provenance):
    if not with_provenance:
        published.provenance.unlink()
    lines = published.page.read_text(encoding="utf-8").split("\n")
    published.page.write_text("\n".join(change(lines)), encoding="utf-8")
    assert [difference.kind for difference in published.verify().differences] == [kind]


def test_a_row_with_the_same_cells_written_differently_is_found(published):
    lines = published.page.read_text(encoding="utf-8").split("\n")
    published.page.write_text("\n".join(_with_spaces_in_a_row(lines)), encoding="utf-8")
    assert {difference.kind for difference in published.verify().differences} == {"line"}


@pytest.mark.parametrize("link", ["../acc.csv", "/etc/passwd", "a b.csv", "%2e%2e", "..%2Fx.csv", "x:y.csv", "", 3])
@pytest.mark.parametrize("key", ["csv", "png", "svg"])
def test_links_of_a_provenance_are_names_in_its_directory(published, key, link):
    content = json.loads(published.provenance.read_text(encoding="utf-8"))
    content["curve"][key] = link
    published.provenance.write_text(json.dumps(content), encoding="utf-8")
    (difference,) = (each for each in published.verify().differences if each.kind == "provenance")
    assert f"curve.{key}:" in difference.message


@pytest.mark.parametrize("suffix", [".csv", ".png", ".svg"])
def test_every_linked_file_is_in_the_provenance(published, suffix):
    content = json.loads(published.provenance.read_text(encoding="utf-8"))
    content["files"] = [file for file in content["files"] if not file["name"].endswith(suffix)]
    published.provenance.write_text(json.dumps(content), encoding="utf-8")
    (difference,) = published.verify().differences
    assert difference.kind == "provenance"
    assert f"{suffix} once" in difference.message


def test_the_provenances_checksum_of_the_points_is_that_of_the_records(published):
    content = json.loads(published.provenance.read_text(encoding="utf-8"))
    next(file for file in content["files"] if file["name"].endswith(".csv"))["sha256"] = "0" * 64
    published.provenance.write_text(json.dumps(content), encoding="utf-8")
    (difference,) = published.verify().differences
    assert "$.files: the SHA-256 of" in difference.message


@pytest.mark.parametrize("suffix", [".csv", ".png", ".svg"])
def test_a_linked_file_must_exist_without_a_provenance_too(published, suffix):
    published.provenance.unlink()
    assert "pictures were not checked" in published.verify().notes[-1]
    (linked,) = published.directory.glob(f"*{suffix}")
    linked.unlink()
    (difference,) = published.verify().differences
    assert (difference.kind, difference.file) == ("file", str(linked))


def test_a_link_that_is_no_plain_name_is_a_difference_without_a_provenance(published):
    published.provenance.unlink()
    (points,) = published.directory.glob("*.csv")
    text = published.page.read_text(encoding="utf-8")
    published.page.write_text(text.replace(points.name, "x:y.csv"), encoding="utf-8")
    assert published.verify().differences


def test_of_the_provenance_the_first_difference_is_enough_if_the_page_differs(published):
    published.edit(published.record("first"), "4475.0", "4476.0")
    differences = published.verify().differences
    assert differences[0].kind == "record"
    (of_provenance,) = (each for each in differences if each.kind == "provenance")
    assert re.search(r", and \d+ more$", of_provenance.message)


def test_a_web_page_is_not_verified(published):
    page = published.directory / "report.html"
    result = perf("report", published.record("first"), "--format", "html", "--out", page)
    assert result.exception is None, result.output
    result = perf("verify", page, "--runs", published.runs)
    assert result.exception.exit_code == 4
    assert "a web page cannot be verified: give a Markdown report" in result.output


def test_a_record_file_of_any_name_is_found(tmp_path):
    published = publish(tmp_path)
    for file in published.runs.rglob("record.json"):
        file.rename(published.directory / f"{file.parent.name}.json")
    finder = RecordFinder(sorted(published.directory.glob("*.json")))
    result = verify_report(published.page, finder, Templates(user=None, of_vendor=lambda records: None))
    assert result.differences == []

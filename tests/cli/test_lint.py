"""``perf lint``."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import runpy
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest
from chipperf.languages import LANGUAGES
from chipperf.lint.rule import all_rules, choose_rules, find_rule
from chipperf.lint.rule_pages import page, read_examples
from chipperf.records.store import read_record
from rich.cells import cell_len as width_of

DEFAULT = choose_rules()
SEED = Path(__file__).parents[1] / "report" / "seeds" / "metax-resnet50.md"


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "a,b: c.md"
    path.write_text(SEED.read_text(encoding="utf-8"), encoding="utf-8")
    return path


def test_text_has_findings_by_document_and_rule_folded(invoke, report):
    ended = invoke("lint", report)

    assert ended.code == 4
    lines = ended.out.splitlines()
    assert lines[:3] == [
        str(report),
        "  L01 foreign-card, error",
        "    29:14: the short name 'nvidia A100' names 'nvidia' of nvidia; the report is metax's",
    ]
    blank = lines.index("  L04 blank-cell, error: 17 findings, lines 42-45")
    assert lines[blank + 1] == "    42:50: row 'MXC500单机8卡（1x8）': e2e_time is blank"
    assert lines[blank + 4] == "    14 more (--format full)"
    assert "not checked: L07, L08, L09, L10, L29, L32, L34: no configurations beside it: --config DIR" in lines
    assert any(
        line.startswith("L01 foreign-card: the row is read as a measurement of another vendor's card. To do: write the")
        and line.endswith("/docs/lint/L01.md")
        for line in lines
    )
    assert lines[-1] == "1 document: 18 errors, 2 warnings, 0 accepted"
    assert "perf: error: 18 errors in 1 document\n  hint: 'perf lint explain L01'" in ended.err


def accept_foreign_card(report):
    comment = "\n<!-- perf lint: ignore-file L01: kept as it is -->\n"
    report.write_text(report.read_text(encoding="utf-8").replace("\n\n", comment, 1), encoding="utf-8")


def test_text_shows_errors_that_a_comment_accepts_with_the_reason(invoke, report):
    accept_foreign_card(report)

    lines = invoke("lint", report).out.splitlines()

    assert any(
        line.startswith(f"accepted: {report}:29:14: L01: ") and line.endswith("[kept as it is]") for line in lines
    )


@pytest.mark.parametrize("form", ["text", "full", "concise", "json", "sarif", "github"])
def test_every_format_names_what_settings_and_baselines_accept(invoke, report, tmp_path, form):
    (tmp_path / "chipperf.toml").write_text('[lint]\nignore = ["L01"]\nbaseline = "old.json"\n')
    invoke("lint", report, "--write-baseline", "old.json")

    out = invoke("lint", report, "--format", form).out

    assert "chipperf.toml turns off L01 in 1 document" in out
    assert re.search(r"old.json accepts \d+ findings", out)


def test_full_shows_every_finding_with_its_line_and_what_was_accepted(invoke, report):
    accept_foreign_card(report)

    lines = invoke("lint", report, report.parent, "--format", "full").out.splitlines()

    assert len([line for line in lines if line.endswith("is blank")]) == 17
    shown = lines.index(
        "    44:100: 'MXC500两机8卡（2x8）' uses 32.2 GiB, 'MXC500单机8卡（1x8）' 19.3 GiB, with the same "
        "hyperparameters"
    )
    source, mark = lines[shown + 1 : shown + 3]
    assert source.endswith("| 32.2/64 |")
    assert width_of(source[: source.index("32.2")]) == mark.index("^")
    assert any(
        line.startswith(f"accepted: {report}:29:14: L01: ") and line.endswith("[kept as it is]") for line in lines
    )


def test_concise_has_a_finding_in_a_line(invoke, report):
    lines = invoke("lint", report, "--format", "concise").out.splitlines()

    assert lines[0].startswith(f"{report}:29:14: error L01 foreign-card: the short name 'nvidia A100' names 'nvidia'")
    assert len(lines) == 21


def test_reasons_of_several_documents_are_counted(invoke, report):
    (report.parent / "b.md").write_text(report.read_text(encoding="utf-8"), encoding="utf-8")

    lines = invoke("lint", report.parent, "--select", "L07,L28").out.splitlines()
    full = invoke("lint", report.parent, "--select", "L07,L28", "--format", "full").out

    assert "not checked, of 2 documents: L07, L28 in 2 (--format full: why)" in lines
    assert f"{report}: not checked: L28: no records: --against RUN\n" in full


@pytest.mark.parametrize(
    ("variables", "colored"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"FORCE_COLOR": "", "NO_COLOR": ""}, False),
    ],
)
def test_color_is_for_terminals_and_as_the_environment_wants(invoke, report, monkeypatch, variables, colored):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    report.rename(report.with_name("\x1b[2J.md"))

    out = invoke("lint", report.with_name("\x1b[2J.md")).out

    assert ("\x1b[31merror\x1b[0m" in out) is colored
    assert "\x1b[2J" not in out
    assert "\x1b" not in invoke("lint", report.parent, "--format", "json").out


def test_terminal_shows_color_and_lines_cut_to_its_width(report):
    """The program writes to a terminal of 60 columns that really is one."""
    primary, secondary = pty.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    command = [sys.executable, "-m", "chipperf", "lint", str(report), "--select", "L16"]
    with subprocess.Popen(command, stdout=secondary, env={**environment, "TERM": "xterm"}) as program:
        os.close(secondary)
        chunks = []
        with suppress(OSError):  # So Linux says that nobody writes any more.
            while chunk := os.read(primary, 4096):
                chunks.append(chunk)
    os.close(primary)

    lines = b"".join(chunks).decode().splitlines()
    assert program.returncode == 0
    assert "  \x1b[1mL16 memory-topology\x1b[0m, \x1b[33mwarning\x1b[0m" in lines
    mark = next(index for index, line in enumerate(lines) if line.endswith("\x1b[33m^\x1b[0m"))
    source = lines[mark - 1]
    assert width_of(source) <= 60
    assert source.startswith("      …")
    assert width_of(source[: source.index("32.2")]) == lines[mark].index("\x1b")


def test_json_has_everything(invoke, report):
    content = json.loads(invoke("lint", report, "--format", "json").out)

    assert content["errors"] == 18
    first = content["findings"][0]
    assert (first["rule"], first["line"], first["column"], first["accepted"]) == ("L01", 29, 14, None)
    assert {each["rule"] for each in content["not_checked"]} >= {"L07", "L19"}
    assert [each["id"] for each in content["rules"]] == ["L00", *(rule.id for rule in DEFAULT)]
    assert content["rules"][1]["url"].endswith("/docs/lint/L01.md")
    assert json.loads(invoke("lint", report, "--json").out) == content


def test_sarif_names_rules_and_regions(invoke, report):
    accept_foreign_card(report)

    content = json.loads(invoke("lint", report, "--format", "sarif").out)

    (run,) = content["runs"]
    assert content["version"] == "2.1.0"
    results = {each["ruleId"]: each for each in run["results"]}
    assert set(results) <= {each["id"] for each in run["tool"]["driver"]["rules"]}
    assert all(each["helpUri"].endswith(f"/docs/lint/{each['id']}.md") for each in run["tool"]["driver"]["rules"])
    location = results["L01"]["locations"][0]["physicalLocation"]
    assert location["region"] == {"startLine": 29, "startColumn": 14}
    assert location["artifactLocation"]["uri"].endswith("/a%2Cb%3A%20c.md")
    assert results["L01"]["suppressions"] == [{"kind": "inSource", "justification": "kept as it is"}]
    assert results["L04"]["suppressions"] == []
    notes = run["invocations"][0]["toolExecutionNotifications"]
    assert any("L07 not checked" in note["message"]["text"] for note in notes)


def test_github_annotations_are_escaped(invoke, report):
    lines = invoke("lint", report, "--format", "github").out.splitlines()

    assert lines[0].startswith("::error file=")
    assert "a%2Cb%3A c.md,line=29,col=14,title=L01 foreign-card::the short name" in lines[0]
    assert any(line.startswith("::debug::") and "L07 not checked" in line for line in lines)


def test_warnings_alone_are_no_failure(invoke, report):
    ended = invoke("lint", report, "--select", "L06,L16")

    assert (ended.code, ended.err) == (0, "")
    assert "0 errors, 2 warnings" in ended.out


def test_rules_are_selected_and_ignored(invoke, report):
    assert "L01" not in invoke("lint", report, "--ignore", "l01", "--ignore", "L06").out.replace("--", "")
    assert invoke("lint", report, "--select", "L99").code == 2


def test_vendor_and_case_may_be_said(invoke, report):
    text = invoke("lint", report, "--vendor", "nvidia", "--select", "L01").out

    assert "'MXC500' names 'MXC500' of metax; the report is nvidia's" in text


def test_against_a_run(invoke, report, tmp_path):
    invoke("report", "import", SEED, "--out", "imported")
    runs = sorted((tmp_path / "imported").iterdir())

    ended = invoke("lint", report, "--select", "L07", *(item for run in runs for item in ("--against", run)))

    assert (ended.code, ended.out) == (0, "1 document: 0 errors, 0 warnings, 0 accepted\n")


def test_rendered_report_with_curves_has_no_findings_and_imports(invoke, tmp_path):
    make_record = runpy.run_path(str(SEED.parents[1] / "factory.py"))["make_record"]
    curve = [
        {
            "epoch": epoch,
            "step": 5004 * epoch,
            "value": round(378.05 * epoch) / 50_000,
            "elapsed_s": 1.0 * epoch,
            "samples": 50_000,
        }
        for epoch in range(1, 101)
    ]
    record = make_record(
        metrics__curve=curve,
        metrics__time_to_target={"seconds": 100.0, "epoch": 100},
        metrics__p_whole=4470.0,
        hyperparameters__values={"batch_size": 32, "epochs": 100},
    )
    (tmp_path / "record.json").write_text(record.model_dump_json())
    for language in LANGUAGES:
        assert invoke("report", "record.json", "--lang", language, "--out", f"{language}.md").code == 0

        ended = invoke("lint", f"{language}.md", "--vendor", "acme", "--against", "record.json")

        assert ended.out.splitlines()[-1] == "1 document: 0 errors, 0 warnings, 0 accepted"
        imported = invoke("report", "import", f"{language}.md", "--vendor", "acme", "--out", language)
        assert "1 record; 0 texts not understood" in imported.out
        (directory,) = (tmp_path / language).iterdir()
        assert read_record(directory).remarks == []


def test_list_of_rules(invoke):
    ended = invoke("lint", "--list")

    assert ended.code == 0
    assert all(rule.id in ended.out for rule in all_rules())
    listed = json.loads(invoke("lint", "--list", "--json").out)
    assert [each["id"] for each in listed] == [rule.id for rule in all_rules()]
    assert json.loads(invoke("lint", "--list", "--json", "--select", "L12").out) == [
        each for each in listed if each["id"] == "L12"
    ]


def test_rules_are_explained(invoke):
    ended = invoke("lint", "explain", "L12", "l00")

    assert ended.code == 0
    assert ended.out == page(find_rule("L12")) + "\n" + page(find_rule("L00"))
    (content,) = json.loads(invoke("lint", "explain", "L12", "--json").out)
    assert content["name"] == "below-target"
    assert content["examples"] == read_examples()["L12"]._asdict()


def test_unknown_rule_is_not_explained(invoke):
    ended = invoke("lint", "explain", "L122")

    assert ended.code == 2
    assert "there is no rule 'L122' (did you mean " in ended.err


def test_files_called_as_a_command_are_checked(invoke, report, tmp_path):
    report.rename(tmp_path / "explain")

    assert invoke("lint", "./explain", "--select", "L06").code == 0
    assert "1 document" in invoke("lint", "--select", "L06", "explain").out
    assert "1 document" in invoke("lint", "check", "explain", "--select", "L06").out


def test_statistics_count_by_rule(invoke, report):
    lines = invoke("lint", report, "--statistics").out.splitlines()

    assert lines[0] == "    17  L04 blank-cell in 1 document"
    assert lines[-1] == "1 document: 18 errors, 2 warnings, 0 accepted"
    first, *_ = json.loads(invoke("lint", report, "--statistics", "--json").out)
    assert first == {"rule": "L04", "name": "blank-cell", "findings": 17, "errors": 17, "documents": 1, "fixable": 0}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--json", "--format", "sarif"),
        ("--statistics", "--format", "github"),
        ("--output-file", "no/x"),
        ("--diff", "--write-baseline", "baseline.json"),
    ],
)
def test_options_that_cannot_be_used_together_are_an_error(invoke, report, arguments):
    ended = invoke("lint", report, *arguments)

    assert (ended.code, ended.out) == (2, "")
    assert "hint:" in ended.err


@pytest.mark.parametrize("options", [("--format", "json"), ("--statistics",), ("--format", "full"), ("--list",)])
def test_output_may_go_to_a_file(invoke, report, tmp_path, options, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")

    ended = invoke("lint", report, *options, "--output-file", "out.txt")

    assert ended.out == ""
    assert "wrote out.txt" in ended.err
    assert "L04" in (tmp_path / "out.txt").read_text(encoding="utf-8")
    assert "\x1b" not in (tmp_path / "out.txt").read_text(encoding="utf-8")


def test_errors_may_be_no_failure(invoke, report):
    ended = invoke("lint", report, "--exit-zero")

    assert (ended.code, ended.err) == (0, "")
    assert "18 errors" in ended.out


def test_standard_input_is_checked_as_the_file_it_would_be(invoke, report, tmp_path, monkeypatch):
    place = tmp_path / "a" / "README.md"
    config = tmp_path / "a" / "config" / "config_C500x1x8.py"
    config.parent.mkdir(parents=True)
    config.write_text("")

    def piped(content, *arguments):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        return invoke("lint", "-", "--select", "L08", "--format", "concise", *arguments)

    alone = piped(report.read_bytes())
    placed = piped(report.read_bytes(), "--stdin-filename", place)
    broken = piped(b"\xff\xfe")

    assert (alone.code, alone.out) == (0, "1 document: 0 errors, 0 warnings, 0 accepted\n")
    assert placed.out.startswith(f"{place}:43:3: error L08 no-config: there is no configuration for 1x1")
    assert (broken.code, broken.out.partition(": error L00 document: ")[0]) == (4, "-:1:1")
    assert piped(b"", "--fix").code == 2
    monkeypatch.setattr(sys, "stdin", None)
    assert "there is no performance table" in invoke("lint", "-").out


def test_settings_of_the_tree_hold_unless_isolated(invoke, report, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.chipperf.lint]\nselect = ["L06"]\n')

    assert "0 errors, 1 warning," in invoke("lint", report).out
    assert "18 errors, 2 warnings" in invoke("lint", report, "--isolated").out
    (tmp_path / "chipperf.toml").write_text("[lint]\nselected = []\n")
    other = tmp_path / "other"
    other.mkdir()
    report.rename(other / "README.md")
    (other / "chipperf.toml").write_text("[lint]\nselected = []\n")
    ended = invoke("lint", "other")
    assert ended.code == 2
    assert "chipperf.toml: lint: unknown key 'selected' (did you mean 'select'?)" in ended.err


def test_baseline_is_written_and_accepts(invoke, report):
    written = invoke("lint", report, "--write-baseline", "old.json")
    accepted = invoke("lint", report, "--baseline", "old.json")
    sarif = json.loads(invoke("lint", report, "--baseline", "old.json", "--format", "sarif").out)

    assert (written.code, written.out) == (0, "")
    assert "it accepts 20 findings in 1 document" in written.err
    assert (accepted.code, accepted.out.splitlines()[-1]) == (0, "1 document: 0 errors, 0 warnings, 20 accepted")
    assert {each["suppressions"][0]["kind"] for each in sarif["runs"][0]["results"]} == {"external"}

    report.write_text(report.read_text(encoding="utf-8").replace("nvidia A100", "MXC500"), encoding="utf-8")
    assert "no longer found: old.json: " in invoke("lint", report, "--baseline", "old.json").out
    (unmatched,) = json.loads(invoke("lint", report, "--baseline", "old.json", "--json").out)["unmatched"]
    assert "L01" in unmatched


def test_baseline_of_the_settings_accepts_below_them(invoke, report, tmp_path):
    (tmp_path / "chipperf.toml").write_text('[lint]\nbaseline = "old.json"\n')

    assert invoke("lint", report, "--write-baseline", "old.json").code == 0
    assert invoke("lint", report).out.endswith(" 20 accepted\n")
    assert invoke("lint", report, "--isolated").code == 4


def test_fix_corrects_and_diff_only_shows(invoke, report):
    report.write_text(report.read_text(encoding="utf-8").replace("19.3/64 ", "19.3/ 64"), encoding="utf-8")
    before = report.read_bytes()

    shown = invoke("lint", report, "--diff")
    assert report.read_bytes() == before
    assert shown.code == 4
    assert shown.out.startswith(f"--- {report}\n+++ {report}\n@@ ")
    assert "--fix would correct 1 document" in shown.err
    assert invoke("lint", report, "--diff", "--exit-zero").code == 0
    assert json.loads(invoke("lint", report, "--diff", "--json").out) == {str(report): shown.out}
    assert ", 1 that --fix corrects" in invoke("lint", report).out

    fixed = invoke("lint", report, "--fix", "--select", "L15")
    assert (fixed.code, fixed.out.splitlines()[-1]) == (0, "1 document: 0 errors, 0 warnings, 0 accepted, 1 fixed")
    assert report.read_bytes() == before.replace(b"19.3/ 64", b"19.3/64")
    assert json.loads(invoke("lint", report, "--diff", "--json").out) == {}
    again = invoke("lint", report, "--diff")
    assert (again.code, again.out) == (0, "")


@pytest.mark.parametrize("form", ["json", "sarif", "github", "full", "concise"])
def test_name_of_a_file_that_is_no_text_is_escaped(invoke, report, form):
    path, out = report.with_name(os.fsdecode(b"caf\xe9.md")), report.with_name("out.txt")
    path.write_bytes(report.read_bytes())

    ended = invoke("lint", str(path), "--format", form, "--output-file", str(out), "--exit-zero")

    assert ended.code == 0, ended.err
    written = out.read_text(encoding="utf-8")
    assert ("caf%E9.md" if form == "sarif" else "caf\\udce9.md") in written
    if form in ("json", "sarif"):
        assert json.loads(written)


def test_baseline_of_a_file_whose_name_is_no_text(invoke, report):
    path, baseline = report.with_name(os.fsdecode(b"caf\xe9.md")), report.with_name("baseline.json")
    path.write_bytes(report.read_bytes())
    assert invoke("lint", str(path), "--write-baseline", str(baseline)).code == 0

    assert invoke("lint", str(path), "--baseline", str(baseline)).code == 0


def test_of_a_text_that_is_no_report_one_line_says_what_was_not_checked(invoke, tmp_path):
    (tmp_path / "text.md").write_text("# Nothing\n")

    lines, full = (
        re.findall("^not checked: ([L0-9, ]+)", invoke("lint", "text.md", "--format", form).out, re.MULTILINE)
        for form in ("text", "full")
    )

    assert (len(lines), len(full) > 3) == (1, True)
    assert sorted(lines[0].strip().split(", ")) == sorted(", ".join(each.strip() for each in full).split(", "))


def test_rules_of_which_none_is_left_are_refused(invoke, report):
    ended = invoke("lint", report, "--select", "L04", "--ignore", "blank-cell")

    assert (ended.code, ended.out) == (2, "")
    assert "no rule is left to check" in ended.err

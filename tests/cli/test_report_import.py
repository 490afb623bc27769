"""``perf report import``, and ``perf report`` beside it."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path

import pytest
from chipperf.importing.imported import SOURCES_FILE
from chipperf.records.store import read_record

TESTS = Path(__file__).parents[1]
SEEDS = TESTS / "report" / "seeds"
readmes = runpy.run_path(str(TESTS / "importing" / "readmes.py"))
SEED = SEEDS / "metax-resnet50.md"


def test_import_writes_records_that_report_renders_in_the_rows_order(invoke, tmp_path):
    ended = invoke("report", "import", SEED, "--out", "imported")

    assert (ended.code, ended.err) == (0, "")
    directories = sorted((tmp_path / "imported").iterdir())
    assert [path.name for path in directories] == [
        "metax-resnet50-01-1x8-fp32",
        "metax-resnet50-02-1x1-fp32",
        "metax-resnet50-03-2x8-fp32",
        "metax-resnet50-04-1x8-amp",
    ]
    assert all(path.name in ended.out for path in directories)
    assert read_record(directories[3]).precision.requested == "amp"
    assert json.loads((directories[3] / SOURCES_FILE).read_text(encoding="utf-8"))["files"][0]["name"] == str(SEED)
    page = invoke("report", *directories).out
    assert page.index("29.3/64") < page.index("32.2/64") < page.index("33.1/64")


def test_all_seeds_at_once_as_json(invoke):
    ended = invoke("report", "import", *sorted(SEEDS.glob("*.md")), "--json")

    content = json.loads(ended.out)
    assert [len(each["records"]) for each in content] == [3, 3, 4]
    assert all(Path(path).is_dir() for each in content for path in each["records"])


def test_same_document_twice_gets_names_of_its_own(invoke, tmp_path):
    invoke("report", "import", SEED, SEED, "--out", "imported")

    assert len(list((tmp_path / "imported").iterdir())) == 8


@pytest.fixture
def tree(tmp_path):
    """A directory of two reports on one case, a report without a result, a log, and a page that is no report."""
    tree = tmp_path / "training" / "metax"
    text = SEED.read_text(encoding="utf-8")
    for case, content in (
        ("resnet50-pytorch", text),
        ("resnet50-paddle", text.replace("75.5%", "7.5.5%")),
        ("resnet50-mindspore", text.partition("* 性能指标")[0]),
        ("notes", "# How to build\n"),
    ):
        (tree / case).mkdir(parents=True)
        (tree / case / "README.md").write_text(content, encoding="utf-8")
    run = tree / "run1" / "bert:pytorch_1.13:C500:1:8:1" / "round1" / "10.0.0.1_noderank0"
    run.mkdir(parents=True)
    value = {"e2e_time": 900.5, "final_acc1": 68.6}
    event = {"event": "SUBMIT_INFO", "value": {"vendor": "metax"}}, {"event": "FINISHED", "value": value}
    (run / "rank0.out.log").write_text("\n".join(f"[PerfLog] {json.dumps(each)}" for each in event))
    (run / "rank1.out.log").write_text("nothing")
    return tree


def test_every_report_and_main_log_below_a_directory_is_imported(invoke, tree, tmp_path):
    ended = invoke("report", "import", "training", "--json")

    content = {Path(each["path"]).parent.name: each for each in json.loads(ended.out)}
    assert {name: (each["imported"], len(each["records"])) for name, each in content.items()} == {
        "resnet50-pytorch": ("fully", 4),
        "resnet50-paddle": ("partly", 4),
        "resnet50-mindspore": ("refused", 0),
        "10.0.0.1_noderank0": ("fully", 1),
    }
    assert content["resnet50-pytorch"]["reason"] == ""
    assert content["resnet50-paddle"]["reason"] == "42:91: quality: not a number"
    assert "no performance table" in content["resnet50-mindspore"]["reason"]
    records = [path for each in content.values() for path in each["records"]]
    assert len({*records}) == 9
    assert all(read_record(tmp_path / path) for path in records)
    assert ended.code == 4
    assert "4 files: 2 fully, 1 partly, 1 refused" in ended.err


def test_overview_ends_the_list_and_everything_understood_is_success(invoke, tree):
    for name in ("paddle", "mindspore"):
        (tree / f"resnet50-{name}" / "README.md").unlink()

    ended = invoke("report", "import", "training")

    overview = ended.out.partition("why not fully")[2].split()
    assert overview.count("fully") == 2
    assert overview[-6:] == ["5", "records;", "0", "texts", "not", "understood"]
    assert ended.code == 0


def test_overview_in_a_pipe_has_a_line_for_each_file(invoke, tree):
    deep = tree / ("directory_of_a_long_name_" * 6) / "resnet50-pytorch"
    deep.mkdir(parents=True)
    (deep / "README.md").write_text(SEED.read_text(encoding="utf-8"), encoding="utf-8")

    ended = invoke("report", "import", "training")

    overview = ended.out.partition("why not fully")[2].splitlines()
    assert sum("README.md" in line or "rank0.out.log" in line for line in overview) == 5
    assert any(str(deep.relative_to(tree.parents[1])) in line and "fully" in line for line in overview)
    assert "note: a report has one case and one vendor: perf report imported --case " in ended.err


def test_log_of_mlperf_below_a_directory_is_found(invoke, tree):
    lines = [
        {"key": "submission_org", "value": "NVIDIA", "time_ms": 1_600_000_000_000},
        {"key": "submission_benchmark", "value": "resnet", "time_ms": 1_600_000_000_000},
        {"key": "run_start", "value": None, "time_ms": 1_600_000_000_000},
    ]
    (tree / "notes" / "result_0.txt").write_text("\n".join(f":::MLLOG {json.dumps(line)}" for line in lines))
    (tree / "notes" / "other.txt").write_text("nothing")

    ended = invoke("report", "import", tree / "notes", "--topology", "1x8", "--json")

    ((path, outcome),) = ((each["path"], each["imported"]) for each in json.loads(ended.out))
    assert (Path(path).name, outcome) == ("result_0.txt", "fully")


def test_file_that_is_named_beside_its_directory_is_imported_once(invoke, tree):
    one = "training/metax/resnet50-pytorch/README.md"

    ended = invoke("report", "import", "training", one, "training/metax", "--json")

    assert len({each["path"] for each in json.loads(ended.out)}) == len(json.loads(ended.out)) == 4


def test_directory_without_a_report_is_an_error(invoke, tree):
    ended = invoke("report", "import", tree / "notes")

    assert ended.code == 2
    assert "no case document" in ended.err


def test_what_lint_says_of_a_document_is_carried_into_its_records_and_report(invoke, tmp_path):
    text = readmes["readme"](
        readmes["changed"](p_core="", precision="bf16", mem="20.5 / 32.0"),
        readmes["changed"](label="A1单机单卡（1x1）"),
        after="15个step的mAP曲线\n\n![mAP](mAP.png)",
    )
    (tmp_path / "mAP.png").write_bytes(b"")
    (tmp_path / "README.md").write_text(
        f"<!-- perf lint: ignore-file L05: as measured -->\n{text.replace('单机8卡', '两机8卡')}", encoding="utf-8"
    )
    findings = json.loads(invoke("lint", "README.md", "--vendor", "acme", "--format", "json").out)["findings"]

    invoke("report", "import", "README.md", "--vendor", "acme")
    (directory,) = (tmp_path / "imported").iterdir()
    record = read_record(directory)
    page = invoke("report", directory, "--lang", "en").out

    assert {"L04", "L05", "L14", "L15"} <= {finding["rule"] for finding in findings}
    for finding in findings:
        (remark,) = (text for text in record.remarks if finding["message"] in text)
        assert remark.startswith(f"perf lint, line {finding['line']}: {finding['rule']}")
        assert finding["rule"] != "L05" or "accepted (as measured)" in remark
    assert page.count("perf lint, line") == len(findings)


def test_report_of_an_import_is_imported_and_rendered_as_the_same(invoke, tmp_path):
    text = readmes["readme"](readmes["changed"](p_core="", mem="20.5 / 32.0"))
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    invoke("report", "import", "README.md", "--vendor", "acme", "--out", "first")
    page = invoke("report", *(tmp_path / "first").iterdir(), "--out", "page.md") and (tmp_path / "page.md").read_bytes()

    invoke("report", "import", "page.md", "--vendor", "acme", "--out", "second")
    invoke("report", *(tmp_path / "second").iterdir(), "--out", "again.md")

    assert b"perf lint, line" in page
    assert (tmp_path / "again.md").read_bytes() == page


def test_nothing_is_overwritten(invoke, tmp_path):
    invoke("report", "import", SEED)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}

    ended = invoke("report", "import", SEED)

    assert ended.code == 2
    assert "exists" in ended.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before


def test_what_is_not_understood_is_printed_with_its_place(invoke, tmp_path):
    text = SEED.read_text(encoding="utf-8").replace("75.5%", "7.5.5%")
    (tmp_path / "README.md").write_text(text, encoding="utf-8")

    ended = invoke("report", "import", "README.md")

    assert "not understood: README.md:42:91: '7.5.5%': quality: not a number" in ended.err
    assert "1 text not understood" in ended.out
    assert ended.code == 4
    assert "1 file: 0 fully, 1 partly, 0 refused" in ended.err


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"\xff", "README.md:1:1:"),
        ("一\n二".encode() + b"\x80", "README.md:2:2:"),
        (b"", "README.md has no performance table"),
    ],
)
def test_bytes_that_are_no_document_are_an_error_with_its_place(invoke, tmp_path, content, place):
    (tmp_path / "README.md").write_bytes(content)

    ended = invoke("report", "import", "README.md")

    assert ended.code == 2
    assert ended.err.startswith(f"perf: error: {place}")
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("argument", ["missing.md", "missing.log", "missing.txt", "."])
def test_file_that_cannot_be_read_is_an_error(invoke, argument):
    ended = invoke("report", "import", argument)

    assert ended.code == 2
    assert "hint:" in ended.err


def test_huge_file_and_huge_table_are_refused(invoke, tmp_path):
    (tmp_path / "large.md").write_bytes(b"x" * (4 * 2**20 + 1))
    rows = "| A1单机8卡（1x8） | fp32 | / |\n" * 5001
    (tmp_path / "long.md").write_text("| 配置 | precision | fix_hp |\n| --- | --- | --- |\n" + rows, encoding="utf-8")

    assert "larger than 4 MiB" in invoke("report", "import", "large.md").err
    assert "long.md:5003:1: the table has more than 5000 rows" in invoke("report", "import", "long.md").err


def test_file_of_card_names_tells_the_vendor(invoke, tmp_path):
    text = (
        SEED.read_text(encoding="utf-8")
        .replace("沐曦集成电路 C500", "Zeta")
        .replace("曦云®C500", "Zeta")
        .replace("MXC500", "Z9")
    )
    (tmp_path / "README.md").write_text(text.replace("nvidia A100", "Z9"), encoding="utf-8")
    (tmp_path / "cards.toml").write_text('[vendors.zeta]\ntitles = ["Zeta"]\n[vendors.zeta.cards]\n"Z9" = []\n')

    assert "does not name its vendor" in invoke("report", "import", "README.md").err
    assert invoke("report", "import", "README.md", "--cards", "cards.toml").code == 0
    assert (tmp_path / "imported" / "zeta-resnet50-01-1x8-fp32").is_dir()


@pytest.mark.parametrize("content", ["[vendors", "[vendors.a]\nnames = []", "\n", None])
def test_file_of_card_names_that_is_none_is_an_error(invoke, tmp_path, content):
    if content is not None:
        (tmp_path / "cards.toml").write_text(content)

    ended = invoke("report", "import", SEED, "--cards", "cards.toml")

    assert ended.code == 2
    assert "cards.toml" in ended.err


@pytest.mark.parametrize("topology", ["8", "0x8", "1x", "8x8x8"])
def test_topology_that_is_none_is_an_error(invoke, topology):
    assert "machines x cards" in invoke("report", "import", SEED, "--topology", topology).err


def test_report_without_a_command_renders(invoke, tmp_path):
    invoke("report", "import", SEED)
    run = tmp_path / "imported" / "metax-resnet50-01-1x8-fp32"

    assert invoke("report", run, "--lang", "en").out == invoke("report", "render", run, "--lang", "en").out != ""
    assert invoke("report", "--lang", "en", run).out == invoke("report", run, "--lang", "en").out


def test_help_of_report_shows_its_options_and_the_other_command(invoke):
    text = invoke("report", "--help").out

    assert " report [OPTIONS]" in text
    assert "--templates" in text
    assert "import " in text


def test_report_without_arguments_asks_for_runs(invoke):
    ended = invoke("report")

    assert ended.code == 2
    assert "RUN" in ended.err


def test_file_whose_name_is_no_text_is_refused_and_others_are_imported(invoke, tree):
    document = Path("training/metax/resnet50-pytorch/README.md")
    (document.parent / os.fsdecode(b"caf\xe9.md")).write_bytes(document.read_bytes())

    ended = invoke("report", "import", "training", "--json", "--out", "imported")

    found = {each["path"]: each for each in json.loads(ended.out)}
    (refused,) = [each for path, each in found.items() if path.endswith("caf\\udce9.md")]
    assert refused["imported"] == "refused"
    assert "is not valid UTF-8" in refused["reason"]
    assert found[str(document)]["records"]

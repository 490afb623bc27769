"""``perf compare`` of runs, repeats and reports: formats, files, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import runpy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.records.repeats import REPEATS_FILE, RepeatedRun, summarize_repeats

if TYPE_CHECKING:
    from collections.abc import Callable

    from invocation import Invoke

    Write = Callable[..., str]

TESTS = Path(__file__).parents[1]
SEEDS = TESTS / "report" / "seeds"
factory = runpy.run_path(str(TESTS / "report" / "factory.py"))
make_record, throughput_of = factory["make_record"], factory["throughput_of"]
readmes = runpy.run_path(str(TESTS / "importing" / "readmes.py"))
OTHER = {"vendor__name": "other", "environment__row_label": "B2"}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a run below the working directory and return its directory."""

    def make(name: str, **changes: Any) -> str:
        (tmp_path / name).mkdir(parents=True)
        record = make_record(**{"run_id": name.replace("/", "-"), **changes})
        (tmp_path / name / "record.json").write_text(record.model_dump_json(), encoding="utf-8")
        return name

    return make


@pytest.fixture
def repeated(tmp_path: Path, write: Write) -> Callable[..., str]:
    """Write repeats as ``perf train --repeat`` leaves them, some of which did not complete."""

    def make(name: str, rates: list[float | None], **changes: Any) -> str:
        runs = []
        for seed, rate in enumerate(rates):
            state = {"state": "completed" if rate else "failed"}
            write(f"{name}/repeat-{seed}", seed=seed, status=state, metrics__p_whole=rate or 1.0, **changes)
            runs.append(RepeatedRun(directory=f"repeat-{seed}", seed=seed, **state))
        summarize_repeats("resnet50", len(rates), runs, tmp_path / name, to=tmp_path / name / REPEATS_FILE)
        return name

    return make


def report(vendor: str, **cells: str) -> str:
    row = readmes["changed"](**cells)
    return readmes["readme"](row, title=f"{vendor} A1 配置与运行信息参考")


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        ((), "1: A1 1x8 fp32, a"),
        (("--format", "table"), "1: A1 1x8 fp32, a"),
        (("--format", "markdown"), "## ResNet50"),
        (("--format", "csv"), "column,name,runs"),
        (("--format", "json"), '{\n  "schema_version": 1'),
        (("--json",), '{\n  "schema_version": 1'),
    ],
)
def test_format_is_written_to_standard_output_or_a_file(
    invoke: Invoke, write: Write, arguments: tuple[str, ...], start: str
) -> None:
    write("a")
    write("b", **OTHER)
    ended = invoke("compare", "a", "b", *arguments)
    filed = invoke("compare", "a", "b", *arguments, "--out", "file")

    assert (ended.code, filed.code) == (0, 0), ended.err
    assert ended.out.casefold().startswith(start.casefold())
    assert filed.out == ""
    assert Path("file").read_text(encoding="utf-8").casefold().startswith(start.casefold())
    assert filed.err == "wrote file\n"


@pytest.mark.parametrize(
    ("name", "start"), [("c.md", "## "), ("c.csv", "column,"), ("c.json", "{"), ("c.txt", "1: "), ("c", "1: ")]
)
def test_ending_of_the_file_tells_the_format(invoke: Invoke, write: Write, name: str, start: str) -> None:
    assert invoke("compare", write("a"), "--out", name).code == 0

    assert Path(name).read_text(encoding="utf-8").startswith(start)


def test_directory_of_repeats_is_one_column(invoke: Invoke, write: Write, repeated: Callable[..., str]) -> None:
    repeated("three", [4400.0, 4475.0, 4500.0])
    repeated("two", [8900.0, None, 9000.0, 9100.0], **OTHER)
    content = json.loads(invoke("compare", "three", "two", write("one"), "--json").out)

    assert [(len(each["runs"]), each["planned"]) for each in content["columns"]] == [(3, 3), (3, 4), (1, 1)]
    p_whole = next(each for each in content["measures"] if each["name"] == "p_whole")["cells"]
    assert [(cell["value"], cell["lowest"], cell["highest"]) for cell in p_whole] == [
        (4475, 4400, 4500),
        (9000, 8900, 9100),
        (4475, None, None),
    ]
    assert p_whole[1]["interval"]["low"] < p_whole[1]["ratio"] < p_whole[1]["interval"]["high"]
    assert {"text": "3 of 4 repeats completed; the others are left out", "columns": [2]} in content["footnotes"]


def test_repeats_of_which_none_completed_are_shown_as_failed(
    invoke: Invoke, write: Write, repeated: Callable[..., str]
) -> None:
    repeated("none", [None, None], **OTHER)
    ended = invoke("compare", write("a"), "none")

    assert ended.code == 0
    assert "failed" in ended.out
    assert "0 of 2 repeats completed" in ended.out


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        (lambda all: all | {"planned": 2, "runs": all["runs"][:2]}, "leaves out repeat-2, and the others may be"),
        (lambda all: all | {"planned": 2}, "the runs have the seeds [0, 1, 2], and 2 that follow each other"),
        (lambda all: all | {"planned": 2, "runs": all["runs"][::2]}, "the runs have the seeds [0, 2], and 2 that"),
        (lambda all: all | {"runs": all["runs"][:1] * 3}, "the runs have the seeds [0, 0, 0]"),
        (
            lambda all: all | {"runs": [each | {"seed": each["seed"] + 7} for each in all["runs"]]},
            "has the seed 0, and",
        ),
        (lambda all: all | {"runs": [{**all["runs"][0], "directory": "../other"}]}, "runs.0.directory"),
        (
            lambda all: all["metrics"]["p_whole"].update(value=4590.0) or all,
            "says 4590.0 for p_whole.value, and its runs give 4550.0",
        ),
    ],
    ids=["last one", "fewer planned", "one between", "one thrice", "other seeds", "elsewhere", "a result"],
)
def test_list_of_repeats_that_was_edited_is_refused(
    edit: Callable[[dict[str, Any]], object], error: str, invoke: Invoke, tmp_path: Path, repeated: Callable[..., str]
) -> None:
    repeated("all", [4500.0, 4600.0, None])
    assert "2 of 3 repeats completed" in invoke("compare", "all").out
    file = tmp_path / "all" / REPEATS_FILE
    file.write_text(json.dumps(edit(json.loads(file.read_text()))))

    ended = invoke("compare", "all")

    assert ended.code == 2
    assert error in ended.err


@pytest.mark.parametrize("first", ["failed", "completed"])
def test_further_attempt_stands_for_a_run_that_did_not_complete(
    invoke: Invoke, tmp_path: Path, repeated: Callable[..., str], first: str
) -> None:
    repeated("all", [4500.0, 4600.0, 4700.0])
    (tmp_path / "all" / "repeat-2").rename(tmp_path / "all" / "repeat-2-attempt-2")
    shutil.copytree(tmp_path / "all" / "repeat-1", tmp_path / "all" / "repeat-2")
    record = tmp_path / "all" / "repeat-2" / "record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"status": {"state": first}}))
    file = tmp_path / "all" / REPEATS_FILE
    file.write_text(file.read_text().replace('"repeat-2"', '"repeat-2-attempt-2"'))

    ended = invoke("compare", "all")

    assert ended.code == (0 if first == "failed" else 2)
    assert ("leaves out repeat-2, and" in ended.err) is (first == "completed")


def test_repeats_that_were_removed_are_left_out(invoke: Invoke, tmp_path: Path, repeated: Callable[..., str]) -> None:
    repeated("all", [4400.0, 4500.0, 4600.0])
    (tmp_path / "all" / "repeat-1" / "record.json").unlink()

    assert "2 of 3 repeats completed" in invoke("compare", "all").out


def test_rows_of_reports_are_columns_marked_as_imported(invoke: Invoke) -> None:
    Path("README.a.md").write_text(report("R300", label="R300单机8卡（1x8）"), encoding="utf-8")
    Path("README.b.md").write_text(
        report("MXC500", label="MXC500单机8卡（1x8）", p_train="9172", p_core="", acc="/"), encoding="utf-8"
    )
    ended = invoke("compare", "README.a.md", "README.b.md", "--format", "csv")
    rows = {(row["column"], row["measure"]): row for row in csv.DictReader(io.StringIO(ended.out))}

    assert ended.code == 0, ended.err
    assert [rows[column, "quality"]["vendor"] for column in "12"] == ["kunlunxin", "metax"]
    assert (rows["2", "p_train"]["ratio"], rows["2", "p_train"]["no_interval"]) == (
        "2.0",
        "a single value in column 1 and 2",
    )
    assert rows["2", "p_core"]["missing"] == "unknown"
    assert rows["2", "quality"]["missing"] == "not_applicable"
    table = invoke("compare", "README.a.md", "README.b.md").out
    assert "imported from README.b.md; chipperf did not measure it" in table
    assert "FlagPerf's definitions" in table


def test_reports_of_three_vendors(invoke: Invoke) -> None:
    for name, card in (("a", "R300"), ("b", "MXC500"), ("c", "A100")):
        Path(f"{name}.md").write_text(report(card, label=f"{card}单机8卡（1x8）"), encoding="utf-8")
    content = json.loads(invoke("compare", "a.md", "b.md", "c.md", "--json").out)

    assert [column["vendor"] for column in content["columns"]] == ["kunlunxin", "metax", "nvidia"]


@pytest.mark.parametrize("seed", sorted(SEEDS.glob("*.md")), ids=lambda path: path.stem)
def test_published_report_is_compared_with_itself_row_by_row(invoke: Invoke, seed: Path) -> None:
    ended = invoke("compare", seed, seed, "--format", "markdown")

    assert ended.code == 0, ended.err
    assert "1 [1" in ended.out


def test_topology_and_precision_choose_rows(invoke: Invoke) -> None:
    seed = SEEDS / "kunlunxin-mobilenetv2.md"
    content = json.loads(invoke("compare", seed, "--topology", "2x8", "--precision", "fp32", "--json").out)

    assert [column["topology"] for column in content["columns"]] == ["2x8"]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"topology__nproc_per_node": 1}, True),
        ({}, False),
        ({"topology__nproc_per_node": 1, "case__preset": "demo"}, False),
        ({"topology__nproc_per_node": 1, "environment__card_title": "no such card"}, False),
        ({"topology__nproc_per_node": 1, "vendor__name": "acme"}, False),
    ],
    ids=["too much", "possible", "another model size", "unknown card", "no plugin"],
)
def test_utilization_above_the_peak_that_the_vendors_plugin_states_is_a_footnote(
    invoke: Invoke, write: Write, changes: dict[str, Any], found: bool
) -> None:
    own = {"vendor__name": "nvidia", "environment__card_title": "NVIDIA A100-SXM4-40GB"}
    ended = invoke("compare", write("a", **own | changes), "--format", "markdown")

    assert ended.code == 0
    assert ("implausible: p_core 4659 is 586% of the peak (19.5 TFLOP/s" in ended.out) is found


def test_report_that_names_no_vendor_is_to_be_imported_first(invoke: Invoke) -> None:
    Path("nobody.md").write_text(report("Nobody", label="XYZ单机8卡（1x8）"), encoding="utf-8")
    assert "hint: import it first: perf report import nobody.md --vendor NAME" in invoke("compare", "nobody.md").err


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("none.md",), 2, "none.md"),
        (("empty.md",), 2, "has no performance table"),
        (("nobody.md",), 2, "does not name its vendor"),
        (("broken",), 2, "repeats.json: top level"),
        (("mixed",), 2, "mixed/repeats.json: planned: Field required"),
        (("a", "a.md"), 2, "the records are of several metric definitions: chipperf, flagperf"),
    ],
)
def test_what_cannot_be_read_or_compared_is_one_line_and_a_hint(
    invoke: Invoke, write: Write, arguments: tuple[str, ...], code: int, error: str
) -> None:
    write("a")
    Path("a.md").write_text(report("R300", label="R300单机8卡（1x8）"), encoding="utf-8")
    Path("nobody.md").write_text(report("Nobody", label="XYZ单机8卡（1x8）"), encoding="utf-8")
    Path("empty.md").write_text("", encoding="utf-8")
    for name, content in (("broken", "{"), ("mixed", '{"case": "a", "runs": [], "metrics": {}}')):
        Path(name).mkdir()
        Path(name, REPEATS_FILE).write_text(content, encoding="utf-8")
    ended = invoke("compare", *arguments)

    assert ended.code == code
    assert error in ended.err
    assert "Traceback" not in ended.err
    assert "  hint: " in ended.err


def rates(*values: float) -> dict[str, Any]:
    return {"metrics__p_core": throughput_of(values, iqr=0)}


BASE = rates(1000.5, 1001.5, 1002.5, 1003.5, 1004.5, 1005.5)
SAME = rates(1000, 1001, 1002, 1003, 1004, 1005)
SLOWER = rates(900, 901, 902, 903, 904, 905)
SCATTERED = rates(930, 950, 970, 1000, 1010, 1020)


@pytest.mark.parametrize(
    ("other", "code", "kind", "words"),
    [
        (SAME, 0, "notice", "met, 0.9995 ("),
        (SLOWER, 4, "error", "not met, 0.8998 ("),
        (SCATTERED, 5, "warning", "not decidable: more repeats"),
    ],
)
def test_gate_ends_with_what_the_interval_says(
    invoke: Invoke, write: Write, other: dict[str, Any], code: int, kind: str, words: str
) -> None:
    write("base", **BASE)
    write("run", **other)
    gate = ("compare", "base", "run", "--at-least", "p_core=0.97")
    table, annotated, content = (invoke(*gate, *more) for more in ((), ("--format", "github"), ("--json",)))
    page, lines = invoke(*gate, "--out", "page.md"), invoke(*gate, "--format", "csv").out

    assert [each.code for each in (table, annotated, content, page)] == [code] * 4
    assert "Requirements\n  column 2: p_core at least 0.97 of the baseline: " in table.out
    assert words in table.out
    assert words in Path("page.md").read_text(encoding="utf-8")
    (line,) = annotated.out.splitlines()
    assert line.startswith(f"::{kind} title=perf compare%3A p_core at least 0.97 of the baseline::column 2: ")
    (requirement,) = json.loads(content.out)["requirements"]
    assert requirement["verdict"] == next(
        row["at_least_verdict"] for row in csv.DictReader(io.StringIO(lines)) if row["at_least"]
    )
    assert (code == 0) == ("perf: error" not in table.err)


def test_a_broken_bound_counts_more_than_an_undecided_one(invoke: Invoke, write: Write) -> None:
    ended = invoke(
        *("compare", write("base", **BASE), write("run", **SLOWER)),
        *("--at-most", "mem=1.05", "--at-least", "p_core=0.97"),
    )

    assert ended.code == 4
    assert "not met: p_core at least 0.97 of the baseline\n" in ended.err
    assert "It takes at least 3 repeats of the baseline and 3 of the run" in ended.out


def test_gate_of_repeats_decides_what_has_no_windows(
    invoke: Invoke, write: Write, repeated: Callable[..., str]
) -> None:
    repeated("base", [4475.0] * 3)
    repeated("large", [4475.0] * 3, metrics__memory__device_peak_bytes=30 * 2**30)

    assert invoke("compare", "base", "large", "--at-most", "mem=1.05").code == 4
    assert invoke("compare", "base", "large", "--at-most", "mem=1.5").code == 0


def test_gate_refuses_a_baseline_that_the_filter_leaves_out(invoke: Invoke, write: Write) -> None:
    write("base", **BASE)
    amp = {"precision__requested": "amp", "precision__effective": "amp"}
    write("a", **SLOWER, **amp)
    write("b", **SLOWER, **amp)
    ended = invoke("compare", "base", "a", "b", "--precision", "amp", "--at-least", "p_core=0.97")

    assert ended.code == 2
    assert "the baseline, base, is not on the requested topology and precision" in ended.err


def test_gate_refuses_a_run_that_its_evidence_contradicts(invoke: Invoke, write: Write) -> None:
    write("base", **BASE)
    write("run", **SAME, evidence={"events.jsonl": "0" * 64})
    Path("run/events.jsonl").write_text("{}\n", encoding="utf-8")
    ended = invoke("compare", "base", "run", "--at-least", "p_core=0.97")

    assert ended.code == 2
    assert "run run contradicts what was measured: events.jsonl was changed after the run ended" in ended.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "github"), "--format github annotates requirements"),
        (("--curve", "loss", "--at-least", "p_core=1"), "do not apply to a curve"),
        (("--at-least", "p_cor=1"), "there is no metric 'p_cor' (did you mean 'p_core'?)"),
    ],
)
def test_gate_refuses_what_cannot_be_meant(
    invoke: Invoke, write: Write, arguments: tuple[str, ...], message: str
) -> None:
    ended = invoke("compare", write("base", **BASE), write("run", **SAME), *arguments)

    assert ended.code == 2
    assert message in ended.err


@pytest.mark.parametrize(("bound", "metric"), [("--at-most", "p_core"), ("--at-least", "mem")])
def test_a_bound_of_what_is_better_is_noted(invoke: Invoke, write: Write, bound: str, metric: str) -> None:
    ended = invoke("compare", write("base", **BASE), write("run", **SAME), bound, f"{metric}=1.05")

    assert "no bound limits how much worse it gets" in ended.err

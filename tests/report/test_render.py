"""What a report shows of records, beyond the seed documents."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from chipperf.cases.registry import find_case
from chipperf.errors import RecordError, UsageError
from chipperf.records.columns import columns_of
from chipperf.report.render import render_page, render_report
from chipperf.report.row import column_header
from chipperf.report.tracing import record_digest
from chipperf.report.view import build_view
from factory import NOT_APPLICABLE, UNKNOWN, make_record, throughput, throughput_of
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_document import Document, parse

LANGUAGES = ("zh", "en")
RESNET50 = find_case("resnet50").report
COLUMNS = {column_header(column, RESNET50): place for place, column in enumerate(columns_of("report"), start=3)}
"""Place of each value in a row, after the configuration, the precision and the changes."""
EXACT_MARKERS = {
    "zh": {
        "not_run": "未运行",
        "withheld": "未公开(nda)",
        "failed": "失败(nda)",
        "not_applicable": "/",
        "unknown": "未知",
    },
    "en": {
        "not_run": "not run",
        "withheld": "withheld (nda)",
        "failed": "failed (nda)",
        "not_applicable": "/",
        "unknown": "unknown",
    },
}
TOPOLOGY = {"1x1": (1, 1), "1x8": (1, 8), "2x8": (2, 8)}


def topology(label: str) -> dict[str, int]:
    nnodes, nproc_per_node = TOPOLOGY[label]
    return {"nnodes": nnodes, "nproc_per_node": nproc_per_node}


def rendered(*records: Any, language: str = "zh") -> Document:
    return parse(render_report(records, language=language))


def performance(document: Document) -> list[list[str]]:
    return document.tables[1][1:]


def notes(document: Document, language: str = "zh") -> list[str]:
    return document.section("运行情况" if language == "zh" else "Results")


def noted(document: Document, *parts: str, language: str = "zh") -> bool:
    return any(all(part in note for part in parts) for note in notes(document, language))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", EXACT_MARKERS["zh"])
@pytest.mark.parametrize(
    ("field", "column"),
    [
        ("metrics__e2e_time_s", "e2e_time"),
        ("metrics__p_whole", "p_whole"),
        ("metrics__p_train", "p_train"),
        ("metrics__p_core", "p_core"),
        ("metrics__quality", "acc"),
        ("metrics__memory", "mem"),
    ],
)
def test_a_missing_cell_shows_its_marker(language, kind, field, column):
    record = make_record(**{field: {"missing": kind, "reason": "nda"}})
    (row,) = performance(rendered(record, language=language))
    assert row[COLUMNS[column]] == EXACT_MARKERS[language][kind]
    assert "" not in row


@pytest.mark.parametrize("kind", ["not_run", "unknown", "not_applicable"])
def test_a_reason_that_a_marker_does_not_show_is_noted(kind):
    document = rendered(make_record(metrics__p_core={"missing": kind, "reason": "switched off by the user"}))
    assert noted(document, "p_core", "switched off by the user")


@pytest.mark.parametrize(("kind", "meaning"), [("not_run", "没有做这一项"), ("withheld", "厂商没有公开")])
def test_the_legend_explains_the_markers_that_occur(kind, meaning):
    with_marker = rendered(make_record(metrics__p_core={"missing": kind}))
    without = rendered(make_record())
    assert noted(with_marker, "标记", meaning)
    assert not noted(without, meaning)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("fact", ["machine", "card_title", "network", "os", "driver", "container", "framework"])
@pytest.mark.parametrize("value", [UNKNOWN, "  "])
def test_a_required_environment_fact_that_is_missing_is_shown_as_such(language, fact, value):
    markdown = render_report([make_record(**{f"environment__{fact}": value})], language=language)
    unknown = EXACT_MARKERS[language]["unknown"]
    environment = markdown.split("* ", maxsplit=1)[0]
    assert environment.count(unknown) == 1


def test_a_compiler_has_a_line_only_if_there_is_one():
    assert "训练编译器版本" not in render_report([make_record()])
    assert "训练编译器版本：xacc 1" in render_report([make_record(environment__compiler="xacc 1")])


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_cell_of_any_table_is_blank(language):
    record = make_record(
        loader=UNKNOWN,
        seed=UNKNOWN,
        knobs=[{"name": "K", "value": "", "reason": "", "origin": "core"}],
        metrics__memory=UNKNOWN,
        metrics__steps=UNKNOWN,
        hyperparameters__changes=[{"key": "lr", "base": 0.1, "value": 0.2, "origin": "file"}],
    )
    tables = rendered(record, language=language).tables
    assert len(tables) > 5
    assert all(cell for table in tables for row in table for cell in row)


def test_both_languages_have_the_same_shape():
    records = [make_record(), make_record(topology=topology("2x8"), warnings=["throttled"])]
    zh, en = (rendered(*records, language=language) for language in LANGUAGES)
    assert [level for level, _ in zh.headings] == [level for level, _ in en.headings]
    assert [len(table) for table in zh.tables] == [len(table) for table in en.tables]
    assert len(notes(zh)) == len(notes(en, "en"))


@pytest.mark.parametrize(
    ("label", "zh", "en"),
    [
        ("1x1", "A1单机单卡（1x1）", "A1 one machine, one card (1x1)"),
        ("1x8", "A1单机8卡（1x8）", "A1 one machine, 8 cards (1x8)"),
        ("2x8", "A1两机8卡（2x8）", "A1 two machines, 8 cards each (2x8)"),
    ],
)
def test_a_row_is_labeled_with_device_and_topology(label, zh, en):
    record = make_record(topology=topology(label))
    assert performance(rendered(record))[0][0] == zh
    assert performance(rendered(record, language="en"))[0][0] == en


def test_the_cards_of_several_machines_are_added_up():
    assert noted(rendered(make_record(topology=topology("2x8"))), "2x8", "共 16 卡")


def test_rows_keep_the_order_of_the_records():
    records = [make_record(topology=topology(label)) for label in ("2x8", "1x1", "1x8")]
    assert [row[0][-4:-1] for row in performance(rendered(*records))] == ["2x8", "1x1", "1x8"]


def test_throughput_cells_are_the_medians_of_windows():
    (row,) = performance(rendered(make_record(metrics__p_train=throughput(4586.27))))
    assert row[COLUMNS["p_train"]] == "4586.3"


def test_fix_hp_lists_changes_that_are_not_free_with_batch_size_and_lr_first():
    changes = [
        {"key": "warmup_epochs", "base": 0.0, "value": 5.0, "origin": "file"},
        {"key": "workers", "base": -1, "value": 8, "origin": "command line"},
        {"key": "x", "base": 0, "value": 1, "origin": "vendor"},
        {"key": "lr", "base": 0.1, "value": 0.8, "origin": "command line"},
        {"key": "batch_size", "base": 32, "value": 256, "origin": "vendor"},
    ]
    (row,) = performance(rendered(make_record(hyperparameters__changes=changes)))
    assert row[2] == "bs=256,lr=0.8,warmup_epochs=5,x=1"


def test_memory_is_the_device_peak_and_its_source_is_noted():
    document = rendered(make_record())
    assert performance(document)[0][COLUMNS["mem"]] == "21.0/64.0"
    assert noted(document, "设备的峰值", "acme-smi")


def test_memory_is_the_allocator_peak_where_the_device_was_not_read():
    document = rendered(make_record(metrics__memory__device_peak_bytes=UNKNOWN))
    assert performance(document)[0][COLUMNS["mem"]] == "19.0/64.0"
    assert noted(document, "分配器的峰值", "acme allocator")


def test_memory_of_unknown_capacity_says_so():
    document = rendered(make_record(metrics__memory__total_bytes=UNKNOWN))
    assert performance(document)[0][COLUMNS["mem"]] == "21.0/未知"


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"metrics__quality": 0.7561}, "acc 75.61%，达到目标 75.5%"),
        ({"metrics__quality": 0.755, "metrics__time_to_target": UNKNOWN}, "acc 75.5%，达到目标 75.5%"),
        ({"metrics__quality": 0.7549999, "metrics__time_to_target": UNKNOWN}, "acc 75.49%，低于目标 75.5%"),
        ({"metrics__quality": 0.74}, "acc 74.0%，达到目标 75.5%（resnet50 1.0），首次达到在第 97 个 epoch"),
        ({"case__target": NOT_APPLICABLE}, "该数据集没有目标值"),
        ({"dataset__name": "another"}, "acc 75.61%，达到目标 75.5%（another）"),
    ],
)
def test_quality_is_judged_against_the_target(changes, verdict):
    assert noted(rendered(make_record(**changes)), verdict)


def test_a_legend_lists_the_precisions_of_the_rows():
    record = make_record(precision__requested="bf16", precision__effective="bf16")
    legend = {row[0]: row[2] for row in rendered(record).tables[0]}
    assert legend["数据精度"] == "可选fp32/amp/fp16/bf16"


def test_an_effective_precision_other_than_the_requested_one_is_noted():
    assert noted(rendered(make_record(precision__effective="tf32")), "请求的精度为 fp32", "实际为 tf32")


def test_a_measured_precision_other_than_the_declared_one_is_noted():
    products = {"3x3 convolution, forward": "bf16"}
    found = {"precision__measured_convolution": "bf16", "precision__measured_products": products}
    assert noted(rendered(make_record(**found)), "fp32", "实测的计算精度为 bf16")
    absent = {**found, "precision__measured_convolution": NOT_APPLICABLE}
    assert not noted(rendered(make_record(**absent)), "实测的计算精度")


def test_skipped_steps_are_evidence():
    record = make_record(metrics__skipped_steps={"steps": 3, "by_epoch": {"1": 2, "4": 1}})
    assert "梯度缩放跳过的步数 3，第 1 个 epoch：2，第 4 个 epoch：1\n" in render_report([record])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "无"),
        ({"limits": {"max_epochs": 3}}, "最多 3 个 epoch"),
        ({"limits": {"max_steps": 20}, "case__preset": "demo"}, "预设 demo，最多 20 步"),
        ({"limits": {"max_epochs": 3, "budget_s": 5400.0}}, "最多 3 个 epoch，训练时间预算 1h30m"),
    ],
)
def test_a_shortened_run_declares_it_among_additional_changes(changes, text):
    general = {row[0]: row[1] for row in rendered(make_record(**changes)).tables[0]}
    assert general["额外修改项"] == text


def test_a_run_that_its_budget_ended_is_projected():
    record = make_record(
        limits={"budget_s": 1800.0},
        metrics__quality=0.5,
        metrics__time_to_target={"missing": "failed", "reason": "not reached within the budget of 30m"},
        metrics__projected_train_seconds=36000.0,
    )
    assert noted(rendered(record), "低于目标", "因预算而结束，按实测速度推算完整训练需要 10h")


def test_a_shortening_of_one_row_names_the_row():
    records = [make_record(), make_record(topology=topology("2x8"), limits={"max_steps": 9})]
    general = {row[0]: row[1] for row in rendered(*records).tables[0]}
    assert general["额外修改项"] == "最多 9 步（2x8 fp32）"


@pytest.mark.parametrize(
    ("status", "cell", "cause"),
    [
        (
            {"state": "failed", "failure": {"failure_class": "out_of_memory", "message": "asked for 3 GiB"}},
            "失败(out_of_memory)",
            "asked for 3 GiB",
        ),
        ({"state": "interrupted"}, "失败(interrupted)", "被中断"),
        ({"state": "killed"}, "失败(killed)", "被终止"),
        ({"state": "running"}, "失败(running)", "尚在运行"),
    ],
)
def test_a_run_that_did_not_complete_shows_no_value_and_its_cause(status, cell, cause):
    document = rendered(make_record(status=status))
    (row,) = performance(document)
    assert row[3:] == [cell, *["失败"] * (len(COLUMNS) - 1)]
    assert noted(document, "运行没有完成", cause)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_simulated_run_can_never_look_measured(language, tmp_path):
    (tmp_path / "report.md.j2").write_text("{% for row in view.rows %}{{ row.card }}{% endfor %}")
    bare = render_report([make_record(kind="simulated")], language=language, user_templates=tmp_path)
    assert bare.startswith("> **⚠")
    assert "simulated" in bare.splitlines()[2]
    document = rendered(make_record(kind="simulated"), language=language)
    assert all("simulated" in row[0] for row in performance(document))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_sample_dataset_is_announced_at_the_top_and_in_its_cell(language):
    record = make_record(dataset__name="chipperf-sample", dataset__version="3", dataset__is_sample=True)
    markdown = render_report([record], language=language)
    assert markdown.startswith("> **⚠")
    assert "chipperf-sample 3" in markdown.splitlines()[0]
    cells = [cell for row in parse(markdown).tables[0] for cell in row]
    assert "chipperf-sample 3" in cells


def test_a_measured_report_on_the_cases_dataset_has_no_banner():
    assert not render_report([make_record()]).startswith(">")


def test_an_environment_fact_that_differs_names_its_rows():
    records = [make_record(), make_record(topology=topology("1x1"), environment__driver="9.9")]
    assert "加速卡驱动版本：1.2.3（1x8 fp32）；9.9（1x1 fp32）" in render_report(records)


def test_names_that_are_markdown_break_no_table():
    name = 'A1 | **X**\n<img src=x onerror="x"> `y`'
    record = make_record(
        environment__row_label=name, environment__card_short_name=name, environment__card_title=name, warnings=[name]
    )
    markdown = render_report([record])
    (row,) = performance(parse(markdown))
    assert len(row) == 3 + len(COLUMNS)
    assert row[0].startswith("A1 | **X** &lt;img src=x")
    assert "<img" not in markdown


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.text(max_size=30) | st.text(alphabet="|\\`*_[]()<>!#-+~&=\n 1.a:/htps", max_size=20))
def test_no_text_changes_the_shape_of_a_report(text):
    plain = rendered(make_record(warnings=["x"]))
    record = make_record(
        environment__row_label=text,
        environment__driver=text,
        knobs=[{"name": text, "value": text, "reason": text, "origin": "user"}],
        warnings=[text],
    )
    document = rendered(record)
    assert document.headings == plain.headings
    assert [[len(row) for row in table] for table in document.tables] == [
        [len(row) for row in table] for table in plain.tables
    ]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"vendor__name": "other"}, "vendors: acme, other"),
        ({"case__name": "mobilenetv2"}, "cases: mobilenetv2, resnet50"),
        ({"case__version": "2.0"}, "case versions: resnet50 1.0, resnet50 2.0"),
        ({"dataset__name": "other"}, "datasets: imagenet2012 1, other 1"),
        ({"kind": "simulated"}, "kinds: measured, simulated"),
    ],
)
def test_records_that_do_not_belong_together_are_refused(changes, what):
    with pytest.raises(UsageError, match=what):
        render_report([make_record(), make_record(**changes)])


def test_records_of_other_metric_definitions_are_refused():
    with pytest.raises(RecordError, match="run odd has metrics version 7"):
        render_report([make_record(), make_record(run_id="odd", metrics_version=7)])


def test_no_records_are_refused():
    with pytest.raises(UsageError, match="no records"):
        render_report([])


def test_an_unknown_language_is_refused():
    with pytest.raises(UsageError, match="'tlh'"):
        render_report([make_record()], language="tlh")


def test_a_case_that_is_not_installed_is_refused():
    with pytest.raises(UsageError, match="unknown case 'nowhere'"):
        render_report([make_record(case__name="nowhere")])


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"created_at": "2026-01-02T00:00:00Z"}, {"created_at": "2026-01-01T00:00:00"}),
        ({}, {"status": {"state": "killed"}, "created_at": "2027-01-01T00:00:00Z"}),
        ({}, {"limits": {"max_steps": 5}, "created_at": "2027-01-01T00:00:00Z"}),
    ],
    ids=["newer", "completed", "full schedule"],
)
@pytest.mark.parametrize("better_first", [True, False])
def test_of_two_runs_of_one_row_the_better_is_shown_and_the_other_listed(better, worse, better_first):
    records = [make_record(run_id="shown", **better), make_record(run_id="listed", **worse)]
    document = rendered(*(records if better_first else reversed(records)))
    assert len(performance(document)) == 1
    assert document.tables[2][1][1] == "shown"
    assert noted(document, "没有列入表中的运行", "listed")


def test_runs_with_other_hyperparameters_are_rows_of_their_own():
    change = {"key": "batch_size", "base": 32, "value": 256, "origin": "vendor"}
    document = rendered(make_record(), make_record(hyperparameters__changes=[change]))
    assert [row[2] for row in performance(document)] == ["/", "bs=256"]
    assert noted(document, "A1 1x8 fp32 bs=256")


def test_evidence_holds_what_the_run_was_measured_with():
    record = make_record(
        hyperparameters__changes=[
            {"key": "lr", "base": 0.1, "value": 0.8, "origin": "vendor", "reason": "linear scaling"}
        ],
        hyperparameters__notes=["learning_rate had no effect upstream"],
        warnings=["clock throttled"],
        disabled_observers=["tensorboard"],
    )
    evidence = render_report([record]).split("### 运行依据", maxsplit=1)[1]
    for fact in (
        record.run_id,
        record_digest(record)[:12],
        "| p_train | 4586.2 | 0 | 5 | 4586.2 |",
        "1.56%",
        "train 28600 秒",
        "acme allocator",
        "| ACME_TF32 | 0 | IEEE fp32 as requested | 厂商 | 全部 |",
        "| lr | 0.1 | 0.8 | 厂商 | linear scaling | 全部 |",
        "learning_rate had no effect upstream",
        "0123456789abcdef",
        "simplejpeg",
        "ACME SDK 9",
        "clock throttled",
        "tensorboard",
    ):
        assert fact in evidence


def test_an_imported_report_claims_no_measurement():
    markdown = render_report([make_record(kind="imported")])
    assert "运行依据" not in markdown
    assert "不是由 chipperf 测量的" in markdown


def test_a_record_changes_its_digest_with_any_value():
    assert record_digest(make_record()) == record_digest(make_record())
    assert record_digest(make_record()) != record_digest(make_record(metrics__p_whole=4475.1))


def test_reporting_imports_no_torch():
    code = (
        "import sys; from factory import make_record; from chipperf.report.render import render_report;"
        "render_report([make_record()]);"
        "print([name for name in ('torch', 'torchvision', 'numpy') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert result.stdout.strip() == "[]", result.stderr


def test_run_that_is_given_twice_counts_once():
    record = make_record()

    assert render_report([record, record]) == render_report([record])


@pytest.mark.parametrize(
    ("coverage", "text"),
    [
        (0.5, "1x8 fp32: readings in 50.0% of the training, longest gap 12 s"),
        ({"missing": "unknown"}, "over all devices of the main rank's machine"),
    ],
)
def test_evidence_tells_how_much_of_the_training_telemetry_has_read(coverage, text):
    lost = {"missing": "failed", "reason": "read in 50% of the training"}
    names = ("mean_w", "max_w", "energy_j", "mean_temperature_c", "max_temperature_c", "mean_utilization_percent")
    power = {**dict.fromkeys(names, lost), "used_peak_bytes": lost, "samples": 7, "source": "acme-smi"}
    record = make_record(metrics__power={**power, "coverage": coverage, "longest_gap_s": 12.0})

    report = render_report([record], language="en")

    assert text in report
    assert ("over all devices of all machines" in report) == (coverage == 0.5)


MANY = [{"key": f"key{number}", "base": 1, "value": number, "origin": "vendor", "reason": ""} for number in range(2, 8)]


@pytest.mark.parametrize(
    ("language", "cell", "note"),
    [("zh", "见注 1", "注 1，fix_hp：key2=2, key3=3, "), ("en", "see note 1", "Note 1, fix_hp: key2=2, key3=3, ")],
)
def test_many_changes_are_in_a_note(language, cell, note):
    records = [
        make_record(hyperparameters__changes=MANY),
        make_record(run_id="other", topology=topology("2x8"), hyperparameters__changes=MANY),
        make_record(run_id="few", topology=topology("1x1"), hyperparameters__changes=MANY[:4]),
    ]
    document = rendered(*records, language=language)

    assert [row[2] for row in performance(document)] == [cell, cell, "key2=2,key3=3,key4=4,key5=5"]
    assert notes(document, language).count(f"{note}key4=4, key5=5, key6=6, key7=7") == 1


def test_digits_follow_the_spread_of_the_windows():
    document = rendered(make_record(metrics__p_train=throughput(137.64, spread=0.08)))
    ((row,), evidence) = performance(document), "\n".join(map(str, document.tables))

    assert row[COLUMNS["p_train"]] == "138"
    assert "137.64" not in evidence
    assert "'11'" in evidence


@pytest.mark.parametrize(
    ("rates", "iqr", "shown"), [([0.1, 0.4, 0.4, 12.0, 12.5], 11.6, "0.4"), ([10.0, 14.49, 15.0], 10.9, "14.5")]
)
def test_however_large_the_spread_three_digits_are_shown(rates, iqr, shown):
    text = render_report([make_record(metrics__p_train=throughput_of(rates, iqr=iqr))], language="en")
    (row,) = performance(parse(text))

    assert row[COLUMNS["p_train"]] == shown
    assert f"| p_train | {shown} | {iqr} |" in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_evidence_is_folded_and_what_is_published_is_short(language):
    text = render_report([make_record()], language=language)
    published, _, evidence = text.partition("<details>")

    assert evidence.rstrip().endswith("</details>")
    assert record_digest(make_record())[:12] in evidence
    assert len(published.splitlines()) <= 60


@pytest.mark.parametrize(
    ("container", "shown"), [("docker", "未知"), ("podman", "未知"), ("acme/train:2.1", "acme/train:2.1")]
)
def test_engine_is_no_image(container, shown):
    assert f"Docker镜像和版本：{shown}\n" in render_report([make_record(environment__container=container)])


def test_what_core_stores_in_english_is_chinese_in_a_chinese_report():
    warning = (
        "the gradient scaler skipped 9 of 20 optimizer steps, because gradients overflowed: "
        "they changed no weight, but count in throughput and samples"
    )
    record = make_record(
        metrics__p_core={"missing": "not_run", "reason": "2 measurement windows, at least 3 are needed"},
        warnings=[warning, "the fan of card 3 is loud"],
    )
    chinese, english = (render_report([record], language=language) for language in LANGUAGES)

    assert "p_core 未运行，只有 2 个测量窗口，至少需要 3 个" in chinese
    assert "- 梯度缩放在 20 个优化器步中跳过了 9 个，因为梯度溢出：这些步没有改变权重，但计入吞吐量和样本数" in chinese
    assert "- the fan of card 3 is loud" in chinese
    assert f"- {warning}" in english


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        (2, "products on the host | 用户"),
        (3, "主机上的矩阵乘 | 用户"),
        (2, "interrupted：interrupted"),
        (3, "interrupted：已中断"),
    ],
)
def test_chinese_report_says_why_in_chinese_since_layout_3(layout, told):
    knob = {"name": "OPENBLAS_CORETYPE", "value": "Haswell", "reason": "products on the host", "origin": "user"}
    status = {"state": "interrupted", "failure": {"failure_class": "interrupted", "message": "interrupted"}}
    record = make_record(knobs=[knob], status=status)

    assert told in render_page(build_view([record], layout=layout), language="zh").text


@pytest.mark.parametrize(("layout", "judged"), [(1, "converged, target 75.5% (unknown)"), (2, "there is no target")])
def test_dataset_that_nobody_names_has_no_target_since_layout_2(layout, judged):
    record = make_record(dataset__name="unknown", dataset__version=UNKNOWN, metrics__quality=0.9)
    text = render_page(build_view([record], layout=layout), language="en").text

    assert f"- 1x8 fp32: acc 90.0%, {judged}" in text
    assert ("converged" in text) is (layout == 1)


def test_rows_that_differ_in_many_changes_are_named_by_their_notes():
    records = [
        make_record(run_id="many", hyperparameters__changes=MANY),
        make_record(run_id="more", hyperparameters__changes=[*MANY, {**MANY[0], "key": "key9"}]),
        make_record(run_id="few", hyperparameters__changes=MANY[:1]),
    ]
    text = render_report(records, language="en")

    for name in ("A1 1x8 fp32 fix_hp 1", "A1 1x8 fp32 fix_hp 2", "A1 1x8 fp32 key2=2"):
        assert f"- {name}: acc " in text, name


def test_a_measured_run_without_evidence_says_so():
    witnessed = make_record(evidence={"events.jsonl": "0" * 64})
    said = "nothing else confirms its values"

    assert said in render_report([make_record()], language="en")
    assert said not in render_report([witnessed], language="en")
    assert said not in render_report([make_record(kind="simulated")], language="en")

"""Import of case documents: the spellings that vendors use, old layouts, and what is not understood."""

from __future__ import annotations

import json
import runpy
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from chipperf.documents.markdown import read_text
from chipperf.errors import DocumentError
from chipperf.languages import LANGUAGES
from chipperf.records.columns import BY_NAME, columns_of
from chipperf.records.convergence import convergence_outcome
from chipperf.records.schema import UNKNOWN, Missing, Record
from chipperf.report.render import render_report
from factory import make_record
from hypothesis import given, settings
from hypothesis import strategies as st
from readmes import GENERAL, HEADERS, changed, facts_of, imported, readme, table

SEEDS = Path(__file__).parents[1] / "report" / "seeds"
GIB = 2**30
OLD_TABLE = table(
    ("训练资源", "配置文件", "运行时长(s)", "目标精度", "收敛精度", "Steps数", "性能(samples/s)"),
    [
        ("单机1卡", "config_BI-V100x1x1", "", "", "", "", ""),
        ("单机8卡", "config_BI-V100x1x8", "5154.91", "70.654", "70.654", "1156155", "2086.32"),
    ],
)


def only(text, **options):
    (each,) = imported(text, **options).records
    return each.record


def missing(kind, reason=""):
    return Missing(missing=kind, reason=reason)


def test_seed_becomes_records_of_kind_imported():
    text = (SEEDS / "metax-resnet50.md").read_text(encoding="utf-8")

    records = [each.record for each in imported(text, vendor=None).records]

    assert [(each.topology.label, each.precision.requested) for each in records] == [
        ("1x8", "fp32"),
        ("1x1", "fp32"),
        ("2x8", "fp32"),
        ("1x8", "amp"),
    ]
    first, *_, amp = records
    assert (first.kind, first.vendor.name, first.case.name) == ("imported", "metax", "resnet50")
    assert first.metrics_definition == "flagperf"
    assert first.metrics.quality == 0.755
    assert first.metrics.p_core == missing("unknown")
    assert first.metrics.memory.total_bytes == 64 * GIB
    assert first.environment.card_short_name == "nvidia A100"
    assert first.environment.row_label == "MXC500"
    assert [(change.key, change.base, change.value) for change in amp.hyperparameters.changes] == [
        ("batch_size", 32, 512),
        ("lr", 0.1, 0.2),
    ]
    assert amp.hyperparameters.global_batch_size == 4096
    assert first.hyperparameters.changes == []
    assert first.remarks == ["[下载ImageNet2012](../../benchmarks/resnet50)"]


def test_every_value_has_its_line_and_column():
    text = (SEEDS / "kunlunxin-mobilenetv2.md").read_text(encoding="utf-8")
    lines = text.split("\n")

    result = imported(text, vendor=None)

    for each in result.records:
        fields = {source.field for source in each.values}
        assert {"metrics.quality", "metrics.memory", "environment.os", "hyperparameters.changes", "topology"} <= fields
        for source in each.values:
            if not source.field.startswith("remarks"):
                assert lines[source.line - 1][source.column - 1 :].startswith(source.text), source
    quality = next(source for source in result.records[1].values if source.field == "metrics.quality")
    assert (quality.line, quality.column, quality.text) == (46, 89, "68.43%")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("68.43%", 0.6843),
        ("68.43", 0.6843),
        ("0.405", 0.405),
        ("75.6％", 0.756),
        ("", missing("unknown")),
        ("/", missing("not_applicable")),
        ("\\", missing("not_applicable")),
        ("-", missing("not_applicable")),
        ("未运行", missing("not_run")),
        ("withheld (nda)", missing("withheld", "nda")),
        ("失败（oom）", missing("failed", "oom")),
    ],
)
def test_result_or_marker(written, expected):
    assert only(readme(changed(acc=written))).metrics.quality == expected


@pytest.mark.parametrize(
    ("written", "used", "total"),
    [
        ("24.8/32.0", 24.8, 32),
        ("29.3/64", 29.3, 64),
        ("30.9/ 32.0", 30.9, 32),
        ("5.8 / 40 GiB", 5.8, 40),
        ("5.8G/40G", 5.8, 40),
        ("25.0", 25.0, None),
    ],
)
def test_memory(written, used, total):
    memory = only(readme(changed(mem=written))).metrics.memory

    assert memory.device_peak_bytes == round(used * GIB)
    assert memory.total_bytes == (missing("unknown") if total is None else total * GIB)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("bs=256,lr=0.36", {"batch_size": 256, "lr": 0.36}),
        ("bs=8,backbone_weights=none", {"batch_size": 8, "backbone_weights": ""}),
        ("lr=1e-4；bs=8", {"batch_size": 8, "lr": 1e-4}),
        ("bs=64 lr=0.3", {"batch_size": 64, "lr": 0.3}),
        ("bs=8， lr = 0.1", {"batch_size": 8, "lr": 0.1}),
        ("bs=8,amp=true,opt=lamb", {"batch_size": 8, "amp": True, "opt": "lamb"}),
        ("/", {}),
    ],
)
def test_fix_hp(written, expected):
    record = only(readme(changed(fix_hp=written)))

    assert record.hyperparameters.values == expected
    assert {change.key: change.value for change in record.hyperparameters.changes} == expected


def test_blank_fix_hp_is_unknown_and_not_empty():
    assert only(readme(changed(fix_hp=""))).hyperparameters.changes == missing("unknown")


@pytest.mark.parametrize(
    ("written", "card", "shape"),
    [
        ("R300单机8卡（1x8）", "R300", "1x8"),
        ("R300 单机8卡 (1x8)", "R300", "1x8"),
        ("R300两机8卡（2×8）", "R300", "2x8"),
        ("R300两机16卡(2X8)", "R300", "2x8"),
        ("A3双机8卡（2x8）", "A3", "2x8"),
        ("A34机8卡（4x8）", "A3", "4x8"),
        ("BI-V150 （1x16）", "BI-V150", "1x16"),
        ("R300单机单卡", "R300", "1x1"),
        ("R300两机8卡", "R300", "2x8"),
        ("config_R300x2x8", "R300", "2x8"),
        ("H100 4机8卡（4x8）", "H100", "4x8"),
        ("R300四机32卡", "R300", "4x8"),
        ("R300 1x8", "R300", "1x8"),
        ("R300 2x8 (16卡)", "R300", "2x8"),
        ("A1 one machine, 8 cards (1x8)", "A1", "1x8"),
        ("A1 two machines, 8 cards each (2x8)", "A1", "2x8"),
    ],
)
def test_row_label(written, card, shape):
    record = only(readme(changed(label=written)))

    assert (record.environment.row_label, record.topology.label) == (card, shape)


def test_memory_of_each_card_in_the_topology_is_part_of_the_label():
    record = only(readme(changed(label="C500单机8卡（1x8*64G）")))

    assert record.topology.label == "1x8"
    assert record.environment.row_label.startswith("C500")


def test_headers_are_known_in_many_spellings():
    header = (
        "Configuration",
        "Precision",
        "fix hp",
        "e2e_time(s)",
        "P_whole",
        "p_train",
        "**p_core**",
        "top1",
        "mem（GiB）",
    )

    record = only(readme(header=header))

    assert (record.metrics.e2e_time_s, record.metrics.p_core, record.metrics.quality) == (28661, 4659, 0.756)
    assert record.metrics.memory.total_bytes == 64 * GIB


@pytest.mark.parametrize(
    ("header", "written", "metric", "quality"),
    [
        ("ppl", "23.7", "perplexity", 23.7),
        ("final_loss", "0.71", "loss", 0.71),
        ("final_acc1", "79.1%", "accuracy", 0.791),
        ("final_acc1", "68.6", "accuracy", 0.686),
        ("final_bleu", "27.08", "bleu", 0.2708),
        ("final_nuv", "0.29", "nuv", 0.29),
        ("收敛mAP精度", "36.1%", "mean average precision", 0.361),
    ],
)
def test_result_of_a_case_that_is_not_installed_is_of_its_own_metric(header, written, metric, quality):
    result = imported(readme(changed(acc=written), header=_with_result(header), general={"模型": "other"}))

    record = result.records[0].record
    assert (record.case.metric, record.metrics.quality) == (metric, quality)
    assert not result.not_understood


def test_result_that_is_no_fraction_is_not_that_of_a_case_with_one():
    result = imported(readme(changed(acc="23.7"), header=_with_result("ppl")))

    record = result.records[0].record
    assert (record.case.metric, record.metrics.quality) == ("top1", missing("unknown"))
    assert [text.reason for text in result.not_understood] == ["quality: perplexity is not the metric of resnet50"]
    assert "A1单机8卡（1x8）: quality 23.7" in record.remarks


def _with_result(header):
    return tuple(header if each == "acc" else each for each in HEADERS)


@pytest.mark.parametrize(
    ("header", "written", "quality", "target", "outcome"),
    [
        ("acc", "0.641/0.650", 0.641, 0.65, "below_target"),
        ("acc", "65.2%/65.0%", 0.652, 0.65, "converged"),
        ("ppl", "23.7/24.0", 23.7, 24.0, "converged"),
        ("ppl", "25.1/24.0", 25.1, 24.0, "below_target"),
    ],
)
def test_result_beside_its_target(header, written, quality, target, outcome):
    general = {"模型": "other", "训练结果": (f"{header},见“性能指标”", "(实际/目标)")}

    record = only(readme(changed(acc=written), header=_with_result(header), general=general))

    assert (record.metrics.quality, record.case.target) == (quality, target)
    assert convergence_outcome(record) == outcome


def test_further_results_and_the_rows_that_explain_them_are_kept():
    header = (*_with_result("rouge1"), "rouge2", "parallel", "MFU")
    rows = [(*changed(acc="0.41"), "0.19", "TP2PP1DP4", "48%"), (*changed(acc="0.40"), "/", "TP4PP1DP2", "45%")]
    general = {"模型": "other", "并行策略": "parallel,见“性能指标”", "计算使用率": "MFU,见“性能指标”"}

    result = imported(readme(*rows, header=header, general=general))

    first, second = (each.record for each in result.records)
    assert (first.metrics.quality, second.metrics.quality) == (0.41, 0.40)
    assert (first.hyperparameters.values["parallel"], second.hyperparameters.values["parallel"]) == (
        "TP2PP1DP4",
        "TP4PP1DP2",
    )
    for remark in ("rouge2 0.19", "rouge2 /", "MFU 48%", "MFU 45%"):
        assert f"A1单机8卡（1x8）: {remark}" in first.remarks
    assert "计算使用率 MFU,见“性能指标”" in first.remarks
    assert not result.not_understood


@pytest.mark.parametrize(
    ("written", "expected", "note"),
    [
        ("bs=2, GAS=16, (global bs = 4M tokens)", {"batch_size": 2, "GAS": 16}, "(global bs = 4M tokens)"),
        ("bs=2,GAS=16（GBS=128=256K tokens）", {"batch_size": 2, "GAS": 16}, "（GBS=128=256K tokens）"),
        ("bs=2,betas=(0.9)", {"batch_size": 2, "betas": "(0.9)"}, None),
    ],
)
def test_note_in_fix_hp_is_a_remark(written, expected, note):
    result = imported(readme(changed(fix_hp=written)))

    record = result.records[0].record
    assert record.hyperparameters.values == expected
    assert record.remarks == ([f"A1单机8卡（1x8）: fix_hp {note}"] if note else [])
    assert not result.not_understood


def test_unknown_column_is_listed_and_kept():
    result = imported(readme((*changed(), "17"), header=(*HEADERS, "power")))

    (text,) = result.not_understood
    assert (text.text, text.reason) == ("17", "the column 'power' is unknown")
    assert "A1单机8卡（1x8）: power 17" in result.records[0].record.remarks


def test_cell_beyond_the_header_is_listed():
    result = imported(readme((*changed(), "17")))

    assert [(text.text, text.reason) for text in result.not_understood] == [("17", "the table has no such column")]


@pytest.mark.parametrize(
    "cells",
    [{"p_core": "80.83.2%"}, {"acc": "38.4 && 34.6"}, {"acc": "101%"}, {"mem": "64 of 80"}, {"fix_hp": "like base"}]
    + [{"label": "A1 some cards"}, {"p_whole": "-5"}, {"e2e_time": "1e999"}],
)
def test_what_is_not_understood_is_listed_with_its_place_and_kept(cells):
    text = readme(changed(**cells), changed(label="A1单机单卡（1x1）"))
    ((name, written),) = cells.items()
    lines = text.split("\n")

    result = imported(text)

    listed = next(each for each in result.not_understood if each.text == written)
    assert lines[listed.line - 1][listed.column - 1 :].startswith(written)
    assert any(written in remark for each in result.records for remark in each.record.remarks)


def _renamed(**headers):
    return tuple(headers.get(each, each) for each in HEADERS)


@pytest.mark.parametrize(
    ("header", "written", "legend", "reason"),
    [
        ("acc", "0.759%", "", "a percentage below 1, or a fraction with a percent sign"),
        ("acc", "175.9%", "", "above 100 %"),
        ("acc5", "92.5%", "", "accuracy among five guesses is not the case's result"),
        ("acc", "92.5%", "top-5 accuracy (acc5)", "accuracy among five guesses is not the case's result"),
        ("train_acc", "75.9%", "", "train_acc is not the case's result"),
        ("acc && best_acc", "99.9% && 75.9%", "", "several results"),
    ],
)
def test_result_of_which_the_meaning_is_open_is_not_understood(header, written, legend, reason):
    general = {"训练结果": (f"{header},见“性能指标”", legend)}

    result = imported(readme(changed(acc=written), header=_renamed(acc=header), general=general))

    record = result.records[0].record
    assert record.metrics.quality == missing("unknown")
    assert [(text.text, text.reason) for text in result.not_understood] == [(written, f"quality: {reason}")]
    assert any(written in remark for remark in record.remarks)


def test_box_result_is_the_one_of_a_header_of_boxes_and_masks():
    header, general = _renamed(acc="map_bbox && map_segm"), {"模型": "mask_rcnn"}

    result = imported(readme(changed(acc="38.4 && 34.6"), header=header, general=general))

    assert result.records[0].record.metrics.quality == 0.384
    assert not result.not_understood


@pytest.mark.parametrize(
    ("column", "header", "legend", "expected"),
    [
        ("e2e_time", "e2e_time(h)", "", 28661 * 3600),
        ("e2e_time", "e2e_time（分钟）", "", 28661 * 60),
        ("e2e_time", "e2e_time(ms)", "", 28.661),
        ("e2e_time", "e2e_time", "in minutes", 28661 * 60),
        ("e2e_time", "e2e_time", "includes 10 minutes of warm-up", 28661),
        ("e2e_time", "e2e_time(img/s)", "", None),
        ("p_core", "p_core(images/min)", "", 77.65),
        ("p_core", "p_core(samples/s)", "in images/min", None),
        ("p_core", "p_core(k)", "", None),
        ("p_core", "p_core(min)", "", None),
        ("p_core", "p_core", "thousand images/min", None),
        ("p_core", "p_core", "不包含数据IO部分的耗时，单位为samples/s(seq_length=512)", 4659),
    ],
)
def test_unit_of_a_header_or_legend_is_converted_or_not_understood(column, header, legend, expected):
    label = {"e2e_time": "端到端时间", "p_core": "**计算吞吐量**"}[column]
    general = {label: (f"{column},见“性能指标”", legend)}

    result = imported(readme(header=_renamed(**{column: header}), general=general))

    value = getattr(result.records[0].record.metrics, BY_NAME[column].field.split(".")[1])
    assert value == (missing("unknown") if expected is None else expected)
    assert len(result.not_understood) == (expected is None)


@pytest.mark.parametrize(
    ("written", "used"), [("19764/65536", 19764 * 2**20), ("19.3/64.0", None), ("19.3/64.0GiB", round(19.3 * GIB))]
)
def test_memory_in_the_unit_of_the_legend(written, used):
    general = {"硬件存储使用": ("mem,见“性能指标”", "in MiB")}

    memory = only(readme(changed(mem=written), general=general)).metrics.memory

    assert (None if isinstance(memory, Missing) else memory.device_peak_bytes) == used


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("A1 (1x8) (1x1)", "there are several topologies in its brackets"),
        ("A1 one machine, eight cards (1x1)", "its words name a different topology than 1x1"),
        ("A1 single node, 8 GPUs (1x1)", "its words name a different topology than 1x1"),
        ("A1单机8卡（2x8）", "its words name a different topology than 2x8"),
    ],
)
def test_row_whose_topology_is_contradicted_is_not_imported(label, reason):
    result = imported(readme(changed(label=label), changed(label="A1单机单卡（1x1）")))

    assert [each.record.topology.label for each in result.records] == ["1x1"]
    assert [(text.text, text.reason) for text in result.not_understood] == [(label, reason)]


@pytest.mark.parametrize(
    ("written", "precision"),
    [
        ('fp16, level="O2"', 'fp16, level="O2"'),
        ("bf16+fp8", "bf16+fp8"),
        ("fp32/amp", "unknown"),
        ("fp32*", "unknown"),
        ("fp32 (tf32)", "unknown"),
    ],
)
def test_precision_is_one(written, precision):
    result = imported(readme(changed(precision=written)))

    assert result.records[0].record.precision.requested == precision
    assert [text.text for text in result.not_understood] == ([written] if precision == "unknown" else [])


def test_second_row_of_one_configuration_is_listed():
    result = imported(readme(changed(), changed(p_core="4700")))

    assert len(result.records) == 1
    assert "has the same card, topology" in result.not_understood[0].reason
    assert any("4700" in remark for remark in result.records[0].record.remarks)


def test_facts_in_a_nested_list_and_without_a_place_in_the_record():
    text = readme(facts={"依赖软件版本": "\n  - cuda: 11.4\n  - nccl: 2", "CPU型号": "AMD EPYC"})

    record = only(text)

    assert record.environment.dependencies == "cuda: 11.4; nccl: 2"
    assert "CPU型号: AMD EPYC" in record.remarks


def test_general_table_that_says_more_is_kept():
    general = {"任务类别": "目标检测", "额外修改项": "max_epoch=6", "数据精度": ("fp32", "only this"), "随机种子": "7"}
    result = imported(readme(general=general))

    remarks = result.records[0].record.remarks
    for remark in (
        "任务类别: 目标检测",
        "额外修改项: max_epoch=6",
        "数据精度: fp32",
        "数据精度: only this",
        "随机种子 7",
    ):
        assert remark in remarks
    assert [text.text for text in result.not_understood] == ["随机种子 7"]


def test_old_layout():
    result = imported(OLD_TABLE, vendor="acme", case="mobilenetv2")

    empty, full = (each.record for each in result.records)
    assert (full.environment.row_label, full.topology.label) == ("BI-V100", "1x8")
    assert full.metrics.e2e_time_s == 5154.91
    assert full.metrics.p_whole == 2086.32
    assert full.metrics.quality == 0.70654
    assert full.remarks == empty.remarks
    assert "单机8卡: Steps数 1156155" in full.remarks
    assert empty.metrics.p_whole == missing("unknown")


def test_report_of_chipperf_keeps_its_definitions_and_is_not_repeated():
    text = render_report([_measured()], language="en")
    result = imported(text)

    (record,) = (each.record for each in result.records)
    assert record.metrics_definition == "chipperf"
    assert record.metrics.p_train == 4586.2
    assert record.remarks == []
    assert not result.not_understood


def test_computed_column_overwrites_no_field_and_is_kept(monkeypatch):
    computed = replace(BY_NAME["p_core"], field="metrics.p_train.windows", compute=lambda record: missing("unknown"))
    columns = [*(column for column in columns_of("report") if column.name != "p_core"), computed]
    monkeypatch.setattr("chipperf.importing.document_import.columns_of", lambda place: columns)

    record = only(readme(changed(p_train="4586", p_core="4659")))

    assert record.metrics.p_train == 4586
    assert record.metrics.p_core == missing("unknown")
    assert any(remark.endswith("p_core 4659") for remark in record.remarks)


def _measured():
    return runpy.run_path(str(SEEDS.parent / "factory.py"))["make_record"]()


def test_case_and_vendor_from_directories(tmp_path):
    path = tmp_path / "training" / "iluvatar" / "mobilenetv2-pytorch" / "README.md"

    record = imported(OLD_TABLE, vendor=None, path=path).records[0].record

    assert (record.vendor.name, record.case.name) == ("iluvatar", "mobilenetv2")


def test_case_that_is_not_installed_is_imported_under_its_name():
    record = only(readme(general={"模型": "BERT Large"}))

    assert record.case.name == "bert_large"
    assert record.case.target == missing("unknown")


@pytest.mark.parametrize(
    ("text", "options", "match"),
    [
        ("", {}, "no performance table"),
        ("# Title\n\ntext", {}, "no performance table"),
        (readme(changed(label="somewhere")), {}, "no performance table with a row"),
        (readme(general={"模型": None}), {}, "does not name its model"),
        (readme(), {"vendor": None}, "does not name its vendor"),
    ],
)
def test_document_that_yields_nothing_is_an_error(text, options, match):
    with pytest.raises(DocumentError, match=match):
        imported(text, **options)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300) | st.text("|-#* \n`[]()<>!/\\:：0123456789x卡机a", max_size=300).map(str.encode))
def test_any_bytes_are_a_document_or_a_clear_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.md"
    path.write_bytes(content)
    with suppress(DocumentError):
        assert imported(read_text(path)).records


def test_shuffled_pieces_of_a_document_do_no_harm():
    lines = readme().split("\n")
    for step in range(1, len(lines), 3):
        text = "\n".join(lines[step:] + lines[:step])
        with suppress(DocumentError):
            assert imported(text).records


def test_json_of_a_record_is_a_record_again():
    record = only(readme())

    assert Record.model_validate(json.loads(record.model_dump_json())) == record


def test_labels_of_the_general_table_are_all_known():
    assert not imported(readme(general=GENERAL)).not_understood


def test_result_that_is_no_fraction_keeps_its_number_and_its_name():
    header = (*HEADERS[:7], "ppl", "mem")
    (record,) = facts_of(imported(readme(changed(acc="23.7/23.0"), header=header, general={"模型": "xl"})))

    assert record["metrics"]["quality"] == 23.7
    assert (record["case"]["metric"], record["case"]["target"]) == ("perplexity", 23.0)


def test_memory_is_imported_in_the_unit_of_its_cell():
    (record,) = facts_of(imported(readme(changed(mem="16384MiB/32768MiB"))))

    memory = record["metrics"]["memory"]
    assert (memory["device_peak_bytes"], memory["total_bytes"]) == (16 * 2**30, 32 * 2**30)


def test_rows_that_differ_in_any_column_are_all_imported():
    header = ("配置", "precision", "parallel", "fix_hp", "token/p/s", "loss", "stage", "mem")
    rows = [
        ("A1单机8卡（1x8）（pretrain）", "bf16", "TP8", "/", "3448", "4.7", "1", "59/64"),
        ("A1单机8卡（1x8）（finetune）", "bf16", "TP8", "/", "3448", "4.7", "1", "59/64"),
        ("A1单机8卡（1x8）", "bf16", "TP8", "/", "3448", "4.7", "1", "59/64"),
        ("A1单机8卡（1x8）", "bf16", "PP8", "/", "3448", "4.7", "1", "59/64"),
        ("A1单机8卡（1x8）", "bf16", "PP8", "LBS=4", "3448", "4.7", "1", "59/64"),
        ("A1单机8卡（1x8）", "bf16", "PP8", "LBS=4", "3448", "4.7", "2", "59/64"),
    ]
    result = imported(readme(*rows, header=header, general={"模型": "llama"}))

    assert [
        (record["environment"]["row_label"], record["hyperparameters"]["values"]) for record in facts_of(result)
    ] == [
        ("A1 (pretrain)", {"parallel": "TP8"}),
        ("A1 (finetune)", {"parallel": "TP8"}),
        ("A1", {"parallel": "TP8"}),
        ("A1", {"parallel": "PP8"}),
        ("A1", {"LBS": 4, "parallel": "PP8"}),
        ("A1 (2)", {"LBS": 4, "parallel": "PP8"}),
    ]
    assert [each.reason for each in result.not_understood] == ["the column 'stage' is unknown"] * 6
    assert any("token/p/s 3448" in remark for remark in result.records[0].record.remarks)


def test_text_that_could_not_be_read_is_listed():
    text = readme(changed(), changed(label="A1单机单卡（1x1）")).replace("\n| A1单机单卡", "\n\n| A1单机单卡")

    result = imported(text)

    assert [record["topology"]["nproc_per_node"] for record in facts_of(result)] == [8, 1]
    assert [each.text for each in result.not_understood] == ["1 rows are cut off from their table"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_report_on_sample_data_stays_one(language: str) -> None:
    """Its results are no benchmark scores, and the case's target is not one for them."""
    sample = {"dataset__name": "chipperf-sample-10", "dataset__version": "1", "dataset__is_sample": True}
    report = render_report([make_record(**sample, case__target=0.5, metrics__quality=0.66)], language=language)

    record = imported(report).records[0].record

    assert (record.dataset.name, record.dataset.version, record.dataset.is_sample) == ("chipperf-sample-10", "1", True)
    assert record.case.target == UNKNOWN
    again = render_report([record], language=language)
    assert again.splitlines()[0] == report.splitlines()[0]
    assert "chipperf-sample-10 1 |" in again

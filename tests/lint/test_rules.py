"""Every rule finds a mistake of a real report, rewritten small, and is silent without it."""

from __future__ import annotations

import pytest
from chipperf.lint.rule import all_rules
from chipperf.lint.rules.naming_rules import _cases_of_directories as names_cache
from chipperf.records.schema import METRICS_VERSION
from chipperf.report.render import render_report
from reports import HEADERS, changed, good, make_record, nvidia, put, put_benchmark, readme, run, table, throughput

OLD_HEADER = ("训练资源", "配置文件", "运行时长(s)", "目标精度", "收敛精度", "Steps数", "性能(samples/s)")
CONFIG = {"config_A100x1x8.py": "train_batch_size = 32\n"}
GOOD = nvidia()
NEEDS = {"依赖软件版本": "torch-1.13.1, foo==1.1, bar, tool kit: 1.5"}
SAYS_WHERE = "1. seqlength，为ds_config.json中所写，默认为2048"
COMMAND = "```\npython train.py\n--epochs 3\n```"
MANY = {
    label: (f"A100{words}（{label}）")
    for label, words in {"1x1": "单机单卡", "1x8": "单机8卡", "2x8": "两机8卡"}.items()
}
SAYS_TOTAL = "2x8：共 16 卡"


def old(*rows):
    return f"### NVIDIA A100 配置与运行信息参考\n\n{table(OLD_HEADER, rows)}\n"


def detr(*rows, **options):
    general = {"模型": "detr", "任务类别": "目标检测", "数据集": "coco2017", "训练结果": ("mAP,见“性能指标”", "")}
    general.update(options.pop("general", {}))
    return nvidia(*rows, general=general, header=(*HEADERS[:7], "mAP", "mem"), **options)


LLM_HEADER = ("配置", "precision", "parallel", "fix_hp", "token/p/s", "loss", "mem", "MFU")


def llm_row(parallel="TP8", *, label="A100单机8卡（1x8）", fix_hp="LBS=4", tokens="3448", mfu="26.5%"):
    return label, "fp32", parallel, fix_hp, tokens, "4.7", "19.3/40.0", mfu


def llm(parallel="TP8", *rows, tokens="3448", header=LLM_HEADER, general=None, **options):
    without = dict.fromkeys(("端到端时间", "总吞吐量", "训练吞吐量", "**计算吞吐量**", "训练结果"))
    columns = ("parallel", "token/p/s", "loss", "MFU")
    explained = {name: (f"{name},见“性能指标”", "") for name in columns}
    return nvidia(
        *(rows or [llm_row(parallel, tokens=tokens)]),
        header=header,
        general={"模型": "llama", **without, **explained, **(general or {})},
        **options,
    )


def old_card(mem):
    """Return a report on a card whose memory is not known."""
    return nvidia(
        good(label="ZX9单机8卡（1x8）", mem=mem), facts={"加速卡型号": "ZX9"}, general={"硬件设备简称": "ZX9"}
    )


def put_by_model(root, text):
    """Write a report into the directory of the model that it names."""
    model = next((name for name in ("detr", "vit", "llama") if f"| {name} |" in text), "resnet50")
    return put(root, text, case=f"{model}-pytorch")


def other_case(*rows, **options):
    return nvidia(*rows, general={"模型": "vit", **options.pop("general", {})}, **options)


# Rule, what is wrong, text with it, text of the finding.
BAD = [
    ("L01", "short name of another vendor", nvidia(general={"硬件设备简称": "MXC500"}), "the short name 'MXC500'"),
    ("L01", "row of another vendor", nvidia(good(label="R300单机8卡（1x8）")), "'R300' of kunlunxin"),
    (
        "L01",
        "foreign configuration",
        old(("单机8卡", "config_R300x1x8", "1", "2", "3", "4", "5")),
        "'R300' names 'R300'",
    ),
    ("L02", "core below train", nvidia(good(p_core="4000")), "p_core 4000 is less than p_train 4586"),
    ("L02", "train below whole", nvidia(good(p_whole="5000")), "p_train 4586 is less than p_whole 5000"),
    (
        "L02",
        "time lost in one row",
        nvidia(good(), good(label=MANY["1x1"], p_whole="700", p_train="1144", p_core="1300")),
        "evaluation takes 39%",
    ),
    (
        "L02",
        "utilization of another throughput",
        llm("TP8", llm_row(), llm_row(tokens="3000", mfu="23.1%"), llm_row(tokens="3200", mfu="22.0%")),
        "MFU 22.0% at 3200 token/p/s is not in proportion to 26.5% at 3448",
    ),
    ("L03", "short name of another card", nvidia(general={"硬件设备简称": "A800"}), "the short name 'A800'"),
    ("L03", "server for a card", nvidia(facts={"加速卡型号": "NVIDIA DGX"}), "is the server DGX, not a card"),
    ("L03", "card misspelled", nvidia(facts={"加速卡型号": "NVIDIA A100x-80G"}), "A100-80G"),
    ("L04", "blank cell", nvidia(good(p_core="")), "p_core is blank"),
    ("L04", "backslash", nvidia(good(p_core="\\\\")), "the mark is '/'"),
    ("L04", "blank fact", nvidia(facts={"加速卡驱动版本": ""}), "driver is blank"),
    ("L04", "blank general", nvidia(general={"额外修改项": ""}), "额外修改项 is blank"),
    ("L04", "marks swapped", nvidia(good(e2e_time="/"), good(label=MANY["1x1"], e2e_time="")), "look swapped"),
    (
        "L04",
        "row of nothing",
        nvidia(
            good(),
            good(label=MANY["1x1"], **dict.fromkeys(("e2e_time", "p_whole", "p_train", "p_core", "acc", "mem"), "/")),
        ),
        "has no value, and nothing says why",
    ),
    ("L04", "parallelism of nothing", llm("/"), "parallel is '/', and 8 cards"),
    ("L05", "8 cards as 1x1", nvidia(good(label="A100单机8卡（1x1）")), "in brackets stands 1x1"),
    ("L05", "8 cards as 2x8", nvidia(good(label="A100单机8卡（2x8）")), "in brackets stands 2x8"),
    ("L05", "English words", nvidia(good(label="A100 1 machine 8 cards (1x1)")), "in brackets stands 1x1"),
    ("L05", "no topology", nvidia(good(), good(label="A100")), "no topology"),
    ("L05", "parallelism of more cards", llm("TP2PP2DP4"), "'TP2PP2DP4' is for 16 cards, the row has 8"),
    ("L05", "parallelism in the text", nvidia(after="- 实施细节：PP4DP2TP2"), "is for 16 cards, the rows have 8"),
    ("L05", "parallelism that does not divide", llm("TP3"), "'TP3' is for 3 cards, the row has 8"),
    (
        "L01",
        "foreign configuration in the text",
        nvidia(after="batch size 为config_R300x1x8.py中所写"),
        "the configuration in the text, 'R300' names",
    ),
    (
        "L03",
        "part of another name",
        nvidia(facts={"加速卡型号": "H200"}, general={"硬件设备简称": "H20"}),
        "H20, the acc",
    ),
    (
        "L03",
        "configuration of another card",
        nvidia(after="见config_A800x1x8.py"),
        "the configuration in the text, 'A800'",
    ),
    ("L04", "fact that is not there", nvidia(facts={"加速卡驱动版本": None}), "does not name the driver"),
    ("L04", "empty section", nvidia(after="### 数据集准备\n\n### 下载\ntext"), "section '数据集准备' is empty"),
    ("L04", "empty last section", nvidia(after="text\n\n#### 补充"), "section '补充' is empty"),
    ("L04", "dependency without a version", nvidia(facts={"依赖软件版本": "sentencepiece"}), "names no version"),
    ("L04", "no accelerator", nvidia(facts={"加速卡型号": "/"}), "the accelerator is '/', and every run has one"),
    (
        "L04",
        "throughput that does not apply",
        nvidia(good(**dict.fromkeys(("p_whole", "p_train", "p_core"), "/"))),
        "every row has '/' for p_whole, p_train, p_core",
    ),
    ("L04", "no version", nvidia(facts={"训练编译器版本": "xacc"}), "compiler 'xacc' names no version"),
    (
        "L04",
        "nothing measured",
        nvidia(good(**dict.fromkeys(("e2e_time", "p_whole", "p_train", "p_core", "acc", "mem"), "/"))),
        "no row has a measured value",
    ),
    ("L06", "all cards not said", nvidia(good(label=MANY["2x8"])), "does not say that these are 16 cards"),
    ("L11", "fewer epochs", nvidia(good(e2e_time="14330", acc="70%")), "imply 50.0 of 100 epochs"),
    ("L11", "more epochs", nvidia(good(e2e_time="57322")), "imply 200.0 epochs"),
    ("L12", "below the target", nvidia(good(acc="64.0%")), "64.0% is below the target 0.755"),
    ("L13", "percentage of a fraction", detr(good(acc="42.6%")), "is a percentage, case detr's a fraction"),
    ("L13", "no percent sign", nvidia(good(acc="75.6")), "has no %"),
    ("L13", "mixed units", nvidia(good(), good(label=MANY["1x1"], acc="75.6")), "other rows have"),
    ("L13", "two results", nvidia(good(acc="38.4 && 34.6")), "two results in one cell"),
    ("L13", "map of a classifier", nvidia(header=(*HEADERS[:7], "map", "mem")), "mean average precision"),
    (
        "L12",
        "below the target beside it",
        other_case(good(acc="0.641/0.650")),
        "0.641 is below the target 0.650 beside it",
    ),
    (
        "L12",
        "above the target beside it",
        other_case(good(acc="23.7/23.0"), header=(*HEADERS[:7], "ppl", "mem")),
        "23.7 is above the target 23.0 beside it",
    ),
    (
        "L13",
        "range of the general table",
        other_case(
            good(acc="27.14"),
            header=(*HEADERS[:7], "bleu", "mem"),
            general={"训练结果": ("bleu,见“性能指标”", "得分是一个 0到1 之间的数字")},
        ),
        "the general table says '0到1', a row has '27.14'",
    ),
    (
        "L13",
        "rate of a result that is none",
        detr(general={"训练结果": ("mAP,见“性能指标”", "单位为平均目标检测正确率")}),
        "says '正确率' of a result that is mean average precision",
    ),
    ("L13", "more than 100 %", nvidia(good(acc="175.9%")), "'175.9%' is more than 100 %"),
    ("L13", "hundred times 7", nvidia(good(acc="759%")), "'759%' is more than 100 %"),
    ("L13", "training samples", nvidia(header=(*HEADERS[:7], "train_acc", "mem")), "is of the training samples"),
    ("L13", "top-5", nvidia(general={"训练结果": ("acc,见“性能指标”", "top-5")}), "'top-5' is another metric than"),
    ("L13", "no metric", nvidia(header=(*HEADERS[:7], "quality", "mem")), "'quality' names no metric"),
    ("L13", "no result", nvidia(header=(*HEADERS[:7], "score_x", "mem")), "has no column 'acc' with the result"),
    (
        "L13",
        "hours",
        nvidia(header=(*HEADERS[:3], "e2e_time(h)", *HEADERS[4:])),
        "'e2e_time(h)' is not the unit of e2e_time, s",
    ),
    ("L13", "a thousand", nvidia(header=(*HEADERS[:6], "p_core(k)", *HEADERS[7:])), "'p_core(k)' is not the unit of"),
    (
        "L13",
        "minutes",
        nvidia(general={"端到端时间": ("e2e_time", "in minutes")}),
        "'in minutes' is not the unit of e2e_time",
    ),
    ("L13", "per minute", nvidia(general={"总吞吐量": ("p_whole", "images/min")}), "'images/min' is not the unit"),
    ("L14", "mark behind it", nvidia(good(precision="fp32*")), "'fp32*' is not the name of one precision"),
    ("L14", "two precisions", nvidia(good(precision="fp32/amp")), "'fp32/amp' is not the name of one precision"),
    (
        "L15",
        "no total",
        nvidia(good(mem="66 * 8"), general={"硬件存储使用": ("mem(actual/total),见“性能指标”", "")}),
        "mem '66 * 8' has no total, and the general table says 'mem(actual/total)",
    ),
    ("L15", "unit of an expression", nvidia(good(mem="66 * 8 GB")), "is in GB, and the general table says GiB"),
    ("L15", "nothing used", nvidia(good(mem="0/40.0")), "uses nothing"),
    (
        "L05",
        "parallelism of other kinds than its format",
        llm("TP2DP4", general={"parallel": ("parallel,见“性能指标”", "格式为TPxPPyDPz")}),
        "'TP2DP4' lacks PP; the general table says 'TPxPPyDPz'",
    ),
    (
        "L05",
        "card and machines without a blank",
        nvidia(good(label="A1004机32卡（4x8）")),
        "runs 'A100' and '4机32卡' together",
    ),
    ("L05", "two topologies", nvidia(good(label="A100 (1x8) (1x1)")), "has the topologies 1x1 and 1x8"),
    ("L05", "cards in words", nvidia(good(label="A100 one machine, eight cards (1x1)")), "with 8 cards, in brackets"),
    ("L05", "GPUs", nvidia(good(label="A100 single node, 8 GPUs (1x1)")), "with 8 cards, in brackets"),
    ("L05", "cards in Chinese", nvidia(good(label="A100十六卡（1x8）")), "says 16 cards and 1x8"),
    ("L13", "another task", nvidia(general={"任务类别": "目标检测"}), "is not that of resnet50"),
    ("L14", "not in the legend", nvidia(good(precision="bf16")), "'bf16' is not in the legend"),
    ("L15", "more than there is", nvidia(good(mem="41.0/40.0")), "uses more than there is"),
    ("L15", "full", nvidia(good(mem="40.0/40.0")), "full to the last digit"),
    ("L15", "total of nobody knows which card", old_card("63.9/64.0"), "the total is perhaps not the device's"),
    ("L15", "other card's memory", nvidia(good(mem="19.3/64.0")), "has 40 GiB by its data sheet"),
    ("L15", "no size of the card", nvidia(good(mem="19.3/64.0"), facts={"加速卡型号": "A100"}), "has 40 GiB or 80 GiB"),
    ("L15", "half a card", nvidia(good(mem="19.3/20.0")), "has 40 GiB by its data sheet"),
    ("L15", "two totals", nvidia(good(), good(label=MANY["1x1"], mem="19.3/40")), "totals of A100 differ: 40.0, 40"),
    ("L15", "unit", nvidia(good(mem="19.3/40.0GB")), "is in GB, reports are in GiB"),
    ("L15", "unit in the header", nvidia(header=(*HEADERS[:8], "mem(MiB)")), "is in MiB, reports are in GiB"),
    ("L15", "MiB without a unit", nvidia(good(mem="19456/40960")), "more than any card has, perhaps in MiB"),
    (
        "L15",
        "not the size that the environment names",
        nvidia(good(mem="19.3/80.0"), facts={"加速卡型号": "NVIDIA A100-SXM4-40GB"}),
        "A100 has 40 GiB by its data sheet",
    ),
    ("L15", "space", nvidia(good(mem="30.9/ 40.0")), "has spaces in it"),
    ("L16", "undeclared batch", nvidia(good(), good(label=MANY["1x1"], mem="29.3/40.0")), "uses 29.3 GiB"),
    (
        "L17",
        "fewer samples on more cards",
        nvidia(good(), good(label=MANY["2x8"], p_core="3000"), after=SAYS_TOTAL),
        "falls from 4659 to 3000",
    ),
    ("L17", "more than ideal", nvidia(good(), good(label=MANY["1x1"], p_core="100")), "grows to 582%"),
    ("L17", "longer", nvidia(good(label=MANY["1x1"], p_core="600"), good(e2e_time="90000")), "e2e_time grows"),
    (
        "L18",
        "time lost",
        nvidia(good(), good(fix_hp="bs=128", p_core="5700", e2e_time="95000")),
        "e2e_time grows from 28661 s to 95000 s",
    ),
    ("L18", "result lost", nvidia(good(), good(fix_hp="bs=128", p_core="5700", acc="70%")), "to 70% and misses the"),
    (
        "L20",
        "change of another vendor",
        nvidia(general={"额外修改项": ("fp16实现方式", "昆仑芯使用1+8+7格式")}),
        "the additional change '昆仑芯使用1+8+7格式' names '昆仑芯' of kunlunxin",
    ),
    (
        "L20",
        "kernel before its system",
        nvidia(facts={"OS kernel版本": "4.15.0-156-generic"}),
        "kernel 4.15.0 is older than the first of Ubuntu 22.04, 5.15",
    ),
    (
        "L20",
        "network that does not apply",
        nvidia(good(label=MANY["2x8"]), facts={"多机网络类型、带宽": "/"}),
        "the environment names no network",
    ),
    ("L20", "foreign environment", nvidia(facts={"训练框架版本": "MetaX torch"}), "'MetaX torch' names 'MetaX'"),
    ("L20", "foreign heading", nvidia(after="#### R300 环境"), "names 'R300' of kunlunxin"),
    ("L20", "no network", nvidia(good(label=MANY["2x8"]), facts={"多机网络类型、带宽": ""}), "names no network"),
    (
        "L21",
        "curve by step",
        nvidia(after="### 收敛曲线\n训练15个step时的acc ![acc](acc.png)"),
        "the text counts steps",
    ),
    ("L22", "picture alone", nvidia(after="### 收敛曲线\n![acc](acc.png)"), "its points and the number of seeds"),
    ("L23", "no such file", nvidia(after="[x](missing.md)"), "'missing.md' does not exist"),
    ("L23", "no such heading", nvidia(after="[x](#数据集下载地址)"), "this page has no heading for '#数据集下载地址'"),
    (
        "L24",
        "column without an explanation",
        llm(header=(*LLM_HEADER[:5], "是否精度对齐", *LLM_HEADER[6:])),
        "the general table has no row for '是否精度对齐'",
    ),
    (
        "L24",
        "second result without an explanation",
        nvidia((*good(), "1.7"), header=(*HEADERS, "loss")),
        "the general table has no row for 'loss'",
    ),
    (
        "L24",
        "results below the environment",
        GOOD.replace("### 运行情况", "#### 软件环境"),
        "the performance table stands below the heading '软件环境'",
    ),
    (
        "L24",
        "column of a row that no layout has",
        nvidia(general={"单卡批尺寸": ("bs,见“性能指标”", "")}),
        "单卡批尺寸 refers to 'bs', which the performance table lacks",
    ),
    ("L24", "first layout", old(("单机8卡", "config_A100x1x8", "1", "2", "3", "4", "5")), "first layout"),
    ("L24", "column missing", nvidia(good()[:6] + good()[7:], header=HEADERS[:6] + HEADERS[7:]), "no column p_core"),
    (
        "L24",
        "column that is not there",
        nvidia(general={"训练结果": ("top5,见“性能指标”", "")}),
        "refers to 'top5', which the performance table lacks, where it is 'acc'",
    ),
    ("L24", "row that is not there", nvidia(general={"数据精度": None}), "has no row for the precision"),
    ("L25", "tokens", llm("TP8", tokens="8.7 * 2048"), "token/p/s '8.7 * 2048' is not a number"),
    ("L25", "two points", nvidia(good(acc="80.83.2%")), "'80.83.2%' is not a number"),
    ("L25", "full-width", nvidia(good(fix_hp="bs＝256")), "'bs＝256' has full-width characters"),
    ("L25", "rounded", nvidia(good(p_whole="32", p_train="32", p_core="33")), "equals another throughput"),
    ("L27", "target met exactly", old(("单机8卡", "config_A100x1x8", "1", "70.634", "70.634", "4", "5")), "last digit"),
    ("L30", "label twice", nvidia(facts={"机器型号": "机器型号：DGX"}), "the label '机器型号' stands twice"),
    ("L30", "word twice", nvidia(general={"总吞吐量": ("p_whole", "实际样本数数")}), "'数数' is doubled in"),
    ("L30", "English word twice", nvidia(after="This is the the text."), "'the the' is doubled in"),
    (
        "L30",
        "section twice",
        nvidia(after="### 优化策略\n- flash attention\n\n### 优化策略\n- 方案：flash attention\n- 其他"),
        "section '优化策略' stands in line",
    ),
    ("L30", "placeholder", nvidia(facts={"加速卡驱动版本": "NVIDIA PLACEHOLDER"}), "'PLACEHOLDER' is left"),
    ("L30", "mark behind the name", nvidia(general={"硬件设备简称": "A100 /"}), "has a mark for nothing behind it"),
    ("L30", "in a text", nvidia(after="TODO: numbers"), "'TODO' is left"),
]


@pytest.mark.parametrize(
    ("rule", "text", "message"), [(bad[0], *bad[2:]) for bad in BAD], ids=[" ".join(bad[:2]) for bad in BAD]
)
def test_rule_finds(tmp_path, rule, text, message):
    path = put_by_model(tmp_path, text)

    findings = run(path, select=rule).findings

    assert findings, run(path, select=rule).unchecked
    assert {finding.rule for finding in findings} == {rule}
    assert any(message in finding.message for finding in findings), [finding.message for finding in findings]
    lines = text.split("\n")
    for finding in findings:
        assert 1 <= finding.place.line <= len(lines)
        assert 1 <= finding.place.column <= len(lines[finding.place.line - 1]) + 1


# Rule, what is wrong, report, configurations, text of the finding.
BAD_CONFIGS = [
    ("L07", "other batch", nvidia(good(fix_hp="bs=8")), {"config_A100x1x8.py": "train_batch_size = 4"}, "has bs=4"),
    (
        "L07",
        "no change stated",
        GOOD,
        {"config_A100x1x8.py": "train_batch_size = 256\nlr = 0.1 * 8"},
        "bs=256 (base 32), lr=0.8",
    ),
    ("L07", "lr is not set", nvidia(good(fix_hp="lr=0.72")), CONFIG, "lr=0.1 of resnet50 1.0"),
    (
        "L07",
        "in common",
        GOOD,
        {"config_common.py": "lr = 0.4", "config_A100x1x8.py": "from config_common import *"},
        "lr=0.4",
    ),
    (
        "L07",
        "setting misspelled",
        llm("pipline_parallel_degree=4"),
        {"config_A100x1x8.py": "pipeline_parallel_degree = 4"},
        "'pipline_parallel_degree' is no setting (did you mean 'pipeline_parallel_degree'?)",
    ),
    (
        "L07",
        "steps in the text",
        nvidia(after="本例训练100 step"),
        {"config_A100x1x8.py": "train_steps = 1000"},
        "'训练100 step', but config_A100x1x8.py has 1000 steps",
    ),
    (
        "L07",
        "batch in tokens",
        llm("", llm_row("TP1PP1DP8", fix_hp="LBS=4 GAS=16 (global bs = 2M tokens)")),
        {"config_A100x1x8.py": "seqlength = 2048\nbatchsize = 4\naccumulate_steps = 16"},
        "'global bs = 2M tokens', but LBS x GAS x DP x MPE is 4 x 16 x 8 x 2048 = 1.04858e+06",
    ),
    ("L08", "no 1x8", GOOD, {"config_A100x1x1.py": ""}, "there is no configuration for 1x8"),
    ("L08", "no amp", nvidia(good(precision="amp")), CONFIG, "no configuration for 1x8 sets amp"),
    ("L08", "no dot", GOOD, {**CONFIG, "config_A100x2x8py": "lr = 1"}, "does not end in .py"),
    (
        "L08",
        "module that is nowhere",
        GOOD,
        {"config_A100x1x8.py": "import math\nfrom os import EX_OK\nfrom PEAK import FLOPS\n"},
        "config_A100x1x8.py cannot be loaded: it imports PEAK, which is not in the tree",
    ),
    ("L08", "not Python", GOOD, {"config_A100x1x8.py": "lr ="}, "cannot be loaded: SyntaxError"),
    ("L09", "6 epochs", GOOD, {"config_A100x1x8.py": "max_epoch = 6"}, "stops after 6 of 100 epochs"),
    ("L10", "lower target", GOOD, {"config_A100x1x8.py": "target_acc1 = 32.0"}, "asks for 0.755"),
    ("L14", "tf32", GOOD, {**CONFIG, "environment_variables.sh": "export ACME_USE_TF32=1"}, "ACME_USE_TF32=1"),
    ("L14", "int16", GOOD, {**CONFIG, "environment_variables.sh": "\nX_CONV_GEMM_DTYPE=int16"}, "sh:2 sets X_CONV"),
    ("L27", "no version", GOOD, {"config_A100x1x8.py": "target_acc1 = 75.5"}, "without a version"),
    ("L29", "ignored key", GOOD, {"config_A100x1x8.py": "learning_rate = 0.8"}, "'learning_rate', which nothing reads"),
    ("L32", "no peak", GOOD, {"config_A100x1x8.py": "flops = -1"}, "x1x8.py:1 sets flops to -1; it is at least 1e+12"),
    ("L32", "peak in TFLOPS", GOOD, {"config_A100x1x8.py": "theoryflops = 312.0"}, "sets theoryflops to 312"),
    ("L32", "perplexity below 1", GOOD, {"config_A100x1x8.py": "target_ppl = 0.6"}, "0.6; it is at least 1"),
    (
        "L33",
        "none",
        GOOD,
        {"requirements.txt": "# here\nh5py\nx/y.whl\n"},
        "'无', and requirements.txt installs h5py, y.whl",
    ),
    ("L33", "other", nvidia(facts=NEEDS), {"requirements.txt": "h5py\nfoo==1.2"}, "'bar' is not in requirements.txt"),
    ("L33", "version", nvidia(facts=NEEDS), {"requirements.txt": "bar\nfoo==1.2"}, "requirements.txt has foo==1.2"),
    ("L34", "no file", nvidia(after=SAYS_WHERE), CONFIG, "there is no ds_config.json"),
    ("L34", "no key", nvidia(after=SAYS_WHERE), {"ds_config.json": "{}"}, "there is no seqlength in ds_config.json"),
    (
        "L34",
        "blank behind a backslash",
        nvidia(after="```\npython train.py \\ \n  --epochs 3\n```"),
        CONFIG,
        "a blank behind \\ ends the command",
    ),
    (
        "L34",
        "comment within a value",
        nvidia(after="```\nexport CUDA_VISIBLE_DEVICES=0,1#可用的GPU\n```"),
        CONFIG,
        "'#可用的GPU' is a part of the value of CUDA_VISIBLE_DEVICES",
    ),
    ("L34", "no backslash", nvidia(after=COMMAND), CONFIG, "'python train.py' ends without \\, so that '--epochs 3'"),
    ("L29", "unknown key of TOML", GOOD, {"run.toml": "[hyperparameters]\nbatchsize = 3"}, "did you mean 'batch_size'"),
]


@pytest.mark.parametrize(
    ("rule", "text", "configs", "message"),
    [(bad[0], *bad[2:]) for bad in BAD_CONFIGS],
    ids=[" ".join(bad[:2]) for bad in BAD_CONFIGS],
)
def test_rule_finds_in_configurations(tmp_path, rule, text, configs, message):
    findings = run(put(tmp_path, text, configs=configs), select=rule).findings

    assert any(message in finding.message for finding in findings), [finding.message for finding in findings]


def test_good_report_with_good_configurations_breaks_no_rule(tmp_path):
    rows = [
        good(),
        good(label=MANY["1x1"], e2e_time="/", p_whole="580", p_train="590", p_core="600", acc="/"),
        good(label=MANY["2x8"], e2e_time="/", p_whole="8470", p_train="8586", p_core="8659", acc="/"),
        good(precision="amp", fix_hp="bs=256,lr=0.8", e2e_time="25000", p_whole="5125", p_train="5200", p_core="5300"),
    ]
    configs = {
        "config_common.py": 'vendor: str = "nvidia"\ndist_backend = "nccl"\n',
        "config_A100x1x1.py": "from config_common import *\n",
        "config_A100x1x8.py": "train_batch_size = 32\n",
        "config_A100x1x8_amp.py": "amp = True\ntrain_batch_size = 256\nlr = 0.1 * 8\n",
        "config_A100x2x8.py": "eval_batch_size = 32\n",
        "environment_variables.sh": "export ACME_USE_TF32=0\n",
        "requirements.txt": "# nothing\n",
    }
    curve = "### 收敛曲线\n每个 epoch 末的 acc，3 个种子 ![acc](acc.png)"
    after = f"- {SAYS_TOTAL}\n\n{curve}\n\n[数据](../../benchmarks/resnet50#数据集)"
    path = put(tmp_path, nvidia(*rows, after=after), configs=configs)
    (path.parent / "acc.png").write_bytes(b"")
    (path.parent / "acc.csv").write_text("epoch,acc\n1,0.5\n")
    benchmark = tmp_path / "training" / "benchmarks" / "resnet50"
    benchmark.mkdir(parents=True)
    (benchmark / "README.md").write_text("## 数据集\n", encoding="utf-8")
    test_conf = tmp_path / "training" / "run_benchmarks" / "config" / "test_conf.py"
    test_conf.parent.mkdir(parents=True)
    test_conf.write_text('CASES = {"resnet50:pytorch_1.13:A100:1:8:1": "/data"}\n')

    result = run(path)

    assert [finding.message for finding in result.findings] == []
    assert {each.rule for each in result.unchecked} == {"L28"}


def test_framework_of_another_version_than_the_case_key(tmp_path):
    path = put(tmp_path, nvidia(facts={"训练框架版本": "pytorch-1.8.0a0+52ea372"}))
    test_conf = tmp_path / "training" / "run_benchmarks" / "config" / "test_conf.py"
    test_conf.parent.mkdir(parents=True)
    test_conf.write_text('#"resnet50:pytorch_1.13:A100:1:8:1": "/data",\n"resnet50:pytorch_2.0:MLU370:1:8:1": "",\n')

    (finding,) = run(path, select="L19").findings

    assert "1.13 in the case's key" in finding.message


def test_key_of_the_base_configuration_is_known(tmp_path):
    configs = {"config_A100x1x8.py": "own_key = 1\nlearning_rate = 1\n"}
    path = put(tmp_path, GOOD, configs=configs)
    put_benchmark(tmp_path, "resnet50", "lr = 0.1\nown_key: int = 0\n")

    (finding,) = run(path, select="L29").findings

    assert "config_A100x1x8.py:2 sets 'learning_rate'" in finding.message


def test_target_below_that_of_the_base_configuration_of_a_foreign_case(tmp_path):
    text = nvidia(general={"模型": "bigtransfer"})
    path = put(tmp_path, text, case="bigtransfer-pytorch", configs={"config_A100x1x8.py": "target_acc1 = 0.32\n"})
    assert "not installed" in run(path, select="L10").unchecked[0].reason
    put_benchmark(tmp_path, "bigtransfer", "target_acc1 = 0.83\n")

    (finding,) = run(path, select="L10").findings

    assert finding.message == "config_A100x1x8.py sets target_acc1 to 0.32, the base configuration asks for 0.83"


@pytest.mark.parametrize(
    ("card", "total"),
    [
        ("L40S", "45.0"),
        ("Tesla T4", "15.0"),
        ("Tesla T4", "14.8"),
        ("NVIDIA H200", "140.4"),
        ("NVIDIA H200 MIG 1g.18gb", "16.0"),
        ("NVIDIA A100-10C", "10.0"),
        ("A100 part with 19.9 GiB", "19.9"),
        ("NVIDIA GeForce RTX 4090 D", "12.0"),
    ],
)
def test_memory_that_a_card_or_a_part_of_one_reports_is_no_finding(tmp_path, card, total):
    path = put(tmp_path, nvidia(good(label=f"{card}单机8卡（1x8）", mem=f"9.3/{total}")))

    assert run(path, select="L15").findings == []


def test_declared_shortening_is_no_finding(tmp_path):
    path = put(tmp_path, nvidia(general={"额外修改项": "max_epoch=6"}), configs={"config_A100x1x8.py": "max_epoch = 6"})

    assert run(path, select=("L09", "L11")).findings == []


DECLARED_BELOW = [
    pytest.param("- 1x8：acc 64.0%，低于目标 75.5%", True, id="Chinese"),
    pytest.param("The run did not converge to 75.5%.", True, id="only row"),
    pytest.param("The result is **below the target** 0.755.", True, id="fraction"),
    pytest.param("The run did not converge.", False, id="no target"),
    pytest.param("All results are fine; none is below the target 75.5%.", False, id="negated"),
    pytest.param("acc 未达到目标 75.5% 的情况不存在", False, id="negated in Chinese"),
    pytest.param("- 1x1: acc 64.0%, below the target 75.5%", False, id="another row"),
    pytest.param("The fan was below the target of 75.5 rpm.", False, id="another thing"),
    pytest.param("- 1x8: acc 75.4%, below the target 75.5%", False, id="another result"),
    pytest.param("- 1x8: acc 64.0%, below the target 60.0%", False, id="another target"),
    pytest.param("<!-- 1x8: acc 64.0%, below the target 75.5% -->", False, id="comment"),
    pytest.param("[//]: # (1x8: acc 64.0%, below the target 75.5%)", False, id="definition of a link"),
    pytest.param("See <span hidden>1x8: acc 64.0%, below the target 75.5%</span>", False, id="hidden"),
    pytest.param("<div hidden>\n\n1x8: acc 64.0%, below the target 75.5%\n\n</div>", False, id="hidden block"),
    pytest.param("```\n1x8: acc 64.0%, below the target 75.5%\n```", False, id="code"),
]


@pytest.mark.parametrize(("words", "declares"), DECLARED_BELOW)
def test_result_below_the_target_is_declared_where_a_reader_sees_which_and_how(tmp_path, words, declares):
    found = run(put(tmp_path, nvidia(good(acc="64.0%"), after=words)), select="L12").findings

    assert bool(found) is not declares


@pytest.mark.parametrize("changes", ["epochs: not changed", "<i hidden>6 epochs</i>", "12 of 100 epochs"])
def test_shortening_that_is_not_said_is_found(tmp_path, changes):
    configs = {"config_A100x1x8.py": "max_epoch = 6"}

    assert run(put(tmp_path, nvidia(general={"额外修改项": changes}), configs=configs), select="L09").findings


@pytest.mark.parametrize("result", ["64.0%/60.0%", "76.0%/64.0%"])
def test_target_beside_a_result_is_not_easier_than_that_of_the_case(tmp_path, result):
    found = run(put(tmp_path, nvidia(good(acc=result))), select=("L10", "L12")).findings

    below = ["64.0% is below the target 0.755 of resnet50"] if result < "7" else []
    texts = [each.message for each in sorted(found, key=lambda each: each.rule)]
    assert f"{result[-5:]!r} beside the result" in texts[0]
    assert all(text in message for text, message in zip(below, texts[1:], strict=True))


# Rules that compare with records.
def record_of(**changes):
    own = {"vendor__name": "nvidia", "environment__row_label": "A100", "environment__torch": "1.13.1+cu117"}
    return make_record(**{**own, **changes})


@pytest.mark.parametrize(
    ("rule", "changes", "message"),
    [
        (
            "L07",
            {"hyperparameters__changes": [{"key": "batch_size", "base": 32, "value": 64, "origin": "vendor"}]},
            "had 'bs=64'",
        ),
        (
            "L02",
            {"metrics__e2e_time_s": 10.0},
            "metrics.train_seconds is 28600, e2e_time_s allows at most 10",
        ),
        ("L09", {"limits": {"max_epochs": 3}}, "was shortened"),
        ("L19", {"environment__torch": "2.7.0"}, "2.7 in the records"),
        ("L27", {"case__version": "0.9"}, "the case is 1.0 now"),
        ("L28", {"metrics_version": METRICS_VERSION - 1}, "follows metric definitions"),
    ],
)
def test_rule_finds_against_records(tmp_path, rule, changes, message):
    path = put(tmp_path, GOOD)

    assert run(path, select=rule, records=[record_of()]).findings == []
    finding, *_ = run(path, select=rule, records=[record_of(**changes)]).findings
    assert message in finding.message


NOISY = {"p_train": 4586.0, "p_core": 4300.0, "p_whole": 4475.0}


@pytest.mark.parametrize(("spread", "found"), [(0.001, True), (0.1, False)])
@pytest.mark.parametrize("evidence", ["record", "report"])
def test_order_of_throughputs_within_what_their_windows_spread(tmp_path, spread, found, evidence):
    """L02 takes the spread from the record, or from the table of a rendered report."""
    record = record_of(
        metrics__p_train=throughput(NOISY["p_train"], spread=spread),
        metrics__p_core=throughput(NOISY["p_core"], spread=spread),
    )
    text = render_report([record], language="en") if evidence == "report" else nvidia(good(p_core="4300"))
    path = put(tmp_path, text)

    findings = run(path, select="L02", records=[record] if evidence == "record" else []).findings

    assert any("p_core 4300 is less than p_train 4586" in finding.message for finding in findings) is found
    assert bool(findings) is found


def test_throughput_that_its_spread_rounds_finds_its_record(tmp_path):
    """The cells are rounded to ``4586`` and ``4300``, and the page is without its evidence."""
    record = record_of(metrics__p_train=throughput(4586.4, spread=0.1), metrics__p_core=throughput(4300.3, spread=0.1))
    published, _, _ = render_report([record], language="en").partition("### Evidence")
    path = put(tmp_path, published)

    assert "| 4586 | 4300 |" in published
    assert run(path, select="L02").findings
    assert run(path, select="L02", records=[record]).findings == []


@pytest.mark.parametrize(
    ("rule", "changes", "message"),
    [
        ("L11", {"metrics__epochs": 50}, "metrics.epochs is 50"),
        ("L12", {"metrics__best_quality": 0.5}, "best_quality allows at most 0.5"),
        ("L15", {"metrics__memory__device_peak_bytes": 2**40}, "device_peak_bytes (GiB) is 1024"),
    ],
)
def test_rule_finds_what_cannot_be_true_in_a_record(tmp_path, rule, changes, message):
    path = put(tmp_path, GOOD)

    assert message in run(path, select=rule, records=[record_of(**changes)]).findings[0].message


def test_rule_finds_runs_that_scale_too_well(tmp_path):
    records = [record_of(), record_of(run_id="two", topology__nnodes=2, metrics__p_train=throughput(20_000.0))]

    (finding,) = run(put(tmp_path, GOOD), select="L17", records=records).findings

    assert "run two: p_train on 16 cards is 218% of what 8 cards allow" in finding.message


def test_report_of_chipperf_against_a_record_of_flagperf(tmp_path):
    path = put(tmp_path, "<!-- chipperf report template 1 -->\n" + GOOD)

    (finding,) = run(path, select="L28", records=[record_of(metrics_definition="flagperf")]).findings

    assert "follows the definitions of flagperf" in finding.message


# Rules that compare documents.
def test_environment_and_numbers_that_two_vendors_share(tmp_path):
    own = put(tmp_path, GOOD)
    copy = put(tmp_path, of_metax(GOOD), vendor="metax")

    result = run(own, copy, select="L26")

    assert {finding.file for finding in result.findings} == {str(copy)}
    messages = [finding.message for finding in result.findings]
    assert any("facts of the environment are those of" in message for message in messages)
    assert any("numbers are those of" in message for message in messages)
    assert run(own, select="L26").findings == []


def of_metax(text):
    return text.replace("A100", "MXC500").replace("NVIDIA DGX", "MetaX server").replace("NVIDIA", "MetaX")


def test_environment_that_names_another_vendors_card_is_the_copy(tmp_path):
    """The first of them in the lint is the copy, and each of three originals has the same environment."""
    copy = put(tmp_path, nvidia(good(label="MXC500单机8卡（1x8）")), vendor="metax")
    originals = [put(tmp_path, GOOD, case=f"resnet50-{name}") for name in ("pytorch", "paddle", "mindspore")]

    (finding,) = [each for each in run(copy, *originals, select="L26").findings if "facts" in each.message]

    assert finding.file == str(copy)
    assert f"{originals[0]} and 2 more reports of nvidia" in finding.message


def test_environment_of_the_vendor_with_more_such_reports_is_the_original(tmp_path):
    copy = put(tmp_path, of_metax(GOOD), vendor="metax")
    originals = [put(tmp_path, GOOD, case=f"resnet50-{name}") for name in ("pytorch", "paddle")]

    assert {each.file for each in run(copy, *originals, select="L26").findings} == {str(copy)}


@pytest.mark.parametrize(("own", "found"), [("5.4.0-26-generic", 0), ("5.4.0-113-generic", 1)])
def test_kernel_of_another_vendor_in_one_of_several_reports(tmp_path, own, found):
    """What two vendors share says nothing; what one report shares with another vendor, and not with its own, does."""
    system = {"OS版本": "Ubuntu 20.04"}
    text = of_metax(nvidia(facts={**system, "OS kernel版本": "5.4.0-26-generic"}))
    usual = [put(tmp_path, text, vendor="metax", case=f"resnet50-{name}") for name in ("paddle", "mindspore")]
    odd = put(tmp_path, text.replace("5.4.0-26-generic", own), vendor="metax")
    other = put(tmp_path, nvidia(facts={**system, "OS kernel版本": "5.4.0-113-generic"}))

    findings = run(*usual, odd, other, select="L20").findings

    assert [finding.file for finding in findings] == [str(odd)] * found
    assert all("2 other reports on this accelerator have '5.4.0-26-generic'" in each.message for each in findings)


@pytest.mark.parametrize(("reports", "found"), [(1, 0), (2, 1)])
def test_network_that_differs_from_that_of_most_reports(tmp_path, reports, found):
    cases = ["resnet50-pytorch", "resnet50-paddle"][:reports]
    usual = [put(tmp_path, GOOD, case=case) for case in cases]
    odd = put(tmp_path, nvidia(facts={"多机网络类型、带宽": "InfiniBand，2x200Gb/s"}), case="detr-pytorch")

    assert [finding.file for finding in run(*usual, odd, select="L20").findings] == [str(odd)] * found


@pytest.mark.parametrize(
    ("reports", "base", "found"),
    [
        pytest.param(("ppl", "mlm_acc"), "", [], id="one of two"),
        pytest.param(("ppl", "ppl", "mlm_acc"), "", [2], id="one of three"),
        pytest.param(("ppl", "mlm_acc"), "target_ppl = 54.2", [1], id="the base tells"),
        pytest.param(("ppl", "mlm_acc", "mlm_acc"), "target_ppl = 54.2", [], id="most but the base"),
        pytest.param(("mlm_acc",), "target_ppl = 54.2", [], id="one against the base"),
        pytest.param(("mlm_acc", "mlm_acc"), "target_ppl = 54.2", [], id="all but the base"),
    ],
)
def test_metric_of_another_kind_than_that_of_a_foreign_case(tmp_path, reports, base, found):
    vendors = ("nvidia", "metax", "kunlunxin")
    paths = []
    for vendor, metric in zip(vendors, reports, strict=False):
        general = {"模型": "xl", "训练结果": (f"{metric},见“性能指标”", "")}
        text = nvidia(general=general, header=(*HEADERS[:7], metric, "mem"))
        paths.append(put(tmp_path, text, vendor=vendor, case="xl-pytorch"))
    if base:
        put_benchmark(tmp_path, "xl", base)

    findings = run(*paths, select="L13").findings

    assert [finding.file for finding in findings] == [str(paths[index]) for index in found]


def test_notation_of_another_kind_than_other_reports_of_a_foreign_case(tmp_path):
    cells = {"nvidia": "80.1%", "metax": "79.8%", "kunlunxin": "0.793"}
    paths = [
        put(tmp_path, other_case(good(acc=acc)), vendor=vendor, case="vit-pytorch") for vendor, acc in cells.items()
    ]

    (finding,) = run(*paths, select="L13").findings

    assert finding.file == str(paths[2])
    assert finding.message == "'0.793' is a fraction, in 2 other reports of vit it is a percentage"
    assert run(*paths[1:], select="L13").findings == []


@pytest.mark.parametrize(
    ("results", "base", "found"),
    [
        pytest.param(("81.1",), None, 0, id="nothing to compare with"),
        pytest.param(("81.1",), "target_acc1 = 79.9", 0, id="the base in percent"),
        pytest.param(("81.1",), "target_acc1 = 0.799", 1, id="the base as a fraction"),
        pytest.param(("81.1", "80.2", "80.3%"), None, 0, id="most without a sign"),
        pytest.param(("81.1", "80.2%", "80.3%"), None, 1, id="others with a sign"),
    ],
)
def test_percentage_without_a_sign_of_a_foreign_case(tmp_path, results, base, found):
    vendors = ("nvidia", "metax", "kunlunxin")
    paths = [
        put(tmp_path, other_case(good(acc=acc)), vendor=vendor, case="vit-pytorch")
        for vendor, acc in zip(vendors, results, strict=False)
    ]
    if base:
        put_benchmark(tmp_path, "vit", base)

    findings = run(*paths, select="L13").findings

    assert [(each.file, each.message) for each in findings] == [
        (str(paths[0]), "row 'A100单机8卡（1x8）': '81.1' is more than 1 and has no %")
    ] * found


@pytest.mark.parametrize(
    ("totals", "expected"),
    [
        pytest.param(("64.0", "64", "25"), ["total 25 GiB; zx9 has 64 GiB in 2 other reports"], id="odd one out"),
        pytest.param(("64.0", "25", "23"), [], id="no majority"),
        pytest.param(("64.0", "64"), [], id="alike"),
    ],
)
def test_total_of_a_card_in_other_reports(tmp_path, totals, expected):
    cases = ("resnet50", "vit", "detr")
    paths = [
        put(tmp_path, old_card(f"6/{total}"), case=f"{case}-pytorch")
        for case, total in zip(cases, totals, strict=False)
    ]

    assert [finding.message for finding in run(*paths, select="L15").findings] == expected


def test_memory_full_to_the_last_percent_of_a_total_that_other_reports_have(tmp_path):
    paths = [put(tmp_path, old_card("63.9/64.0"), case=f"{case}-pytorch") for case in ("resnet50", "vit")]

    assert run(*paths, select="L15").findings == []


def test_model_of_another_case_than_the_directory(tmp_path):
    text = other_case()
    path = put(tmp_path, text, case="bigtransfer-pytorch")
    assert run(path, select="L31").findings == []
    beside = put(tmp_path, text, case="vit-pytorch")
    names_cache.cache_clear()

    result = run(path, beside, select="L31")

    assert [finding.file for finding in result.findings] == [str(path)]
    assert result.findings[0].message == "model 'vit' is that of another case; the directory is 'bigtransfer'"


@pytest.mark.parametrize(
    ("vendor", "accelerator", "short", "configs", "found"),
    [
        ("iluvatar", "天数智芯 Bi-150", "BI-V150", {}, ["one card is written 'Bi-150' and 'BI-V150'"]),
        (
            "iluvatar",
            "BI-V150",
            "BI-V150",
            {"config_BI-150x1x8.py": ""},
            ["one card is written 'BI-150' and 'BI-V150'"],
        ),
        ("metax", "曦云C500 64G", "MXC500", {}, []),
        ("metax", "MetaX MXC500", "MXC500", {"config_mxc500x1x8.py": ""}, []),
    ],
)
def test_card_in_two_spellings(tmp_path, vendor, accelerator, short, configs, found):
    text = nvidia(
        good(label=f"{short} 单机8卡（1x8）"), facts={"加速卡型号": accelerator}, general={"硬件设备简称": short}
    )

    result = run(put(tmp_path, text, vendor=vendor, configs=configs), select="L03")

    assert [(finding.message, finding.severity) for finding in result.findings] == [(each, "warning") for each in found]


def test_name_of_a_card_within_a_longer_one_is_no_other_spelling(tmp_path):
    text = nvidia(
        good(label="S4000单机8卡（1x8）"), facts={"加速卡型号": "MTT S4000"}, general={"硬件设备简称": "mtt s4000"}
    )

    assert run(put(tmp_path, text, vendor="mthreads"), select="L03").findings == []


@pytest.mark.parametrize(
    ("case", "general", "framework", "base", "found"),
    [
        ("dlrm-pytorch", "Criteo 1T", "pytorch-1.13", "data = 'criteo.bin'", []),
        ("dlrm-pytorch", "Wikipedia", "pytorch-1.13", "", ["dataset 'Wikipedia'; README.md of the case names criteo"]),
        (
            "dlrm-pytorch",
            "Criteo 1T",
            "pytorch-1.13",
            "data = 'wikipedia.bin'",
            ["dataset 'Criteo 1T'; the base configuration of the case names wikipedia"],
        ),
        (
            "dlrm-pytorch",
            "Criteo",
            "deepspeed 0.13",
            "",
            ["framework 'deepspeed 0.13'; the case of the directory is for pytorch"],
        ),
        (
            "dlrm",
            "Criteo",
            "XTorch 1.12",
            "",
            ["the directory is not called dlrm-pytorch, so that nothing runs the case from it"],
        ),
    ],
)
def test_dataset_framework_and_name_of_the_directory(tmp_path, case, general, framework, base, found):
    put_benchmark(tmp_path, "dlrm", base)
    (tmp_path / "training" / "benchmarks" / "dlrm" / "README.md").write_text("Criteo\n")
    text = nvidia(general={"模型": "dlrm", "数据集": general}, facts={"训练框架版本": framework})

    result = run(put(tmp_path, text, case=case), select="L31")

    assert [finding.message for finding in result.findings] == found


def test_directory_without_a_framework_has_the_case_of_that_name(tmp_path):
    put_benchmark(tmp_path, "dlrm", "train_batch_size = 8")
    path = put(tmp_path, nvidia(good(fix_hp="bs=32")), case="dlrm", configs={"config_A100x1x8.py": ""})

    (finding,) = run(path, select="L07").findings

    assert finding.message.endswith("config_A100x1x8.py has bs=8 of the base configuration")


@pytest.mark.parametrize(("value", "found"), [("https://pip.example", True), ("https://other.example", False)])
def test_advice_to_set_what_is_set(tmp_path, value, found):
    path = put(tmp_path, nvidia(after=f"将`training/conf.py`里的`PIP_SOURCE`的值修改为`{value}`"), configs=CONFIG)
    (tmp_path / "training" / "conf.py").write_text('PIP_SOURCE = "https://pip.example"\n')

    messages = [finding.message for finding in run(path, select="L34").findings]

    assert messages == (["PIP_SOURCE is 'https://pip.example' in training/conf.py already"] if found else [])


def test_directory_tells_the_case_and_the_vendor(tmp_path):
    """The text is that of another case and another vendor."""
    path = put(tmp_path, nvidia(good(acc="68.0%")), vendor="metax", case="mobilenetv2-pytorch")

    assert "68.0% is below the target 0.686 of mobilenetv2" in run(path, select="L12").findings[0].message
    assert "the report is metax's" in run(path, select="L01").findings[0].message


def test_phrases_for_two_machines_that_differ(tmp_path):
    one = put(tmp_path, nvidia(good(label="A100两机8卡（2x8）")))
    other = put(tmp_path, nvidia(good(label="A100两机16卡（2x8）")), case="detr-pytorch")

    (finding,) = run(one, other, select="L06").findings

    assert "elsewhere it is '两机16卡'" in finding.message


# What must not be found.
@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("L03", nvidia(facts={"加速卡型号": "NVIDIA A100-SXM4-80GB"})),
        ("L03", nvidia(good(), good(label="A800单机8卡（1x8）"), after="- A800 硬件环境\n  - 加速卡型号: NVIDIA A800")),
        ("L02", nvidia(good(), good(label=MANY["2x8"], p_whole="7000", p_train="11440", p_core="11500"))),
        ("L05", nvidia(after="格式为TPxPPyDPz，例如TP2PP1DP8")),
        ("L05", nvidia(after="- 实施细节：PP4DP2TP1")),
        ("L05", nvidia(good(label="A100单机8卡（1x8*40G）"))),
        ("L05", nvidia(good(label="A100 2x8 (16卡)"))),
        ("L05", nvidia(good(label="1x8"))),
        (
            "L02",
            llm("TP8", llm_row(), llm_row(tokens="3000", mfu="23.1%"), llm_row(label="H100单机8卡（1x8）", mfu="9%")),
        ),
        ("L02", llm("TP8", llm_row(), llm_row(fix_hp="MPE=4096", tokens="3000", mfu="26.1%"))),
        ("L02", llm("TP8", llm_row(), llm_row(tokens="3455", mfu="26.5%"))),
        ("L04", nvidia(after="### 环境\n\n#### 硬件\ntext")),
        ("L05", llm("TP2PP1DP4", general={"parallel": ("parallel,见“性能指标”", "格式为TPxPPyDPz")})),
        ("L13", other_case(good(acc="0.27"), general={"训练结果": ("acc,见“性能指标”", "0到1")})),
        ("L13", detr(good(acc="0.42"), general={"训练结果": ("mAP,见“性能指标”", "平均精度的均值")})),
        ("L30", nvidia(after="### A\n- one\n\n### A\n- other\n\nthat that is, is")),
        ("L05", nvidia(good(label="H1008卡（1x8）"))),
        ("L13", nvidia(header=(*HEADERS[:3], "e2e_time(s)", *HEADERS[4:]))),
        ("L13", nvidia(general={"总吞吐量": ("p_whole", "单位为samples/s(seq_length=512)")})),
        ("L14", nvidia(good(precision='fp16, level="O2"'))),
        ("L05", llm("PP2DP2TP2")),
        ("L06", nvidia(good(label="A100四机32卡"))),
        ("L12", other_case(good(acc="0.651/0.650"))),
        ("L12", other_case(good(acc="22.7/23.0"), header=(*HEADERS[:7], "ppl", "mem"))),
        ("L13", llm("TP8")),
        ("L13", other_case(good(acc="0.38 && 0.34"), header=(*HEADERS[:7], "map_bbox && map_segm", "mem"))),
        ("L15", nvidia(good(mem="19.3/80.0"), facts={"加速卡型号": "NVIDIA A100-SXM4-80GB"})),
        ("L15", nvidia(good(mem="19.3/80.0"), facts={"加速卡型号": "A800-80GB"})),
        ("L15", nvidia(good(mem="39.6/40.0"))),
        ("L16", nvidia(good(), good(label=MANY["1x1"], mem="29.3/40.0"), after="embedding table 为模型并行")),
        ("L16", nvidia(good(), good(label="A100单机8卡（1x8）（finetune）", mem="39.0/40.0"))),
        ("L24", llm("TP8")),
        ("L25", llm("TP8")),
        ("L25", nvidia(good(acc="0.641/0.650"))),
        ("L25", nvidia(good(acc="-5.72"), header=(*HEADERS[:7], "loss", "mem"))),
        ("L20", nvidia(facts={"OS版本": "Ubuntu 20.04.6 LTS", "OS kernel版本": "5.4.0-26"})),
        ("L30", nvidia(facts={"机器型号": "DGX: A100"})),
        ("L30", nvidia(after="|监控项| 格式 |\n|---|---|\n| 温度 | xxx C |")),
        ("L04", nvidia(good(p_core="未运行", acc="未公开(保密)", mem="未知", e2e_time="/"))),
        ("L05", nvidia(good(label="A100两机16卡（2x8）"))),
        ("L06", nvidia(good(label="A100 two machines, 8 cards each (2x8)"))),
        ("L11", nvidia(good(e2e_time="20000"))),
        ("L16", nvidia(good(), good(label=MANY["1x1"], fix_hp="bs=256", mem="29.3/40.0"))),
        ("L17", nvidia(good(), good(label=MANY["1x1"], fix_hp="bs=256", p_core="100"))),
        ("L23", nvidia(after="[x](../../elsewhere/README.md) [y](https://x.example/#z) [z](mailto:a@b.example)")),
        ("L23", nvidia(after="### 数据集 下载\n[x](#数据集-下载)")),
        ("L23", nvidia(after="### [Data](https://x.example/) set\n[x](#data-set)")),
        ("L23", nvidia(after='<a id="Data"></a>\n\n[x](#data)')),
        ("L25", nvidia(good(e2e_time="1,234.5", p_core="4659 images/s"))),
        ("L25", nvidia(good(e2e_time="未公开（保密）"))),
    ],
)
def test_rule_is_silent(tmp_path, rule, text):
    assert run(put_by_model(tmp_path, text), select=rule).findings == []


def test_data_of_a_figure_whose_address_has_escapes(tmp_path):
    path = put_by_model(tmp_path, nvidia(after="### 收敛曲线\n![3 seeds](my%20acc.png?raw=true)"))
    path.with_name("my acc.csv").write_text("epoch,acc\n1,0.1\n")

    assert run(path, select="L22").findings == []


def test_every_rule_is_tested_with_a_mistake():
    elsewhere = {"L19", "L26", "L28", "L31"}

    assert {bad[0] for bad in (*BAD, *BAD_CONFIGS)} | elsewhere == {rule.id for rule in all_rules()}
    assert [rule.id for rule in all_rules()] == [f"L{number:02}" for number in range(1, 35)]


def test_without_evidence_a_rule_is_listed_and_not_passed(tmp_path):
    path = tmp_path / "a" / "b" / "README.md"
    path.parent.mkdir(parents=True)
    path.write_text(readme(changed(label="Zeta单机8卡（1x8）"), general={"模型": "bert"}), encoding="utf-8")

    unchecked = {each.rule: each.reason for each in run(path).unchecked}

    assert set(unchecked) >= {"L01", "L07", "L08", "L09", "L10", "L11", "L12", "L19", "L27", "L28", "L29"}
    assert "--vendor" in unchecked["L01"]
    assert "--config" in unchecked["L07"]


def test_a_copied_short_name_does_not_tell_whose_report_it_is(tmp_path):
    path = tmp_path / "acme" / "resnet50-pytorch" / "README.md"
    path.parent.mkdir(parents=True)
    title, facts = "ACME Z1 配置与运行信息参考", {"机器型号": "ACME Server", "加速卡型号": "ACME Z1"}
    path.write_text(nvidia(good(label="Z1单机8卡（1x8）"), title=title, facts=facts), encoding="utf-8")

    unchecked = {each.rule: each.reason for each in run(path).unchecked}

    assert "--vendor" in unchecked["L03"]
    findings = run(path, vendor="acme").findings
    assert any(finding.rule == "L01" and "'A100' of nvidia" in finding.message for finding in findings)


@pytest.mark.parametrize(
    ("result", "found"),
    [
        ("0.376 && 0.336", ["0.376 && 0.336 is below the target 0.38 of the base configuration, without a word"]),
        (
            "38.4 && 33.6",
            ["38.4 && 33.6 is below the target 0.34 of target_map_segm in the base configuration, without a word"],
        ),
        ("0.384 && 0.346", []),
    ],
)
def test_each_of_several_results_is_compared_with_its_own_target(tmp_path, result, found):
    general = {"模型": "mask_rcnn", "训练结果": ("map_bbox && map_segm,见“性能指标”", "")}
    text = nvidia(good(acc=result), header=(*HEADERS[:7], "map_bbox && map_segm", "mem"), general=general)
    path = put(tmp_path, text, case="mask_rcnn-pytorch")
    put_benchmark(tmp_path, "mask_rcnn", "target_map_bbox = 0.38\ntarget_map_segm = 0.34\n")

    assert [finding.message for finding in run(path, select="L12").findings] == found


def test_result_of_no_named_metric_is_compared_with_the_only_target(tmp_path):
    row = ("单机8卡", "config_A100x1x8", "1", "/", "0.669", "4", "5")
    path = put(tmp_path, old(row), case="bert-pytorch")
    put_benchmark(tmp_path, "bert", "target_mlm_accuracy = 0.67\n")

    (finding,) = run(path, select="L12").findings

    assert finding.message == "0.669 is below the target 0.67 of the base configuration, without a word"


@pytest.mark.parametrize(("anchor", "found"), [("#run.sh", True), ("#L3", False), ("#L3-L5", False), ("", False)])
def test_anchor_in_a_source(tmp_path, anchor, found):
    path = put(tmp_path, nvidia(after=f"[x](config/run.sh{anchor})"), configs={"run.sh": "true\n"})

    messages = [finding.message for finding in run(path, select="L23").findings]

    assert messages == ([f"config/run.sh is no page with headings such as {anchor!r}"] if found else [])


@pytest.mark.parametrize(
    ("case", "changes", "found"),
    [
        ("zeta_7b", {"general": {"模型": "zeta"}}, ["model 'zeta' is of no size; the directory is 'zeta_7b'"]),
        ("zeta_7b", {"general": {"模型": "Zeta-7B"}}, []),
        (
            "zeta_8x7b",
            {"general": {"模型": "zeta_8*7B"}},
            ["model 'zeta_8*7B' is written 'zeta_8x7b' in the directory"],
        ),
        (
            "zeta_7b",
            {"general": {"模型": "zeta_7b"}, "after": "```\nexport case_name=zeta_13b\n```"},
            ["the command runs 'zeta_13b'; the directory is 'zeta_7b'"],
        ),
        ("zeta_7b", {"general": {"模型": "zeta_7b"}, "after": "`--case_name zeta_7B`"}, []),
    ],
)
def test_size_of_the_model_and_case_of_the_commands(tmp_path, case, changes, found):
    path = put(tmp_path, nvidia(**changes), case=f"{case}-pytorch")

    assert [finding.message for finding in run(path, select="L31").findings] == found


def test_rows_of_another_size_and_directory_in_another_spelling(tmp_path):
    heading = ("Zeta-13B", *["---"] * 8)
    text = nvidia(good(), heading, good(), good(label=MANY["1x1"]), general={"模型": "zeta_7b"})
    path = put(tmp_path, text, case="zeta_7b-pytorch")
    put_benchmark(tmp_path, "Zeta_7b", "lr = 1\n")

    messages = [finding.message for finding in run(path, select="L31").findings]

    assert messages == [
        "the directory is called zeta_7b-pytorch, the benchmark Zeta_7b: nothing finds it",
        "the rows of 'Zeta-13B' are of another case than 'zeta_7b'",
    ]


def test_batch_in_tokens_that_fix_hp_does_not_state(tmp_path):
    configs = {"config_A100x1x8.py": "max_tokens = 10240\n"}
    path = put(tmp_path, nvidia(general={"模型": "zeta"}), case="zeta-pytorch", configs=configs)
    put_benchmark(tmp_path, "zeta", "max_tokens = 5120\n")

    (finding,) = run(path, select="L07").findings

    assert finding.message == "1x8 fp32: fix_hp '/', but config_A100x1x8.py has max_tokens=10240 (base 5120)"


@pytest.mark.parametrize(("batch_of_one_card", "found"), [(256, 1), (32, 0)])
def test_memory_that_no_batch_size_explains_is_not_compared(tmp_path, batch_of_one_card, found):
    configs = {
        "config_A100x1x8.py": "train_batch_size = 32\n",
        "config_A100x1x1.py": f"train_batch_size = {batch_of_one_card}\n",
    }
    path = put(tmp_path, nvidia(good(), good(label=MANY["1x1"], mem="29.3/40.0")), configs=configs)

    assert len(run(path, select="L16").findings) == found


def test_rows_change_the_configuration_that_another_row_is_as(tmp_path):
    rows = [
        llm_row("TP1PP1DP8", fix_hp="/"),
        llm_row("TP2PP1DP4", fix_hp="GAS=16"),
    ]
    configs = {"config_A100x1x8.py": "accumulate_steps = 4\ntensor_parallel = 1\npipeline_parallel = 1\n"}
    path = put(tmp_path, llm("", *rows), case="llama-pytorch", configs=configs)
    alone = put(tmp_path / "other", llm("", rows[1]), case="llama-pytorch", configs=configs)

    assert [finding.message for finding in run(path, select="L07").findings] == []
    assert [finding.message for finding in run(alone, select="L07").findings] == [
        "'TP2PP1DP4', but config_A100x1x8.py has TP=1",
        "1x8 fp32: fix_hp 'GAS=16', but config_A100x1x8.py has gradient_accumulation_steps=4",
    ]


@pytest.mark.parametrize(
    ("rule", "text", "config"),
    [
        ("L07", GOOD, "import os\nlr = float(os.environ['LR'])\n"),
        ("L07", GOOD, "from elsewhere import *\n"),
        ("L08", nvidia(good(precision="amp")), "import os\namp = bool(os.environ.get('AMP'))\n"),
        ("L08", GOOD, "import os\nfp16 = bool(os.environ.get('HALF'))\n"),
    ],
)
def test_setting_that_cannot_be_read_is_not_checked(tmp_path, rule, text, config):
    result = run(put(tmp_path, text, configs={"config_A100x1x8.py": config}), select=rule)

    assert result.findings == []
    (unchecked,) = result.unchecked
    assert unchecked.reason.startswith("config_A100x1x8.py:")
    assert unchecked.reason.endswith(" cannot be read")

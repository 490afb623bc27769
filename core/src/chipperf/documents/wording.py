"""Names of headings, facts, rows and columns in case documents.

A phrase is the text in chipperf's own reports, in all languages. Plain texts are other names that vendors use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from chipperf.languages import LANGUAGES, Language, Phrase, in_all_languages, in_language, pattern, phrase
from chipperf.records.columns import columns_of

_FILLING: Final = re.compile(r"[\s、,，/&和*_`:：()（）\[\]【】·.-]")
_BRACKETED_END: Final = re.compile(r"\s*[（(][^（）()]*[）)]?\s*$")
_IN_BRACKETS_AT_END: Final = re.compile(r"[（(]([^（）()]*)[）)]?\s*$")
_NUMBERING: Final = re.compile(r"^\d+[.、)\s]\s*")


def normal(text: str) -> str:
    """Return a label without case, spaces, punctuation and the word for "and"."""
    return _FILLING.sub("", text).casefold()


def without_unit(text: str) -> str:
    """Return a header without a unit in brackets at its end: ``mem(actual/total)`` gives ``mem``."""
    return _BRACKETED_END.sub("", text) or text


def in_brackets(text: str) -> str:
    """Return the text in brackets at the end of a header, such as a unit; empty if there is none."""
    match = _IN_BRACKETS_AT_END.search(text)
    return match[1] if match else ""


def _labels(spellings: Iterable[Phrase | str]) -> set[str]:
    return {normal(label) for spelling in spellings for label in in_all_languages(spelling)}


def _by_label(labels: Mapping[str, tuple[Phrase | str, ...]]) -> Mapping[str, str]:
    return {label: key for key, spellings in labels.items() for label in _labels(spellings)}


FACTS: Final = _by_label(
    {
        "machine": (phrase("Machine"), "机器", "服务器型号", "Machine model", "Server"),
        "card_title": (phrase("Accelerator"), "计算卡型号", "GPU型号", "NPU型号", "Accelerator model", "Card"),
        "machine_and_card": ("机器、加速卡型号", "机器/加速卡型号", "Machine, accelerator"),
        "network": (
            phrase("Network between machines, bandwidth"),
            "多机网络",
            "网络类型、带宽",
            "Network type and bandwidth",
            "Network",
        ),
        "os": (phrase("OS version"), "操作系统版本", "操作系统", "OS"),
        "kernel": (phrase("OS kernel version"), "kernel版本", "内核版本", "Kernel version", "Kernel"),
        "driver": (phrase("Accelerator driver version"), "驱动版本", "Driver version", "Driver"),
        "container": (phrase("Docker image and version"), "Docker版本", "Docker镜像", "Docker version", "Docker image"),
        "framework": (phrase("Training framework version"), "框架版本", "Framework version", "Framework"),
        "compiler": (phrase("Training compiler version"), "编译器版本", "Compiler version"),
        "dependencies": (phrase("Dependencies", context="versions"), "依赖软件", "Dependency versions"),
    }
)
"""Field of the record's environment by the label of the fact."""

GENERAL: Final = _by_label(
    {
        "task": (phrase("Task"), "任务类型"),
        "model": (phrase("Model"), "模型名称"),
        "dataset": (phrase("Dataset"),),
        "precision": (phrase("Precision", context="general"),),
        "fix_hp": (phrase("Hyperparameter changes"),),
        "card_short_name": (phrase("Device, short name"), "设备简称", "Device short name"),
        **{column.key: column.headers for column in columns_of("legend")},
        "changes": (phrase("Additional changes"),),
    }
)
"""Kind of a row of the general table by its label."""

COLUMNS: Final = _by_label(
    {
        "configuration": (phrase("Configuration"), "训练资源", "资源"),
        "config_file": ("配置文件", "config", "Configuration file"),
        "precision": ("precision", "数据精度", "精度"),
        "fix_hp": ("fix_hp", "fix hp", "超参修改"),
        **{column.key: column.headers for column in columns_of("report")},
        "target": ("目标精度", "target"),
        "steps": ("Steps数", "steps", "step数"),
        "epochs": ("epoch数", "epochs", "Epochs数"),
        "parallel": ("parallel", "parallel_strategy", "并行策略", "并行"),
        "tokens": ("token/p/s", "tokens/p/s", "tokens/s", "token/s", "tgs"),
        "mfu": ("MFU", "计算使用率"),
        "aligned": ("是否精度对齐", "精度对齐", "aligned"),
    }
)
"""Name of a column of the performance table by its header.

``tokens`` is a throughput in tokens per second, of one card or of all: no throughput in samples stands in it.
"""

_QUALITIES: Final = {
    "accuracy": ("acc", "acc1", "acc5", "top1", "top5", "accuracy", "准确率"),
    "mean average precision": ("map", "bboxmap", "segmmap", "mapbbox", "mapsegm", "平均精度"),
    "panoptic quality": ("pq", "panopticquality", "全景质量"),
    "perplexity": ("ppl", "perplexity", "困惑度"),
    "loss": ("loss",),
    "error rate": ("wer", "cer"),
    "squared error": ("mse",),
    "signal-to-noise ratio": ("psnr",),
    "other": ("auc", "bleu", "rouge", "rouge1", "rouge2", "rougel", "rougelsum", "f1", "dice", "nuv"),
}
_RANK: Final = re.compile(r"(?:top[-_ ]?|acc)(\d)(?!\d)", re.IGNORECASE)
_NO_FRACTIONS: Final = ("perplexity", "loss", "squared error", "signal-to-noise ratio")
_RESULT: Final = ("收敛", "最终")
_TARGET: Final = "目标"
_QUALIFIED: Final = re.compile(
    rf"(?:final|best|eval|valid|validation|val|test|train|masked|mlm|lambada|lm|{_TARGET}|{'|'.join(_RESULT)})*"
    r"(.+?)(?:精度|数值|值|value|score)?"
)
_TOKENS: Final = re.compile(r"token", re.IGNORECASE)


def quality_kind(header: str) -> str | None:
    """Return the kind of quality that a column's header or a metric's name means, or ``None``.

    Of several results in one column it is the kind of the first one.

    >>> quality_kind("final_acc1"), quality_kind("收敛精度(mAP)"), quality_kind("map_bbox && map_segm")
    ('accuracy', 'mean average precision', 'mean average precision')
    """
    return _find_quality(header)[0]


def metric_name(header: str) -> str | None:
    """Return the metric that a column's header means: its kind, or its name if it is of no kind; ``None`` if unknown.

    >>> metric_name("ppl"), metric_name("final_bleu"), metric_name("power")
    ('perplexity', 'bleu', None)
    """
    kind, name = _find_quality(header)
    return name if kind == "other" else kind


def _find_quality(header: str) -> tuple[str | None, str | None]:
    for text in (without_unit(header), in_brackets(header)):
        if match := _QUALIFIED.fullmatch(normal(text.partition("&")[0])):
            for kind, names in _QUALITIES.items():
                if match[1] in names:
                    return kind, match[1]
    return None, None


def ranks(text: str) -> set[int]:
    """Return among how many guesses the accuracies in a text count one that is right.

    >>> ranks("final_acc5"), ranks("Top-1 accuracy"), ranks("acc")
    ({5}, {1}, set())
    """
    return {int(rank) for rank in _RANK.findall(text)}


def is_fraction(kind: str | None) -> bool:
    """Return whether results of a kind are fractions. A loss or a perplexity is a number of its own."""
    return kind not in _NO_FRACTIONS


def column_name(header: str) -> str | None:
    """Return the name of the performance table's column with a header, ``quality`` for any result, or ``None``."""
    name = without_unit(header)
    key = COLUMNS.get(normal(name))
    if key == "p_whole" and _TOKENS.search(header):
        return "tokens"
    if key is None and quality_kind(header):
        return "target" if name.startswith(_TARGET) else "quality"
    return key


_LOWER_IS_BETTER: Final = re.compile(r"ppl|perplexity|loss|困惑度|损失|(?:^|_)(?:wer|cer|mse)(?:_|$)", re.IGNORECASE)


def lower_is_better(metric: str) -> bool:
    """Return whether a smaller result of a metric is the better one."""
    return _LOWER_IS_BETTER.search(metric) is not None


def is_same_metric(one: str, other: str) -> bool:
    """Return whether two names are of one metric: equal, one within the other, or of one kind."""
    short, long = sorted((normal(without_unit(one)), normal(without_unit(other))), key=len)
    kind = quality_kind(one)
    return bool(short) and (short in long or (kind not in (None, "other") and kind == quality_kind(other)))


_HEADINGS: Final = _by_label(
    {
        "environment": (phrase("Environment", context="heading"), "环境"),
        "hardware": (phrase("Hardware"), "硬件"),
        "software": (phrase("Software"), "软件"),
        "results": (phrase("Results"),),
        "dataset": (phrase("Test dataset download"), "数据集准备", "Dataset preparation"),
        "licence": (phrase("License"), "Licence"),
        "evidence": (phrase("Evidence"),),
        "remarks": (phrase("Other content of the imported document"),),
        "curve": (phrase("Convergence curve"), "Convergence"),
    }
)
_TITLE: Final = re.compile(r"配置与运行信息|configuration and results", re.IGNORECASE)


def heading_kind(text: str) -> str | None:
    """Return the kind of section that a heading starts, ``title`` for the vendor's own section, or ``None``."""
    kind = _HEADINGS.get(normal(_NUMBERING.sub("", text)))
    return "title" if kind is None and _TITLE.search(text) else kind


_SECTIONS: Final = (phrase("Environment", context="heading"), phrase("Hardware"), phrase("Software"), phrase("Results"))


def language_of_headings(headings: Iterable[str]) -> Language | None:
    """Return the language in which headings are those of a report, or ``None`` if they are not."""
    found = set(headings)
    counts = {language: sum(in_language(text, language) in found for text in _SECTIONS) for language in LANGUAGES}
    best = max(counts, key=lambda language: counts[language])
    return best if counts[best] else None


TABLE_LABELS: Final = _labels((phrase("General"), phrase("Performance")))
NOTES_LABELS: Final = _labels((phrase("Notes"),))

_REMARKS: Final = (
    phrase("one of %(precisions)s"),
    phrase("sample dataset, not %(dataset)s"),
    phrase("not %(dataset)s"),
    phrase("needed to load the device fully when measuring throughput"),
    *(column.remark for column in columns_of("legend") if column.remark),
    phrase("mean average precision"),
    phrase("mean average precision of masks"),
    phrase("panoptic quality"),
    phrase("top-1 accuracy (acc1)"),
)
_STANDARD_REMARKS: Final = re.compile("|".join(["/?", "通常称为“显存”，单位为GiB", *map(pattern, _REMARKS)]))
_SEE: Final = phrase(', see "Performance"')
_REFERENCE: Final = re.compile(
    rf"(.+?)(?:\s*[,，]\s*(?:见|see)\s*[“\"']?(?:性能指标|Performance)[”\"']?|{pattern(_SEE)})", re.IGNORECASE
)
_NOTHING: Final = _labels(("", "na", "没有", phrase("none")))


def is_standard_remark(text: str) -> bool:
    """Return whether a remark of the general table is a standard text of the layout."""
    return _STANDARD_REMARKS.fullmatch(text) is not None


def refers_to_column(text: str) -> str | None:
    """Return the column that a cell of the general table names: ``acc`` for ``acc,见“性能指标”``; or ``None``."""
    match = _REFERENCE.fullmatch(text)
    return match[1] if match else None


def says_nothing(text: str) -> bool:
    """Return whether a text is one of the words for "none"."""
    return normal(text) in _NOTHING

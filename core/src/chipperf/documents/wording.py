"""Names of headings, facts, rows and columns in case documents, in Chinese and English."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_FILLING: Final = re.compile(r"[\s、,，/&和*_`:：()（）\[\]【】·.-]")
_BRACKETED_END: Final = re.compile(r"\s*[（(][^（）()]*[）)]?\s*$")
_NUMBERING: Final = re.compile(r"^\d+[.、)\s]\s*")


def normal(text: str) -> str:
    """Return a label without case, spaces, punctuation and the word for "and"."""
    return _FILLING.sub("", text).casefold()


def without_unit(text: str) -> str:
    """Return a header without a unit in brackets at its end: ``mem(actual/total)`` gives ``mem``."""
    return _BRACKETED_END.sub("", text) or text


def _by_label(labels: Mapping[str, tuple[str, ...]]) -> Mapping[str, str]:
    return {normal(label): key for key, spellings in labels.items() for label in spellings}


FACTS: Final = _by_label(
    {
        "machine": ("机器型号", "机器", "服务器型号", "Machine", "Machine model", "Server"),
        "card_title": ("加速卡型号", "计算卡型号", "GPU型号", "NPU型号", "Accelerator", "Accelerator model", "Card"),
        "machine_and_card": ("机器、加速卡型号", "机器/加速卡型号", "Machine, accelerator"),
        "network": (
            "多机网络类型、带宽",
            "多机网络",
            "网络类型、带宽",
            "Network between machines, bandwidth",
            "Network type and bandwidth",
            "Network",
        ),
        "os": ("OS版本", "操作系统版本", "操作系统", "OS version", "OS"),
        "kernel": ("OS kernel版本", "kernel版本", "内核版本", "OS kernel version", "Kernel version", "Kernel"),
        "driver": ("加速卡驱动版本", "驱动版本", "Accelerator driver version", "Driver version", "Driver"),
        "container": (
            "Docker镜像和版本",
            "Docker版本",
            "Docker镜像",
            "Docker image and version",
            "Docker version",
            "Docker image",
        ),
        "framework": ("训练框架版本", "框架版本", "Training framework version", "Framework version", "Framework"),
        "compiler": ("训练编译器版本", "编译器版本", "Training compiler version", "Compiler version"),
        "dependencies": ("依赖软件版本", "依赖软件", "Dependencies", "Dependency versions"),
    }
)
"""Field of the record's environment by the label of the fact."""

GENERAL: Final = _by_label(
    {
        "task": ("任务类别", "任务类型", "Task"),
        "model": ("模型", "模型名称", "Model"),
        "dataset": ("数据集", "Dataset"),
        "precision": ("数据精度", "Precision"),
        "fix_hp": ("超参修改", "Hyperparameter changes"),
        "card_short_name": ("硬件设备简称", "设备简称", "Device, short name", "Device short name"),
        "mem": ("硬件存储使用", "Device memory"),
        "e2e_time": ("端到端时间", "End-to-end time"),
        "p_whole": ("总吞吐量", "Overall throughput"),
        "p_train": ("训练吞吐量", "Training throughput"),
        "p_core": ("计算吞吐量", "Compute throughput"),
        "quality": ("训练结果", "Training result"),
        "changes": ("额外修改项", "Additional changes"),
    }
)
"""Kind of a row of the general table by its label."""

COLUMNS: Final = _by_label(
    {
        "configuration": ("配置", "Configuration", "训练资源", "资源"),
        "config_file": ("配置文件", "Configuration file"),
        "precision": ("precision", "数据精度", "精度"),
        "fix_hp": ("fix_hp", "fix hp", "超参修改"),
        "e2e_time": ("e2e_time", "e2e time", "端到端时间", "运行时长", "End-to-end time"),
        "p_whole": ("p_whole", "总吞吐量", "性能", "throughput"),
        "p_train": ("p_train", "训练吞吐量"),
        "p_core": ("p_core", "计算吞吐量"),
        "quality": ("收敛精度", "训练结果", "result"),
        "mem": ("mem", "显存", "硬件存储使用", "memory"),
        "target": ("目标精度", "target"),
        "steps": ("Steps数", "steps", "step数"),
        "epochs": ("epoch数", "epochs", "Epochs数"),
    }
)
"""Name of a column of the performance table by its header."""

_QUALITIES: Final = {
    "accuracy": ("acc", "acc1", "top1", "accuracy", "准确率", "finalacc", "mlmacc", "mlmaccuracy", "evalacc"),
    "mean average precision": ("map", "bboxmap", "平均精度"),
    "perplexity": ("ppl", "perplexity", "困惑度"),
    "loss": ("loss", "valloss", "finalloss"),
    "error rate": ("wer", "cer"),
    "other": ("auc", "bleu", "rouge", "f1", "dice", "nuv", "mse", "psnr"),
}


def quality_kind(header: str) -> str | None:
    """Return the kind of quality that a column's header or a metric's name means, or ``None``."""
    name = normal(without_unit(header))
    return next((kind for kind, names in _QUALITIES.items() if name in names), None)


_HEADINGS: Final = _by_label(
    {
        "environment": ("环境配置", "环境", "Environment"),
        "hardware": ("硬件环境", "硬件", "Hardware"),
        "software": ("软件环境", "软件", "Software"),
        "results": ("运行情况", "Results"),
        "dataset": ("测试数据集下载", "数据集准备", "Test dataset download", "Dataset preparation"),
        "licence": ("许可证", "License", "Licence"),
        "evidence": ("运行依据", "Evidence"),
        "remarks": ("导入文档的其他内容", "Other content of the imported document"),
        "curve": ("收敛曲线", "Convergence curve", "Convergence"),
    }
)
_TITLE: Final = re.compile(r"配置与运行信息|configuration and results", re.IGNORECASE)


def heading_kind(text: str) -> str | None:
    """Return the kind of section that a heading starts, ``title`` for the vendor's own section, or ``None``."""
    kind = _HEADINGS.get(normal(_NUMBERING.sub("", text)))
    return "title" if kind is None and _TITLE.search(text) else kind


TABLE_LABELS: Final = {normal(text) for text in ("通用指标", "General", "性能指标", "Performance")}
NOTES_LABELS: Final = {normal(text) for text in ("说明", "Notes")}

_STANDARD_REMARKS: Final = re.compile(
    r"/?|可选.*|one of .*|(?:样例数据集，)?不是 .*|(?:sample dataset, )?not .*|跑满硬件设备评测吞吐量所需特殊超参"
    r"|needed to load the device fully when measuring throughput"
    r"|通常称为“显存”[,，]单位为GiB|in GiB|总时间\+Perf初始化等时间|total time, initialisation included"
    r"|实际训练\S*数除以总时间\(performance_whole\)|.* trained on divided by total time \(performance_whole\)"
    r"|不包含每个epoch末尾的评估部分耗时|without the evaluation at the end of each epoch"
    r"|不包含数据IO部分的耗时\(p3>p2>p1\)|without data input and output \(p3>p2>p1\)"
    r"|所有类别的 Average Precision（平均精度）的均值|mean average precision"
    r"|单位为top1分类准确率\(acc1\)|top-1 accuracy \(acc1\)"
)


def is_standard_remark(text: str) -> bool:
    """Return whether a remark of the general table is a standard text of the layout."""
    return _STANDARD_REMARKS.fullmatch(text) is not None


def refers_to_column(text: str) -> str | None:
    """Return the column that a cell of the general table names: ``acc`` for ``acc,见“性能指标”``; or ``None``."""
    match = re.fullmatch(r"(.+?)\s*[,，]\s*(?:见|see)\s*[“\"']?(?:性能指标|Performance)[”\"']?", text, re.IGNORECASE)
    return match[1] if match else None


def says_nothing(text: str) -> bool:
    """Return whether a text is one of the words for "none"."""
    return normal(text) in {"", "无", "none", "na", "没有"}

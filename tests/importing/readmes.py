"""Case documents in the layout vendors write by hand, made from parts; and what tests compare of an import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chipperf.documents.card_names import read_card_names
from chipperf.importing.document_import import import_document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chipperf.importing.imported import Import

HEADERS = ("配置", "precision", "fix_hp", "e2e_time", "p_whole", "p_train", "p_core", "acc", "mem")
ROW = ("A1单机8卡（1x8）", "fp32", "bs=256,lr=0.36", "28661", "4475", "4586", "4659", "75.6%", "19.3/64.0")
FACTS = {
    "机器型号": "ACME Server 8",
    "加速卡型号": "ACME A1",
    "多机网络类型、带宽": "InfiniBand，200Gb/s",
    "OS版本": "Ubuntu 22.04",
    "OS kernel版本": "5.15.0-1",
    "加速卡驱动版本": "1.2.3",
    "Docker镜像和版本": "acme/torch:2.7",
    "训练框架版本": "torch 2.7.0+acme",
    "依赖软件版本": "无",
}
GENERAL = {
    "任务类别": "图像分类",
    "模型": "resnet50",
    "数据集": "ImageNet2012",
    "数据精度": ("precision,见“性能指标”", "可选fp32/amp/fp16"),
    "超参修改": ("fix_hp,见“性能指标”", "跑满硬件设备评测吞吐量所需特殊超参"),
    "硬件设备简称": "A1",
    "硬件存储使用": ("mem,见“性能指标”", "通常称为“显存”,单位为GiB"),
    "端到端时间": ("e2e_time,见“性能指标”", "总时间+Perf初始化等时间"),
    "总吞吐量": ("p_whole,见“性能指标”", "实际训练图片数除以总时间(performance_whole)"),
    "训练吞吐量": ("p_train,见“性能指标”", "不包含每个epoch末尾的评估部分耗时"),
    "**计算吞吐量**": ("**p_core,见“性能指标”**", "不包含数据IO部分的耗时(p3>p2>p1)"),
    "训练结果": ("acc,见“性能指标”", "单位为top1分类准确率(acc1)"),
    "额外修改项": "无",
}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def readme(
    *rows: Sequence[str],
    header: Sequence[str] = HEADERS,
    facts: dict[str, str] | None = None,
    general: dict[str, Any] | None = None,
    title: str = "ACME A1 配置与运行信息参考",
    after: str = "",
) -> str:
    """Return a case document; ``facts`` and ``general`` replace single entries, ``None`` removes one."""
    all_facts = {**FACTS, **(facts or {})}
    cells = {label: (value if isinstance(value, tuple) else (value, "")) for label, value in _merged(general).items()}
    return "\n".join(
        [
            f"### {title}",
            "#### 环境配置",
            *(f"- {label}: {value}" for label, value in all_facts.items() if value is not None),
            "",
            "### 运行情况",
            "* 通用指标",
            "",
            table(("指标名称", "指标值", "特殊说明"), [(label, *value) for label, value in cells.items()]),
            "",
            "* 性能指标",
            "",
            table(header, rows or [ROW]),
            "",
            after,
        ]
    )


def _merged(general: dict[str, Any] | None) -> dict[str, Any]:
    return {label: value for label, value in {**GENERAL, **(general or {})}.items() if value is not None}


def changed(**cells: str) -> tuple[str, ...]:
    """Return a row of the performance table with some cells changed, by header."""
    names = [{"配置": "label"}.get(header, header) for header in HEADERS]
    return tuple(cells.get(name, value) for name, value in zip(names, ROW, strict=True))


def imported(text: str, **options: Any) -> Import:
    options = {"vendor": "acme", "names": read_card_names(), **options}
    return import_document(text, "README.md", **options)


def facts_of(result: Import) -> list[dict[str, Any]]:
    """Return what the records say, without what every import makes again."""
    return [each.record.model_dump(exclude={"run_id", "created_at"}) for each in result.records]

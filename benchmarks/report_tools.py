"""Time of `perf lint` on a tree of case documents, of rendering and importing reports, and of web pages; no device.

The numbers of the documents are drawn. Two thirds of those that are linted are rendered reports, the others are written
as people do, with blank cells. Seconds of the processor stand beside those of the clock: machines are shared.

Run: python benchmarks/report_tools.py --documents 1000
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from chipperf.documents.card_names import read_card_names
from chipperf.importing.document_import import import_document
from chipperf.lint.lint_run import lint
from chipperf.lint.rule import all_rules
from chipperf.records.store import record_text
from chipperf.report.render import render_report
from chipperf.web.site_files import build_site

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

ROWS = 6
_HEADER = "| 配置 | precision | fix_hp | e2e_time | p_whole | p_train | p_core | acc | mem |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    names = read_card_names()
    texts = [case_document(draw) for _ in range(arguments.documents)]

    imports = _timed(
        "import", lambda: [import_document(text, "README.md", names=names, vendor="acme") for text in texts]
    )
    pages = _timed("render", lambda: [render_report([each.record for each in one.records]) for one in imports])
    with tempfile.TemporaryDirectory() as directory:
        for index, text in enumerate(pages[: 2 * len(pages) // 3] + texts[2 * len(texts) // 3 :]):
            path = Path(directory) / f"vendor{index % 9}" / f"resnet50-{index}" / "README.md"
            path.parent.mkdir(parents=True)
            path.write_text(text, encoding="utf-8")
        result = _timed("lint", lambda: lint([Path(directory)], all_rules(), names=names, vendor="acme"))
    print(f"{len(result.files)} documents, {len(result.findings)} findings of {len(all_rules())} rules")
    records = [each.record for one in imports for each in one.records]
    table = [
        record.model_copy(update={"environment": record.environment.model_copy(update={"row_label": f"A{index}"})})
        for index, record in enumerate(records[:1000])
    ]
    _timed(f"one report of {len(table)} records", lambda: render_report(table))
    with tempfile.TemporaryDirectory() as directory:
        for index, record in enumerate(table):
            path = Path(directory) / "runs" / str(index) / "record.json"
            path.parent.mkdir(parents=True)
            path.write_text(record_text(record), encoding="utf-8")
        runs, out = Path(directory) / "runs", Path(directory) / "site"
        made = _timed(f"web pages of {len(table)} records", lambda: build_site(runs, out, language="en"))
        print(f"leaderboard: {made.index.stat().st_size / 1e6:.2f} MB, {made.uncharted} pages without charts")


def _timed(what: str, function: Callable[[], T]) -> T:
    started, started_cpu = time.perf_counter(), time.process_time()
    result = function()
    print(f"{what}: {time.perf_counter() - started:.2f} s, processor {time.process_time() - started_cpu:.2f} s")
    return result


def case_document(draw: random.Random) -> str:
    """Return a document as people write it, with drawn numbers and blank cells."""
    rows = []
    for index in range(ROWS):
        rate = draw.uniform(100, 5000)
        cells = [f"{rate * factor:.1f}" if draw.random() < 0.7 else "" for factor in (1, 1.03, 1.06)]
        label = ("A1单机单卡（1x1）", "A1单机8卡（1x8）", "A1两机8卡（2x8）")[index % 3]
        rows.append(
            f"| {label} | fp32 | bs={2**index} | / | {' | '.join(cells)} | 75.6% | {draw.uniform(1, 60):.1f}/64.0 |"
        )
    facts = [f"- {label}: {draw.random()}" for label in ("机器型号", "加速卡型号", "OS版本", "OS kernel版本")]
    general = [
        "| 指标名称 | 指标值 |",
        "| --- | --- |",
        "| 模型 | resnet50 |",
        "| 数据集 | ImageNet2012 |",
        "| 额外修改项 | 无 |",
    ]
    parts = ("### acme 配置与运行信息参考\n#### 环境配置", *facts, "", *general, "", _HEADER, "| --- " * 9 + "|", *rows)
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    main()

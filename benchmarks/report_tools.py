"""Time of `perf lint` on a tree of case documents, of rendering and importing reports, and of web pages; no device.

The numbers of the documents are drawn. Two thirds of those that are linted are rendered reports, the others are written
as people do, with blank cells. Beside each stands what it cannot do without, by the library that does it: parsing of
the documents' Markdown by markdown-it, and reading of the records' JSON by pydantic. Seconds are those of the
processor: machines are shared.

Run: python benchmarks/report_tools.py --documents 100 --rounds 3
"""

from __future__ import annotations

import random
import tempfile
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf.documents.card_names import read_card_names
from chipperf.importing.document_import import import_document
from chipperf.lint.lint_run import lint
from chipperf.lint.rule import all_rules
from chipperf.records.schema import Record
from chipperf.records.store import record_text
from chipperf.report.render import render_report
from chipperf.web.site_files import build_site
from markdown_it import MarkdownIt
from side_by_side import Line, benchmark_parser, compare, cpu_s, parse, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROWS = 6
_HEADER = "| 配置 | precision | fix_hp | e2e_time | p_whole | p_train | p_core | acc | mem |"


def main() -> None:
    parser = benchmark_parser(__doc__, rounds=3)
    parser.add_argument("--documents", type=int, default=100)
    arguments = parse(parser, documents=3)
    with tempfile.TemporaryDirectory() as directory:
        print_table(lines(arguments.documents, arguments.rounds, Path(directory)))


def lines(documents: int, rounds: int, scratch: Path) -> Iterator[Line]:
    """Import, render, lint and show documents, each beside its limit."""
    draw = random.Random(0)
    names = read_card_names()
    texts = [case_document(draw) for _ in range(documents)]

    def imported() -> list[list[Record]]:
        results = [import_document(text, "README.md", names=names, vendor="acme") for text in texts]
        return [[each.record for each in one.records] for one in results]

    groups = imported()
    records = [
        record.model_copy(update={"environment": record.environment.model_copy(update={"row_label": f"A{index}"})})
        for index, record in enumerate(record for group in groups for record in group)
    ]
    stored = [record_text(record) for record in records]
    pages = [render_report(group) for group in groups]
    tree, runs, sites = scratch / "tree", scratch / "runs", (scratch / f"site{number}" for number in count())
    for index, text in enumerate(pages[: 2 * len(pages) // 3] + texts[2 * len(texts) // 3 :]):
        write(tree / f"vendor{index % 9}" / f"resnet50-{index}" / "README.md", text)
    for index, text in enumerate(stored):
        write(runs / str(index) / "record.json", text)

    def parsed(markdown: Sequence[str]) -> list[object]:
        return [MarkdownIt("commonmark").enable("table").parse(text) for text in markdown]

    def read() -> list[Record]:
        return [Record.model_validate_json(text) for text in stored]

    linted = [path.read_text(encoding="utf-8") for path in tree.rglob("*.md")]
    markdown, json = "markdown-it alone", "reading the records alone"
    for what, ours, beside, limit in (
        (f"import of {documents} documents", imported, markdown, partial(parsed, texts)),
        (
            f"lint of {documents} documents",
            lambda: lint([tree], all_rules(), names=names, vendor="acme"),
            markdown,
            partial(parsed, linted),
        ),
        (f"{documents} reports of {ROWS} records", lambda: [render_report(group) for group in groups], json, read),
        (f"one report of {len(records)} records", lambda: render_report(records), json, read),
        (f"web pages of {len(records)} records", lambda: build_site(runs, next(sites), language="en"), json, read),
    ):
        yield compare(what, partial(cpu_s, ours), beside, partial(cpu_s, limit), rounds, "CPU s")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")


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

"""Records that hold the facts of the three seed documents render to reports with those documents' content."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chipperf.report.curve_files import make_curve_files
from chipperf.report.render import render_page, render_report
from chipperf.report.view import build_view
from curve_records import curve
from factory import GIB, NOT_APPLICABLE, UNKNOWN, make_record
from markdown_document import Document, parse

SEEDS = Path(__file__).parent / "seeds"
PLUGINS = Path(__file__).parents[2] / "plugins"
MARKERS = {"未知", "/"}
BLANK = UNKNOWN
SLASH = NOT_APPLICABLE


def _row(
    topology: str,
    mem: tuple[float, int],
    *,
    precision: str = "fp32",
    e2e_time: dict[str, str] = BLANK,
    quality: Any = BLANK,
    fix_hp: dict[str, tuple[float, float]] | None = None,
) -> dict[str, Any]:
    """Return one line of a seed's performance table; ``fix_hp`` holds base and value by key."""
    nnodes, _, nproc_per_node = topology.partition("x")
    changes = [
        {"key": key, "base": base, "value": value, "origin": "vendor"} for key, (base, value) in (fix_hp or {}).items()
    ]
    return {
        "run_id": f"imported-{topology}-{precision}",
        "topology": {"nnodes": int(nnodes), "nproc_per_node": int(nproc_per_node)},
        "precision__requested": precision,
        "precision__effective": UNKNOWN,
        "hyperparameters__changes": changes,
        "metrics__e2e_time_s": e2e_time,
        "metrics__quality": quality,
        "metrics__memory": {
            "allocated_peak_bytes": UNKNOWN,
            "reserved_peak_bytes": UNKNOWN,
            "device_peak_bytes": round(mem[0] * GIB),
            "total_bytes": mem[1] * GIB,
            "allocator_source": "the document",
            "device_source": "the document",
        },
    }


def _imported(facts: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    blank = {f"metrics__{name}": UNKNOWN for name in ("p_whole", "p_train", "p_core", "time_to_target", "data_stall")}
    return {"kind": "imported", "loader": UNKNOWN, "knobs": [], **blank, **facts, **row}


KUNLUNXIN: dict[str, Any] = {
    "vendor__name": "kunlunxin",
    "vendor__report_title": {"zh": "昆仑芯XPU配置与运行信息参考", "en": "Kunlunxin XPU configuration and results"},
    "environment__machine": "昆仑芯AI加速器组R480-X8",
    "environment__card_title": "昆仑芯AI加速卡R300",
    "environment__card_short_name": "R300",
    "environment__row_label": "R300",
    "environment__network": "InfiniBand，200Gb/s",
    "environment__os": "Ubuntu 20.04",
    "environment__kernel": "5.4.0-26-generic",
    "environment__driver": "4.0.25",
    "environment__dependencies": "pytorch-1.12.1+cpu",
}
WHEELS = "https://bd.bcebos.com/klx-pytorch-ipipe-bd/flagperf/archives/d017303d"

SEED_RECORDS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "kunlunxin-mobilenetv2": (
        {
            **KUNLUNXIN,
            "case": {"name": "mobilenetv2", "version": "1.0", "preset": "full", "metric": "top1", "target": 0.686},
            "environment__container": "pytorch1.12.1-cpu-ubuntu18.04:v0.04",
            "environment__framework": "xmlir+e70db8f6",
        },
        [
            _row("1x1", (24.8, 32), e2e_time=SLASH, quality=SLASH),
            _row("1x8", (24.8, 32), quality=0.6843, fix_hp={"batch_size": (8, 256), "lr": (0.045, 0.36)}),
            _row(
                "2x8",
                (26.7, 32),
                e2e_time=SLASH,
                quality=SLASH,
                fix_hp={"batch_size": (8, 256), "lr": (0.045, 0.72)},
            ),
        ],
    ),
    "metax-resnet50": (
        {
            "vendor__name": "metax",
            "vendor__report_title": {
                "zh": "沐曦集成电路 C500 GPU配置与运行信息参考",
                "en": "MetaX C500 GPU configuration and results",
            },
            "environment__machine": UNKNOWN,
            "environment__card_title": "曦云®C500 64G",
            # The document's mistake, which an imported record keeps.
            "environment__card_short_name": "nvidia A100",
            "environment__row_label": "MXC500",
            "environment__network": "InfiniBand，2x200 Gb/s",
            "environment__os": "Ubuntu 20.04.6",
            "environment__kernel": "5.4.0-26-generic",
            "environment__driver": "2.2.0",
            "environment__container": "24.0.7",
            "environment__framework": "pytorch-2.0.0+mc2.18.0.8-cp38-cp38-linux_x86_64.whl",
            "environment__dependencies": "无",
        },
        [
            _row("1x8", (19.3, 64), quality=0.755),
            _row("1x1", (29.3, 64), e2e_time=SLASH),
            _row("2x8", (32.2, 64), e2e_time=SLASH),
            _row("1x8", (33.1, 64), precision="amp", fix_hp={"batch_size": (32, 512), "lr": (0.1, 0.2)}),
        ],
    ),
    "kunlunxin-detr": (
        {
            **KUNLUNXIN,
            "case": {"name": "detr", "version": "1.0", "preset": "full", "metric": "mAP", "target": 0.42},
            "dataset__name": "coco2017",
            "environment__container": "pytorch1.12.1-cpu-ubuntu20.04:v0.01",
            "environment__framework": f"xmlir+d017303d [xmlir下载]({WHEELS}/xmlir-0.0.1-cp38-cp38-linux_x86_64.whl)",
            "environment__compiler": f"xacc+d017303d [xacc下载]({WHEELS}/xacc-0.1.0-cp38-cp38-linux_x86_64.whl)",
        },
        [
            _row("1x8", (25.6, 32), e2e_time=SLASH, fix_hp={"batch_size": (128, 8), "lr": (1e-4, 1e-4)}),
            _row("1x1", (24.8, 32), quality=SLASH, fix_hp={"batch_size": (128, 8), "lr": (1e-4, 1e-4)}),
            _row(
                "2x8",
                (25.5, 32),
                e2e_time=SLASH,
                quality=SLASH,
                fix_hp={"batch_size": (128, 8), "lr": (1e-4, 1e-4)},
            ),
        ],
    ),
}


def _rendered(seed: str) -> Document:
    facts, rows = SEED_RECORDS[seed]
    vendor = facts["vendor__name"]
    templates = PLUGINS / vendor / "src" / f"chipperf_{vendor}" / "templates"
    records = [make_record(**_imported(facts, row)) for row in rows]
    return parse(render_report(records, language="zh", vendor_templates=templates))


def _with_curve(seed: str, directory: Path) -> Document:
    """Return the report on records that have the seed's facts and curves, as it is written beside its pictures."""
    facts, rows = SEED_RECORDS[seed]
    vendor = facts["vendor__name"]
    records = [make_record(**_imported(facts, row), **curve([0.01, 0.08, 0.15])) for row in rows]
    baseline = make_record(
        **_imported({**facts, "vendor__name": "gpu", "environment__row_label": "GPU"}, rows[0]), **curve([0.02, 0.1])
    )
    view = build_view(records, baseline=[baseline.model_copy(update={"run_id": "gpu"})])
    assert view.convergence
    content = make_curve_files(view.convergence.curves, view.profile, "zh", directory / "README.md")
    content.write()
    view = replace(view, convergence=replace(view.convergence, files=content.links))
    templates = PLUGINS / vendor / "src" / f"chipperf_{vendor}" / "templates"
    return parse(render_page(view, language="zh", vendor_templates=templates).text)


def _original(seed: str) -> Document:
    return parse((SEEDS / f"{seed}.md").read_text(encoding="utf-8"))


@pytest.fixture(params=SEED_RECORDS)
def documents(request) -> tuple[Document, Document]:
    """Return a seed document and the report rendered from its facts."""
    return _original(request.param), _rendered(request.param)


def test_headings_are_the_seed_documents(documents):
    original, rendered = documents
    # The curve is drawn from the record's evaluation points, which an imported document does not have.
    assert rendered.headings == [heading for heading in original.headings if heading != (3, "收敛曲线")]


def test_curve_section_is_the_seed_documents(tmp_path):
    original, rendered = _original("kunlunxin-detr"), _with_curve("kunlunxin-detr", tmp_path)

    assert (3, "收敛曲线") in original.headings
    assert rendered.headings == original.headings
    assert rendered.images == original.images == [("收敛曲线", "mAP.png")]
    assert (tmp_path / "mAP.png").read_bytes().startswith(b"\x89PNG")
    assert any("基准" in item and "GPU" in item for item in rendered.section("收敛曲线"))


@pytest.mark.parametrize("heading", ["硬件环境", "软件环境"])
def test_environment_facts_are_the_seed_documents(documents, heading):
    original, rendered = documents
    assert original.section(heading)
    assert rendered.section(heading) == original.section(heading)


@pytest.mark.parametrize("table", [0, 1], ids=["general", "performance"])
def test_table_cells_are_the_seed_documents(documents, table):
    original, rendered = documents
    expected, actual = original.tables[table], rendered.tables[table]
    assert [len(row) for row in actual] == [len(row) for row in expected]
    for expected_row, actual_row in zip(expected, actual, strict=True):
        for expected_cell, actual_cell in zip(expected_row, actual_row, strict=True):
            if expected_cell:
                assert actual_cell == expected_cell
            else:
                assert actual_cell in MARKERS


def test_an_imported_report_has_exactly_the_seeds_two_tables(documents):
    original, rendered = documents
    assert len(original.tables) == len(rendered.tables) == 2

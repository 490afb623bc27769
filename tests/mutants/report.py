"""Faults of a vendor's report."""

from __future__ import annotations

from pathlib import Path

import chipperf

from mutants.mutant import Change, Mutant

_CORE_REPORT = Path(chipperf.__file__).with_name("templates") / "report.md.j2"

_BLANK_CELLS = """\
| card | e2e_time | p_whole | p_train | p_core | {{ view.profile.quality_column }} | mem |
| --- | --- | --- | --- | --- | --- | --- |
{% for row in view.rows %}
{% set values = (row.e2e_time_s, row.p_whole, row.p_train, row.p_core, row.quality, row.memory_used_bytes) %}
| {{ row.card }} |{% for value in values %} {{ value | number if value is known }} |{% endfor +%}
{% endfor %}
"""
_REPORT = "chipperf_acme/templates/report.md.j2"


def _block(name: str, content: str) -> tuple[Change, ...]:
    """Let the plugin's template replace one block of core's."""
    text = f'{{% extends "core/report.md.j2" %}}\n{{% block {name} %}}{content}{{% endblock %}}\n'
    return (Change(file=_REPORT, new=text),)


def _cell(expression: str) -> tuple[Change, ...]:
    """Let the plugin have a copy of core's template in which the cells of the performance table show ``expression``."""
    own = _CORE_REPORT.read_text(encoding="utf-8").replace("row.value(column) | in_unit(column.unit)", expression)
    return (Change(file=_REPORT, new=own),)


MUTANTS = [
    Mutant(
        name="template_reads_what_no_record_has",
        kills=("R3",),
        changes=(
            Change(
                file="chipperf_acme/templates/report.md.j2",
                new='{% extends "core/report.md.j2" %}\n{% block licence %}{{ view.bios }}{% endblock %}\n',
            ),
        ),
    ),
    Mutant(
        name="template_is_malformed",
        kills=("R3",),
        changes=(Change(file="chipperf_acme/templates/resnet50.md.j2", new="{% block licence %}\n"),),
    ),
    Mutant(
        name="missing_metrics_left_blank",
        kills=("R3",),
        changes=(Change(file="chipperf_acme/templates/report.md.j2", new=_BLANK_CELLS),),
    ),
    Mutant(
        name="columns_swapped",
        kills=("R3",),
        changes=_cell("(row.p_core if column.key == 'p_train' else row.value(column)) | in_unit(column.unit)"),
    ),
    Mutant(
        name="throughput_rounded",
        kills=("R3",),
        changes=_cell(
            "(row.value(column) | round | int) if column.unit == 'samples/s' and row.value(column) is known "
            "else row.value(column) | in_unit(column.unit)"
        ),
    ),
    Mutant(
        name="failed_run_with_numbers",
        kills=("R3",),
        changes=_cell("column.value(row.record) | in_unit(column.unit)"),
    ),
    Mutant(
        name="values_of_the_first_row",
        kills=("R3",),
        changes=_cell("view.rows[0].value(column) | in_unit(column.unit)"),
    ),
    Mutant(
        name="memory_in_decimal_units",
        kills=("R3",),
        changes=_block(
            "memory_cell scoped",
            "{{ (row.memory_used_bytes / 1e9) | round(1) }}/{{ (row.memory_total_bytes / 1e9) | round(1) }}",
        ),
    ),
    Mutant(
        name="notes_lost_in_chinese",
        kills=("R3",),
        changes=_block("notes", "{% if both('zh', 'en') == 'en' %}{{ super() }}{% endif %}"),
    ),
    Mutant(
        name="number_typed_into_a_table",
        kills=("R3",),
        changes=_block("licence", "\n\n| Item | Value |\n| --- | --- |\n| speed-up | 18.3746 |\n"),
    ),
    Mutant(
        name="report_title_of_a_vendor_without_plugin",
        kills=("R4",),
        changes=(
            Change(
                old='zh="Acme A1（模拟）配置与运行信息参考"',
                new='zh="天数智芯 BI-V150 配置与运行信息参考"',
            ),
        ),
    ),
    Mutant(
        name="report_title_of_another_vendor",
        kills=("R4",),
        changes=(
            Change(
                old='en="Acme A1 (simulated) configuration and results"',
                new='en="NVIDIA A100 configuration and results"',
            ),
        ),
    ),
    Mutant(
        name="override_reason_of_another_vendor",
        kills=("R4",),
        changes=(
            Change(
                old='"the memory of a simulated card is small"',
                new='"fills the memory of MXC500 cards"',
            ),
        ),
    ),
    Mutant(
        name="template_names_another_product",
        kills=("R4",),
        changes=(
            Change(
                file="chipperf_acme/templates/report.md.j2",
                new='{% extends "core/report.md.j2" %}\n{% block licence %}\n在R300上运行。\n{% endblock %}\n',
            ),
        ),
    ),
]

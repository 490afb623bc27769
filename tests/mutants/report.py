"""Faults of a vendor's report."""

from __future__ import annotations

from mutants.mutant import Change, Mutant

_BLANK_CELLS = """\
| card | e2e_time | p_whole | p_train | p_core | {{ view.profile.quality_column }} | mem |
| --- | --- | --- | --- | --- | --- | --- |
{% for row in view.rows %}
{% set values = (row.e2e_time_s, row.p_whole, row.p_train, row.p_core, row.quality, row.memory_used_bytes) %}
| {{ row.card }} |{% for value in values %} {{ value | number if value is known }} |{% endfor +%}
{% endfor %}
"""

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

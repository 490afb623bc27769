"""The table of reported values: what it says of each, and that all who show or read values follow it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from chipperf.documents.wording import COLUMNS as COLUMN_WORDS
from chipperf.documents.wording import GENERAL as GENERAL_WORDS
from chipperf.documents.wording import is_standard_remark, normal
from chipperf.languages import in_all_languages
from chipperf.records.columns import BY_NAME, COLUMNS, THROUGHPUTS, WINDOWED, Column, Kind, Place, columns_of
from chipperf.records.schema import Metrics, Missing, Power, Throughput
from report.factory import GIB, make_record

DOCS = Path(__file__).parents[2] / "docs"
VALUES = {
    "e2e_time": ("metrics.e2e_time_s", 28_661.4),
    "p_whole": ("metrics.p_whole", 4475.0),
    "p_train": ("metrics.p_train.median", 4586.25),
    "p_core": ("metrics.p_core.median", 4659.0),
    "quality": ("metrics.quality", 0.7561),
    "best_quality": ("metrics.best_quality", 0.7561),
    "time_to_target": ("metrics.time_to_target.seconds", 27_000.5),
    "mem_peak": ("metrics.memory.device_peak_bytes", 21 * GIB),
}
OF_METRICS = [column for column in COLUMNS if column.field.startswith("metrics.")]
WITH_PLACE = [column for column in COLUMNS if not column.compute]
NOT_RUN = {"missing": "not_run", "reason": "switched off"}


def by_name(column: Column) -> str:
    return column.name


def spellings(column: Column) -> list[str]:
    return [text for header in column.headers for text in in_all_languages(header)]


def test_names_and_headers_are_unique() -> None:
    for texts in ([each.name for each in COLUMNS], [each.key for each in COLUMNS], [each.field for each in COLUMNS]):
        assert [text for text, count in Counter(texts).items() if count > 1] == []
    headers = Counter(text for column in COLUMNS for text in {normal(text) for text in spellings(column)})
    assert [text for text, count in headers.items() if count > 1] == []


def test_every_place_and_kind_has_an_order() -> None:
    for place in get_args(Place):
        shown = columns_of(place)
        assert shown, place
        if place != "legend":
            assert set(map(by_name, shown)) == {column.name for column in COLUMNS if place in column.shown}
    assert set(columns_of("legend")) == set(columns_of("report"))
    assert {column.kind for column in COLUMNS} == set(get_args(Kind))


def test_order_of_a_report_and_of_results() -> None:
    assert [column.key for column in columns_of("report")] == [
        *("e2e_time", "p_whole", "p_train", "p_core"),
        *("quality", "mem"),
    ]
    assert [column.name for column in columns_of("comparison")] == [
        *("quality", "best_quality", "time_to_target", "e2e_time", "p_whole", "p_train", "p_core"),
        *("mem_peak", "energy_per_sample", "mfu", "peak_share", "bus_share"),
    ]
    assert [column.name for column in columns_of("repeats")] == [
        *("p_whole", "p_train", "p_core", "quality", "time_to_target", "e2e_time")
    ]
    assert [column.key for column in columns_of("legend")] == [
        *("mem", "e2e_time", "p_whole", "p_train", "p_core", "quality")
    ]


@pytest.mark.parametrize("column", WITH_PLACE, ids=by_name)
def test_value_and_where_the_record_has_it(column: Column) -> None:
    record = make_record()

    assert column.find(record) == VALUES[column.name]
    content: Any = record.model_dump()
    for step in VALUES[column.name][0].split("."):
        content = content[step]
    assert content == column.value(record)


def test_computed_value_is_found_with_its_main_field() -> None:
    of_training = dict.fromkeys(Power.model_fields, {"missing": "unknown"}) | {
        "samples": 9,
        "source": "x",
        "energy_j": 300,
    }
    record = make_record(metrics__power=of_training, metrics__train_samples=600)

    column = BY_NAME["energy_per_sample"]
    assert column.find(record) == ("metrics.power.energy_j", 0.5)
    assert column.value(record) == 0.5


def test_field_of_an_imported_number_has_no_parts() -> None:
    column = replace(BY_NAME["p_train"], field="metrics.p_train.windows", compute=lambda record: 7.0)

    assert column.find(make_record(metrics__p_train=4586.2)) == ("metrics.p_train", 7.0)


@pytest.mark.parametrize("column", OF_METRICS, ids=by_name)
def test_missing_value_says_why(column: Column) -> None:
    name = column.field.split(".")[1]
    record = make_record(**{f"metrics__{name}": NOT_RUN})

    assert column.value(record) == Missing(**NOT_RUN)
    if not column.compute:
        assert column.find(record)[0] == f"metrics.{name}"


def test_allocator_stands_in_for_an_unknown_peak_of_the_device() -> None:
    unknown = make_record(metrics__memory__device_peak_bytes={"missing": "unknown"})
    neither = make_record(
        metrics__memory__device_peak_bytes={"missing": "unknown"}, metrics__memory__allocated_peak_bytes=NOT_RUN
    )

    column = BY_NAME["mem_peak"]
    assert column.find(unknown) == ("metrics.memory.allocated_peak_bytes", 19 * GIB)
    assert column.find(neither) == ("metrics.memory.allocated_peak_bytes", Missing(**NOT_RUN))


@pytest.mark.parametrize("column", OF_METRICS, ids=by_name)
def test_windows_are_where_the_schema_has_them(column: Column) -> None:
    field = Metrics.model_fields[column.field.split(".")[1]]

    assert column.is_windowed == (Throughput in get_args(field.annotation) and not column.compute)
    throughput = column.throughput(make_record())
    assert (throughput is not None) == column.is_windowed == (column.name in WINDOWED)
    assert column.throughput(make_record(**{f"metrics__{column.field.split('.')[1]}": NOT_RUN})) is None


def test_throughputs_begin_with_what_the_device_alone_does() -> None:
    record = make_record()

    rates = [BY_NAME[name].value(record) for name in THROUGHPUTS]
    assert THROUGHPUTS == ("p_core", "p_train", "p_whole")
    assert rates == sorted(rates, reverse=True)


def test_every_value_is_defined() -> None:
    pages = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("metrics.md", "compare.md"))

    assert [column.name for column in COLUMNS if f"`{column.name}`" not in pages] == []


@pytest.mark.parametrize("column", columns_of("report"), ids=by_name)
def test_columns_of_a_report_can_be_read_back(column: Column) -> None:
    assert column.legend is not None
    for text in spellings(column):
        assert COLUMN_WORDS[normal(text)] == column.key
    for text in in_all_languages(column.legend):
        assert GENERAL_WORDS[normal(text)] == column.key


@pytest.mark.parametrize("column", [column for column in COLUMNS if column.remark], ids=by_name)
@pytest.mark.parametrize("samples", ["images", "张图片"])
def test_its_remarks_say_nothing_of_a_report(column: Column, samples: str) -> None:
    assert column.remark is not None
    for remark in in_all_languages(replace(column.remark, values=(("samples", samples),))):
        assert is_standard_remark(remark)
        assert not is_standard_remark(f"{remark} on Mondays")

"""Lint has nothing to say of a correct report that chipperf rendered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chipperf.cases.registry import case_names, find_case
from chipperf.importing.document_import import import_document
from chipperf.languages import LANGUAGES
from chipperf.records.store import read_record
from chipperf.report.render import render_report
from factory import throughput
from reports import NAMES, make_record, run

ROOT = Path(__file__).parents[2]
GIB = 2**30
KINDS = {
    "not_run": {"missing": "not_run"},
    "withheld": {"missing": "withheld", "reason": "not published before the launch"},
    "failed": {"missing": "failed", "reason": "out_of_memory"},
    "not_applicable": {"missing": "not_applicable"},
    "unknown": {"missing": "unknown"},
}
_RATES = {"1x1": 100.0, "1x8": 780.0, "2x8": 1500.0}
_VENDORS = {
    "nvidia": ("NVIDIA A100-SXM4-40GB", "A100", 40),
    "metax": ("MetaX C500", "MXC500", 64),
    "kunlunxin": ("R300", "R300", 32),
}


def records(case_name: str, vendor: str, *, missing: dict[str, str] | None = None) -> list[Any]:
    """Return a record per topology whose values can be true together, or with typed missing metrics."""
    case = find_case(case_name)
    card, short, gib = _VENDORS[vendor]
    samples = case.data.reference.train_samples
    reached = case.base.target + (-0.001 if case.lower_is_better else 0.001)
    info = NAMES.info(vendor)
    made = []
    for label, rate in _RATES.items():
        nnodes, _, nproc = label.partition("x")
        seconds = case.base.epochs * samples / rate
        changes: dict[str, Any] = {
            "run_id": f"run-{label}",
            "vendor__name": vendor,
            "vendor__report_title": {"zh": info.report_title.zh, "en": info.report_title.en},
            "case": {
                **{"name": case.name, "version": case.version, "preset": "full"},
                **{"metric": case.metric, "target": case.base.target, "lower_is_better": case.lower_is_better},
            },
            "dataset__name": case.base.dataset,
            "topology": {"nnodes": int(nnodes), "nproc_per_node": int(nproc)},
            "environment__card_title": card,
            "environment__card_short_name": short,
            "environment__row_label": short,
            "dataset__train_samples": samples,
            "metrics__e2e_time_s": seconds * 1.01,
            "metrics__train_seconds": seconds,
            "metrics__train_samples": case.base.epochs * samples,
            "metrics__epochs": case.base.epochs,
            "metrics__steps": case.base.epochs * (samples // 256),
            "metrics__spans": [{"name": "train", "start_s": 20.0, "seconds": seconds}],
            "metrics__p_whole": rate,
            "metrics__p_train": throughput(rate * 1.02),
            "metrics__p_core": throughput(rate * 1.05),
            "metrics__quality": reached,
            "metrics__best_quality": reached,
            "metrics__time_to_target": {"seconds": seconds, "epoch": case.base.epochs},
            "metrics__memory": {
                **{"allocated_peak_bytes": 10 * GIB, "reserved_peak_bytes": 11 * GIB, "device_peak_bytes": 12 * GIB},
                **{"total_bytes": gib * GIB, "allocator_source": "allocator", "device_source": "tool"},
            },
        }
        if missing:
            names = ("e2e_time_s", "p_whole", "p_train", "p_core", "quality", "memory", "time_to_target")
            changes |= {f"metrics__{name}": missing for name in names}
            changes |= {f"environment__{name}": missing for name in ("network", "driver", "container", "machine")}
        made.append(make_record(**changes))
    return made


def assert_silent(tmp_path: Path, made: list[Any], language: str, vendor: str) -> None:
    templates = ROOT / "plugins" / vendor / "src" / f"chipperf_{vendor}" / "templates"
    text = render_report(made, language=language, vendor_templates=templates if templates.is_dir() else None)
    path = tmp_path / f"README.{language}.md"
    path.write_text(text, encoding="utf-8")

    result = run(path, records=made)

    assert [f"{each.rule} {each.place} {each.message}" for each in result.findings] == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("vendor", _VENDORS)
@pytest.mark.parametrize("case", case_names())
def test_measured_report(tmp_path, case, vendor, language):
    assert_silent(tmp_path, records(case, vendor), language, vendor)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("case", case_names())
def test_report_with_typed_missing_values(tmp_path, case, language, kind):
    assert_silent(tmp_path, records(case, "metax", missing=KINDS[kind]), language, "metax")


@pytest.mark.parametrize("language", LANGUAGES)
def test_report_of_a_failed_and_a_shortened_and_a_below_target_run(tmp_path, language):
    one, eight, sixteen = records("resnet50", "nvidia")
    failed = one.model_copy(update={"status": type(one.status)(state="killed")})
    shortened = eight.model_copy(update={"limits": type(eight.limits)(max_epochs=3)})
    below = sixteen.model_copy(
        update={
            "metrics": sixteen.metrics.model_copy(
                update={"quality": 0.64, "time_to_target": type(sixteen.metrics.power)(missing="not_run")}
            )
        }
    )

    assert_silent(tmp_path, [failed, shortened, below], language, "nvidia")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("card", ["MetaX C500 sGPU 25% 15.625gb", "MXC500 part with 16.0 GiB"])
def test_report_on_a_part_of_a_card(tmp_path, card, language):
    names = dict.fromkeys(("card_title", "card_short_name", "row_label"), card)
    parts = []
    for record in records("resnet50", "metax"):
        environment = record.environment.model_copy(update=names)
        memory = record.metrics.memory.model_copy(update={"total_bytes": 16 * GIB})
        metrics = record.metrics.model_copy(update={"memory": memory})
        parts.append(record.model_copy(update={"environment": environment, "metrics": metrics}))

    assert_silent(tmp_path, parts, language, "metax")


@pytest.mark.parametrize("language", LANGUAGES)
def test_report_on_the_reference_with_the_sample_dataset(tmp_path, language):
    record = make_record(
        vendor__name="cpu",
        environment__row_label="ACME EPYC",
        dataset__name="chipperf-sample-10",
        dataset__is_sample=True,
        metrics__quality=0.4,
        metrics__time_to_target={"missing": "not_run"},
        topology={"nnodes": 1, "nproc_per_node": 1},
    )

    assert_silent(tmp_path, [record], language, "cpu")


@pytest.mark.parametrize("language", LANGUAGES)
def test_imported_report_whose_values_are_there(tmp_path, language):
    page = render_report(records("resnet50", "nvidia"), language=language)
    # Without its mark it is a document like any other.
    text = page.replace("chipperf report template", "a template")
    result = import_document(text, "README.md", names=NAMES)

    assert_silent(tmp_path, [each.record for each in result.records], language, "nvidia")


@pytest.mark.parametrize("page", ["README.md", "report.en.md"])
def test_documented_report_is_silent_against_its_record(page):
    """Its preset sets a key to nothing."""
    directory = ROOT / "docs/examples/detr-cpu"

    assert run(directory / page, records=[read_record(directory)]).findings == []

"""The reports in docs/examples are what their records render to."""

from __future__ import annotations

import json

import generate_examples
import pytest
from chipperf.records.store import read_record, record_text
from chipperf.records.upgrade import upgrade
from chipperf.verify.named_records import RecordFinder
from chipperf.verify.report_verification import Templates, verify_report
from documents import ROOT

EXAMPLES = sorted(path.parent for path in (ROOT / "docs" / "examples").glob("*/record.json"))
PAGES = [page for example in EXAMPLES for page in sorted(example.glob("*.md"))]


def test_there_are_examples():
    assert EXAMPLES


def as_written(now, written):
    """Return a value without the fields that are newer than what was written."""
    if isinstance(now, dict) and isinstance(written, dict):
        return {name: as_written(now[name], written[name]) for name in now if name in written}
    if isinstance(now, list) and isinstance(written, list):
        return [as_written(*pair) for pair in zip(now, written, strict=True)]
    return now


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_record_is_as_chipperf_writes_it(example):
    """Fields that are newer than the record are not in it."""
    written = upgrade(json.loads((example / "record.json").read_text(encoding="utf-8")))
    now = json.loads(record_text(read_record(example)))

    assert json.dumps(written) == json.dumps(as_written(now, written))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_report_and_points_are_what_the_record_renders_to(example, tmp_path):
    generate_examples.render(example, tmp_path)

    # Pictures follow matplotlib's version, and what the Chinese report says of its picture follows the fonts.
    compared = [path.name for path in tmp_path.iterdir() if path.name == "report.en.md" or path.suffix == ".csv"]
    assert len(compared) == 3
    for name in compared:
        assert (tmp_path / name).read_text(encoding="utf-8") == (example / name).read_text(encoding="utf-8"), (
            "run: make docs"
        )
    assert {path.name for path in tmp_path.iterdir()} <= {path.name for path in example.iterdir()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_report_is_verified_with_its_provenance(page):
    result = verify_report(page, RecordFinder([page.parent]), Templates(user=None, of_vendor=lambda records: None))

    assert (result.with_provenance, result.differences) == (True, []), "run: make docs"


@pytest.mark.parametrize(("language", "name"), generate_examples.READMES.items())
def test_readme_shows_the_report_of_the_demo(language, name):
    assert (ROOT / name).read_text(encoding="utf-8") == generate_examples.readme(language), "run: make docs"

"""A report of runs, as somebody would publish it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chipperf.cli.main import app
from chipperf.report.provenance import provenance_file
from chipperf.run.directory import RunDirectory
from chipperf.verify.named_records import RecordFinder
from chipperf.verify.report_verification import Templates, verify_report
from factory import make_record, throughput
from typer.testing import CliRunner

if TYPE_CHECKING:
    from pathlib import Path

TWO_MACHINES = {"nnodes": 2, "nproc_per_node": 8}
ONE_CARD = {"nnodes": 1, "nproc_per_node": 1}
POINT = {"epoch": 100, "step": 500_400, "value": 0.7561, "elapsed_s": 27_000.5, "samples": 50_000}
CURVE = {
    "metrics__curve": [POINT | {"epoch": 50, "step": 250_200, "value": 0.2, "elapsed_s": 13_000.0}, POINT],
    "metrics__time_to_target": {"seconds": 27_000.5, "epoch": 100},
}


@dataclass(frozen=True)
class Published:
    """Three runs, one of which lost its row to a better one, and their report."""

    directory: Path

    @property
    def page(self) -> Path:
        return self.directory / "README.md"

    @property
    def provenance(self) -> Path:
        return provenance_file(self.page)

    @property
    def runs(self) -> Path:
        return self.directory / "runs"

    def record(self, run: str) -> Path:
        return self.runs / "deep" / run / "record.json"

    def edit(self, file: Path, old: str, new: str) -> None:
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new, 1), encoding="utf-8")

    def verify(self, **options):
        templates = Templates(user=options.pop("templates", None), of_vendor=lambda records: None)
        return verify_report(self.page, RecordFinder([self.runs]), templates, **options)


def publish(directory: Path, language: str = "en", options: tuple[str, ...] = ()) -> Published:
    published = Published(directory)
    records = [
        make_record(run_id="first", created_at="2026-01-01T12:00:00Z"),
        make_record(run_id="second", topology=TWO_MACHINES, metrics__p_core=throughput(9001.0), **CURVE),
        make_record(run_id="old", created_at="2025-01-01T12:00:00Z"),
        make_record(run_id="third", topology=ONE_CARD, environment__driver="9.9"),
    ]
    for record in records:
        path = published.record(record.run_id).parent
        path.mkdir(parents=True)
        RunDirectory(path).write_record(record)
    paths = [str(published.record(record.run_id).parent) for record in records]
    command = ["report", *paths, "--lang", language, "--out", str(published.page), *options]
    result = CliRunner().invoke(app, command)
    assert result.exception is None, result.output
    return published

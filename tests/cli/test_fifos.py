"""No command waits for a file that never ends."""

from __future__ import annotations

import os

import pytest


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            "compare fifo",
            "compare fifo.md",
            "report fifo",
            "lint fifo.md",
            "verify fifo.md --runs .",
            "bundle check fifo",
        ),
        *("report import fifo --out imported", "report import fifo.log --out imported", "suite fifo.toml --out suite"),
        *("train mobilenetv2 --vendor cpu --config fifo --out run", "lint seed.md --cards fifo"),
        "reveal record.json --secrets fifo",
    ],
)
def test_a_fifo_is_refused(invoke, tmp_path, planned, arguments):
    for suffix in ("", ".md", ".log", ".toml"):
        os.mkfifo(tmp_path / f"fifo{suffix}")
    (tmp_path / "seed.md").write_text("# Seed\n")
    (tmp_path / "record.json").write_text(planned.model_dump_json())
    ended = invoke(*arguments.split())
    assert ended.code in (1, 2, 4)
    assert "it is not a regular file" in ended.out + ended.err


def test_a_site_lists_a_record_that_is_a_fifo(invoke, tmp_path, planned):
    (tmp_path / "runs" / "good").mkdir(parents=True)
    (tmp_path / "runs" / "good" / "record.json").write_text(planned.model_dump_json())
    os.mkfifo(tmp_path / "runs" / "record.json")
    assert invoke("site", "runs", "--out", "site").code == 0
    assert "it is not a regular file" in (tmp_path / "site" / "index.html").read_text()

"""Installed plugins that exit, crash, flood or answer nonsense cost nothing but their own answer, and are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SEED = Path(__file__).parents[1] / "report" / "seeds" / "metax-resnet50.md"

SOURCES = {
    "exits": "import os; os._exit(0)",
    "crashes": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "floods": "while True: print('flood' * 1000)",
    "babbles": "import os; os.write(3, b'[{}]'); os._exit(0)",
}


@pytest.fixture
def environment(distributions):
    for name, source in SOURCES.items():
        (distributions.root / f"plugin_that_{name}.py").write_text(source)
        entries = f"{name} = plugin_that_{name}\n"
        distributions.add(f"perf-{name}", f"[chipperf.vendors]\n{entries}[chipperf.cases]\n{entries}")
    return {"PYTHONPATH": distributions.python_path}


def named(text, *, case=False):
    kind = "case" if case else "vendor"
    return [name for name in SOURCES if f"{kind} {name!r} (perf-{name} 1.2): " in text]


def test_lint_still_finds_the_faults(perf, environment):
    ended = perf("lint", SEED, **environment)
    assert ended.returncode == 4
    assert "1 document: 18 errors" in ended.stdout
    assert named(ended.stderr) == named(ended.stderr, case=True) == list(SOURCES)


def test_import_still_reads(perf, environment, tmp_path):
    ended = perf("report", "import", SEED, "--out", tmp_path / "imported", **environment)
    assert ended.returncode == 0, ended.stderr
    assert named(ended.stderr) == list(SOURCES)


def test_doctor_names_them_among_the_others(perf, environment):
    ended = perf("doctor", "--json", **environment)
    found = {vendor["name"]: vendor for vendor in json.loads(ended.stdout)["vendors"]}
    assert found["cpu"]["available"]
    assert [name for name in SOURCES if named(found[name]["reason"]) and named(found[name]["trains"])] == list(SOURCES)


def test_cases_and_plugins_are_listed(perf, environment):
    listed = {case["name"]: case for case in json.loads(perf("cases", "--json", **environment).stdout)}
    assert listed["resnet50"]["version"] != "broken"
    assert named("".join(listed[name]["summary"] for name in SOURCES), case=True) == list(SOURCES)
    assert {each["name"] for each in json.loads(perf("plugins", "--json", **environment).stdout)} >= {*SOURCES, "cpu"}

"""What the pages say of the code is true, and their links lead somewhere."""

from __future__ import annotations

import inspect
import json
import re

import generate_schema
import pytest
from chipperf.cases.base import Role
from chipperf.cases.classification.case import RESNET50 as CASE
from chipperf.cases.classification.hyperparameters import PRESETS
from chipperf.cases.config import STATEABLE_FACTS, read_config_file, resolve
from chipperf.plugin.registration import REQUIRED_HOOKS, VENDOR_HOOKS
from chipperf.records.schema import Interruption, Memory, Metrics, MissingKind, Power, StepBreakdown
from chipperf.suites.suite_plan import RunEntry
from documents import LINKED_PAGES, README, README_ZH, ROOT, TOML_PAGE, anchors, blocks, links

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

METRICS_PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
SUITES_PAGE = ROOT / "docs" / "suites.md"
TRAINING_PAGE = TOML_PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", LINKED_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page):
    for link in links(page):
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page

        assert target.exists(), link
        assert not fragment or fragment in anchors(target), link


def test_every_page_is_in_the_index():
    index = ROOT / "docs" / "index.md"

    assert {path.name for path in index.parent.glob("*.md")} - {index.name} <= set(links(index))


def test_committed_schema_is_what_the_models_export():
    # Compared as JSON: the order of keys is pydantic's affair.
    assert json.loads(generate_schema.FILE.read_text(encoding="utf-8")) == json.loads(generate_schema.content()), (
        "run: make docs"
    )


@pytest.mark.parametrize(
    "name", [*Metrics.model_fields, *Memory.model_fields, *Power.model_fields, *Interruption.model_fields]
)
def test_metric_is_defined(name):
    assert re.search(rf"^(\| [^|]*`{name}`[^|]* \| |Under `{name}`, )", METRICS_PAGE, re.MULTILINE)


@pytest.mark.parametrize("name", [*StepBreakdown.model_fields, *MissingKind.__args__])
def test_part_of_a_metric_is_named(name):
    assert f"`{name}`" in METRICS_PAGE


def test_metrics_page_defines_nothing_that_is_not_recorded():
    recorded = {name for model in (Metrics, Memory, Power, Interruption) for name in model.model_fields}
    own_sections = METRICS_PAGE.partition("## Headline metrics")[2].partition("## Compared with FlagPerf")[0]
    first_columns = re.findall(r"^\| ([^|]*) \|", own_sections, re.MULTILINE)

    assert {name for column in first_columns for name in re.findall(r"`(\w+)`", column)} <= recorded


def test_every_event_is_documented():
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "core" / "src" / "chipperf").rglob("*.py")]
    written = {name for source in sources for name in re.findall(r"events\.write\(\s*\"(\w+)\"", source)}
    table = TRAINING_PAGE.partition("## Events")[2].partition("\n## ")[0]

    assert {name.upper() for name in written} == set(re.findall(r"`([A-Z_]+)`", table))


def test_example_of_a_configuration_file_is_accepted(tmp_path):
    (example,) = blocks(TOML_PAGE, "toml")
    path = tmp_path / "run.toml"
    path.write_text(example, encoding="utf-8")

    file = read_config_file(path)
    values = resolve(CASE, file=file.hyperparameters).values.model_dump()

    written = tomllib.loads(example)
    assert written["hyperparameters"] == {key: values[key] for key in written["hyperparameters"]}
    assert dict(file.environment) == written["environment"]


def test_example_of_a_suite_is_the_file_beside_it():
    (example,) = blocks(SUITES_PAGE, "toml")

    assert (ROOT / "docs" / "examples" / "nightly.toml").read_text(encoding="utf-8").endswith(f"\n{example}")


@pytest.mark.parametrize("key", RunEntry.model_fields)
def test_key_of_a_suite_is_explained(key):
    assert re.search(rf"^\| [^|]*`{key}`[^|]* \| \S", SUITES_PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def test_facts_that_can_be_stated_are_listed():
    (sentence,) = re.findall(r"^The facts that can be stated are (.*)\.$", TRAINING_PAGE, re.MULTILINE)

    assert re.findall(r"`(\w+)`", sentence) == list(STATEABLE_FACTS)


@pytest.mark.parametrize("name", [*PRESETS, *(str(role) for role in Role)])
def test_preset_or_role_is_explained(name):
    assert re.search(rf"^\| `?{name}`? \| \w", TRAINING_PAGE, re.MULTILINE)


@pytest.mark.parametrize("page", [README, README_ZH], ids=lambda page: page.name)
def test_plugin_in_the_readme_is_one(page):
    (source,) = blocks(page, "python")
    module = {}
    exec(source, module)
    hooks = {name: function for name, function in module.items() if name.startswith("perf_")}

    assert {name: tuple(inspect.signature(function).parameters) for name, function in hooks.items()} == {
        name: VENDOR_HOOKS[name] for name in hooks
    }
    assert set(re.findall(r"`(perf_\w+)`", page.read_text(encoding="utf-8"))) == set(REQUIRED_HOOKS)
    assert len(REQUIRED_HOOKS) == 8


def test_development_requirements_are_stated_once():
    group = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]["dev"]
    lines = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8").splitlines()

    assert [line for line in lines if not line.startswith("#")] == group

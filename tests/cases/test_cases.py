"""The benchmark's values, who may change them, and cases that others add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from chipperf.cases.base import Hyperparameters, Role
from chipperf.cases.classification.case import MOBILENETV2, RESNET50
from chipperf.cases.config import resolve
from chipperf.cases.registry import case_names, find_case
from chipperf.errors import PluginLoadError, UsageError

if TYPE_CHECKING:
    from chipperf.cases.base import Case
    from support import FakeDistributions

CASES = [RESNET50, MOBILENETV2]

# FlagPerf, training/benchmarks/<model>/pytorch/config/_base.py at 1b5a0303.
FLAGPERF: dict[str, dict[str, Any]] = {
    "resnet50": {
        "lr": 0.1,
        "weight_decay": 0.0001,
        "momentum": 0.9,
        "lr_step_epochs": 30,
        "lr_gamma": 0.1,
        "batch_size": 32,
        "eval_batch_size": 32,
        "epochs": 100,
        "target": 0.755,
        "seed": 0,
        "deterministic": True,
    },
    "mobilenetv2": {
        "lr": 0.045,
        "weight_decay": 0.00004,
        "momentum": 0.9,
        "lr_step_epochs": 1,
        "lr_gamma": 0.98,
        "batch_size": 8,
        "eval_batch_size": 8,
        "epochs": 300,
        "target": 0.686,
        "seed": 41,
    },
}

LOCKED = {
    *("model", "dataset", "target", "epochs", "evaluate_every_epochs", "optimizer", "momentum", "weight_decay"),
    *("lr_step_epochs", "lr_gamma", "image_size", "eval_resize_size"),
}
SCALED = {"batch_size", "lr", "accumulate_steps", "sync_batchnorm", "warmup_epochs"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_base_values_are_flagperfs(case: Case) -> None:
    base = case.base.model_dump()

    assert {key: base[key] for key in FLAGPERF[case.name]} == FLAGPERF[case.name]
    assert (base["optimizer"], base["dataset"]) == ("sgd", "imagenet2012")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_roles(case: Case) -> None:
    keys = case.base.keys()
    roles = {key: case.base.role(key) for key in keys}

    assert {key for key, role in roles.items() if role is Role.LOCKED} == LOCKED
    assert {key for key, role in roles.items() if role is Role.SCALED} == SCALED


def test_hyperparameter_without_a_role_is_a_programming_error() -> None:
    class Careless(Hyperparameters):
        extra: int = 1

    with pytest.raises(TypeError, match=r"Careless\.extra has no Role"):
        Careless.role("extra")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_full_preset_is_the_base(case: Case) -> None:
    assert resolve(case, preset="full").values == case.base


@pytest.mark.parametrize("preset", ["full", "demo", "tiny"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_presets_fit_and_keep_what_the_case_is(case: Case, preset: str) -> None:
    values = resolve(case, preset=preset).values.model_dump()
    base = case.base.model_dump()

    for key in ("model", "optimizer", "dataset", "target", "momentum", "weight_decay"):
        assert values[key] == base[key]
    assert values["eval_resize_size"] >= values["image_size"]


def test_cases_of_core_come_first() -> None:
    assert case_names()[:2] == ("resnet50", "mobilenetv2")
    assert [find_case(case.name) for case in CASES] == CASES


def test_unknown_case_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown case 'resnet5' \(did you mean 'resnet50'\?\)") as caught:
        find_case("resnet5")
    assert "installed cases: resnet50, mobilenetv2" in str(caught.value.hint)


GOOD = """
from dataclasses import replace
from chipperf.cases.classification.case import RESNET50

CASE = replace(RESNET50, name="resnet51")
NAMESAKE = RESNET50
NUMBER = 51
"""


def test_case_of_another_distribution_is_found(distributions: FakeDistributions) -> None:
    (distributions.root / "cases_found.py").write_text(GOOD)
    distributions.add("perf-cases", "[chipperf.cases]\nresnet51 = cases_found:CASE\n")

    assert "resnet51" in case_names()
    assert find_case("resnet51").name == "resnet51"


@pytest.mark.parametrize(
    ("module", "source", "value", "message"),
    [
        ("cases_broken", "import no_such_module", "cases_broken:CASE", "ModuleNotFoundError: No module named"),
        ("cases_empty", "", "cases_empty:CASE", "AttributeError: .*has no attribute 'CASE'"),
        ("cases_number", GOOD, "cases_number:NUMBER", "is not a Case of that name"),
        ("cases_namesake", GOOD, "cases_namesake:NAMESAKE", "is not a Case of that name"),
    ],
)
def test_broken_case_names_its_distribution(
    distributions: FakeDistributions, module: str, source: str, value: str, message: str
) -> None:
    (distributions.root / f"{module}.py").write_text(source)
    distributions.add("perf-cases", f"[chipperf.cases]\nresnet51 = {value}\n")

    with pytest.raises(PluginLoadError, match=message) as caught:
        find_case("resnet51")
    assert caught.value.message.startswith("case 'resnet51' (perf-cases 1.2): ")
    assert repr(value) in caught.value.message
    assert find_case("resnet50") is RESNET50


def test_name_that_two_distributions_provide_is_an_error(distributions: FakeDistributions) -> None:
    for name in ("perf-one", "perf-two"):
        distributions.add(name, f"[chipperf.cases]\nresnet51 = {name.replace('-', '_')}:CASE\n")

    with pytest.raises(PluginLoadError, match="is provided more than once: by perf_(one|two):CASE and perf_(one|two)"):
        find_case("resnet51")


def test_case_of_core_cannot_be_replaced(distributions: FakeDistributions) -> None:
    distributions.add("perf-cases", "[chipperf.cases]\nresnet50 = cases_evil:CASE\n")

    assert find_case("resnet50") is RESNET50
    assert case_names().count("resnet50") == 1

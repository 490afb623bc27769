"""The documentation of the hooks agrees with the hooks, and its examples run."""

import ast
import inspect
import sys
import types
from pathlib import Path

import chipperf
import generate_hooks
import pluggy
import pytest
import torch
from chipperf.plugin.hook_results import describe_mismatch
from chipperf.plugin.hookspecs import PROJECT_NAME, ObserverSpecs, VendorSpecs
from chipperf.plugin.registration import (
    CAPABILITY_HOOKS,
    INSPECTION_HOOKS,
    OBSERVER_HOOKS,
    REQUIRED_HOOKS,
    VENDOR_HOOKS,
)
from hook_events import EVENTS

ROOT = Path(__file__).parents[2]
ALL_HOOKS = {**VENDOR_HOOKS, **OBSERVER_HOOKS}

SAMPLES = {
    "rank": chipperf.Rank(),
    "settings": chipperf.EnvironmentSettings(case="resnet50", precision="fp32"),
    "seed": 3,
    "deterministic": False,
    "requested": "fp32",
    "model": torch.nn.Conv2d(1, 1, 1),
    "precision": chipperf.PrecisionPolicy(requested="fp32", effective="fp32"),
    "case": "resnet50",
    "device": torch.device("cpu", 0),
    "device_name": "ACME A1",
}
SAMPLES_OF_HOOK = {
    "perf_telemetry": {"device": chipperf.DeviceInfo(index=0, name="ACME A1", uuid="u-1")},
    "perf_peak_flops": {"precision": "bf16"},
    **{hook: {"event": event} for hook, event in EVENTS.items()},
}


def specification_of(hook):
    return getattr(VendorSpecs, hook, None) or getattr(ObserverSpecs, hook)


def test_committed_page_is_what_the_docstrings_say():
    assert generate_hooks.PAGE.read_text(encoding="utf-8") == generate_hooks.page(), (
        "run: python docs/generate_hooks.py"
    )


@pytest.mark.parametrize("hook", ALL_HOOKS)
def test_page_has_every_signature(hook):
    assert f"`{hook}({', '.join(ALL_HOOKS[hook])})`" in generate_hooks.PAGE.read_text(encoding="utf-8")


def test_every_hook_has_a_test():
    tree = ast.parse((ROOT / "tests" / "plugin" / "test_hooks.py").read_text(encoding="utf-8"))
    tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}

    assert {f"test_hook_{hook.removeprefix('perf_')}" for hook in ALL_HOOKS} <= tests


def test_required_and_conditional_hooks_are_called_so_in_their_docstrings():
    said = {hook for hook in VENDOR_HOOKS if "required" in inspect.getdoc(specification_of(hook)).partition("\n")[0]}

    assert said == {*REQUIRED_HOOKS, "perf_distributed_setup"}
    assert set(INSPECTION_HOOKS) < set(REQUIRED_HOOKS)
    assert set(CAPABILITY_HOOKS.values()) <= set(VENDOR_HOOKS)


@pytest.mark.parametrize("hook", ALL_HOOKS)
def test_only_hooks_with_a_result_take_the_first_one_and_none_is_historic(hook):
    specification = specification_of(hook)
    options = specification.perf_spec

    assert options["firstresult"] == (specification.__annotations__["return"] != "None")
    assert not options["historic"]


@pytest.mark.parametrize("hook", ALL_HOOKS)
def test_example_runs_and_returns_what_is_specified(hook):
    specification = specification_of(hook)
    module = types.ModuleType(f"example_of_{hook}")
    exec(generate_hooks.example_of(specification), vars(module))
    manager = pluggy.PluginManager(PROJECT_NAME)
    manager.add_hookspecs(VendorSpecs)
    manager.add_hookspecs(ObserverSpecs)
    manager.register(module)
    manager.check_pending()
    (implementation,) = getattr(manager.hook, hook).get_hookimpls()
    samples = {**SAMPLES, **SAMPLES_OF_HOOK.get(hook, {})}

    result = implementation.function(*(samples[name] for name in implementation.argnames))

    promised = specification.__annotations__["return"]
    if promised == "None":
        assert result is None
    else:
        expected = eval(promised, {"torch": torch, **vars(sys.modules["chipperf.plugin.types"])})
        assert describe_mismatch(result, expected) is None

"""The certificate follows a device that computes rightly, and leaves one that does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from chipperf.cases.classification.case import MOBILENETV2
from chipperf.cases.detr.case import DETR
from chipperf.cases.registry import find_case
from chipperf.cli.main import app
from chipperf.contract.certificate import BATCHES, CaseComparison, Certificate, StepComparison, write_plot
from chipperf.contract.check import Failed
from chipperf.contract.checks import numerics_checks
from chipperf.contract.checks.numerics_checks import training_follows_reference
from chipperf.contract.equivalence import compare, covering_case, hyperparameters_of, sample_data
from chipperf.contract.plugin_under_test import PluginUnderTest
from chipperf.errors import PerfError, PluginError, UsageError
from chipperf.plugin.installed import find_vendor
from chipperf.plugin.session import bind
from chipperf.plugin.types import EnvironmentSettings, PrecisionPolicy, Rank
from small_case import CASE
from support import FakeDistributions
from typer.testing import CliRunner

if TYPE_CHECKING:
    from collections.abc import Callable

    from chipperf.plugin.session import Session
    from support import Perf

CPU = torch.device("cpu")
NOWHERE = Path("unused")
HALVED = '''"""The CPU reference with gradients that are too small."""

from dataclasses import replace

from chipperf import hookimpl
from chipperf.vendors import cpu
from chipperf.vendors.cpu import (
    perf_device_info,
    perf_device_init,
    perf_load_runtime,
    perf_memory_query,
    perf_memory_reset_peak,
    perf_probe,
    perf_synchronize,
)


@hookimpl
def perf_vendor_info():
    return replace(cpu.perf_vendor_info(), name="halved", capabilities=frozenset())


@hookimpl
def perf_prepare_model(model, precision, device):
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: gradient / 2)
    return model
'''


def step(number: int = 1, loss: float | None = 1.0, distance: float | None = 1e-5) -> StepComparison:
    return StepComparison(
        step=number,
        loss=loss,
        reference_loss=1.0,
        gradient_norm=None if distance is None else 2.0 + distance,
        reference_gradient_norm=2.0,
        gradient_distance=distance,
    )


def comparison(*steps: StepComparison) -> CaseComparison:
    return CaseComparison(
        case="small",
        case_version="1.0",
        dataset="seed",
        batch_size=4,
        learning_rate_scale=0.1,
        loss_tolerance=1e-4,
        gradient_tolerance=1e-3,
        steps=steps,
    )


def certificate(*comparisons: CaseComparison) -> Certificate:
    return Certificate(
        chipperf_version="1.0",
        created_at="2026-01-02T03:04:05Z",  # type: ignore[arg-type]
        vendor="acme",
        distribution="chipperf-acme 1.0",
        simulated=False,
        device={"name": "Acme A1"},
        runtime={},
        reference="x86_64 CPU",
        precision={"requested": "fp32"},
        size="tiny",
        seed=1,
        within=all(one.within for one in comparisons),
        comparisons=comparisons,
    )


class OtherDevice:
    """The CPU as a vendor's device whose models are prepared by a function of the test."""

    step_end: Callable[[torch.device], None] | None = None

    def __init__(self, prepare: Callable[[torch.nn.Module], torch.nn.Module]) -> None:
        self._prepare = prepare

    def seed(self, seed: int, device: torch.device, deterministic: bool) -> None:
        pass

    def prepare_model(self, model: torch.nn.Module, precision: object, device: object) -> torch.nn.Module:
        return self._prepare(model)


def rounded(bits: int) -> Callable[[torch.nn.Module], torch.nn.Module]:
    """Return what makes a model's products round their inputs to so many bits behind the point."""

    def prepare(model: torch.nn.Module) -> torch.nn.Module:
        for module in model.modules():
            if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
                module.register_forward_pre_hook(lambda module, inputs: (rounding(inputs[0]),))
        return model

    def rounding(values: torch.Tensor) -> torch.Tensor:
        factor = 2.0 ** torch.floor(torch.log2(values.detach().abs().clamp(min=1e-30))) / 2**bits
        return values + (torch.round(values.detach() / factor) * factor - values.detach())

    return prepare


def follow(prepare: Callable[[torch.nn.Module], torch.nn.Module], policy: PrecisionPolicy, **options: Any) -> Any:
    session: Any = OtherDevice(prepare)
    return compare(session, CPU, policy, CASE, NOWHERE, **options)


def reverse_gradients(model: torch.nn.Module) -> torch.nn.Module:
    for parameter in model[-1].parameters():  # type: ignore[index]
        parameter.register_hook(lambda gradient: gradient.flip(0))
    return model


FP32 = PrecisionPolicy(requested="fp32", effective="fp32")
BF16 = PrecisionPolicy(requested="bf16", effective="bf16", autocast_dtype="bfloat16")


def test_other_layout_is_within_and_its_loss_falls() -> None:
    found = follow(lambda model: model.to(memory_format=torch.channels_last), FP32)

    assert found.within, found.summary
    assert found.falls
    assert [one.step for one in found.steps] == list(range(1, 21))
    assert (found.case, found.batch_size, found.dataset) == ("small", 32, "drawn from a seed")
    assert found.steps[0].gradient_norm == pytest.approx(found.steps[0].reference_gradient_norm, rel=1e-3)


def test_same_seed_gives_the_same_numbers() -> None:
    first, second = (follow(lambda model: model, FP32, steps=2) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(rounded(7), id="bf16"),
        pytest.param(reverse_gradients, id="wrong backward pass"),
        pytest.param(lambda model: model.eval(), id="evaluation mode"),
    ],
)
def test_fault_is_outside_in_fp32(fault: Callable[[torch.nn.Module], torch.nn.Module]) -> None:
    assert not follow(fault, FP32, steps=3).within


def biased_statistics(model: torch.nn.Module) -> torch.nn.Module:
    def bias(module: Any, *_: object) -> None:
        module.running_var.data.mul_(0.99)

    model[1].register_forward_hook(bias)  # type: ignore[index,operator]
    return model


def one_gradient_halved(model: torch.nn.Module) -> torch.nn.Module:
    model[1].bias.register_hook(lambda gradient: gradient / 2)  # type: ignore[index,operator]
    return model


def batch_statistics_in_evaluation(model: torch.nn.Module) -> torch.nn.Module:
    model.eval = lambda: model  # type: ignore[method-assign,assignment]
    return model


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (one_gradient_halved, "at step 1 the gradient of 1.bias differs most"),
        (biased_statistics, "the buffer 1.running_var differs by"),
        (batch_statistics_in_evaluation, "the loss in evaluation is"),
    ],
)
def test_fault_that_no_loss_shows_is_named(fault: Callable[[torch.nn.Module], torch.nn.Module], words: str) -> None:
    found = follow(fault, FP32, steps=3)
    assert words in found.summary
    assert [one.loss_error < 1e-6 for one in found.steps] == [True] * 3


@pytest.mark.parametrize(
    ("setting", "value"), [("momentum", 0.8), ("weight_decay", 0.1), ("lr", 0.01), ("nesterov", True)]
)
def test_update_of_other_settings_is_named(setting: str, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    step = torch.optim.SGD.step

    def other(self: torch.optim.SGD) -> Any:
        (group,) = self.param_groups
        if hasattr(group["params"][0], "of_the_vendor"):
            group[setting] = value
        return step(self)

    def mark(model: torch.nn.Module) -> torch.nn.Module:
        model[0].weight.of_the_vendor = True  # type: ignore[index,union-attr]
        return model

    assert follow(mark, FP32, steps=3).within
    monkeypatch.setattr(torch.optim.SGD, "step", other)
    assert "a step with the same gradients changes 0.weight otherwise" in follow(mark, FP32, steps=3).summary


def test_of_the_cases_with_the_same_layers_one_is_trained(tmp_path: Path) -> None:
    expected = {
        "resnet50": None,
        "mobilenetv2": None,
        "detr": "detr_masks",
        "detr_masks": "detr_panoptic",
        "detr_panoptic": None,
    }

    assert {name: covering_case(find_case(name), tmp_path) for name in expected} == expected


def test_comparison_may_end_at_the_step_that_decides_it() -> None:
    found = follow(reverse_gradients, FP32, to_the_end=False)
    assert (len(found.steps), found.within) == (1, False)
    assert len(follow(lambda model: model, FP32, to_the_end=False).steps) == 20


def test_bf16_is_within_its_own_tolerance_alone() -> None:
    assert follow(lambda model: model, BF16, steps=5).within
    assert not follow(rounded(7), FP32, steps=5).within


def test_reference_that_is_not_in_fp32_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    multiply = torch.mm
    monkeypatch.setattr(torch, "mm", lambda one, other: multiply(one.bfloat16(), other.bfloat16()).float())
    with pytest.raises(PluginError, match="no fp32 reference"):
        follow(lambda model: model, FP32)


def test_values_within_tolerance_are_within() -> None:
    found = comparison(step(1, loss=1.00005), step(2, distance=9e-4))
    assert found.within
    assert found.summary.startswith("small: 2 steps within tolerance; losses off by at most 5.0e-05")


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (
            [step(), step(2, loss=1.0002), step(3, loss=3.0)],
            "at step 2 the loss is 1.0002, and 1 on the CPU reference;",
        ),
        ([step(loss=None)], "at step 1 the loss is not finite"),
        (
            [step(), step(2, distance=2e-3), step(3, distance=2e-3)],
            "the gradients differ by 2.0e-03 of their norm in the median step",
        ),
        ([step(distance=None)], "the gradients differ by inf of their norm in the median step"),
        ([step(), step(2), step(3, distance=0.02)], "at step 3 the gradients differ by 2.0e-02 of their norm"),
    ],
)
def test_value_outside_is_named(steps: list[StepComparison], words: str) -> None:
    found = comparison(*steps)
    assert not found.within
    assert words in found.summary


def test_one_step_across_a_kink_is_within() -> None:
    assert comparison(step(1), step(2), step(3, distance=9e-3)).within


@pytest.mark.parametrize(
    ("losses", "falls"),
    [([4, 3, 2, 1, 3.9, 2.9, 1.9, 0.9], True), ([1, 1, 1, 1, 1, 1, 1, 1], False), ([4, 3, 2, 1, 3, 2, 1, None], False)],
)
def test_loss_falls_if_it_ends_lower(losses: list[float | None], falls: bool) -> None:
    steps = [step(number, loss=loss) for number, loss in enumerate(losses, start=1)]
    assert comparison(*steps).falls is falls


def test_real_size_is_the_benchmarks_without_files_that_generated_data_lacks() -> None:
    assert hyperparameters_of(MOBILENETV2, "real").model_dump()["image_size"] == 224
    detr = hyperparameters_of(DETR, "real").model_dump()
    assert (detr["resolution"], detr["backbone_weights"]) == (800, "")


@pytest.mark.parametrize("case", [MOBILENETV2, DETR], ids=lambda case: case.name)
def test_sample_data_fills_the_batches(case: Any, tmp_path: Path) -> None:
    data = sample_data(case, "tiny", tmp_path)
    manifest = json.loads((data / "dataset.json").read_text(encoding="utf-8"))
    assert manifest["train_samples"] == BATCHES * hyperparameters_of(case, "tiny").batch_size


def test_unknown_dataset_needs_a_directory() -> None:
    with pytest.raises(UsageError, match="no data can be generated for case small"):
        sample_data(CASE, "tiny")


def test_certificate_survives_writing_and_reading() -> None:
    written = certificate(comparison(step(loss=None)))
    assert Certificate.model_validate_json(written.model_dump_json()) == written


def test_plot_is_drawn_for_values_that_are_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "equivalence.png"
    other = comparison(step()).model_copy(update={"case": "other"})
    write_plot(certificate(comparison(step(), step(2, loss=None, distance=None)), other), path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def reference() -> Session:
    return bind(find_vendor("cpu"))


def test_classifier_on_the_reference_itself_is_within(reference: Session, tmp_path: Path) -> None:
    device_policy = reference.precision("fp32", CPU)
    case = MOBILENETV2
    found = compare(reference, CPU, device_policy, case, sample_data(case, "tiny", tmp_path), steps=1)
    assert found.within, found.summary


SETTINGS = EnvironmentSettings(case=CASE.name, precision="fp32")


@pytest.fixture
def only_the_small_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics_checks, "find_case", lambda name: CASE)
    monkeypatch.setattr(numerics_checks, "_sample", lambda subject, case: NOWHERE)


@pytest.mark.usefixtures("only_the_small_case")
def test_check_passes_the_reference(tmp_path: Path) -> None:
    training_follows_reference.function(PluginUnderTest(find_vendor("cpu"), Rank(), SETTINGS, tmp_path))


@pytest.mark.usefixtures("only_the_small_case")
def test_check_finds_a_wrong_backward_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = PluginUnderTest(find_vendor("cpu"), Rank(), SETTINGS, tmp_path)
    monkeypatch.setattr(subject.session, "prepare_model", lambda model, precision, device: reverse_gradients(model))
    with pytest.raises(Failed, match="small: the gradients differ by .* of their norm in the median step"):
        training_follows_reference.function(subject)


def test_command_writes_certificate_and_plot(perf: Perf, tmp_path: Path) -> None:
    done = perf(
        *("contract", "certify", "--vendor", "cpu", "--case", "mobilenetv2", "--steps", 1, "--out", tmp_path / "new"),
        XDG_CACHE_HOME=str(tmp_path),
        OMP_NUM_THREADS="1",
    )
    assert done.returncode == 0, done.stderr
    assert "mobilenetv2: 1 steps within tolerance" in done.stdout
    written = Certificate.model_validate_json((tmp_path / "new/equivalence.json").read_text(encoding="utf-8"))
    assert (written.vendor, written.within, written.comparisons[0].case) == ("cpu", True, "mobilenetv2")
    assert (tmp_path / "new/equivalence.png").read_bytes().startswith(b"\x89PNG")


def test_command_fails_for_a_device_that_leaves_the_reference(perf: Perf, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "halved.py").write_text(HALVED, encoding="utf-8")
    FakeDistributions(site).add("chipperf-halved", "[chipperf.vendors]\nhalved = halved\n")
    done = perf(
        *("contract", "certify", "--vendor", "halved", "--case", "mobilenetv2", "--steps", 1, "--out", tmp_path),
        XDG_CACHE_HOME=str(tmp_path),
        OMP_NUM_THREADS="1",
        PYTHONPATH=str(site),
    )
    assert done.returncode == 4, done.stderr
    assert "the gradients differ by 5.0e-01 of their norm" in done.stdout
    assert "does not follow the CPU reference in fp32" in done.stderr
    assert not Certificate.model_validate_json((tmp_path / "equivalence.json").read_text(encoding="utf-8")).within


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--case", "resnet51"), 2, "did you mean 'resnet50'"),
        (("--precision", "fp23", "--case", "mobilenetv2"), 2, "unknown precision 'fp23'"),
        (("--precision", "amp", "--case", "mobilenetv2"), 3, "does not run amp"),
        (("--data", "."), 2, "give one --case"),
        (("--out", "/proc/nowhere", "--case", "mobilenetv2"), 2, "cannot write to /proc/nowhere"),
        (("--vendor", "cpv", "--case", "mobilenetv2"), 3, "did you mean 'cpu'"),
    ],
)
def test_command_says_what_is_wrong(tmp_path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    done = CliRunner().invoke(app, ["contract", "certify", "--vendor", "cpu", "--out", str(tmp_path), *arguments])
    assert isinstance(done.exception, PerfError)
    assert done.exception.exit_code == code
    assert words in f"{done.exception.message}\n{done.exception.hint}"
    assert not (tmp_path / "equivalence.json").exists()

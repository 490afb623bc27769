"""The equivalence certificate: how far the first steps of training on a device are from the CPU reference."""

from __future__ import annotations

import math
import statistics
import sys
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import AwareDatetime, FiniteFloat, model_validator

from chipperf import __version__
from chipperf.cases.base import SampleSize
from chipperf.precisions import ARITHMETICS, PRECISIONS
from chipperf.records.files import write_atomically
from chipperf.records.schema import StrictModel
from chipperf.report.figures import drawing_style, find_fonts, make_figure, picture_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from matplotlib.figure import Figure

BATCHES: Final = 2
"""Number of batches that the steps use in turn. A falling loss is visible only on batches that repeat."""

_KINK: Final = 10.0
_FEW: Final = 3
"""Differences that a message names."""

_ROUNDING: Final = 1e-5
"""Fraction by which a norm computed in fp32 can be off: millions of terms, added in many short sums."""

_PANEL_INCHES: Final = (4.6, 3.2)
_SMALLEST_ERROR: Final = 1e-9
"""Value that is drawn instead of 0, which a logarithmic axis cannot show."""


class StepComparison(StrictModel):
    """One step, counted from 1, on the device and on the CPU. ``None`` stands for a value that is not finite.

    A gradient norm is that of the gradients of all parameters together. ``gradient_distance`` is the norm of the
    difference between the gradients, as a fraction of the reference's norm. ``layer`` is the parameter whose own
    gradient differs most, ``layer_distance`` by which fraction of its norm and of a small part of the whole norm.
    """

    step: int
    loss: FiniteFloat | None
    reference_loss: FiniteFloat
    gradient_norm: FiniteFloat | None
    reference_gradient_norm: FiniteFloat
    gradient_distance: FiniteFloat | None
    layer: str = ""
    layer_distance: FiniteFloat | None = 0.0

    @property
    def loss_error(self) -> float:
        """Relative error of the loss; infinite if the loss is not finite."""
        difference = abs(_number(self.loss) - self.reference_loss)
        return difference / max(abs(self.reference_loss), sys.float_info.min)


class CaseComparison(StrictModel):
    """The first steps of one case, with the factor of its learning rates.

    Every loss and the median gradient distance must be within their tolerances. A single step may reach ten times the
    tolerance of a gradient, which changes strongly if a unit, a box or an assignment crosses a kink, and so may a
    single layer. ``differences`` says what else differs after the last step: buffers, an evaluation, an update.
    """

    case: str
    case_version: str
    dataset: str
    batch_size: int
    learning_rate_scale: FiniteFloat
    loss_tolerance: FiniteFloat
    gradient_tolerance: FiniteFloat
    steps: tuple[StepComparison, ...]
    differences: tuple[str, ...] = ()

    @property
    def within(self) -> bool:
        """True if every tolerance holds."""
        return not self._faults()

    @property
    def lost(self) -> bool:
        """True if a step differs so much that the comparison fails for any later steps."""
        judges = (self._leaves_path, self._exceeds_kink, self._exceeds_in_layer)
        return any(exceeds(step) for step in self.steps for exceeds in judges)

    @property
    def falls(self) -> bool:
        """True if the loss on the device, summed over all batches, is lower at the end than at the start."""
        losses = [_number(step.loss) for step in self.steps]
        return sum(losses[-BATCHES:]) < sum(losses[:BATCHES])

    @property
    def summary(self) -> str:
        """One line with the values outside the tolerances or, if there are none, with the largest differences."""
        faults = self._faults()
        if faults:
            return f"{self.case}: {'; '.join(faults)}"
        return (
            f"{self.case}: {len(self.steps)} steps within tolerance; losses off by at most "
            f"{max(step.loss_error for step in self.steps):.1e}, gradients by {self._median_distance:.1e} in the median"
        )

    @property
    def _median_distance(self) -> float:
        return statistics.median(_number(step.gradient_distance) for step in self.steps)

    def _leaves_path(self, step: StepComparison) -> bool:
        return step.loss_error > self.loss_tolerance

    def _exceeds_kink(self, step: StepComparison) -> bool:
        return _number(step.gradient_distance) > _KINK * self.gradient_tolerance

    def _exceeds_in_layer(self, step: StepComparison) -> bool:
        return _number(step.layer_distance) > _KINK * self.gradient_tolerance

    def _faults(self) -> list[str]:
        if not self.steps:
            return ["no step was compared"]
        faults = []
        # A device that has diverged from the reference stays away from it, so report only the first such step.
        step = next(filter(self._leaves_path, self.steps), None)
        if step is not None:
            loss = "not finite" if step.loss is None else f"{step.loss:.6g}"
            faults.append(
                f"at step {step.step} the loss is {loss}, and {step.reference_loss:.6g} on the CPU reference; a "
                f"relative difference of {self.loss_tolerance:.0e} is allowed"
            )
        worst = max(self.steps, key=lambda step: _number(step.gradient_distance))
        if self._median_distance > self.gradient_tolerance:
            faults.append(
                f"the gradients differ by {self._median_distance:.1e} of their norm in the median step; "
                f"{self.gradient_tolerance:.0e} is allowed"
            )
        elif self._exceeds_kink(worst):
            faults.append(
                f"at step {worst.step} the gradients differ by {_number(worst.gradient_distance):.1e} of their norm; "
                f"{_KINK * self.gradient_tolerance:.0e} is allowed for a single step"
            )
        step = next(filter(self._exceeds_in_layer, self.steps), None)
        if step is not None:
            faults.append(
                f"at step {step.step} the gradient of {step.layer} differs most, by {_number(step.layer_distance):.1e} "
                f"of its norm; {_KINK * self.gradient_tolerance:.0e} is allowed for a single layer"
            )
        more = len(self.differences) - _FEW
        return [*faults, *self.differences[:_FEW], *([f"and {more} more differences"] if more > 0 else [])]


class Certificate(StrictModel):
    """The content of ``equivalence.json``: the differences between a device and the CPU reference, with all settings.

    Attributes:
        distribution: Distribution that provides the plugin, with its version.
        simulated: True if fake modules stood in for the vendor's stack.
        reference: Processor architecture and torch of the reference.
        precision: What the device was asked for, and how it carries it out.
    """

    schema_version: Literal[1] = 1
    chipperf_version: str
    created_at: AwareDatetime
    vendor: str
    distribution: str
    simulated: bool
    device: dict[str, Any]
    runtime: dict[str, Any]
    reference: str
    precision: dict[str, Any]
    size: SampleSize
    seed: int
    within: bool
    comparisons: tuple[CaseComparison, ...]

    @model_validator(mode="after")
    def _require_consistent(self) -> Certificate:
        for fault in self._contradictions():
            raise ValueError(f"the certificate contradicts itself: {fault}")
        return self

    def _contradictions(self) -> Iterator[str]:
        if self.within != all(each.within for each in self.comparisons):
            yield f"'within' is {str(self.within).lower()}, and its comparisons say otherwise"
        if len({each.case for each in self.comparisons}) < len(self.comparisons):
            yield "it compares a case twice"
        for each in self.comparisons:
            if [step.step for step in each.steps] != list(range(1, len(each.steps) + 1)):
                yield f"steps of {each.case} are missing"
            for step in each.steps:
                # The triangle inequality: two gradients differ by no less than their norms do.
                apart = abs(_number(step.gradient_norm) - step.reference_gradient_norm)
                if (_number(step.gradient_distance) + _ROUNDING) * step.reference_gradient_norm < apart:
                    yield f"at step {step.step} of {each.case} the gradients differ by less than their norms do"
            if self.chipperf_version == __version__ and not self._has_tolerances(each):
                yield f"the tolerances of {each.case} are not those of its precision"

    def _has_tolerances(self, comparison: CaseComparison) -> bool:
        requested = self.precision.get("requested")
        arithmetics = [ARITHMETICS[each.arithmetic] for name, each in PRECISIONS.items() if name == requested]
        tolerances = (comparison.loss_tolerance, comparison.gradient_tolerance)
        return [tolerances] == [(each.loss.value, each.gradient.value) for each in arithmetics]


def write_plot(certificate: Certificate, path: Path) -> None:
    """Draw loss, gradient norm and errors of every case as PNG, with the reference and tolerances, or raise
    RecordError.
    """
    with drawing_style(find_fonts()):
        write_atomically(path, picture_bytes(_draw(certificate), "png"))


def _draw(certificate: Certificate) -> Figure:
    device = f"{certificate.device['name']} {certificate.precision['requested']}"
    rows = len(certificate.comparisons)
    figure = make_figure(3 * _PANEL_INCHES[0], rows * _PANEL_INCHES[1])
    panels = figure.subplots(rows, 3, squeeze=False)
    for comparison, (loss, norm, errors) in zip(certificate.comparisons, panels, strict=True):
        steps = [step.step for step in comparison.steps]
        loss.plot(steps, [step.reference_loss for step in comparison.steps], "-", color="0.6", label="CPU fp32")
        loss.plot(steps, _drawn(step.loss for step in comparison.steps), ".", label=device)
        loss.set(title=f"{comparison.case}: loss", xlabel="step")
        loss.legend()
        norm.plot(steps, [step.reference_gradient_norm for step in comparison.steps], "-", color="0.6")
        norm.plot(steps, _drawn(step.gradient_norm for step in comparison.steps), ".")
        norm.set(title=f"{comparison.case}: gradient norm", xlabel="step")
        distances = _drawn(step.gradient_distance for step in comparison.steps)
        curves = {
            "loss": ([step.loss_error for step in comparison.steps], comparison.loss_tolerance),
            "gradient": (distances, comparison.gradient_tolerance),
        }
        for label, (values, tolerance) in curves.items():
            [line] = errors.plot(steps, [max(_SMALLEST_ERROR, value) for value in values], ".-", label=label)
            errors.axhline(tolerance, linestyle="--", color=line.get_color(), linewidth=0.8)
        errors.set(title=f"{comparison.case}: relative error (dashed: bound)", xlabel="step", yscale="log")
        errors.legend()
    verdict = "within tolerance" if certificate.within else "OUTSIDE TOLERANCE"
    simulated = ", simulated" if certificate.simulated else ""
    figure.suptitle(f"{device}{simulated}, {certificate.size} size: {verdict}")
    return figure


def _drawn(values: Iterable[float | None]) -> list[float]:
    """Return the values, with a gap in place of each value that is not finite."""
    return [math.nan if value is None else value for value in values]


def _number(value: float | None) -> float:
    return math.inf if value is None else value

"""The plot of an equivalence certificate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from chipperf.records.files import write_atomically
from chipperf.report.figures import drawing_style, find_fonts, make_figure, picture_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from chipperf.contract.equivalence import CaseComparison, Certificate

_PANEL_INCHES = (4.6, 3.2)
_SMALLEST_ERROR = 1e-9
"""Value that is drawn instead of 0, which a logarithmic axis cannot show."""


def write_plot(certificate: Certificate, path: Path) -> None:
    """Draw loss, gradient norm and errors of every case, with the reference and the tolerances, as PNG.

    Args:
        certificate: The certificate to draw, with one row of panels per case.
        path: File to write.

    Raises:
        RecordError: The file cannot be written.
    """
    with drawing_style(find_fonts()):
        write_atomically(path, picture_bytes(_draw(certificate), "png"))


def _draw(certificate: Certificate) -> Figure:
    rows = len(certificate.comparisons)
    figure = make_figure(3 * _PANEL_INCHES[0], rows * _PANEL_INCHES[1])
    panels = figure.subplots(rows, 3, squeeze=False)
    for comparison, (loss, norm, errors) in zip(certificate.comparisons, panels, strict=True):
        steps = [step.step for step in comparison.steps]
        loss.plot(steps, [step.reference_loss for step in comparison.steps], "-", color="0.6", label="CPU fp32")
        loss.plot(steps, _drawn(step.loss for step in comparison.steps), ".", label=_device(certificate))
        loss.set(title=f"{comparison.case}: loss", xlabel="step")
        loss.legend()
        norm.plot(steps, [step.reference_gradient_norm for step in comparison.steps], "-", color="0.6")
        norm.plot(steps, _drawn(step.gradient_norm for step in comparison.steps), ".")
        norm.set(title=f"{comparison.case}: gradient norm", xlabel="step")
        _draw_errors(errors, comparison)
    verdict = "within tolerance" if certificate.within else "OUTSIDE TOLERANCE"
    simulated = ", simulated" if certificate.simulated else ""
    figure.suptitle(f"{_device(certificate)}{simulated}, {certificate.size} size: {verdict}")
    return figure


def _draw_errors(panel: Axes, comparison: CaseComparison) -> None:
    steps = [step.step for step in comparison.steps]
    distances = _drawn(step.gradient_distance for step in comparison.steps)
    curves = {
        "loss": ([step.loss_error for step in comparison.steps], comparison.loss_tolerance),
        "gradient": (distances, comparison.gradient_tolerance),
    }
    for label, (errors, tolerance) in curves.items():
        [line] = panel.plot(steps, [max(_SMALLEST_ERROR, error) for error in errors], ".-", label=label)
        panel.axhline(tolerance, linestyle="--", color=line.get_color(), linewidth=0.8)
    panel.set(title=f"{comparison.case}: relative error (dashed: bound)", xlabel="step", yscale="log")
    panel.legend()


def _drawn(values: Iterable[float | None]) -> list[float]:
    """Return the values, with a gap in place of each value that is not finite."""
    return [math.nan if value is None else value for value in values]


def _device(certificate: Certificate) -> str:
    return f"{certificate.device['name']} {certificate.precision['requested']}"

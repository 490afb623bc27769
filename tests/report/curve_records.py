"""Evaluations and losses over training, for :func:`factory.make_record`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def curve(values: Sequence[float], *, steps_per_epoch: int = 10, samples: int = 50) -> dict[str, Any]:
    """Return changes for a run that was evaluated after every epoch."""
    points = [
        {"epoch": epoch, "step": epoch * steps_per_epoch, "value": value, "elapsed_s": epoch * 60.0, "samples": samples}
        for epoch, value in enumerate(values, start=1)
    ]
    return {"metrics__curve": points, **length(len(values), steps_per_epoch)}


def losses(values: Sequence[float | None], *, steps_per_epoch: int = 10) -> dict[str, Any]:
    """Return changes for a run with a measurement window of five steps for every loss."""
    windows = [
        {
            "epoch": index * 5 // steps_per_epoch + 1,
            "first_step": index * 5 + 1,
            "steps": 5,
            "samples": 320,
            "seconds": 1.0,
            "loss": loss,
        }
        for index, loss in enumerate(values)
    ]
    p_train = {"median": 320.0, "iqr": 0.0, "mean_of_totals": 320.0, "windows": windows}
    return {"metrics__p_train": p_train, **length(max(1, len(values) * 5 // steps_per_epoch), steps_per_epoch)}


def length(epochs: float, steps_per_epoch: int) -> dict[str, Any]:
    """Return changes for a run of so many epochs."""
    return {"metrics__epochs": epochs, "metrics__steps": round(epochs * steps_per_epoch)}

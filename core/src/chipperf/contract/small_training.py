"""A small training loop for checks of the device: a few convolutions on random data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from chipperf.contract.plugin_under_test import PluginUnderTest

_BATCH: Final = 16
_CHANNELS: Final = 16
_IMAGE: Final = 32
_CLASSES: Final = 10


def train(subject: PluginUnderTest, steps: int, after_step: Callable[[int], None] | None = None) -> list[torch.Tensor]:
    """Train a new network on the subject's device.

    Args:
        subject: The plugin. Its hooks are called as in a run.
        steps: Number of optimizer steps.
        after_step: Called after each step with the number of finished steps.

    Returns:
        The parameters after the last step, on the host.
    """
    import torch

    session, device = subject.session, subject.device
    images = torch.rand(_BATCH, 3, _IMAGE, _IMAGE).to(device)
    labels = torch.randint(_CLASSES, (_BATCH,)).to(device)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, _CHANNELS, 3, padding=1),
        torch.nn.BatchNorm2d(_CHANNELS),
        torch.nn.ReLU(),
        torch.nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1),
        torch.nn.Dropout(0.5),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(_CHANNELS, _CLASSES),
    ).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(1, steps + 1):
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        if session.step_end:
            session.step_end(device)
        if after_step:
            after_step(step)
    session.synchronize(device)
    return [parameter.detach().cpu() for parameter in model.parameters()]

"""Where a training step of DETR goes: data, backbone, transformer, matcher, loss and optimizer.

The step is cut where the backbone's features leave it, so that the backward passes of both halves are timed on their
own; a synchronize follows every phase. The phases' sum is therefore more than an undisturbed step on a device that
works ahead of its host. Images are those of the generated sample; ``--resolution`` scales them.

Run: python benchmarks/detr_step.py --resolution 128 --batch-size 4 --steps 10
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING, Any, cast

import torch
from chipperf.cases.detr.loss import match, set_loss
from chipperf.cases.registry import find_case
from chipperf.cases.workload import WorkloadContext
from chipperf.plugin.installed import find_vendor
from chipperf.plugin.session import bind
from chipperf.plugin.types import Rank
from training_fixture import apply_environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chipperf.cases.detr.workload import DetrWorkload
    from chipperf.plugin.session import Session

WARM_UP_STEPS = 2


class Laps:
    """Seconds of every phase, in the order of the step."""

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self._synchronize = synchronize
        self._last_s = time.perf_counter()
        self.seconds: dict[str, list[float]] = {}

    def restart(self) -> None:
        """Begin a step."""
        self._synchronize()
        self._last_s = time.perf_counter()

    def end(self, phase: str) -> None:
        """Add the time since the last phase ended to a phase."""
        self._synchronize()
        now_s = time.perf_counter()
        self.seconds.setdefault(phase, []).append(now_s - self._last_s)
        self._last_s = now_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vendor", default="cpu")
    parser.add_argument("--resolution", type=int, default=128, help="shorter side in pixels; the full preset has 800")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    apply_environment(arguments.vendor)
    session = bind(find_vendor(arguments.vendor))
    session.load_runtime()
    device = session.device_init(Rank())
    workload = build_workload(session, device, arguments.resolution, arguments.batch_size)
    laps = Laps(lambda: session.synchronize(device))
    run_steps(workload, device, laps, WARM_UP_STEPS + arguments.steps)
    print(f"DETR at {arguments.resolution} px, batch {arguments.batch_size}, {arguments.steps} steps on {device}")
    print_table({phase: seconds[WARM_UP_STEPS:] for phase, seconds in laps.seconds.items()})


def build_workload(session: Session, device: torch.device, resolution: int, batch_size: int) -> DetrWorkload:
    """Return DETR on the generated sample, its whole backbone trained, with data read in this process."""
    case = find_case("detr")
    changes = {"resolution": resolution, "batch_size": batch_size, "backbone_weights": "", "backbone_lr_factor": 1.0}
    if case.data.ensure_sample is None:
        raise SystemExit("detr generates no sample")
    root: Path = case.data.ensure_sample(lambda done, total: None)
    torch.manual_seed(0)
    workload = case.load_workload()(
        WorkloadContext(
            hyperparameters=case.base.model_copy(update=changes),
            reference=case.data.reference,
            data_root=root,
            rank=Rank(),
            device=device,
            loader_options=session.loader_options(device),
            loader_workers=0,
        )
    )
    return cast("DetrWorkload", workload)


def run_steps(workload: DetrWorkload, device: torch.device, laps: Laps, steps: int) -> None:
    """Train and time ``steps`` steps."""
    model: Any = workload.build_model().to(device)
    optimizer = workload.build_optimizer(model)
    cut: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []

    def cut_off(module: torch.nn.Module, inputs: Any, features: list[torch.Tensor]) -> list[torch.Tensor]:
        leaves = [feature.detach().requires_grad_() for feature in features]
        cut.append((features, leaves))
        laps.end("backbone, forward")
        return leaves

    model.backbone.register_forward_hook(cut_off)
    batches = workload.epoch_batches(0)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        laps.restart()
        batch = next(batches)
        laps.end("data: read, decode, augment, collate")
        on_device = workload.to_device(batch)
        laps.end("data: copy, normalize")
        output = model(on_device.images, on_device.padding)
        laps.end("transformer and heads, forward")
        assignment = match(output.logits, output.boxes, on_device.targets)
        laps.end("matcher")
        loss = set_loss(output, on_device.targets, assignment)["loss"]
        laps.end("loss, forward")
        loss.backward()
        laps.end("loss, heads and transformer, backward")
        features, leaves = cut.pop()
        reached = [
            (feature, leaf.grad) for feature, leaf in zip(features, leaves, strict=True) if leaf.grad is not None
        ]
        torch.autograd.backward([feature for feature, _ in reached], [gradient for _, gradient in reached])
        laps.end("backbone, backward")
        torch.nn.utils.clip_grad_norm_(model.parameters(), workload.max_gradient_norm or float("inf"))
        optimizer.step()
        laps.end("optimizer, with clipping")


def print_table(seconds: dict[str, list[float]]) -> None:
    """Print the median of every phase, its middle half, and its share of the sum of medians."""
    medians = {phase: statistics.median(values) for phase, values in seconds.items()}
    total_s = sum(medians.values())
    for phase, values in seconds.items():
        ordered = sorted(values)
        quarter = len(ordered) // 4
        spread = f"[{ordered[quarter] * 1e3:.1f}, {ordered[-1 - quarter] * 1e3:.1f}]"
        print(f"{phase:40} {medians[phase] * 1e3:9.1f} ms {spread:>20} {medians[phase] / total_s:7.1%}")
    print(f"{'sum':40} {total_s * 1e3:9.1f} ms")


if __name__ == "__main__":
    main()
